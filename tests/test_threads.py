"""The same input gives the same masks, whatever the number of cores and threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support_clips import write_clip

from segmotion_plugin.simulation import SimulatedClip

CODE = """
import os, sys
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
from segmotion_plugin import cli
sys.exit(cli.run(["masks", sys.argv[2], sys.argv[3], "--quiet", "--work-size", "320"]))
"""


def test_one_core_and_two_and_one_thread_and_two_give_equal_masks(walker_clip: SimulatedClip, tmp_path: Path) -> None:
    source = write_clip(walker_clip, tmp_path / "in")
    found = []
    for cores, threads in ((1, 1), (2, 2)):
        out = tmp_path / f"out{cores}"
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", CODE, str(cores), source, out], check=True, env=environment)
        files = sorted(path for folder in ("masks", "motion/objects") for path in (out / folder).iterdir())
        found.append([(path.relative_to(out), path.read_bytes()) for path in files])
    assert found[0] == found[1] and len(found[0]) == 32
