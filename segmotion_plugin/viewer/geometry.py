"""Geometry of the drawing: from one world to another, rotations as quaternions, lines as meshes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Similarity:
    """From the world of the reconstruction to that of a viewer: x -> scale · rotation · x + translation."""

    scale: float
    rotation: np.ndarray
    translation: np.ndarray

    @classmethod
    def identity(cls) -> Similarity:
        """Leaves points where they are."""
        return cls(1.0, np.eye(3), np.zeros(3))

    def inverse(self) -> Similarity:
        """From the viewer's world back to that of the reconstruction."""
        back = self.rotation.T
        return Similarity(1.0 / self.scale, back, -(back @ self.translation) / self.scale)

    def __call__(self, xyz: np.ndarray) -> np.ndarray:
        """Transform …×3 points."""
        return (self.scale * (np.asarray(xyz, np.float64) @ self.rotation.T) + self.translation).astype(np.float32)


def ribbons(segments: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Two crossed ribbons along every segment (n×2×3): vertices 8n×3 float32 and faces 4n×3, for versions without lines."""
    along = segments[:, 1] - segments[:, 0]
    length = np.linalg.norm(along, axis=1, keepdims=True)
    along = np.where(length > 1e-12, along / np.maximum(length, 1e-12), np.array([1.0, 0, 0]))
    axis = np.eye(3)[np.abs(along).argmin(axis=1)]
    first = np.cross(along, axis)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(along, first)
    corners = [segments[:, end] + sign * 0.5 * width * side for side in (first, second) for end in (0, 1) for sign in (-1, 1)]
    vertices = np.stack(corners, axis=1).reshape(-1, 3).astype(np.float32)
    pattern = np.array([[0, 1, 2], [2, 1, 3], [4, 5, 6], [6, 5, 7]])
    faces = (8 * np.arange(len(segments))[:, None, None] + pattern).reshape(-1, 3)
    return vertices, faces


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternion (w, x, y, z) of a 3×3 rotation."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(rotation).as_quat()
    return np.array([w, x, y, z])
