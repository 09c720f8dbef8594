"""What a person sees while the stages run, and what is remembered of each: seconds and peak memory."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

Update = Callable[[int], None]


class Console:
    """Progress bars and words on standard error; silent when `quiet`."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def say(self, text: str) -> None:
        """Print a line (never wrapped, so that paths can be copied)."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def bar(self, title: str, total: int | None, unit: str = "frames") -> Iterator[Update]:
        """A progress bar with units per second and time left; gives a function to call with the number done."""
        if self.quiet:
            yield lambda done: None
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = [
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        ]
        with Progress(*columns, console=RichConsole(stderr=True), refresh_per_second=4) as progress:
            task = progress.add_task(title, total=total, rate="")
            began = time.perf_counter()

            def update(done: int) -> None:
                rate = done / max(time.perf_counter() - began, 1e-6)
                progress.update(task, completed=done, rate=f"{rate:.1f} {unit}/s")

            yield update
            if total is None:
                progress.update(task, total=progress.tasks[0].completed)


class Meter:
    """Seconds and peak memory of each stage."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}

    @contextlib.contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Measure the block and store it under `stage`."""
        _reset_peak()
        began = time.perf_counter()
        try:
            yield
        finally:
            self.stages[stage] = {"seconds": round(time.perf_counter() - began, 3), "peak_memory_mb": round(_peak_mb(), 1)}


def _reset_peak() -> None:
    # Linux starts a new high-water mark of the resident memory when a 5 is written here; elsewhere the mark is the process's.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> float:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024.0
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024.0 * 1024.0) if sys.platform == "darwin" else peak / 1024.0
