"""CPU seconds and peak memory of the adapters, with networks of the published sizes and random weights.

    python -m segmotion_plugin.foundation_benchmark
    python -m segmotion_plugin.foundation_benchmark --growth 20 40 80

Nothing is downloaded: sizes are what counts here. Each adapter runs in a process of its own, on one thread, on frames of 854 x 480
pixels that are made when they are asked for; the cost of a frame is the difference between a longer and a shorter run, so building
the network does not count. With --growth the networks are cut down, the frames are of 160 x 90 pixels, trackers see 10 of them at
once, and the lengths are those given, one after the other in one process after a clip of 10 frames.

The trackers' code is no part of this package: --tracker-source gives a checkout of co-tracker or tapnet, or anything with the same
entry points.
"""

from __future__ import annotations

import argparse
import functools
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


class Noise(Sequence[np.ndarray]):
    """Frames height×width×3 uint8 of noise that stays where it is; each is made when it is asked for and not kept."""

    def __init__(self, count: int, height: int, width: int) -> None:
        self._length, self.shape = count, (height, width, 3)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._length:
            raise IndexError(index)
        frame = np.random.default_rng(0).integers(0, 255, self.shape, np.uint8)
        frame[0, 0] = index % 256
        return frame


Run = Callable[[Noise], Any]


def _depth(cut_down: bool) -> Run:
    from segmotion_plugin import random_models
    from segmotion_plugin.depth.base import predict_clip
    from segmotion_plugin.depth.depth_anything import SHORT_SIDE, DepthAnything

    model = random_models.depth_anything(None if cut_down else "small")
    adapter = DepthAnything(model, "cpu", short_side=70 if cut_down else SHORT_SIDE)
    return lambda frames: [None for _ in predict_clip(adapter, frames)]


def _semantics(keys: bool, cut_down: bool) -> Run:
    from segmotion_plugin import random_models
    from segmotion_plugin.semantics.dinov2 import DinoV2, SegAnyMoFeatures

    model = random_models.dinov2(None if cut_down else "base" if keys else "small")
    adapter = SegAnyMoFeatures(model, "cpu") if keys else DinoV2(model, "cpu", long_side=140 if cut_down else 672)
    return lambda frames: [None for frame in frames if adapter(frame) is None]


