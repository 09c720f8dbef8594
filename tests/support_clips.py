"""Writing simulated clips as folders of images, and comparing masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segmotion_plugin.files import write_png
from segmotion_plugin.simulation import SimulatedClip


def write_clip(clip: SimulatedClip, folder: Path) -> Path:
    """Write the frames as a folder of PNG images."""
    for index, frame in enumerate(clip.frames):
        write_png(folder / f"frame{index:03d}.png", frame, compression=1)
    return folder


def jaccard(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Intersection over union of two boolean arrays; 1 when both are empty."""
    union = np.logical_or(truth, predicted).sum()
    return 1.0 if union == 0 else float(np.logical_and(truth, predicted).sum() / union)
