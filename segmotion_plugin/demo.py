"""`segmotion demo`: a rendered clip with exact truth goes through the main job, and the result is measured."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segmotion_plugin import pipeline
from segmotion_plugin.cameras import Cameras
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import write_json, write_png
from segmotion_plugin.masks import MotionMasks, keep_from_labels
from segmotion_plugin.ownership import claim
from segmotion_plugin.progress import Console
from segmotion_plugin.settings import MaskSettings, ReconstructSettings


@dataclass
class Demo:
    """Render a small world with two movers and a parked car, mask what moves, reconstruct the rest, and measure it all."""

    out: Path = Path("segmotion_demo")
    """Folder of the results."""
    frames: int = 30
    """Frames of the clip."""
    width: int = 480
    """Width of the clip in pixels; its height is 9/16 of that."""
    seed: int = 0
    """Seed of the world."""
    quiet: bool = False
    """No progress bars."""

    def main(self) -> int:
        """Run it."""
        summary = demo(self.out, self.frames, self.width, self.seed, self.quiet)
        print(table(summary))
        result = self.out / "result"
        print(f"\nlook at  {result / 'motion' / 'overview.png'}\n    and  {result / 'motion' / 'overlay.mp4'}")
        print(f"then run  segmotion view {result}")
        return 0


def demo(out: Path, frames: int = 30, width: int = 480, seed: int = 0, quiet: bool = False) -> dict[str, Any]:
    """Render, run and measure; the figures also go to OUT/demo.json.

    Returns:
        J and F of the masks, trajectory errors (fraction of the path) with our masks, with the true masks and without, images
        registered, seconds by stage.

    Raises:
        SegmotionError: too few frames, too small, or OUT holds other content.
    """
    from segmotion_plugin.evaluation.davis import boundary_accuracy, region_similarity
    from segmotion_plugin.evaluation.poses import trajectory_error
    from segmotion_plugin.reconstruct.job import cameras_with_masks, load_cameras
    from segmotion_plugin.simulation import render, scenes

    if frames < 8 or width < 160:
        raise SegmotionError(f"--frames {frames} --width {width}: the demo needs at least 8 frames of 160 pixels width")
    out = claim(Path(out))
    console = Console(quiet)
    began = time.perf_counter()
    height = width * 9 // 16 // 2 * 2
    with console.bar("rendering", frames) as update:
        clip = render(scenes.build("demo", seed=seed, num_frames=frames, width=width, height=height), update)
    images, truth = out / "clip", out / "true_colmap_masks"
    for index in range(frames):
        name = f"frame_{index + 1:05d}.png"
        write_png(images / name, clip.frames[index], compression=1)
        write_png(truth / f"{name}.png", keep_from_labels(clip.labels[index], 2.0))
    rendered = time.perf_counter() - began
    result = out / "result"
    report = pipeline.run(images, result, MaskSettings(quiet=quiet, seed=seed), ReconstructSettings())
    masks = MotionMasks(result / "motion" / "objects", [f"frame_{i + 1:05d}.png" for i in range(frames)])
    region, boundary = [], []
    for index, labels in enumerate(masks):
        region.append(region_similarity(clip.labels[index] > 0, labels > 0))
        boundary.append(boundary_accuracy(clip.labels[index] > 0, labels > 0))

    def measured(cameras: Cameras | None) -> dict[str, Any]:
        if cameras is None:
            return {"registered": 0, "trajectory_fraction": None}
        return {"registered": len(cameras), "trajectory_fraction": trajectory_error(cameras, clip.cameras).trajectory_fraction}

    summary: dict[str, Any] = {
        "frames": frames,
        "size": [width, height],
        "J": float(np.mean(region)),
        "F": float(np.mean(boundary)),
        "with our masks": measured(load_cameras(result)),
        "with true masks": measured(cameras_with_masks(images, truth, out / "with_true_masks", quiet=quiet)),
        "without masks": measured(cameras_with_masks(images, None, out / "without_masks", quiet=quiet, max_runs=1)),
        "seconds": {"rendering": rendered, **{k: v["seconds"] for k, v in report["stages"].items()}},
        "seconds_in_all": time.perf_counter() - began,
    }
    write_json(out / "demo.json", summary)
    return summary


def table(summary: dict[str, Any]) -> str:
    """The figures of `demo` as text."""
    lines = [f"masks       J {summary['J']:.3f}   F {summary['F']:.3f}   ({summary['frames']} images, truth known)"]
    lines.append("cameras     registered   trajectory error (share of the path)")
    for name in ("with our masks", "with true masks", "without masks"):
        entry = summary[name]
        error = "none found" if entry["trajectory_fraction"] is None else f"{100 * entry['trajectory_fraction']:.3f} %"
        lines.append(f"  {name:<16} {entry['registered']:>3} of {summary['frames']}   {error}")
    stages = "   ".join(f"{name} {seconds:.1f}" for name, seconds in summary["seconds"].items())
    lines.append(f"seconds     {stages}   in all {summary['seconds_in_all']:.0f} on {os.cpu_count()} cores")
    return "\n".join(lines)
