"""tests/test_fuzz.py at length: ``pytest -s tests/long/fuzz.py`` (SEGMOTION_FUZZ_SECONDS for another time than eight minutes)."""

from __future__ import annotations

import os
from pathlib import Path

from support_fuzz import in_own_program

SECONDS = float(os.environ.get("SEGMOTION_FUZZ_SECONDS", "480"))
RUNS = 2000


def test_damaged_input_ends_in_one_clear_line(tmp_path: Path) -> None:
    figures = in_own_program(tmp_path / "fuzz", 10_000, RUNS, SECONDS)
    print(f"{figures.runs} damaged inputs, {figures.refused} refused, slowest {figures.slowest_seconds:.1f} s")
    print(f"{figures.crashes_contained} crashes of libraries, told in words by the parent process")
    assert not figures.faults, "\n\n".join(figures.faults)
