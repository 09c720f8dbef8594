"""An undistorted view of a clip: the camera without distortion, its principal point in the centre of the picture.

Most 4D pipelines know only fields of view: they take the lens for a pinhole and its axis for the centre of the picture. Images, masks,
depth and tracks are all brought into that one camera here, so that every loader's simplification is exact.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.clip import read_rgb
from segmotion_plugin.errors import SegmotionError


class Pinhole:
    """The undistorted, centred camera of a clip.

    The focal lengths are kept; the picture is the largest centred rectangle that the original picture fills without blank pixels.

    Args:
        cameras: the clip's cameras.
        longest: scale the picture so that its longer side has at most that many pixels; no scaling when absent.
        square: make the two focal lengths equal, for readers that know only one.
        multiple: crop width and height to multiples of this.

    Attributes:
        width: of the picture.
        height: of the picture.
        focal: (fx, fy) in pixels.
        identical: the original pictures are already such views.
    """

    def __init__(self, cameras: Cameras, longest: int | None = None, *, square: bool = False, multiple: int = 1) -> None:
        self._lens = Cameras(["lens"], np.zeros(1), cameras.width, cameras.height, cameras.model, cameras.params, np.eye(3, 4)[None])
        fx, fy = cameras.focal
        if square:
            fx = fy = (fx + fy) / 2
        self._full = self._inner_size(fx, fy, multiple)
        scale = 1.0 if longest is None else min(1.0, longest / max(self._full))
        self.width, self.height = (max(1, round(side * scale)) for side in self._full)
        self.focal = (fx * (self.width / self._full[0]), fy * (self.height / self._full[1]))
        matrix = cameras.intrinsics()
        centred = np.allclose(matrix[:2, 2], [cameras.width / 2, cameras.height / 2], atol=1e-3)
        self.identical = (
            bool(centred)
            and not np.any(cameras.distortion())
            and (self.width, self.height) == (cameras.width, cameras.height)
            and self.focal == cameras.focal
        )
        self._map = None if self.identical else self._source_of_pixels(self.width, self.height, self.focal)
        scaled = (self.width, self.height) != self._full
        self._full_map = self._source_of_pixels(*self._full, (fx, fy)) if scaled else self._map

    def intrinsics(self, pixel_centre: float = 0.5) -> np.ndarray:
        """3×3 calibration matrix.

        Args:
            pixel_centre: where the reader of the matrix takes the centre of the top-left pixel to be: 0.5 (COLMAP) or 0 (arrays).
        """
        shift = 0.5 - pixel_centre
        return np.array([[self.focal[0], 0, self.width / 2 - shift], [0, self.focal[1], self.height / 2 - shift], [0, 0, 1]])

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Bring n×2 pixel positions of the original pictures (centre of the top-left pixel at 0.5) into the view."""
        plane = self._lens.rays(np.asarray(xy, np.float64))[:, :2]
        return plane * self.focal + (self.width / 2, self.height / 2)

    def image(self, path: Path) -> np.ndarray:
        """Read a picture into the view, H×W×3 uint8 RGB."""
        image = read_rgb(path)
        if self.identical:
            return image
        assert self._full_map is not None
        image = cv2.remap(np.ascontiguousarray(image), *self._full_map, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if image.shape[:2] != (self.height, self.width):
            image = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA)
        return image

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """Bring an H×W map of labels or depths into the view without mixing values."""
        if self._map is None:
            return values
        return cv2.remap(values, *self._map, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)

    def _inner_size(self, fx: float, fy: float, multiple: int) -> tuple[int, int]:
        """Largest centred picture whose border lies inside the original's."""
        width, height = self._lens.width, self._lens.height
        x, y = np.linspace(0.0, width, 65), np.linspace(0.0, height, 65)
        left, right = (self._lens.rays(np.column_stack([np.full(65, side), y]))[:, 0] for side in (0.0, width))
        top, bottom = (self._lens.rays(np.column_stack([x, np.full(65, side)]))[:, 1] for side in (0.0, height))
        half_x = min(-left.max(), right.min()) * fx
        half_y = min(-top.max(), bottom.min()) * fy
        # The optimiser's last digits must not cost a pixel.
        size = int(2 * half_x + 1e-3) // multiple * multiple, int(2 * half_y + 1e-3) // multiple * multiple
        if min(size) < 8:
            raise SegmotionError(
                f"the camera's distortion leaves {size[0]}×{size[1]} pixels of an undistorted picture; "
                "reconstruct with another camera model ('segmotion reconstruct OUT --camera-model SIMPLE_RADIAL')"
            )
        return size

    def _source_of_pixels(self, width: int, height: int, focal: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        """Array positions in the original picture of every pixel of the view, as OpenCV's `remap` takes them."""
        x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
        rays = np.stack([x.ravel() / focal[0], y.ravel() / focal[1], np.ones(x.size)], axis=1)
        xy, _ = self._lens.project(rays, 0)
        xy = (xy - 0.5).astype(np.float32).reshape(height, width, 2)
        return np.ascontiguousarray(xy[..., 0]), np.ascontiguousarray(xy[..., 1])
