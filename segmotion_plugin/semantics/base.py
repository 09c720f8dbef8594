"""What a network for semantic features must offer, and features at the points of tracks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from segmotion_plugin.tracks import Tracks


class Semantics(Protocol):
    """A network that describes the cells of a grid over an image.

    Attributes:
        nearest: read the cell under a point instead of interpolating between cells.
    """

    name: str
    nearest: bool

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Features h×w×D float32 of a frame H×W×3 uint8 RGB; the grid covers the whole frame."""


def query_positions(tracks: Tracks) -> tuple[np.ndarray, np.ndarray]:
    """For each track the frame nearest to its query frame within its run (N int), and its position there (N×2)."""
    query = np.clip(tracks.query_frame, tracks.first, tracks.first + tracks.length - 1)
    return query, tracks.xy_flat[tracks.offset[:-1] + query - tracks.first]


def features_at(
    network: Semantics, frames: Sequence[np.ndarray], tracks: Tracks, progress: Callable[[int], None] | None = None
) -> np.ndarray:
    """Features N×D float32 of tracks, each at its own query frame (NaN where it has no position there).

    Only frames on which points were chosen are looked at.
    """
    from segmotion_plugin.trackers.dis import sample

    query, position = query_positions(tracks)
    result: np.ndarray | None = None
    for done, frame in enumerate(np.unique(query).tolist(), start=1):
        grid = network(frames[frame])
        if result is None:
            result = np.full((len(tracks), grid.shape[2]), np.nan, np.float32)
        here = np.flatnonzero((query == frame) & np.isfinite(position).all(axis=1))
        height, width = frames[frame].shape[:2]
        at = position[here] * np.array([grid.shape[1] / width, grid.shape[0] / height], np.float32)
        if network.nearest:
            column, row = np.clip(np.floor(at).astype(int), 0, [grid.shape[1] - 1, grid.shape[0] - 1]).T
            result[here] = grid[row, column]
        else:
            result[here] = sample(grid, at)
        if progress is not None:
            progress(done)
    return result if result is not None else np.zeros((len(tracks), 0), np.float32)
