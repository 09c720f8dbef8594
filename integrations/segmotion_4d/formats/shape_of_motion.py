"""Shape-of-Motion (vye16/shape-of-motion), custom data (`data:custom --data.root-dir DEST --data.seq-name <title>`).

    DEST/
      images/<title>/frame_00001.png              undistorted pictures
      masks/<title>/frame_00001.png               dynamic: 255 = moves, 0 = static (the loader erodes both sides by 7×7)
      aligned_depth_anything/<title>/frame_00001.npy   disparity H×W float32, 1 / depth in the cameras' units
      bootstapir/<title>/<query>_<target>.npy     n×4 float32 for every ordered pair of frames: x, y, occlusion logit, distance logit;
                                                  the n moving points seen in the query frame, the same rows for every target
      droid_recon/<title>.npy                     pickled dict: traj_c2w T×4×4 (x right, y down, z forward), intrinsics
                                                  (fx, fy, cx, cy), img_shape (h, w), tstamps (key frames)

The loader takes a point for visible where (1 - sigmoid(occlusion)) (1 - sigmoid(distance)) > 0.5. It puts pixel centres on whole
numbers, so positions and the principal point are half a pixel less than COLMAP's. Where depth is unknown (the sky) the disparity is
that of ten times the far end of the static points.

Loader: `flow3d/data/casual_dataset.py` (CustomDataConfig). It needs ten frames or more.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segmotion_4d.formats.colmap import image_suffix, place_image
from segmotion_4d.formats.tapip3d import filled
from segmotion_4d.pinhole import Pinhole
from segmotion_4d.source import Processed
from segmotion_4d.spec import Format
from segmotion_4d.writing import array_bytes, save_array, unique
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import write_png

_MOST_POINTS = 384  # per query frame; there are T² files of them
_SURE = 10.0  # logit of what is certain
_KEY_FRAMES = 32
_LEAST_FRAMES = 10


def _write(source: Processed, dest: Path) -> list[str]:
    if len(source.posed) < _LEAST_FRAMES:
        raise SegmotionError(
            f"{source.out}: {len(source.posed)} images have a pose; Shape-of-Motion's loader needs {_LEAST_FRAMES} or more"
        )
    view = Pinhole(source.cameras)
    points = tracks_of_objects(source, view)
    stems = [source.images[index].stem for index in source.posed]
    suffix = image_suffix(source, view)
    unique(zip((source.images[i].name for i in source.posed), stems, strict=True), "images")
    far = 10.0 * source.depth_range[1]
    for index, stem in source.steps("frames", list(zip(source.posed, stems, strict=True))):
        place_image(source, view, index, dest / "images" / source.title / f"{stem}{suffix}")
        dynamic = np.where(view.nearest(source.labels(index)) > 0, np.uint8(255), np.uint8(0))
        write_png(dest / "masks" / source.title / f"{stem}.png", dynamic)
        depth = view.nearest(source.depth(index))
        disparity = 1 / np.where(depth > 0, np.minimum(depth, far), far)
        save_array(dest / "aligned_depth_anything" / source.title / f"{stem}.npy", disparity.astype(np.float32))
    _write_tracks(source, dest / "bootstapir" / source.title, stems, points)
    _write_cameras(source, view, dest / "droid_recon" / f"{source.title}.npy")
    return source.notes_on_poses()


def tracks_of_objects(source: Processed, view: Pinhole) -> np.ndarray:
    """The tracks of moving objects as the loader reads them.

    Returns:
        N×T×4 float32 over the posed images: x, y (pixel centres on whole numbers), occlusion logit, distance logit. Outside a track's
        run the nearest known position stands, hidden and without confidence.

    Raises:
        SegmotionError: no track moves in these images.
    """
    tracks, motion = source.tracks
    moving = tracks.select(motion.object_id > 0)
    frames = source.cameras.frame_index
    xy, visible, confidence = moving.xy[:, frames], moving.visible[:, frames], moving.confidence[:, frames]
    seen = visible.any(axis=1)
    if not seen.any():
        raise SegmotionError(f"{source.out}: no track moves in this clip, and Shape-of-Motion needs moving points")
    xy, visible, confidence = xy[seen], visible[seen], np.clip(confidence[seen], 0.01, 0.99)
    known = np.isfinite(xy).all(axis=2)
    pixels = view.points(filled(xy).reshape(-1, 2)).reshape(xy.shape) - 0.5
    # A visible point stays visible however low its confidence: that scales the upper half of the range only.
    trust = np.where(visible, 0.5 + confidence / 2, np.where(known, confidence, 0.0001))
    occlusion = np.where(visible, -_SURE, _SURE)
    return np.dstack([pixels, occlusion, np.log(1 / trust - 1)]).astype(np.float32)


def _write_tracks(source: Processed, folder: Path, stems: list[str], points: np.ndarray) -> None:
    folder.mkdir(parents=True)
    unseen = points[:1].copy()
    unseen[..., 2:] = _SURE
    for q, query in enumerate(source.steps("tracks", stems)):
        rows = np.flatnonzero(points[:, q, 2] < 0)
        if len(rows) > _MOST_POINTS:
            rows = rows[np.linspace(0, len(rows) - 1, _MOST_POINTS).astype(int)]
        # The loader cannot read a frame without points: one that is nowhere visible stands in.
        block = np.ascontiguousarray((points[rows] if len(rows) else unseen).transpose(1, 0, 2))
        header = array_bytes(block[0])[: -block[0].nbytes]
        for target, values in zip(stems, block, strict=True):
            (folder / f"{query}_{target}.npy").write_bytes(header + values.tobytes())


def _write_cameras(source: Processed, view: Pinhole, path: Path) -> None:
    count = len(source.posed)
    camera_from_world = np.tile(np.eye(4), (count, 1, 1))
    camera_from_world[:, :3] = source.cameras.cam_from_world
    matrix = view.intrinsics(pixel_centre=0)
    content = {
        "traj_c2w": np.linalg.inv(camera_from_world).astype(np.float32),
        "intrinsics": np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]], np.float32),
        "img_shape": (view.height, view.width),
        "tstamps": np.unique(np.linspace(0, count - 1, min(count, _KEY_FRAMES)).round()).astype(np.int64),
    }
    path.parent.mkdir(parents=True)
    np.save(path, np.array(content, dtype=object))


FORMAT = Format(
    "shape-of-motion",
    "Shape-of-Motion, flow3d/data/casual_dataset.py (data:custom)",
    "dynamic: 255 = moves, 0 = static",
    ("masks", "poses", "depth", "tracks"),
    _write,
    "used for training",
    "python run_training.py --work-dir WORK data:custom --data.root-dir DEST --data.seq-name SEQUENCE",
    "SEQUENCE is the one folder in DEST/images",
)
