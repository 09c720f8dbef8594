"""What a depth model must offer, and depth at the points of tracks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from segmotion_plugin.files import atomic_path
from segmotion_plugin.tracks import Tracks


class DepthModel(Protocol):
    """A monocular depth model that predicts disparity: larger is nearer, up to an unknown scale and shift per frame."""

    name: str

    def predict(self, frames: np.ndarray) -> np.ndarray:
        """Disparity t×H×W float32 of frames t×H×W×3 uint8 RGB."""


def predict_clip(
    model: DepthModel,
    frames: Sequence[np.ndarray],
    chosen: Sequence[int] | None = None,
    batch: int = 8,
    progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Frame index and disparity H×W float32 of every frame of a clip, or of the chosen ones, some frames at a time."""
    indices = range(len(frames)) if chosen is None else chosen
    for start in range(0, len(indices), batch):
        part = indices[start : start + batch]
        yield from zip(part, model.predict(np.stack([frames[t] for t in part])), strict=True)
        if progress is not None:
            progress(start + len(part))


def write_disparity(folder: Path, stem: str, disparity: np.ndarray) -> None:
    """Write one map as `<stem>.npy`, H×W float16: its own error is far above a relative 0.05 %."""
    with atomic_path(Path(folder) / f"{stem}.npy") as temporary:
        np.save(temporary, disparity.astype(np.float16))


def depth_of_tracks(maps: Iterable[tuple[int, np.ndarray]], tracks: Tracks) -> np.ndarray:
    """Distance along the view at every observation of the tracks (M float32, NaN where hidden), up to a scale per frame.

    The shift of the disparity is not known either. It is fixed so that the farthest percentile of a frame lies 20 times as far as
    the nearest: enough to tell near from far, which is what a classifier of motion takes from depth.

    Args:
        maps: frame index and disparity H×W, as `predict_clip` gives them.
        tracks: N tracks with M observations, in pixels of the maps.
    """
    from segmotion_plugin.trackers.dis import sample

    distance = np.full(len(tracks.xy_flat), np.nan, np.float32)
    for frame, disparity in maps:
        rows = tracks.rows_at(frame)
        low, high = np.percentile(disparity, (1, 99))
        near = np.clip((sample(disparity, tracks.xy_flat[rows]) - low) / max(float(high - low), 1e-6), 0, 1)
        distance[rows] = 1 / (0.05 + 0.95 * near)
    return distance
