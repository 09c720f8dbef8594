"""Cameras found elsewhere, one per frame or per image of the clip.

    tum      FILE of lines `time tx ty tz qx qy qz qw`, camera in the world; needs the focal length
    monst3r  folder with pred_traj.txt (index tx ty tz qw qx qy qz), pred_intrinsics.txt and frame_0000.png, which tells their pixels
    megasam  npz: cam_c2w T×4×4 world from camera, intrinsic 3×3, depths T×H×W
    vggt     npz: extrinsic T×3×4 camera from world, intrinsic T×3×3, depth T×H×W(×1)
    da3      npz: extrinsics T×3×4 camera from world, intrinsics T×3×3, depth T×H×W (Depth Anything 3)
    pi3      npz: camera_poses T×4×4 world from camera; needs the focal length

Axes are OpenCV's in all of them (x right, y down, z forward). The clip has one camera: the median of focal lengths that vary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np

from segmotion_4d.readers.npz import read_npz
from segmotion_plugin.cameras import Cameras
from segmotion_plugin.clip import Clip
from segmotion_plugin.errors import SegmotionError

PosesFormat = Literal["tum", "monst3r", "megasam", "vggt", "da3", "pi3"]
# Keys of poses, calibration and depth, and whether poses are world from camera.
_NPZ: dict[str, tuple[list[str], bool]] = {
    "megasam": (["cam_c2w", "intrinsic", "depths"], True),
    "vggt": (["extrinsic", "intrinsic", "depth"], False),
    "da3": (["extrinsics", "intrinsics", "depth"], False),
    "pi3": (["camera_poses"], True),
}
_NOT_A_ROTATION = 1e-2


def read_poses(path: Path, format: PosesFormat, clip: Clip, focal: float | None = None) -> Cameras:
    """Cameras of the clip's images, in the scale and the world that the poses have.

    Args:
        path: file or folder, see the module.
        format: what it is.
        clip: the clip; its images have the pixels that the result is measured in.
        focal: focal length in pixels of the images; for `tum` and `pi3`, which hold none.

    Raises:
        SegmotionError: nothing there, other numbers of poses than of frames or images, values that are no cameras.
    """
    if format not in get_args(PosesFormat):
        raise SegmotionError(f"--poses-format {format}: must be one of {', '.join(get_args(PosesFormat))}")
    if (format in ("tum", "pi3")) != (focal is not None):
        holds = "no focal length: give --focal, in pixels of the images" if focal is None else "focal lengths: leave --focal out"
        raise SegmotionError(f"{path}: {format} poses hold {holds}")
    path = Path(path)
    size, matrices = (clip.width, clip.height), None
    if format in _NPZ:
        keys, inverse = _NPZ[format]
        path, arrays = read_npz(path, keys)
        poses = np.asarray(arrays[keys[0]], np.float64)
        if len(keys) > 1:
            matrices = np.asarray(arrays[keys[1]], np.float64).reshape(-1, 3, 3)
            height, width = arrays[keys[2]].shape[1:3]
            size = (int(width), int(height))
    else:
        inverse = True
        rows = _lines(path / "pred_traj.txt" if format == "monst3r" else path, 8)
        poses = _from_quaternions(rows, scalar_first=format == "monst3r")
        if format == "monst3r":
            matrices = _lines(path / "pred_intrinsics.txt", 9).reshape(-1, 3, 3)
            size = _picture_size(path / "frame_0000.png")
    poses = _checked(path, poses, inverse)
    if len(poses) == len(clip):
        poses = poses[clip.selected]
    elif len(poses) != len(clip.names):
        raise SegmotionError(
            f"{path}: {len(poses)} poses, but there are {len(clip)} frames and {len(clip.names)} images; give one for each"
        )
    return Cameras(
        list(clip.names),
        clip.selected.astype(np.int64),
        clip.width,
        clip.height,
        "PINHOLE",
        _params(path, matrices, size, clip, focal),
        poses,
    )


def _params(path: Path, matrices: np.ndarray | None, size: tuple[int, int], clip: Clip, focal: float | None) -> np.ndarray:
    if matrices is None:
        assert focal is not None
        return np.array([focal, focal, clip.width / 2, clip.height / 2])
    fx, fy, cx, cy = np.median(matrices[:, [0, 1, 0, 1], [0, 1, 2, 2]], axis=0)
    x, y = clip.width / size[0], clip.height / size[1]
    params = np.array([fx * x, fy * y, cx * x, cy * y])
    if not np.isfinite(params).all() or (params <= 0).any():
        raise SegmotionError(f"{path}: focal length or principal point are no positive numbers")
    return params


def _checked(path: Path, poses: np.ndarray, inverse: bool) -> np.ndarray:
    """K×3×4 camera from world."""
    if poses.ndim != 3 or poses.shape[1:] not in ((3, 4), (4, 4)):
        raise SegmotionError(f"{path}: poses {poses.shape} are not T×3×4 or T×4×4")
    rotation, position = poses[:, :3, :3], poses[:, :3, 3]
    if not np.isfinite(poses).all() or np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max() > _NOT_A_ROTATION:
        raise SegmotionError(f"{path}: poses hold matrices that are no rotations, or values that are not finite")
    left, _, right = np.linalg.svd(rotation)
    rotation = left @ right
    if inverse:
        rotation = rotation.transpose(0, 2, 1)
        position = -np.einsum("kij,kj->ki", rotation, position)
    return np.concatenate([rotation, position[:, :, None]], axis=2)


def _from_quaternions(rows: np.ndarray, scalar_first: bool) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    quaternions = rows[:, [5, 6, 7, 4]] if scalar_first else rows[:, 4:]
    quaternions = np.where(np.linalg.norm(quaternions, axis=1, keepdims=True) > 0, quaternions, np.nan)
    known = np.isfinite(quaternions).all(axis=1)
    rotation = np.full((len(rows), 3, 3), np.nan)
    rotation[known] = Rotation.from_quat(quaternions[known]).as_matrix()
    return np.concatenate([rotation, rows[:, 1:4, None]], axis=2)


def _lines(path: Path, count: int) -> np.ndarray:
    if not path.is_file():
        raise SegmotionError(f"{path}: no such file of poses or calibration")
    try:
        rows = np.loadtxt(path, ndmin=2, comments="#")
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise SegmotionError(f"{path}: not lines of {count} numbers ({error})") from None
    if rows.ndim != 2 or rows.shape[1] != count or not len(rows):
        raise SegmotionError(f"{path}: not lines of {count} numbers")
    return rows


def _picture_size(path: Path) -> tuple[int, int]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, UnidentifiedImageError) as error:
        raise SegmotionError(f"{path}: the picture that tells what pixels the calibration is in cannot be read ({error})") from None
