"""Freed arrays are used again, where the C library can be told so."""

from __future__ import annotations

import resource
import subprocess
import sys

_COUNT = """
import resource, sys
import numpy as np
from segmotion_plugin.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "kept" else False
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    [np.ones(2**20, np.uint8) for _ in range(16)]
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> tuple[int, int]:
    """Whether memory is kept, and the page faults of sixteen megabytes that are used and freed fifty times."""
    done = subprocess.run([sys.executable, "-c", _COUNT, how], capture_output=True, text=True, check=True)
    kept, count = done.stdout.split()
    return int(kept), int(count)


def test_pages_are_not_cleared_again_and_again() -> None:
    pages = 16 * 2**20 // resource.getpagesize()
    kept, count = faults("kept")
    # Elsewhere nothing is changed, and nothing breaks.
    assert count < 5 * pages if kept else faults("plain")[1] > 0
