"""Camera poses and intrinsics of a clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segmotion_plugin.errors import SegmotionError

# Positions of fx, fy, cx, cy in the parameter vectors of COLMAP's camera models.
_LAYOUT: dict[str, tuple[int, int, int, int]] = {
    "SIMPLE_PINHOLE": (0, 0, 1, 2),
    "PINHOLE": (0, 1, 2, 3),
    "SIMPLE_RADIAL": (0, 0, 1, 2),
    "RADIAL": (0, 0, 1, 2),
    "OPENCV": (0, 1, 2, 3),
}


@dataclass
class Cameras:
    """Cameras of the registered frames of a clip; one set of intrinsics is shared by all.

    Axes are COLMAP's: x right, y down, z forward. The centre of the top-left pixel is at (0.5, 0.5).

    Attributes:
        names: K image names in frame order.
        frame_index: K int, index of each image's frame in the clip.
        width: image width in pixels.
        height: image height in pixels.
        model: COLMAP camera model (SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL or OPENCV).
        params: float64 parameters in COLMAP's order for that model.
        cam_from_world: K×3×4 float64, [R | t] with x_cam = R x_world + t.
    """

    names: list[str]
    frame_index: np.ndarray
    width: int
    height: int
    model: str
    params: np.ndarray
    cam_from_world: np.ndarray

    def __post_init__(self) -> None:
        self.frame_index = np.asarray(self.frame_index, dtype=np.int64)
        self.params = np.asarray(self.params, dtype=np.float64)
        self.cam_from_world = np.asarray(self.cam_from_world, dtype=np.float64).reshape(-1, 3, 4)
        if self.model not in _LAYOUT:
            raise SegmotionError(f"camera model {self.model} is not supported; use one of {', '.join(_LAYOUT)}")
        if not len(self.names) == len(self.frame_index) == len(self.cam_from_world):
            raise SegmotionError(
                f"{len(self.names)} names, {len(self.frame_index)} frame indices and {len(self.cam_from_world)} poses "
                "were given; the three must be of one length"
            )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def focal(self) -> tuple[float, float]:
        """Focal lengths (fx, fy) in pixels."""
        fx, fy, _, _ = _LAYOUT[self.model]
        return float(self.params[fx]), float(self.params[fy])

    def intrinsics(self) -> np.ndarray:
        """3×3 calibration matrix; distortion is not in it."""
        fx, fy, cx, cy = (float(self.params[i]) for i in _LAYOUT[self.model])
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])

    def distortion(self) -> np.ndarray:
        """(k1, k2, p1, p2), zeros where the model has none."""
        full = np.zeros(4)
        if self.model == "SIMPLE_RADIAL":
            full[0] = self.params[3]
        elif self.model == "RADIAL":
            full[:2] = self.params[3:5]
        elif self.model == "OPENCV":
            full[:] = self.params[4:8]
        return full

    def centers(self) -> np.ndarray:
        """K×3 camera centres in the world."""
        rotation, translation = self.cam_from_world[:, :, :3], self.cam_from_world[:, :, 3]
        return -np.einsum("kji,kj->ki", rotation, translation)

    def project(self, xyz: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Project world points into camera k (index into `names`), with distortion.

        Args:
            xyz: N×3 world points.
            k: which camera.

        Returns:
            N×2 pixel positions (meaningless where the depth is not positive) and N depths along the optical axis.
        """
        pose = self.cam_from_world[k]
        camera = np.asarray(xyz, dtype=np.float64) @ pose[:, :3].T + pose[:, 3]
        depth = camera[:, 2]
        plane = camera[:, :2] / np.where(np.abs(depth) < 1e-12, 1e-12, depth)[:, None]
        return self._distorted_pixels(plane), depth

    def _distorted_pixels(self, plane: np.ndarray) -> np.ndarray:
        k1, k2, p1, p2 = self.distortion()
        x, y = plane[:, 0], plane[:, 1]
        r2 = x * x + y * y
        radial = 1.0 + k1 * r2 + k2 * r2 * r2
        xd = x * radial + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x)
        yd = y * radial + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x * y
        matrix = self.intrinsics()
        return np.stack([matrix[0, 0] * xd + matrix[0, 2], matrix[1, 1] * yd + matrix[1, 2]], axis=1)

    def rays(self, xy: np.ndarray) -> np.ndarray:
        """N×3 directions (x, y, 1) in camera axes of N×2 pixels; distortion is undone by fixed-point steps."""
        matrix = self.intrinsics()
        target = np.stack([(xy[:, 0] - matrix[0, 2]) / matrix[0, 0], (xy[:, 1] - matrix[1, 2]) / matrix[1, 1]], axis=1).astype(
            np.float64
        )
        plane = target.copy()
        if np.any(self.distortion()):
            for _ in range(20):
                pixels = self._distorted_pixels(plane)
                back = np.stack([(pixels[:, 0] - matrix[0, 2]) / matrix[0, 0], (pixels[:, 1] - matrix[1, 2]) / matrix[1, 1]], axis=1)
                plane += target - back
        return np.concatenate([plane, np.ones((len(plane), 1))], axis=1)
