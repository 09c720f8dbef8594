"""The one camera of a binary sparse model: read it, and give it a richer model. Files of every COLMAP version are alike here."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import atomic_path

# COLMAP's number and parameter count of the models that are read or written here.
_MODELS = {"SIMPLE_PINHOLE": (0, 3), "PINHOLE": (1, 4), "SIMPLE_RADIAL": (2, 4), "OPENCV": (4, 8), "OPENCV_FISHEYE": (5, 8)}
_NAMES = {number: (name, count) for name, (number, count) in _MODELS.items()}

# The model that the mapper runs with, for the model that is wanted in the end: while few images are registered, one focal length
# and one distortion term are all that they can tell.
MAPPED_AS = {"OPENCV": "SIMPLE_RADIAL", "PINHOLE": "SIMPLE_PINHOLE"}


@dataclass
class Intrinsics:
    """Camera number, model and parameters in COLMAP's order."""

    camera_id: int
    model: str
    width: int
    height: int
    params: np.ndarray

    @property
    def focal(self) -> tuple[float, float]:
        """(fx, fy) in pixels."""
        if self.model in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL"):
            return float(self.params[0]), float(self.params[0])
        return float(self.params[0]), float(self.params[1])

    def expanded(self) -> Intrinsics:
        """The same camera in the model with two focal lengths: OPENCV for SIMPLE_RADIAL, PINHOLE for SIMPLE_PINHOLE."""
        if self.model == "SIMPLE_RADIAL":
            f, cx, cy, k = self.params
            return Intrinsics(self.camera_id, "OPENCV", self.width, self.height, np.array([f, f, cx, cy, k, 0.0, 0.0, 0.0]))
        if self.model == "SIMPLE_PINHOLE":
            f, cx, cy = self.params
            return Intrinsics(self.camera_id, "PINHOLE", self.width, self.height, np.array([f, f, cx, cy]))
        return self

    def agrees(self, other: Intrinsics) -> bool:
        """Whether the focal lengths are those of the other within 3 %: a refinement that moves them more had too little to go by."""
        return bool(np.all(np.abs(np.log(np.array(self.focal) / np.array(other.focal))) < 0.03))


def read_intrinsics(model: Path) -> Intrinsics:
    """Read `cameras.bin` of a model with one camera.

    Raises:
        SegmotionError: it has several, or one of another kind.
    """
    data = (Path(model) / "cameras.bin").read_bytes()
    count, camera_id, number, width, height = struct.unpack_from("<QiiQQ", data)
    if count != 1 or number not in _NAMES:
        raise SegmotionError(f"{model}/cameras.bin: {count} camera(s) of model {number}; one of {', '.join(_MODELS)} is expected")
    name, size = _NAMES[number]
    return Intrinsics(camera_id, name, width, height, np.array(struct.unpack_from(f"<{size}d", data, 32)))


def write_intrinsics(model: Path, camera: Intrinsics) -> None:
    """Write `cameras.bin` anew."""
    number, _ = _MODELS[camera.model]
    head = struct.pack("<QiiQQ", 1, camera.camera_id, number, camera.width, camera.height)
    with atomic_path(Path(model) / "cameras.bin") as temporary:
        temporary.write_bytes(head + camera.params.astype("<f8").tobytes())
