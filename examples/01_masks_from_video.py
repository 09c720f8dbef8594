"""Masks of everything that moves, from a video or a folder of images.

python examples/01_masks_from_video.py my_video.mp4 OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

from segmotion_plugin import pipeline
from segmotion_plugin.masks import MotionMasks
from segmotion_plugin.settings import MaskSettings


def main(source: Path, out: Path) -> None:
    report = pipeline.masks(source, out, MaskSettings(sensitivity=0.5))
    print(f"{100 * report['masks']['moving_share']:.1f} % of the pixels belong to {len(report['masks']['objects'])} moving object(s)")

    names = sorted(path.name for path in (out / "images").iterdir())
    masks = MotionMasks(out / "motion" / "objects", names)
    labels = masks[0]  # H×W, 0 = static, k = object k
    keep = masks.keep(0, radius=4)  # H×W, 255 = static after growing what moves by 4 pixels
    print(names[0], "objects", sorted(set(labels.ravel().tolist()) - {0}), "kept", f"{(keep > 0).mean():.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
