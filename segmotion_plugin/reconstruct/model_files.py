"""COLMAP's sparse models, looked at before COLMAP reads them: its reader runs on for ever in some files that were cut off.

Others it reads as if nothing were missing, with numbers from nowhere. So the layout of every file (COLMAP's documentation, "Binary
File Format") is walked through first; a file must end where its counts say.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.reading import check_pixels

if TYPE_CHECKING:
    import pycolmap

_COUNT = struct.Struct("<Q")
_NUMBER = struct.Struct("<I")
_SENSOR = 8  # type, id
_CAMERA = struct.Struct("<IiQQ")  # id, model, width, height
_POSE = 56  # quaternion, translation
_IMAGE = 4 + _POSE + 4  # id, pose, camera id
_POINT2D = 24  # x, y, point id
_POINT3D = 43  # id, position, colour, error
_LARGEST = 1e12  # of parameters, translations and positions; far more than any unit asks for
_TRACK_ELEMENT = 8  # image id, index of the 2D point


def read_model(folder: Path) -> pycolmap.Reconstruction:
    """Read a binary sparse model.

    Args:
        folder: with `cameras.bin`, `images.bin` and `points3D.bin`, and `rigs.bin` and `frames.bin` where COLMAP ≥ 3.12 wrote it.

    Raises:
        SegmotionError: a file is missing, cut off or damaged.
    """
    import pycolmap

    check_model(folder)
    try:
        model = pycolmap.Reconstruction(str(folder))
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SegmotionError(f"{folder}: not a readable COLMAP model ({reason}); make it again") from None
    check_values(model, folder)
    return model


def check_values(model: pycolmap.Reconstruction, folder: Path) -> None:
    """Raise SegmotionError where a model holds numbers that no camera or point has; COLMAP itself takes them and may not end."""
    for number, camera in model.cameras.items():
        check_pixels(camera.width, camera.height, f"{folder}: camera {number}")
        if camera.width * camera.height == 0 or not (np.abs(camera.params) < _LARGEST).all():
            raise SegmotionError(f"{folder}: camera {number} has numbers that make no sense ({camera.params}); make the model again")
    try:
        _ = [image.name for image in model.images.values()]
    except UnicodeDecodeError:
        raise SegmotionError(f"{folder}: the names of its images are not UTF-8; rename the images, or make the model again") from None
    for image in model.images.values():
        if image.has_pose and not (np.abs(image.cam_from_world().matrix()) < _LARGEST).all():
            raise SegmotionError(f"{folder}: the pose of {image.name} makes no sense; make the model again")
    xyz = np.array([point.xyz for point in model.points3D.values()]).reshape(-1, 3)
    if not (np.abs(xyz) < _LARGEST).all():
        raise SegmotionError(f"{folder}: points lie at places that make no sense; make the model again")


def check_model(folder: Path) -> None:
    """Raise SegmotionError where a file of a binary model is missing, or ends before or after what its counts say."""
    walks: dict[str, Callable[[bytes], int]] = {
        "cameras.bin": _walk_cameras,
        "rigs.bin": _walk_rigs,
        "frames.bin": _walk_frames,
        "images.bin": _walk_images,
        "points3D.bin": _walk_points,
    }
    for name, walk in walks.items():
        path = Path(folder) / name
        if name in ("rigs.bin", "frames.bin") and not path.exists():
            continue  # models of COLMAP before 3.12
        try:
            data = path.read_bytes()
            whole = walk(data) == len(data)
        except (OSError, struct.error, ValueError, OverflowError):
            whole = False
        if not whole:
            raise SegmotionError(f"{path}: not a readable COLMAP model, the file is missing, cut off or damaged; make the model again")


def _walk_cameras(data: bytes) -> int:
    """Where the last camera ends."""
    import pycolmap

    (count,) = _COUNT.unpack_from(data)
    at = _COUNT.size
    for _ in range(count):
        number, model, width, height = _CAMERA.unpack_from(data, at)
        known = pycolmap.Camera.create_from_model_id(number, pycolmap.CameraModelId(model), 1.0, width, height)
        at += _CAMERA.size + 8 * len(known.params)
    return at


def _walk_rigs(data: bytes) -> int:
    """Where the last rig ends: id, sensors; all but the first of these say whether their pose is known, and if so, which."""
    (count,) = _COUNT.unpack_from(data)
    at = _COUNT.size
    for _ in range(count):
        (sensors,) = _NUMBER.unpack_from(data, at + 4)
        at += 8 + _SENSOR * min(sensors, 1)
        for _ in range(sensors - 1):
            (posed,) = struct.unpack_from("<B", data, at + _SENSOR)
            at += _SENSOR + 1 + _POSE * (posed != 0)
    return at


def _walk_frames(data: bytes) -> int:
    """Where the last frame ends: id, rig, pose, and sensor and image of everything in it."""
    (count,) = _COUNT.unpack_from(data)
    at = _COUNT.size
    for _ in range(count):
        at += 8 + _POSE
        at += _NUMBER.size + (_SENSOR + 8) * _NUMBER.unpack_from(data, at)[0]
    return at


def _walk_images(data: bytes) -> int:
    """Where the last image ends."""
    (count,) = _COUNT.unpack_from(data)
    at = _COUNT.size
    for _ in range(count):
        at = data.index(b"\0", at + _IMAGE) + 1
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
