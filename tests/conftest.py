"""Fixtures that several tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support_clips import write_clip

from segmotion_plugin.simulation import SimulatedClip, render, scenes

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def walker_clip() -> SimulatedClip:
    """A small clip with one large mover and a moving camera, and its truth."""
    return render(scenes.build("walker", seed=3, num_frames=16, width=320, height=180))


@pytest.fixture(scope="session")
def walker_folder(walker_clip: SimulatedClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That clip as a folder of images."""
    return write_clip(walker_clip, tmp_path_factory.mktemp("walker") / "images")
