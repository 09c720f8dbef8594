"""Tracks of TAPIP3D and SpatialTrackerV2: 3D positions and cameras, projected back into the picture.

coords      T×N×3   positions in the world
extrinsics  T×4×4   camera from world
intrinsics  T×3×3   in pixels of video and depths; the centre of the top-left pixel is at (0, 0)
visibs      T×N     visible where above 0.5
video or depths     their size tells the pixels that the intrinsics are measured in
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.reading import MOST_OBSERVATIONS, UNREADABLE, npz_shapes
from segmotion_plugin.tracks import Tracks

_KEYS = ("coords", "extrinsics", "intrinsics", "visibs")


def read_tracks(path: Path, frames: int, width: int, height: int) -> Tracks:
    """Read 2D tracks from an npz of TAPIP3D's layout.

    Args:
        path: the file.
        frames: frames of the clip; the file must hold as many.
        width: of the clip's images; the file's picture is taken to show the same.
        height: of the clip's images.

    Returns:
        Tracks in pixels of the clip's images, visible where the point lies before the camera and in the picture.

    Raises:
        SegmotionError: a file that is missing, damaged, of another layout, or of another clip.
    """
    path = Path(path)
    if not path.is_file():
        raise SegmotionError(f"{path}: no such track file")
    try:
        shapes = npz_shapes(path)
        if np.prod(shapes.get("coords", (0,))[:2], dtype=float) > MOST_OBSERVATIONS:
            raise SegmotionError(f"{path}: {shapes['coords'][:2]} frames and tracks are more than can be read; thin the tracks")
        with np.load(path, allow_pickle=False) as data:
            missing = [key for key in _KEYS if key not in data.files]
            if missing:
                raise SegmotionError(f"{path}: not in TAPIP3D's layout, it lacks {', '.join(missing)}")
            coords, extrinsics, intrinsics, visible = (np.asarray(data[key]) for key in _KEYS)
        own_height, own_width = _picture_size(shapes)
    except UNREADABLE as error:
        if isinstance(error, SegmotionError):
            raise
        raise SegmotionError(f"{path}: not a readable track file ({error})") from None
    for key, array, dimensions in zip(_KEYS, (coords, extrinsics, intrinsics, visible), (3, 3, 3, 2), strict=True):
        if array.dtype.kind not in "fiub" or array.ndim < dimensions or 0 in array.shape:
            raise SegmotionError(f"{path}: {key} is an array {array.shape} of {array.dtype}, not TAPIP3D's")
    if visible.size == np.prod(visible.shape[:2]):  # also T×N×1
        visible = visible.reshape(visible.shape[:2])
    if coords.ndim != 3 or coords.shape[2] != 3 or visible.shape != coords.shape[:2]:
        raise SegmotionError(f"{path}: coords {coords.shape} and visibs {visible.shape} are not T×N×3 and T×N")
    if not len(coords) == len(extrinsics) == len(intrinsics) == frames:
        raise SegmotionError(f"{path}: tracks over {len(coords)} frames, but the clip has {frames}; give the tracks of this clip")
    if extrinsics.shape[1:] not in ((4, 4), (3, 4)) or intrinsics.shape[1:] != (3, 3) or 0 in (own_width, own_height):
        raise SegmotionError(
            f"{path}: extrinsics {extrinsics.shape}, intrinsics {intrinsics.shape} and pictures of {own_width}×{own_height} "
            "are not T×4×4, T×3×3 and pixels"
        )
    camera = np.einsum("tij,tnj->tni", extrinsics[:, :3, :3], coords) + extrinsics[:, None, :3, 3]
    depth = camera[..., 2]
    before = depth > 1e-6
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = np.einsum("tij,tnj->tni", intrinsics, camera)[..., :2] / depth[..., None]
    xy = (pixels + 0.5) * np.array([width / own_width, height / own_height])
    known = before & np.isfinite(xy).all(axis=2)
    inside = known & (xy >= 0).all(axis=2) & (xy[..., 0] < width) & (xy[..., 1] < height)
    seen = (visible > 0.5) & inside
    # Nothing is known of a point before it was first seen and after it was last seen.
    order = np.arange(frames)[:, None]
    first, last = seen.argmax(axis=0), frames - 1 - seen[::-1].argmax(axis=0)
    run = known & (order >= first) & (order <= last)
    used = seen.any(axis=0)
    if not used.any():
        raise SegmotionError(f"{path}: no point of this file is visible in the picture; are its tracks those of this clip?")
    return Tracks.from_dense(np.where(run[..., None], xy, np.nan)[:, used].transpose(1, 0, 2), seen[:, used].T)


def _picture_size(shapes: dict[str, tuple[int, ...]]) -> tuple[int, int]:
    """(height, width) of depths or video."""
    for key in ("depths", "video"):
        shape = shapes.get(key, ())
        if len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3):
            return shape[1], shape[2]
        if len(shape) >= 3:
            return shape[-2], shape[-1]
    raise ValueError("it lacks video and depths, which tell the picture's size")
