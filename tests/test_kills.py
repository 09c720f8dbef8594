"""A run that is killed goes on to the same results; tests/long/kills.py does this many times."""

from __future__ import annotations

from pathlib import Path

from support_clips import write_clip
from support_kills import resumed_equal

from segmotion_plugin.simulation import render, scenes


def test_killed_runs_go_on_to_the_same_results(tmp_path: Path) -> None:
    source = write_clip(render(scenes.build("walker", seed=3, num_frames=6, width=160, height=90)), tmp_path / "clip")
    equal, _ = resumed_equal(source, tmp_path, 3, seed=2)
    assert equal == 3
