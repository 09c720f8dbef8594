"""Clips of labelled tracks for training, stored compactly, and how they are made from simulated worlds.

Two kinds: *exact* clips hold trajectories computed without pixels (cheap; the tracker's noise is imitated afresh at every use),
*tracked* clips were rendered to video and tracked by the real tracker (dear; their errors are real).
"""

from __future__ import annotations

import zipfile
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import atomic_path
from segmotion_plugin.simulation import scenes
from segmotion_plugin.simulation.field_scenes import FIELD_NAMES
from segmotion_plugin.simulation.geometry import camera_centers
from segmotion_plugin.simulation.primitives import Primitive
from segmotion_plugin.simulation.still_life import still_life
from segmotion_plugin.simulation.tracks import SimulatedTracks
from segmotion_plugin.simulation.world import World
from segmotion_plugin.simulation.worlds import random_world, uncrowded

_APPARENT_STRIDE = 4
_NAMED_SHARE = 0.3
_FIELD_SHARE = 0.6  # of the named scenes: those of the field, which real video has and random worlds lack
_STILL_LIFE_SHARE = 0.12
_NAMED_SEEDS = 10**6  # the named scenes of evaluations have smaller seeds
_Stored = TypeVar("_Stored", bound="StoredClip")


@dataclass
class StoredClip:
    """Arrays of a clip that are kept in a file; the kinds of clips add them as fields."""

    what: ClassVar[str]
    """Name of the kind, for messages."""

    def save(self, path: Path) -> None:
        """Write as an uncompressed npz, atomically (loading is on the training loop's path)."""
        with atomic_path(path) as temporary, open(temporary, "wb") as handle:
            np.savez(handle, **vars(self))

    @classmethod
    def load(cls: type[_Stored], path: Path) -> _Stored:
        """Read what `save` wrote.

        Raises:
            SegmotionError: not such a file.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                return cls(
                    **{
                        item.name: archive[item.name]
                        for item in fields(cls)
                        if item.name in archive or item.default_factory is MISSING
                    }
                )
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise SegmotionError(f"{path}: not a {cls.what} ({error}); delete it and it is made anew") from None


@dataclass
class TrainingClip(StoredClip):
    """N labelled tracks over T frames.

    Attributes:
        size: 2, width and height of the images.
        exact: 1 when the tracks are exact and need a tracker's noise, else 0.
        xy: N×T×2 float32, NaN where unknown.
        visible: N×T bool.
        confidence: N×T float16.
        depth: N×T float16 metres; inf for the sky.
        moving: N×T bool, the track's object moves at that frame.
        apparent: N×T float16, pixels that the point's own motion made over four frames; NaN where unknown.
        surface: N int32 ids of surfaces.
        kind: N int32 classes of things, shared by movers and their parked twins; -1 where unknown.
        start: N int32, first frame of the track.
        features: N×D float16 semantic features; D = 0 when they are drawn from `kind`.
        stuff: N bool, moves without being of an object (flowing water, spray); none where empty.
    """

    what = "training clip"

    size: np.ndarray
    exact: np.ndarray
    xy: np.ndarray
    visible: np.ndarray
    confidence: np.ndarray
    depth: np.ndarray
    moving: np.ndarray
    apparent: np.ndarray
    surface: np.ndarray
    kind: np.ndarray
    start: np.ndarray
    features: np.ndarray
    stuff: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))


def apparent_motion(world: World, tracks: SimulatedTracks) -> np.ndarray:
    """N×T float16: distance in pixels between where a point is and where it would be had it stopped four frames ago."""
    cameras = world.cam_from_world
    before = np.maximum(np.arange(world.num_frames) - _APPARENT_STRIDE, 0)
    stopped = np.einsum("tij,ntj->nti", cameras[:, :, :3], tracks.xyz[:, before]) + cameras[:, :, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = stopped[..., :2] / stopped[..., 2:] * world.focals[:, None] + np.array([world.width / 2, world.height / 2])
        distance = np.linalg.norm(tracks.xy - pixels, axis=2)
    distance[(stopped[..., 2] <= 0) | ~np.isfinite(distance)] = np.nan
    return np.minimum(distance, 1e4).astype(np.float16)


def named_scene(rng: np.random.Generator, name: str, frames: int, size: tuple[int, int]) -> World:
    """A scene of a named kind with a seed that no test and no evaluation uses."""
    return scenes.build(name, int(rng.integers(_NAMED_SEEDS, 2**31)), frames, *size)


def random_scene(rng: np.random.Generator, frames: int, size: tuple[int, int], named_share: float) -> World:
    """A random world, or by chance one of the named kinds of scene with a seed that no test uses."""
    if rng.random() < named_share:
        names = FIELD_NAMES if rng.random() < _FIELD_SHARE else scenes.NAMES
        return named_scene(rng, names[rng.integers(len(names))], frames, size)
    return random_world(rng, num_frames=frames, width=size[0], height=size[1])


def _at_frames(item: Primitive, frames: np.ndarray) -> Primitive:
    """The primitive as it is at some frames."""
    pose = item.pose[frames] if item.pose.ndim == 3 else item.pose
    return replace(item, pose=pose, stretch=None if item.stretch is None else item.stretch[frames])


def sped_up(world: World, step: int) -> World:
    """The world seen at every `step`-th frame only: fast movers, of which a tracker loses much."""
    seen = [_at_frames(item, np.arange(0, world.num_frames, step)) for item in world.primitives]
    zoom = None if world.zoom is None else world.zoom[::step]
    return replace(world, primitives=seen, cam_from_world=world.cam_from_world[::step], zoom=zoom)


def hurried(world: World, step: int) -> World:
    """The world without its movers, seen at every `step`-th frame only."""
    return sped_up(replace(world, primitives=[item for item in world.primitives if item.object_id == 0]), step)


def parked(world: World, frame: int, step: int) -> World:
    """The world with its movers at rest where they are at `frame`, seen at every `step`-th frame only.

    The camera goes round them or after them as it did when they moved: a salient near thing, and yet nothing moves.
    """
    cameras = world.cam_from_world[::step]
    still = []
    for item in world.primitives:
        shown = np.full(len(cameras), frame) if item.object_id else np.arange(0, world.num_frames, step)
        still.append(replace(_at_frames(item, shown), object_id=0))
    zoom = None if world.zoom is None else world.zoom[::step]
    return replace(world, primitives=uncrowded(still, camera_centers(cameras)), cam_from_world=cameras, zoom=zoom)


def exact_clip(seed: int, num_tracks: int = 1500) -> TrainingClip:
    """Trajectories of a random world; no pixels are rendered."""
    rng = np.random.default_rng(seed)
    frames = int(rng.choice([32, 48, 64, 80]))
    still = rng.random() < _STILL_LIFE_SHARE
    world = still_life(rng, frames, 854, 480) if still else random_scene(rng, frames, (854, 480), _NAMED_SHARE)
    queries = np.unique(np.append(0, rng.integers(0, frames - 2, 7)))
    tracks = world.sample_tracks(rng, num_tracks, [int(q) for q in queries])
    return TrainingClip(
        size=np.array([world.width, world.height]),
        exact=np.array(1),
        xy=tracks.xy,
        visible=tracks.visible,
        confidence=tracks.visible.astype(np.float16),
        depth=np.minimum(tracks.depth, 6e4).astype(np.float16),
        moving=tracks.moving,
        apparent=apparent_motion(world, tracks),
        surface=tracks.primitive,
        kind=tracks.class_id,
        start=np.where(tracks.query_frame == 0, 0, tracks.query_frame).astype(np.int32),
        features=np.zeros((len(tracks.xy), 0), np.float16),
        stuff=tracks.stuff,
    )


def pool(folder: Path) -> list[Path]:
    """Stored clips of a folder, in the order of their seeds."""
    return sorted(Path(folder).glob("clip_*.npz"))


def clip_path(folder: Path, seed: int) -> Path:
    """Where the clip of a seed is stored."""
    return Path(folder) / f"clip_{seed:09d}.npz"
