"""A COLMAP model from cameras that are given: its points are the static tracks, triangulated."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.clip import read_rgb
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.reconstruct.lifting_triangulate import observations, triangulate
from segmotion_plugin.tracks import TrackMotion, Tracks

# With fewer points the cameras and the tracks have nothing to do with each other.
_LEAST_POINTS = 20


def write_posed_model(folder: Path, images: Path, cameras: Cameras, tracks: Tracks, motion: TrackMotion) -> int:
    """Write cameras and static points as a COLMAP model.

    Args:
        folder: where the model goes (`sparse/0`).
        images: folder of the images, for the points' colours.
        cameras: of K images.
        tracks: in pixels of these images.
        motion: which of them move.

    Returns:
        The number of points.

    Raises:
        SegmotionError: too few tracks fit the cameras.
    """
    import pycolmap

    seen = observations(tracks, cameras)
    seen = seen.take(np.flatnonzero(~(motion.object_id > 0)[seen.track] & seen.visible))
    xyz = triangulate(cameras, seen, len(tracks)).xyz
    seen = seen.take(np.flatnonzero(np.isfinite(xyz[:, 0])[seen.track]))
    ids = np.unique(seen.track)
    if len(ids) < _LEAST_POINTS:
        raise SegmotionError(
            f"only {len(ids)} static tracks fit the given poses; are they this clip's, in its order, and is the focal length right?"
        )
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(model=cameras.model, width=cameras.width, height=cameras.height, params=cameras.params.tolist(), camera_id=1)
    )
    color = np.zeros((len(tracks), 3), np.uint8)
    elements: dict[int, list[tuple[int, int]]] = {int(k): [] for k in ids}
    for k, name in enumerate(cameras.names):
        rows = np.flatnonzero(seen.camera == k)
        xy = seen.xy[rows].astype(np.float64)
        picture = read_rgb(images / name)
        place = np.clip(np.floor(xy).astype(np.int64), 0, (cameras.width - 1, cameras.height - 1))
        color[seen.track[rows]] = picture[place[:, 1], place[:, 0]]
        for position, track in enumerate(seen.track[rows].tolist()):
            elements[track].append((k + 1, position))
        image = pycolmap.Image(name=name, keypoints=xy.reshape(-1, 2), camera_id=1, image_id=k + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(cameras.cam_from_world[k]))
    for number, parts in elements.items():
        track = pycolmap.Track()
        for image_id, position in parts:
            track.add_element(image_id, position)
        model.add_point3D(xyz[number], track, color[number])
    model.update_point_3d_errors()
    folder.mkdir(parents=True, exist_ok=True)
    model.write_binary(folder)
    return len(ids)
