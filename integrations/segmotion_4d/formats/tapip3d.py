"""3D tracks as TAPIP3D and SpatialTrackerV2 store them: one npz for both, and one more as input for TAPIP3D.

    DEST/
      <title>.npz            longer side at most 336 pixels, as SpatialTrackerV2 writes its own
        coords      T×N×3 float32   positions in the world
        visibs      T×N float32     1 = visible, 0 = hidden (the page that shows them knows no bool)
        extrinsics  T×4×4 float32   camera from world
        intrinsics  T×3×3 float32
        depths      T×H×W float32   along the optical axis; 0 where unknown
        video       T×3×H×W float32 0 … 1, RGB
        unc_metric  T×H×W float32   1 where the depth is known, 0 elsewhere
        object_id   N int32         ours: 0 = static, k = object k (dynamic)
        dynamic     T×H×W uint8     ours: object ids of the pixels, 0 = static, 254 and 255 = masked, but no object
      tapip3d_input.npz      longer side at most 724 pixels: video T×H×W×3 uint8, depths, intrinsics, extrinsics

T runs over the posed images. Axes are COLMAP's, pictures undistorted; matrices take the centre of the top-left pixel to be at
(0, 0), as both programs do. At most 4096 tracks are written, moving ones first.

Loaders: TAPIP3D `visualize.py` and SpatialTrackerV2 `tapip3d_viz.py` (<title>.npz), SpatialTrackerV2 `inference.py --data_type RGBD`
(<title>.npz), TAPIP3D `inference.py --input_path tapip3d_input.npz`; `segmotion import --tracks`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from segmotion_4d.pinhole import Pinhole
from segmotion_4d.source import Processed
from segmotion_4d.spec import Format
from segmotion_4d.writing import NpzStream
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.reconstruct.tracks_3d import Tracks3D

_RESULT_SIDE, _INPUT_SIDE = 336, 724
_MOST_TRACKS = 4096


def _write(source: Processed, dest: Path) -> list[str]:
    view = Pinhole(source.cameras, _RESULT_SIDE)
    tracks, notes = _thinned(source.tracks_3d())
    count, shape = len(source.posed), (len(source.posed), view.height, view.width)
    with NpzStream(dest / f"{source.title}.npz") as stream:
        stream.add("coords", filled(tracks.xyz).transpose(1, 0, 2).astype(np.float32))
        stream.add("visibs", tracks.visible.T.astype(np.float32))
        _add_cameras(stream, source, view)
        stream.add_slices("depths", _depths(source, view), shape, np.float32)
        stream.add_slices(
            "video", (p.transpose(2, 0, 1) / np.float32(255) for p in _pictures(source, view)), (count, 3, *shape[1:]), np.float32
        )
        stream.add_slices("unc_metric", (depth > 0 for depth in _depths(source, view)), shape, np.float32)
        stream.add("object_id", tracks.object_id)
        stream.add_slices("dynamic", (view.nearest(source.labels(i)) for i in source.posed), shape, np.uint8)
    view = Pinhole(source.cameras, _INPUT_SIDE)
    shape = (count, view.height, view.width)
    with NpzStream(dest / "tapip3d_input.npz") as stream:
        stream.add_slices("video", _pictures(source, view), (*shape, 3), np.uint8)
        stream.add_slices("depths", _depths(source, view), shape, np.float32)
        _add_cameras(stream, source, view)
    return source.notes_on_poses() + notes


def _pictures(source: Processed, view: Pinhole) -> Iterator[np.ndarray]:
    return (view.image(source.image_path(index)) for index in source.steps("video", source.posed))


def _depths(source: Processed, view: Pinhole) -> Iterator[np.ndarray]:
    return (view.nearest(source.depth(index)) for index in source.posed)


def _add_cameras(stream: NpzStream, source: Processed, view: Pinhole) -> None:
    count = len(source.posed)
    extrinsics = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
    extrinsics[:, :3] = source.cameras.cam_from_world
    stream.add("extrinsics", extrinsics)
    stream.add("intrinsics", np.tile(view.intrinsics(pixel_centre=0).astype(np.float32), (count, 1, 1)))


def _thinned(tracks: Tracks3D) -> tuple[Tracks3D, list[str]]:
    known = np.isfinite(tracks.xyz).all(axis=2).any(axis=1)
    tracks = tracks.select(np.flatnonzero(known))
    if not len(tracks):
        raise SegmotionError("no track of this clip has a position in 3D: reconstruct it again with 'segmotion reconstruct'")
    if len(tracks) <= _MOST_TRACKS:
        return tracks, []
    frames = tracks.visible.shape[1]
    order = np.argsort(-(tracks.visible.sum(axis=1) + (tracks.object_id > 0) * (frames + 1)), kind="stable")
    return tracks.select(np.sort(order[:_MOST_TRACKS])), [f"{_MOST_TRACKS} of {len(tracks)} tracks were written, moving ones first"]


def filled(xyz: np.ndarray) -> np.ndarray:
    """Positions N×T×D with unknown ones (NaN) replaced by the nearest known in time; every track must have one."""
    known = np.isfinite(xyz).all(axis=2)
    frames = np.arange(xyz.shape[1])
    before = np.maximum.accumulate(np.where(known, frames, -1), axis=1)
    after = np.minimum.accumulate(np.where(known, frames, 2 * len(frames))[:, ::-1], axis=1)[:, ::-1]
    use_before = (before >= 0) & ((after >= len(frames)) | (frames - before <= after - frames))
    return np.take_along_axis(xyz, np.where(use_before, before, after)[..., None], axis=1)


FORMAT = Format(
    "tapip3d",
    "TAPIP3D, SpatialTrackerV2",
    "dynamic: object_id and dynamic hold object ids, 0 = static",
    ("masks", "poses", "depth", "3D tracks"),
    _write,
    "ignored by this program",
    "python tapip3d_viz.py DEST/*.npz",
    "give the .npz that is not tapip3d_input.npz; that one is for TAPIP3D: python inference.py --input_path DEST/tapip3d_input.npz",
)
