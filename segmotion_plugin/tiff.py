"""TIFF files as stored: OpenCV and Pillow turn them by their orientation tag whatever they are asked for, and COLMAP does not."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

_ORIENTATION = 274  # tag; 1 means upright
_CLASSIC, _BIG = 42, 43  # version numbers in the header


def as_stored(data: np.ndarray) -> np.ndarray:
    """The bytes of an image file, with the orientation tag of a TIFF's first picture set to upright; others as they are.

    Args:
        data: N uint8.

    Returns:
        `data`, or a copy of it where there was something to change.
    """
    place = _place_of_orientation(data.tobytes() if data[:2].tobytes() in (b"II", b"MM") else b"")
    if place is None:
        return data
    order, at = place
    changed = data.copy()
    changed[at : at + 2] = np.frombuffer(struct.pack(f"{order}H", 1), np.uint8)
    return changed


def is_turned(path: Path) -> bool:
    """Whether a file is a TIFF that an orientation tag turns."""
    data = np.fromfile(path, np.uint8)
    return not np.array_equal(as_stored(data), data)


def _place_of_orientation(data: bytes) -> tuple[str, int] | None:
    """Byte order and offset of the orientation's value; None where there is no such tag."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        (version,) = struct.unpack_from(f"{order}H", data, 2)
        if version == _CLASSIC:
            (start,) = struct.unpack_from(f"{order}I", data, 4)
            (count,) = struct.unpack_from(f"{order}H", data, start)
            first, step, value = start + 2, 12, 8
        elif version == _BIG:
            (start,) = struct.unpack_from(f"{order}Q", data, 8)
            (count,) = struct.unpack_from(f"{order}Q", data, start)
            first, step, value = start + 8, 20, 12
        else:
            return None
        for entry in range(min(count, (len(data) - first) // step)):
            at = first + step * entry
            if struct.unpack_from(f"{order}H", data, at)[0] == _ORIENTATION:
                return order, at + value
    except struct.error:
        pass  # damaged: the reader says so
    return None
