"""The command `masks` killed at random moments and run again: what comes out is what an undisturbed run makes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
RESULTS = ("images", "masks", "colmap_masks", "motion/objects")
_PATH = os.pathsep.join(path for path in sys.path if path)


def start(source: Path, out: Path) -> subprocess.Popen:
    """Begin the command in a process group of its own, as a shell does."""
    words = [sys.executable, "-m", "segmotion_plugin.cli", "masks", str(source), str(out), "--work-size", "160", "--quiet"]
    environment = os.environ | {"PYTHONPATH": _PATH, "OMP_NUM_THREADS": "1"}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(words, env=environment, start_new_session=True, **output)


def whole(source: Path, out: Path) -> float:
    """Run the command to its end; the seconds that it took."""
    begun = time.monotonic()
    process = start(source, out)
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    return time.monotonic() - begun


def killed(source: Path, out: Path, number: signal.Signals, after: float) -> bool:
    """Begin the command and end it by a signal after some seconds; whether it was still at work.

    SIGKILL goes to the whole group, SIGINT too (as Ctrl-C does), SIGTERM to the program alone (as `kill` does).
    """
    process = start(source, out)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        if number == signal.SIGTERM:
            process.send_signal(number)
        else:
            os.killpg(process.pid, number)
    told, _ = process.communicate(timeout=60)
    assert "Traceback" not in told, f"{number.name} after {after:.2f} s:\n{told}"
    return process.returncode != 0


def results(out: Path) -> dict[str, bytes]:
    """The files that a run is made for, and what is in them."""
    files = [path for folder in RESULTS for path in sorted((out / folder).rglob("*")) if path.is_file()]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def resumed_equal(source: Path, folder: Path, kills: int, seed: int, say: Callable[[str], None] = print) -> tuple[int, int]:
    """Kill and resume `kills` times.

    Returns:
        How many results were equal to those of an undisturbed run, and how many kills came before the end.

    Raises:
        AssertionError: tells the signal, the moment and the first file that differs.
    """
    seconds = whole(source, folder / "undisturbed")
    expected = results(folder / "undisturbed")
    assert {Path(name).parts[0] for name in expected} == {"images", "masks", "colmap_masks", "motion"}
    rng = np.random.default_rng(seed)
    in_time = 0
    for k in range(kills):
        number, after = SIGNALS[k % len(SIGNALS)], float(rng.uniform(0.1, 1.0)) * seconds
        out = folder / f"killed{k}"
        in_time += killed(source, out, number, after)
        whole(source, out)
        found = results(out)
        other = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        assert not other, f"{number.name} after {after:.2f} of {seconds:.2f} s: {other[0]} differs"
        left = [path.name for path in [*out.iterdir(), *folder.iterdir()] if path.name.startswith((".tmp-", ".segmotion-"))]
        assert not left, f"{number.name} after {after:.2f} of {seconds:.2f} s: {left} stayed"
        say(f"{k + 1}: {number.name} after {after:.2f} of {seconds:.2f} s")
    return kills, in_time
