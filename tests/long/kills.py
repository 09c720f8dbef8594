"""tests/test_kills.py at length: ``pytest -s tests/long/kills.py`` (ten minutes on one core; SEGMOTION_KILLS for another count)."""

from __future__ import annotations

import os
from pathlib import Path

from support_clips import write_clip
from support_kills import killed, resumed_equal, whole

from segmotion_plugin.simulation import render, scenes

KILLS = int(os.environ.get("SEGMOTION_KILLS", "50"))


def test_killed_runs_go_on_to_the_same_results(tmp_path: Path) -> None:
    source = write_clip(render(scenes.build("walker", seed=3, num_frames=12, width=320, height=180)), tmp_path / "clip")
    equal, in_time = resumed_equal(source, tmp_path, KILLS, seed=1)
    print(f"{equal} of {KILLS} equal, {in_time} of them killed before the end")
    assert equal == KILLS and in_time > KILLS / 2


def test_time_of_the_rest_after_a_kill_near_the_end(tmp_path: Path) -> None:
    import signal

    source = write_clip(render(scenes.build("walker", seed=3, num_frames=48, width=320, height=180)), tmp_path / "clip")
    seconds = whole(source, tmp_path / "whole")
    assert killed(source, tmp_path / "killed", signal.SIGKILL, 0.9 * seconds)
    print(f"the rest takes {whole(source, tmp_path / 'killed') / seconds:.2f} of the whole ({seconds:.1f} s)")
