"""What a depth model must offer, and depth at the points of tracks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from segmotion_plugin.tracks import Tracks


class DepthModel(Protocol):
    """A monocular depth model that predicts disparity: larger is nearer, up to an unknown scale and shift per frame."""

    name: str

    def predict(self, frames: np.ndarray) -> np.ndarray:
        """Disparity t×H×W float32 of frames t×H×W×3 uint8 RGB."""


def predict_clip(model: DepthModel, frames: Sequence[np.ndarray], batch: int = 8) -> Iterator[tuple[int, np.ndarray]]:
    """Disparity H×W float32 of every frame of a clip, some frames at a time."""
    for start in range(0, len(frames), batch):
        picture = np.stack([frames[t] for t in range(start, min(start + batch, len(frames)))])
        for offset, disparity in enumerate(model.predict(picture)):
            yield start + offset, disparity


def depth_of_tracks(
    model: DepthModel, frames: Sequence[np.ndarray], tracks: Tracks, progress: Callable[[int], None] | None = None
) -> np.ndarray:
    """Distance along the view at every observation of the tracks (M float32, NaN where hidden), up to a scale per frame.

    The shift of the disparity is not known either. It is fixed so that the farthest percentile of a frame lies 20 times as far as
    the nearest: enough to tell near from far, which is what a classifier of motion takes from depth.
    """
    from segmotion_plugin.trackers.dis import sample

    distance = np.full(len(tracks.xy_flat), np.nan, np.float32)
    for frame, disparity in predict_clip(model, frames):
        rows = tracks.rows_at(frame)
        low, high = np.percentile(disparity, (1, 99))
        near = np.clip((sample(disparity, tracks.xy_flat[rows]) - low) / max(float(high - low), 1e-6), 0, 1)
        distance[rows] = 1 / (0.05 + 0.95 * near)
        if progress is not None:
            progress(frame + 1)
    return distance
