"""CPU seconds and peak memory of the adapters with networks of the published sizes and random weights.

    python -m segmotion_plugin.foundation_benchmark

Nothing is downloaded: sizes are what counts here. Each adapter runs in a process of its own, on one thread, on a few frames of
854 x 480 pixels; the cost of a frame is the difference between a longer and a shorter run, so building the network does not count.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

HEIGHT, WIDTH = 480, 854


def _depth() -> Callable[[np.ndarray], Any]:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    from segmotion_plugin.depth.depth_anything import DepthAnything

    stages = [f"stage{i}" for i in (3, 6, 9, 12)]
    backbone = Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14, out_features=stages)
    backbone.reshape_hidden_states = False
    config = DepthAnythingConfig(backbone_config=backbone, reassemble_hidden_size=384, neck_hidden_sizes=[48, 96, 192, 384])
    return DepthAnything(DepthAnythingForDepthEstimation(config), "cpu").predict


def _dinov2(base: bool) -> Callable[[np.ndarray], Any]:
    from transformers import Dinov2Config, Dinov2Model

    from segmotion_plugin.semantics.dinov2 import DinoV2, SegAnyMoFeatures

    width = 768 if base else 384
    model = Dinov2Model(Dinov2Config(hidden_size=width, num_attention_heads=width // 64, image_size=518, patch_size=14))
    network = SegAnyMoFeatures(model, "cpu") if base else DinoV2(model, "cpu")
    return lambda frames: [network(frame) for frame in frames]


def _sam2(size: str) -> Callable[[np.ndarray], Any]:
    from segmotion_plugin.densify.sam2_package import Sam2Package, build_model
    from segmotion_plugin.densify.segmenter import MaskPrompt

    segmenter = Sam2Package(build_model(size), "cpu")
    dynamic = np.zeros((HEIGHT, WIDTH), bool)
    dynamic[100:300, 200:500] = True

    def run(frames: np.ndarray) -> None:
        segmenter.open(list(frames))
        for _ in segmenter.propagate([MaskPrompt(1, 0, dynamic), MaskPrompt(2, 0, dynamic)], 0, len(frames)):
            pass

    return run


ADAPTERS: dict[str, tuple[Callable[[], Callable[[np.ndarray], Any]], str]] = {
    "depth-anything-v2-small": (_depth, "every frame, 518 x 924 inside"),
    "dinov2-small": (lambda: _dinov2(False), "query frames, 378 x 672 inside"),
    "dinov2-base-keys": (lambda: _dinov2(True), "query frames, stride 7"),
    "sam2.1-tiny": (lambda: _sam2("tiny"), "every frame, two objects followed"),
    "sam2.1-large": (lambda: _sam2("large"), "every frame, two objects followed"),
}


def measure(name: str, short: int, long: int) -> tuple[float, float, float]:
    """CPU seconds per frame, peak memory (GB) of the process, and the part of it that the clip added."""
    import torch

    torch.set_num_threads(1)
    run = ADAPTERS[name][0]()
    before = _peak()
    rng = np.random.default_rng(0)
    seconds = []
    for count in (short, long):
        frames = rng.integers(0, 255, (count, HEIGHT, WIDTH, 3), np.uint8)
        start = time.process_time()
        run(frames)
        seconds.append(time.process_time() - start)
    return (seconds[1] - seconds[0]) / (long - short), _peak(), _peak() - before


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", nargs="*", default=list(ADAPTERS), choices=list(ADAPTERS))
    parser.add_argument("--frames", nargs=2, type=int, default=(1, 3), metavar=("SHORT", "LONG"))
    parser.add_argument("--one", choices=list(ADAPTERS), help="measure one adapter in this process")
    options = parser.parse_args()
    if options.one:
        print(*(f"{value:.3f}" for value in measure(options.one, *options.frames)))
        return
    print(f"{'adapter':26} {'CPU s/frame':>11} {'peak GB':>8} {'added GB':>9} {'100 frames':>11}  used for")
    for name in options.adapters:
        frames = [str(count) for count in options.frames]
        command = [sys.executable, "-m", "segmotion_plugin.foundation_benchmark", "--one", name, "--frames", *frames]
        words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        seconds, peak, added = (float(word) for word in words[-3:])
        print(f"{name:26} {seconds:11.2f} {peak:8.2f} {added:9.2f} {100 * seconds:9.0f} s  {ADAPTERS[name][1]}", flush=True)


if __name__ == "__main__":
    main()
