"""A look at COLMAP's binary files before COLMAP reads them: its reader runs on for ever in files that were cut off."""

from __future__ import annotations

import struct
from pathlib import Path

from segmotion_plugin.errors import SegmotionError

_COUNT = struct.Struct("<Q")
_POSE = 64  # image id, quaternion, translation, camera id
_POINT2D = 24  # x, y, point id
_POINT3D = 43  # point id, position, colour, error
_TRACK_ELEMENT = 8  # image id, index of the 2D point


def check_model(folder: Path) -> None:
    """Raise SegmotionError where `images.bin` or `points3D.bin` end before or after what their counts say."""
    for name, walk in (("images.bin", _walk_images), ("points3D.bin", _walk_points)):
        path = folder / name
        try:
            data = path.read_bytes()
            whole = walk(data) == len(data)
        except (OSError, struct.error, ValueError):
            whole = False
        if not whole:
            raise SegmotionError(f"{path}: not a readable COLMAP model, the file is missing, cut off or damaged")


def _walk_images(data: bytes) -> int:
    """Where the last image ends."""
    (count,) = _COUNT.unpack_from(data)
    at = _COUNT.size
    for _ in range(count):
        at = data.index(b"\0", at + _POSE) + 1
        at += _COUNT.size + _POINT2D * _COUNT.unpack_from(data, at)[0]
    return at


def _walk_points(data: bytes) -> int:
    """Where the last point ends."""
    (count,) = _COUNT.unpack_from(data)
    at = _COUNT.size
    for _ in range(count):
        at += _POINT3D
        at += _COUNT.size + _TRACK_ELEMENT * _COUNT.unpack_from(data, at)[0]
    return at
