"""Fixtures that several tests share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from segmotion_plugin.files import write_png
from segmotion_plugin.simulation import SimulatedClip, render, scenes

os.environ.setdefault("OMP_NUM_THREADS", "1")


def write_clip(clip: SimulatedClip, folder: Path) -> Path:
    """Write the frames as a folder of PNG images."""
    for index, frame in enumerate(clip.frames):
        write_png(folder / f"frame{index:03d}.png", frame, compression=1)
    return folder


@pytest.fixture(scope="session")
def walker_clip() -> SimulatedClip:
    """A small clip with one large mover and a moving camera, and its truth."""
    return render(scenes.build("walker", seed=3, num_frames=16, width=320, height=180))


@pytest.fixture(scope="session")
def walker_folder(walker_clip: SimulatedClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That clip as a folder of images."""
    return write_clip(walker_clip, tmp_path_factory.mktemp("walker") / "images")


def jaccard(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Intersection over union of two boolean arrays; 1 when both are empty."""
    union = np.logical_or(truth, predicted).sum()
    return 1.0 if union == 0 else float(np.logical_and(truth, predicted).sum() / union)
