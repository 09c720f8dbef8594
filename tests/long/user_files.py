"""The property test of tests/test_ownership.py at length: ``pytest tests/long/user_files.py`` (about ten minutes on one core)."""

from __future__ import annotations

from pathlib import Path

import pytest
from support_user_files import many

RUNS = 2000


def test_no_command_touches_files_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert many(tmp_path, range(1000, 1000 + RUNS), monkeypatch) == RUNS
