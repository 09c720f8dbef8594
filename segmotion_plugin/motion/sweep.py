"""Whether the pictures allow that a cluster of tracks stays at one place of the world: a plane sweep.

Tracks slide along poles and hang on to a mover's rim, and then no fixed place explains them. The pictures know better: what a track
shows at its middle is looked for where it would be seen if it stood still at each of many depths (Collins, "A Space-Sweep Approach to
True Multi-Image Matching", CVPR 1996), and that is held against what is seen along the track.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

from segmotion_plugin.motion.clusters import Block, Cluster
from segmotion_plugin.motion.rigid_cameras import RigidCameras
from segmotion_plugin.motion.rigidity import Fitted
from segmotion_plugin.parallel import in_order
from segmotion_plugin.rawstore import RawStore

SWEPT = ("still places against tracks", "mismatch along tracks", "contrast of depths")

Pictures: TypeAlias = Sequence[np.ndarray] | np.ndarray | RawStore
"""T images, H×W×3 uint8 RGB or H×W uint8 grey."""

_AWAY = (-14, -9, -5, -2, 2, 5, 9, 14)  # frames from the middle of a track to those compared
_DEPTHS = 48
_NEAREST = 2.0  # how much nearer places are tried than almost all that seems static
_ACROSS, _STEP, _BLUR = 7, 1.5, 1.25  # points of a patch per side; their distance and the blur in pixels of an image 854 wide
_WORST = 40.0  # grey levels, at which differences are cut
_SOFT = 3.0  # grey levels, added before logarithms are taken
_BEFORE = 1e-3  # least depth before a camera
_ROWS = 512  # tracks that are compared at a time: each has some thousand points


@dataclass(frozen=True)
class Sweep:
    """Mean differences of patches in grey levels, each patch less its mean.

    Attributes:
        ids: n ascending indices of tracks.
        still: n×K, to what a point that stands still at K inverse depths would show; NaN where no picture has it.
        along: n, to what the track shows.
        frames: n, number of frames compared; 0 where nothing is known.
    """

    ids: np.ndarray
    still: np.ndarray
    along: np.ndarray
    frames: np.ndarray

    def channels(self, found: Sequence[Cluster]) -> np.ndarray:
        """Channels `SWEPT` of clusters of these tracks, one depth for all of each; NaN where nothing is known."""
        out = np.full((len(found), len(SWEPT)), np.nan)
        known = (self.frames > 0) & np.isfinite(self.still).all(axis=1)
        for row, cluster in enumerate(found):
            at = np.searchsorted(self.ids, cluster.members)
            at = at[known[at]]
            if len(at):
                weight = self.frames[at] / self.frames[at].sum()
                still, along = np.log(weight @ self.still[at] + _SOFT), np.log(weight @ self.along[at] + _SOFT)
                out[row] = still.min() - along, along, np.ptp(still)
        return out


def sweep(block: Block, fitted: Fitted, ids: np.ndarray, pictures: Pictures) -> Sweep:
    """Compare what tracks show at their middle with what is seen along them and at still places.

    Args:
        block: of the tracks.
        fitted: cameras of the block, with the tracks' nearness.
        ids: n ascending indices of tracks.
        pictures: of the clip, in the pixels of the tracks.
    """
    tracks = block.tracks
    first = np.maximum(tracks.first[ids], block.start)
    middle = (first + np.minimum(tracks.first[ids] + tracks.length[ids], block.stop) - 1) // 2
    xy = tracks.xy_flat[tracks.offset[ids] + middle - tracks.first[ids]].astype(float)
    views = _Views(block, pictures)
    shown = np.zeros((len(ids), _ACROSS**2), np.float32)
    middles = np.unique(middle).tolist()
    for frame in middles:
        here = middle == frame
        shown[here] = views(frame, xy[here][:, None])[:, 0]
    inverse = np.linspace(0, _NEAREST * fitted.nearest, _DEPTHS)
    still, inside = np.zeros((len(ids), _DEPTHS)), np.zeros((len(ids), _DEPTHS), int)
    along, count = np.zeros(len(ids)), np.zeros(len(ids), int)

    def compared(pair: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        frame, away = pair
        at = np.flatnonzero(middle == frame - away)
        place, seen = block.position(ids[at], frame)
        at, place = at[seen], place[seen]
        by_depth, on_track = np.zeros((len(at), _DEPTHS)), np.zeros(len(at))
        for begin in range(0, len(at), _ROWS):
            some = slice(begin, begin + _ROWS)
            still_place = _seen_from(fitted.cameras, xy[at[some]], frame - away, frame, inverse)
            seen_there = views(frame, np.concatenate([still_place, place[some, None]], axis=1))
            differs = np.minimum(np.abs(seen_there - shown[at[some], None]), _WORST).mean(axis=2)
            visible = np.all((still_place > 1) & (still_place < block.size - 1), axis=2)
            by_depth[some], on_track[some] = np.where(visible, differs[:, :-1], np.nan), differs[:, -1]
        return at, by_depth, on_track

    for at, by_depth, on_track in in_order(compared, _pairs(block, fitted.cameras, middles)):
        known = np.isfinite(by_depth)
        still[at] += np.where(known, by_depth, 0.0)
        inside[at] += known
        along[at] += on_track
        count[at] += 1
    still = np.where(inside > 0, still / np.maximum(inside, 1), np.nan)
    return Sweep(ids, still, along / np.maximum(count, 1), count)


def _pairs(block: Block, cameras: RigidCameras, middles: list[int]) -> Iterator[tuple[int, int]]:
    """Frames with a known camera to look at, and how far they are from one in which tracks have their middle."""
    known = set((np.flatnonzero(cameras.known) + cameras.start).tolist())
    for frame in range(block.start, block.stop):
        for away in _AWAY:
            if frame - away in middles and {frame, frame - away} <= known:
                yield frame, away


def _seen_from(cameras: RigidCameras, xy: np.ndarray, frame: int, other: int, inverse: np.ndarray) -> np.ndarray:
    """n×K×2 pixels where another frame shows what is at n×2 pixels of a frame if its inverse depth is one of K; NaN behind it."""
    here, there = frame - cameras.start, other - cameras.start
    sight = np.concatenate([(xy - cameras.center) / cameras.focal, np.ones((len(xy), 1))], axis=1)
    turn = cameras.rotation[there] @ cameras.rotation[here].T
    toward = cameras.translation[there] - turn @ cameras.translation[here]
    point = (sight @ turn.T)[:, None] + inverse[None, :, None] * toward
    depth = np.where(point[..., 2:] > _BEFORE, point[..., 2:], np.nan)
    return point[..., :2] / depth * cameras.focal + cameras.center


class _Views:
    """Patches of the pictures."""

    def __init__(self, block: Block, pictures: Pictures) -> None:
        self._pictures, self._blur, reach = pictures, _BLUR * block.unit, (_ACROSS - 1) / 2 * _STEP * block.unit
        x, y = np.meshgrid(*[np.linspace(-reach, reach, _ACROSS)] * 2)
        self._x, self._y = x.ravel() - 0.5, y.ravel() - 0.5  # OpenCV has the centre of the first pixel at 0
        self._last: tuple[int, np.ndarray] | None = None

    def __call__(self, frame: int, xy: np.ndarray) -> np.ndarray:
        """n×k×P float32 patches, each less its mean, around n×k×2 pixels of a frame; NaN is taken for the first pixel."""
        last = self._last
        if last is None or last[0] != frame:
            image = np.asarray(self._pictures[frame])
            image = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            last = self._last = frame, cv2.GaussianBlur(image, (0, 0), self._blur).astype(np.float32)
        image = last[1]
        # Far outside nothing is to be seen, and OpenCV's coordinates are short.
        xy = np.clip(np.nan_to_num(xy), -50, np.array(image.shape[::-1]) + 50)
        x, y = (axis.reshape(len(xy), -1).astype(np.float32) for axis in (xy[..., :1] + self._x, xy[..., 1:] + self._y))
        patch = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(*xy.shape[:2], -1)
        return np.asarray(patch - patch.mean(axis=2, keepdims=True))
