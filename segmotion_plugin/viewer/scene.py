"""What there is to show of a processed folder."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.clip import read_rgb
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import read_json
from segmotion_plugin.ingest import load_frames_json
from segmotion_plugin.masks import read_grey
from segmotion_plugin.pictures import colour
from segmotion_plugin.reconstruct.lifting_contact import upward
from segmotion_plugin.reconstruct.tracks_3d import SOURCES, Tracks3D, load_tracks_3d
from segmotion_plugin.tracks import TrackMotion, Tracks, load_tracks

# More background points than these are thinned: they would only slow the browser.
_MOST_POINTS = 200_000
# Pictures from which triangulated tracks take their colours.
_COLOUR_VIEWS = 12


@dataclass(frozen=True)
class ObjectInfo:
    """A moving object: its id (from 1), RGB colour, number of tracks, how their depth was found, mean share of the pixels."""

    id: int
    colour: tuple[int, int, int]
    tracks: int
    source: str
    share: float

    @property
    def title(self) -> str:
        """One line for a switch; the share is that of the pixels."""
        depth = f", depth by {self.source}" if self.source else ""
        return f"object {self.id}: {self.tracks} tracks, {100 * self.share:.1f} %{depth}"


@dataclass
class Scene:
    """A processed folder, ready to be drawn.

    The time steps are the registered images where there are poses, otherwise all images.

    Attributes:
        out: the folder.
        names: K image names.
        frame_index: K int, index of each image's frame in the clip.
        fps: images per second.
        cameras: None without a reconstruction; then only pictures and 2D tracks can be shown.
        points: M×3 float32 static points (world of the reconstruction).
        point_colours: M×3 uint8.
        tracks: 3D tracks of moving objects; None where there are none.
        tracks_2d: 2D tracks of moving objects in pixels of the images, and their motion; None where there are none.
        objects: what moves.
        notes: what is missing, and what to do about it.
    """

    out: Path
    names: list[str]
    frame_index: np.ndarray
    fps: float
    cameras: Cameras | None
    points: np.ndarray
    point_colours: np.ndarray
    tracks: Tracks3D | None
    tracks_2d: tuple[Tracks, TrackMotion] | None
    objects: list[ObjectInfo]
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._small = functools.lru_cache(maxsize=400)(self._read_small)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def up(self) -> np.ndarray:
        """Unit world direction that points up."""
        return upward(self.cameras) if self.cameras is not None else np.array([0.0, -1.0, 0.0])

    @property
    def extent(self) -> float:
        """Median distance from the cameras to what is shown, in world units."""
        if self.cameras is None:
            return 1.0
        centers = self.cameras.centers()
        middle = np.median(centers, axis=0)
        if len(self.points):
            return float(np.median(np.linalg.norm(self.points - middle, axis=1)))
        return float(max(np.linalg.norm(centers - middle, axis=1).max(), 1.0))

    def image(self, k: int) -> np.ndarray:
        """Image k, H×W×3 uint8 RGB."""
        return read_rgb(self.out / "images" / self.names[k])

    def labels(self, k: int) -> np.ndarray:
        """Object ids of image k, H×W uint8; zeros where there is no such file."""
        path = self.out / "motion" / "objects" / f"{Path(self.names[k]).stem}.png"
        return read_grey(path) if path.is_file() else np.zeros(self.image(k).shape[:2], np.uint8)

    def picture(self, k: int, side: int, masks: bool) -> np.ndarray:
        """Image k with the longer side at most `side` pixels, the masks laid over or not; kept for the next time."""
        from segmotion_plugin.pictures import overlay

        image, labels = self._small(k, side)
        return overlay(image, labels) if masks else image

    def _read_small(self, k: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        import cv2

        image = self.image(k)
        factor = min(1.0, side / max(image.shape[:2]))
        size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
        return (
            cv2.resize(image, size, interpolation=cv2.INTER_AREA),
            cv2.resize(self.labels(k), size, interpolation=cv2.INTER_NEAREST),
        )


def load_scene(out: Path) -> Scene:
    """Read what there is of a processed folder.

    Raises:
        SegmotionError: it is none, or its list of frames is damaged or of another version.
    """
    out = Path(out)
    if not out.is_dir():
        raise SegmotionError(f"{out}: no such folder; give one made by 'segmotion run' or 'segmotion masks'")
    frames = load_frames_json(out)
    entries = [(e["name"], e["frame"]) for e in frames["images"]]
    rate, total = frames["fps"] or 24.0, frames["frame_count"]
    notes: list[str] = []
    cameras = _cameras(out, notes)
    names, index = [n for n, _ in entries], np.array([f for _, f in entries])
    if cameras is not None:
        if len(cameras) < len(names):
            notes.append(f"{len(names) - len(cameras)} of {len(names)} images have no pose and are not shown")
        names, index = list(cameras.names), cameras.frame_index
    lifted = _tracks_3d(out, cameras, notes)
    flat = None if lifted is not None else _tracks_2d(out, notes)
    points, colours = _points(out, cameras, lifted)
    moving = lifted.select(np.flatnonzero(lifted.object_id > 0)) if lifted is not None else None
    if moving is not None and not len(moving):
        notes.append("nothing that moves was tracked: only the static world and the cameras are shown")
        moving = None
    scene = Scene(out, names, index, rate * len(entries) / max(total, 1), cameras, points, colours, moving, flat, [], notes)
    scene.objects = _objects(out, moving, flat)
    return scene


def _cameras(out: Path, notes: list[str]) -> Cameras | None:
    from segmotion_plugin.reconstruct.job import load_cameras

    cameras = load_cameras(out)
    if cameras is None or not len(cameras):
        notes.append(
            f"there are no camera poses in {out}: pictures and 2D tracks are shown. Find cameras with 'segmotion reconstruct {out}'."
        )
        return None
    return cameras


def _tracks_3d(out: Path, cameras: Cameras | None, notes: list[str]) -> Tracks3D | None:
    if cameras is None:
        return None
    path = out / "motion" / "tracks_3d.npz"
    if not path.is_file():
        notes.append(f"there are no 3D tracks ({path}): make them with 'segmotion reconstruct {out}'")
        return None
    tracks = load_tracks_3d(path)
    if tracks.frame_index.tolist() != cameras.frame_index.tolist():
        raise SegmotionError(f"{path}: belongs to another reconstruction; make it again with 'segmotion reconstruct {out}'")
    return tracks


def _tracks_2d(out: Path, notes: list[str]) -> tuple[Tracks, TrackMotion] | None:
    path = out / "motion" / "tracks.npz"
    if not path.is_file():
        notes.append(f"there are no tracks ({path}): make them with 'segmotion masks INPUT {out}'")
        return None
    tracks, motion, _ = load_tracks(path)
    ids = np.flatnonzero(motion.object_id > 0)
    part = tracks.select(ids)
    if not len(ids):
        notes.append("nothing that moves was tracked")
        return None
    moving = tracks.dense(motion.moving_flat, False)[ids][part.track_flat, part.frame_flat]
    return part, TrackMotion(part, motion.probability[ids], moving, motion.object_id[ids])


def _points(out: Path, cameras: Cameras | None, tracks: Tracks3D | None) -> tuple[np.ndarray, np.ndarray]:
    """Static points: those of the reconstruction, and triangulated tracks."""
    if cameras is None:
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8)
    from segmotion_plugin.reconstruct.static_points import read_points

    sparse = read_points(out)
    xyz, rgb = [sparse.xyz.astype(np.float32)], [sparse.rgb]
    if tracks is not None:
        fixed = tracks.select(np.flatnonzero((tracks.object_id == 0) & np.isfinite(tracks.xyz[:, 0, 0])))
        known, colours = _colours(out, cameras, fixed)
        xyz.append(fixed.xyz[known, 0])
        rgb.append(colours)
    points, colours = np.concatenate(xyz), np.concatenate(rgb)
    step = -(-len(points) // _MOST_POINTS) if len(points) else 1
    return points[::step], colours[::step]


def _colours(out: Path, cameras: Cameras, tracks: Tracks3D) -> tuple[np.ndarray, np.ndarray]:
    """Which tracks are visible in one of a few images, and their colours there."""
    colours = np.zeros((len(tracks), 3), np.uint8)
    known = np.zeros(len(tracks), bool)
    for k in np.unique(np.linspace(0, len(cameras) - 1, _COLOUR_VIEWS).round().astype(int)).tolist():
        rows = np.flatnonzero(tracks.visible[:, k] & ~known)
        if not len(rows):
            continue
        image = read_rgb(out / "images" / cameras.names[k])
        xy, _ = cameras.project(tracks.xyz[rows, k], k)
        column = np.clip(np.floor(xy[:, 0]), 0, image.shape[1] - 1).astype(int)
        row = np.clip(np.floor(xy[:, 1]), 0, image.shape[0] - 1).astype(int)
        colours[rows], known[rows] = image[row, column], True
    return known, colours[known]


def _objects(out: Path, moving: Tracks3D | None, flat: tuple[Tracks, TrackMotion] | None) -> list[ObjectInfo]:
    path = out / "motion" / "report.json"
    try:
        shares = read_json(path)["masks"]["objects"] if path.is_file() else {}
    except (KeyError, TypeError, ValueError):
        shares = {}
    owner = moving.object_id if moving is not None else flat[1].object_id if flat is not None else np.zeros(0, int)
    ids = sorted({int(k) for k in np.unique(owner)} | {int(k) for k in shares})
    result = []
    for k in ids:
        source = ""
        if moving is not None and (moving.object_id == k).any():
            source = SOURCES[int(np.bincount(moving.source[moving.object_id == k]).argmax())]
        red, green, blue = (int(v) for v in colour(k))
        share = float(shares.get(str(k), {}).get("mean_share", 0.0))
        result.append(ObjectInfo(k, (red, green, blue), int((owner == k).sum()), source, share))
    return result
