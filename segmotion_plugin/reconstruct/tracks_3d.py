"""Tracks in the world of the reconstruction, and their file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import write_npz
from segmotion_plugin.reading import read_arrays

# How the depth of a track was found.
SOURCES = ("triangulated", "depth-model", "contact", "guess")

# A track file is cut to this many (track, frame) cells, moving tracks first.
_FILE_CELLS = 8_000_000


@dataclass
class Tracks3D:
    """N tracks over the K registered frames of a clip, in world coordinates of the reconstruction.

    Attributes:
        xyz: N×K×3 float32; NaN where nothing is known (moving tracks outside their run).
        visible: N×K bool.
        object_id: N int32, 0 = static.
        source: N uint8, index into `SOURCES`: how the depth was found.
        sigma: N×K float32, standard deviation of the position in world units; NaN where nothing is known.
        track_index: N int32, index of each track in `motion/tracks.npz`.
        names: K image names.
        frame_index: K int64, index of each image's frame in the clip.
        cam_from_world: K×3×4 float64.
        intrinsics: 3×3 float64.
    """

    xyz: np.ndarray
    visible: np.ndarray
    object_id: np.ndarray
    source: np.ndarray
    sigma: np.ndarray
    track_index: np.ndarray
    names: list[str]
    frame_index: np.ndarray
    cam_from_world: np.ndarray
    intrinsics: np.ndarray

    def __len__(self) -> int:
        return len(self.object_id)

    def select(self, ids: np.ndarray) -> Tracks3D:
        """Some of the tracks."""
        return Tracks3D(
            self.xyz[ids],
            self.visible[ids],
            self.object_id[ids],
            self.source[ids],
            self.sigma[ids],
            self.track_index[ids],
            self.names,
            self.frame_index,
            self.cam_from_world,
            self.intrinsics,
        )


def save_tracks_3d(path: Path, tracks: Tracks3D) -> int:
    """Write `motion/tracks_3d.npz`, our own layout. Returns how many tracks were written.

    Keys (T registered images, N tracks): coords T×N×3 float32 world positions (NaN where unknown), extrinsics T×4×4 (camera from
    world), intrinsics T×3×3, visibs T×N bool, sigma T×N float32 (standard deviation in world units), object_id N,
    depth_source N (text), track_index N, frame_index T, names T. Where T × N is too large, static tracks are thinned first.
    """
    budget = max(1, _FILE_CELLS // max(1, len(tracks.names)))
    if len(tracks) > budget:
        seen = tracks.visible.sum(axis=1) + (tracks.object_id > 0) * (len(tracks.names) + 1)
        tracks = tracks.select(np.sort(np.argsort(-seen, kind="stable")[:budget]))
    count = len(tracks.names)
    extrinsics = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
    extrinsics[:, :3] = tracks.cam_from_world
    write_npz(
        path,
        coords=tracks.xyz.transpose(1, 0, 2),
        extrinsics=extrinsics,
        intrinsics=np.tile(tracks.intrinsics.astype(np.float32), (count, 1, 1)),
        visibs=tracks.visible.T,
        sigma=tracks.sigma.T,
        object_id=tracks.object_id,
        depth_source=np.array(SOURCES)[tracks.source],
        track_index=tracks.track_index,
        frame_index=tracks.frame_index,
        names=np.array(tracks.names),
        format=np.array(2),  # 1 (0.1.0) had no such key and called sigma unc_metric
    )
    return len(tracks)


def _check_layout(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Raise SegmotionError where shapes or types are not those that `save_tracks_3d` writes (T frames, N tracks)."""
    shape = arrays["coords"].shape
    frames, count = shape[:2] if len(shape) == 3 else (-1, -1)
    wanted: dict[str, tuple[tuple[int, ...], str]] = {
        "coords": ((frames, count, 3), "f"),
        "extrinsics": ((frames, 4, 4), "f"),
        "intrinsics": ((frames, 3, 3), "f"),
        "visibs": ((frames, count), "fbiu"),
        "object_id": ((count,), "iu"),
        "depth_source": ((count,), "US"),
        "frame_index": ((frames,), "iu"),
        "sigma": ((frames, count), "f"),
        "track_index": ((count,), "iu"),
        "names": ((frames,), "US"),
    }
    for name, (size, kinds) in wanted.items():
        array = arrays.get(name)
        if array is not None and (array.shape != size or array.dtype.kind not in kinds):
            raise SegmotionError(
                f"{path}: {name} is an array {array.shape} of {array.dtype}, which does not fit; "
                "make it again with 'segmotion reconstruct'"
            )


def load_tracks_3d(path: Path) -> Tracks3D:
    """Read `motion/tracks_3d.npz`.

    Raises:
        SegmotionError: the file is missing, damaged or of another layout.
    """
    path = Path(path)
    if not path.is_file():
        raise SegmotionError(f"{path}: no such file; it is made by 'segmotion reconstruct OUT'")
    arrays = read_arrays(path, "track file", "make it again with 'segmotion reconstruct'")
    lacking = {"coords", "extrinsics", "intrinsics", "visibs", "object_id", "depth_source", "frame_index"} - set(arrays)
    if lacking:
        raise SegmotionError(
            f"{path}: of another version, it lacks {', '.join(sorted(lacking))}; make it again with 'segmotion reconstruct'"
        )
    coords, sources = arrays["coords"], arrays["depth_source"]
    _check_layout(path, arrays)
    if not set(np.unique(sources)) <= set(SOURCES):
        raise SegmotionError(
            f"{path}: unknown depth sources {', '.join(sorted(set(np.unique(sources)) - set(SOURCES)))}"
        )
    return Tracks3D(
        xyz=np.ascontiguousarray(coords.transpose(1, 0, 2), np.float32),
        visible=arrays["visibs"].T.astype(bool),
        object_id=arrays["object_id"].astype(np.int32),
        source=np.array([SOURCES.index(s) for s in sources], np.uint8),
        sigma=arrays.get("sigma", np.full(coords.shape[:2], np.nan, np.float32)).T,
        track_index=arrays.get("track_index", np.arange(coords.shape[1])).astype(np.int32),
        names=[str(name) for name in arrays.get("names", np.arange(len(coords)))],
        frame_index=arrays["frame_index"].astype(np.int64),
        cam_from_world=arrays["extrinsics"][:, :3].astype(np.float64),
        intrinsics=arrays["intrinsics"][0].astype(np.float64) if len(coords) else np.eye(3),
    )
