"""Damaged input ends in one clear line, and nothing is written outside of OUT; tests/long/fuzz.py tries many more."""

from __future__ import annotations

from pathlib import Path

from support_fuzz import CASES, in_own_program


def test_damaged_input_ends_in_one_clear_line(tmp_path: Path) -> None:
    figures = in_own_program(tmp_path / "fuzz", 0, len(CASES) + 8, 60)
    assert not figures.faults, "\n\n".join(figures.faults)
    assert figures.runs >= len(CASES) and figures.refused > 0