def _sam2(size: str, transformers: bool, cut_down: bool) -> Run:
    from segmotion_plugin import random_models
    from segmotion_plugin.densify.sam2_package import Sam2Package
    from segmotion_plugin.densify.sam2_transformers import Sam2Transformers
    from segmotion_plugin.densify.segmenter import MaskPrompt, Segmenter

    chosen = None if cut_down else size
    segmenter: Segmenter
    if transformers:
        segmenter = Sam2Transformers(random_models.sam2_transformers(chosen), "cpu")
    else:
        segmenter = Sam2Package(random_models.sam2_package(chosen), "cpu")

    def run(frames: Noise) -> None:
        height, width, _ = frames.shape
        dynamic = np.zeros((height, width), bool)
        dynamic[height // 5 : height // 2, width // 4 : width // 2] = True
        segmenter.open(frames)
        for _ in segmenter.propagate([MaskPrompt(1, 0, dynamic), MaskPrompt(2, 0, dynamic[:, ::-1])], 0, len(frames)):
            pass

    return run


def _tracker(name: str, source: Path, cut_down: bool) -> Run:
    from segmotion_plugin.trackers import bootstapir, cotracker
    from segmotion_plugin.trackers.base import SamplingOptions, WindowTracker, track_clip

    tracker: WindowTracker
    if name == "bootstapir":
        tracker = bootstapir.BootsTAPIR(bootstapir.build_model(source), "cpu")
    else:
        online = name == "cotracker3-online"
        tracker = cotracker.CoTracker3(cotracker.build_predictor(online, source), online, "cpu")
    options = SamplingOptions(num_tracks=500, window=10) if cut_down else SamplingOptions()
    return lambda frames: track_clip(tracker, frames, options=options)


@dataclass(frozen=True)
class Adapter:
    """How an adapter is built (given whether to cut the network down), and for which frames of a clip it is used.

    Attributes:
        share: of the frames of a clip.
    """

    build: Callable[[bool], Run]
    note: str
    share: float = 1.0


ADAPTERS: dict[str, Adapter] = {
    "depth-anything-v2-small": Adapter(_depth, "every frame, 518 x 924 inside"),
    "dinov2-small": Adapter(functools.partial(_semantics, False), "every 10th frame, 378 x 672 inside", 0.1),
    "dinov2-base-keys": Adapter(functools.partial(_semantics, True), "every 10th frame, stride 7", 0.1),
    "sam2.1-tiny": Adapter(functools.partial(_sam2, "tiny", False), "every frame, two objects followed"),
    "sam2.1-large": Adapter(functools.partial(_sam2, "large", False), "every frame, two objects followed"),
    "sam2.1-large-transformers": Adapter(functools.partial(_sam2, "large", True), "every frame, two objects followed"),
}
TRACKERS = {"cotracker3": "60 frames at once", "cotracker3-online": "16 frames at once", "bootstapir": "100 frames at once"}


_HEADER = f"{'adapter':26} {'CPU s/frame':>11} {'peak GB':>8} {'100 frames':>11}  used for"


def adapters(tracker_source: Path | None) -> dict[str, Adapter]:
    """All that can be measured: those of `ADAPTERS`, and the trackers of a checkout."""
    found = dict(ADAPTERS)
    if tracker_source is not None:
        folder = Path(tracker_source)
        names = ["cotracker3", "cotracker3-online"] if (folder / "hubconf.py").is_file() else ["bootstapir"]
        for name in names:
            found[name] = Adapter(functools.partial(_tracker, name, folder), f"{TRACKERS[name]}, 5,000 points")
    return found


def measure(adapter: Adapter, counts: Sequence[int], cut_down: bool = False) -> list[tuple[float, float]]:
    """For clips of so many frames, one after the other: CPU seconds, and the peak memory of the process so far in GB."""
    import torch

    torch.set_num_threads(1)
    run = adapter.build(cut_down)
    height, width = (90, 160) if cut_down else (480, 854)
    found = []
    for count in counts:
        start = time.process_time()
        run(Noise(count, height, width))
        seconds = time.process_time() - start
        found.append((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", nargs="*", help="names; all by default")
    parser.add_argument("--frames", nargs=2, type=int, default=(2, 4), metavar=("SHORT", "LONG"))
    parser.add_argument("--growth", nargs="+", type=int, metavar="FRAMES", help="cut-down networks at these lengths")
    parser.add_argument("--tracker-source", type=Path, help="checkout of co-tracker or tapnet")
    parser.add_argument("--one", help="measure one adapter in this process and print bare numbers")
    options = parser.parse_args()
    known = adapters(options.tracker_source)
    counts = [10, *options.growth] if options.growth else list(options.frames)
    # Cut down, the sizes of SAM 2 are one.
    names = options.adapters or [name for name in known if not (options.growth and name == "sam2.1-tiny")]
    if unknown := sorted({*names, *([options.one] if options.one else [])} - set(known)):
        parser.error(f"no adapter is called {', '.join(unknown)}; there are {', '.join(known)}")
    if options.one:
        for seconds, peak in measure(known[options.one], counts, cut_down=bool(options.growth)):
            print(f"{seconds:.6f} {peak:.6f}")
        return
    print(f"{'adapter, cut down':26} {'frames':>6} {'CPU ms/frame':>12} {'added MB':>9}" if options.growth else _HEADER, flush=True)
    for name in names:
        command = [sys.executable, "-m", "segmotion_plugin.foundation_benchmark", "--one", name]
        command += ["--frames", *map(str, options.frames)]
        command += ["--growth", *map(str, options.growth)] if options.growth else []
        command += ["--tracker-source", str(options.tracker_source)] if options.tracker_source else []
        words = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-2 * len(counts) :]
        found = [(float(seconds), float(peak)) for seconds, peak in zip(words[::2], words[1::2], strict=True)]
        if options.growth:
            for count, (seconds, peak) in list(zip(counts, found, strict=True))[1:]:
                print(f"{name:26} {count:6} {1000 * seconds / count:12.1f} {1024 * (peak - found[0][1]):9.1f}", flush=True)
            continue
        each = (found[1][0] - found[0][0]) / (counts[1] - counts[0])
        print(f"{name:26} {each:11.2f} {found[1][1]:8.2f} {100 * known[name].share * each:9.0f} s  {known[name].note}", flush=True)


if __name__ == "__main__":
    main()
