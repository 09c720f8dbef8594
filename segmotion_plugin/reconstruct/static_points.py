"""The sparse points of a reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segmotion_plugin.errors import SegmotionError


@dataclass(frozen=True)
class StaticPoints:
    """Points of the static world.

    Attributes:
        xyz: M×3 float64 world positions, COLMAP's world.
        rgb: M×3 uint8.
        error: M float64, mean reprojection errors in pixels.
        views: M int, images that see each point.
    """

    xyz: np.ndarray
    rgb: np.ndarray
    error: np.ndarray
    views: np.ndarray

    def __len__(self) -> int:
        return len(self.xyz)

    def select(self, keep: np.ndarray) -> StaticPoints:
        """Some of the points."""
        return StaticPoints(self.xyz[keep], self.rgb[keep], self.error[keep], self.views[keep])


def read_points(out: Path) -> StaticPoints:
    """The points in `colmap/sparse/0` of a processed folder.

    Raises:
        SegmotionError: there is no reconstruction, or a damaged one.
    """
    from segmotion_plugin.reconstruct.model_files import read_model

    model = Path(out) / "colmap" / "sparse" / "0"
    if not (model / "points3D.bin").is_file():
        raise SegmotionError(f"{out}: no reconstruction (colmap/sparse/0 is missing); make one with 'segmotion reconstruct {out}'")
    points = list(read_model(model).points3D.values())
    return StaticPoints(
        np.array([p.xyz for p in points], np.float64).reshape(-1, 3),
        np.array([p.color for p in points], np.uint8).reshape(-1, 3),
        np.array([p.error for p in points], np.float64),
        np.array([p.track.length() for p in points], np.int64),
    )
