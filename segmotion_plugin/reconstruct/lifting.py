"""2D tracks to 3D tracks in the world of the reconstruction.

Static tracks are triangulated. Tracks of moving objects take their depth from, in this order: a monocular depth model, brought to
scale by the static points of every frame; contact of the object with the static world; the place of the object that carries it, or
the range between what it hides and what hides it (both `guess`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import atomic_path
from segmotion_plugin.masks import MotionMasks
from segmotion_plugin.reconstruct.lifting_depth import Alignment, Kind
from segmotion_plugin.reconstruct.lifting_moving import LabelMaps, Sights, place_moving
from segmotion_plugin.reconstruct.lifting_triangulate import Observations, observations, triangulate
from segmotion_plugin.reconstruct.static_points import read_points
from segmotion_plugin.reconstruct.tracks_3d import SOURCES, Tracks3D, save_tracks_3d
from segmotion_plugin.tracks import TrackMotion, Tracks, load_tracks


def lift(
    cameras: Cameras,
    tracks: Tracks,
    motion: TrackMotion,
    labels: LabelMaps,
    points: np.ndarray | None = None,
    depth_map: Callable[[int], np.ndarray | None] | None = None,
    depth_kind: Kind = "disparity",
    *,
    seed: int = 0,
    on_alignment: Callable[[int, np.ndarray, Alignment], None] | None = None,
) -> Tracks3D:
    """Lift tracks to 3D.

    Args:
        cameras: the registered images (K).
        tracks: in pixels of these images, over all frames of the clip.
        motion: which of the tracks move, and to which object they belong.
        labels: K arrays H×W uint8 of object ids, read one at a time.
        points: M×3 static points of the reconstruction.
        depth_map: gives the h×w map of a monocular model for image k, or None.
        depth_kind: whether that map holds disparity or depth, up to a scale and a shift per frame.
        seed: of the robust fits.
        on_alignment: called with the image, the model's map and its fit, for every frame where there is one.

    Returns:
        Static tracks that pass the checks of triangulation, and every moving track seen by a registered image.
    """
    rng = np.random.default_rng(seed)
    seen = observations(tracks, cameras)
    moving = motion.object_id > 0
    static_rows = np.flatnonzero(~moving[seen.track])
    fixed = triangulate(cameras, seen.take(static_rows), len(tracks))
    solid = np.isfinite(fixed.xyz[:, 0])
    seen_by = np.zeros(len(tracks), bool)
    seen_by[seen.track[seen.visible]] = True
    ids = np.flatnonzero(solid | (moving & seen_by))
    result = _container(cameras, motion, ids, seen)
    static = ~moving[ids]
    result.xyz[static] = fixed.xyz[ids[static]][:, None]
    result.sigma[static] = fixed.sigma[ids[static]][:, None]
    if (~static).any():
        sights = Sights(cameras, np.zeros((0, 3)) if points is None else np.asarray(points, np.float64), seen, fixed.xyz)
        place_moving(cameras, seen, result, labels, sights, depth_map, depth_kind, rng, on_alignment)
    return result


def _container(cameras: Cameras, motion: TrackMotion, ids: np.ndarray, seen: Observations) -> Tracks3D:
    """Tracks without positions, with what is seen of them."""
    row_of = np.full(len(motion.object_id), -1, np.int64)
    row_of[ids] = np.arange(len(ids))
    here = np.flatnonzero(seen.visible & (row_of[seen.track] >= 0))
    visible = np.zeros((len(ids), len(cameras)), bool)
    visible[row_of[seen.track[here]], seen.camera[here]] = True
    return Tracks3D(
        np.full((len(ids), len(cameras), 3), np.nan, np.float32),
        visible,
        motion.object_id[ids].astype(np.int32),
        np.zeros(len(ids), np.uint8),
        np.full((len(ids), len(cameras)), np.nan, np.float32),
        ids.astype(np.int32),
        list(cameras.names),
        cameras.frame_index.copy(),
        cameras.cam_from_world.copy(),
        cameras.intrinsics(),
    )


def lift_folder(out: Path, *, seed: int = 0) -> dict[str, Any]:
    """Lift the tracks of a reconstructed folder: `motion/tracks.npz` to `motion/tracks_3d.npz`.

    Where a depth model ran (`motion/disparity/<stem>.npy`, h×w, of an image), its maps are brought to the scale of the
    reconstruction and also written to `motion/depth/<stem>.npy` (h×w float32 along the optical axis, NaN where unknown).

    Returns:
        Figures for the report: numbers of tracks, and per object how its depth was found, the share of the frames in which it is
        seen that have 3D positions, and the median relative uncertainty.

    Raises:
        SegmotionError: there are no cameras or no tracks.
    """
    from segmotion_plugin.reconstruct.job import load_cameras

    out = Path(out)
    cameras = load_cameras(out)
    if cameras is None or not len(cameras):
        raise SegmotionError(f"{out}: no reconstruction (colmap/sparse/0 is missing); make one with 'segmotion reconstruct {out}'")
    tracks, motion, _ = load_tracks(out / "motion" / "tracks.npz")
    disparity = out / "motion" / "disparity"

    def depth_map(k: int) -> np.ndarray | None:
        path = disparity / f"{Path(cameras.names[k]).stem}.npy"
        return np.load(path, allow_pickle=False).astype(np.float32) if path.is_file() else None

    def write_depth(k: int, values: np.ndarray, fit: Alignment) -> None:
        with atomic_path(out / "motion" / "depth" / f"{Path(cameras.names[k]).stem}.npy") as temporary:
            np.save(temporary, fit.depth(values).astype(np.float32))

    lifted = lift(
        cameras,
        tracks,
        motion,
        MotionMasks(out / "motion" / "objects", cameras.names),
        read_points(out).xyz,
        depth_map if disparity.is_dir() else None,
        seed=seed,
        on_alignment=write_depth,
    )
    written = save_tracks_3d(out / "motion" / "tracks_3d.npz", lifted)
    static = int((lifted.object_id == 0).sum())
    return {"status": "ok", "tracks": len(lifted), "written": written, "static": static, "objects": describe(lifted)}


def describe(tracks: Tracks3D) -> dict[str, dict[str, Any]]:
    """Figures of the moving objects by id.

    Number of tracks, how their depth was found ("none" where nothing tells it), share of the frames in which the object is seen that
    have positions, and the median relative uncertainty.
    """
    centers = -np.einsum("kji,kj->ki", tracks.cam_from_world[:, :, :3], tracks.cam_from_world[:, :, 3])
    result = {}
    for k in np.unique(tracks.object_id[tracks.object_id > 0]).tolist():
        own = tracks.object_id == k
        placed = tracks.visible[own] & np.isfinite(tracks.xyz[own][..., 0])
        reach = np.linalg.norm(tracks.xyz[own] - centers, axis=2)
        relative = (tracks.sigma[own] / np.maximum(reach, 1e-9))[placed]
        frames = tracks.visible[own].any(axis=0).sum()
        result[str(k)] = {
            "tracks": int(own.sum()),
            "depth": SOURCES[int(np.bincount(tracks.source[own]).argmax())] if placed.any() else "none",
            "share_of_frames": round(float(placed.any(axis=0).sum() / max(int(frames), 1)), 4),
            "relative_uncertainty": round(float(np.median(relative)), 4) if len(relative) else None,
        }
    return result
