"""Whether clusters of tracks stay at one place of a world seen by moving cameras: reprojection errors, pooled.

A pole close to the camera parts from everything around it and is rigid with the world all the same; over many frames that shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from segmotion_plugin.motion.clusters import Block, Cluster
from segmotion_plugin.motion.depth_order import depth_order, level_of
from segmotion_plugin.motion.rigid_cameras import RigidCameras, solve

RIGID = (
    "residual to cameras", "residual to cameras, across", "residual of median motion", "residual of median motion, across",
    "in front", "noise of cameras", "behind all around", "before all around", "parallax",
)  # fmt: skip

_SEEMS_STATIC = -1.0  # logit of the tracks that tell the noise
_FEWEST = 8  # tracks of one of these that prove anything
_LONG = 6  # observations of a track or of a median motion that can be tested
_SHORT = 5  # the same for members of a cluster
_DOUBTED = 2.5  # logarithm of an error over the noise, beyond which a track is no more in doubt
_BY_ERROR, _BY_ORDER = 0.5, 1.0  # log odds by which that, and a place behind or before all around, raise a candidate
_ORDER = 0.5  # logarithm of a ratio of nearness, beyond which it tells no more
_NOISIEST = 1.5  # pixels of an image 854 wide; noisier cameras tell nothing
_NOISIEST_PROOF = 0.6  # same pixels; beyond it slow movers would be taken for static ones
_MOST = 6.0  # same pixels; what is worse is equally bad
_SOFT, _SOFT_MEDIAN = 0.3, 0.1  # same pixels, added before logarithms are taken
_ROUNDS, _SCALE = 4, 3.0  # of robust triangulation, and the scale of its weights, same pixels
_EXPLAINED = (4.0, 7.0)  # errors over the noise, of one half and of three quarters of a cluster that is static
_SEEMS_STILL = -0.5  # logit of tracks that tell how near the world is around others
_NEAREST = 2.0  # how much nearer it may be than the nearest of what seems static
_NEAR_PERCENTILE = 95
_FAR_OFF = 100.0  # same pixels, at which errors are cut


@dataclass(frozen=True)
class Misfit:
    """How far n points are from staying at one place, in pixels of an image 854 wide; NaN without observations.

    Attributes:
        error: n, root mean square distance to the projections of the best place.
        across: n, its horizontal part.
        in_front: n, share of the observations for which that place is in front of the camera.
        nearness: n, mean of its inverse depths, 1 for the middle one of the tracks that told the cameras; 0 far away, negative
            where the lines of sight meet behind the cameras.
        observations: n.
    """

    error: np.ndarray
    across: np.ndarray
    in_front: np.ndarray
    nearness: np.ndarray
    observations: np.ndarray


def misfit(cameras: RigidCameras, unit: float, point: np.ndarray, frame: np.ndarray, xy: np.ndarray, count: int) -> Misfit:
    """Find the place of points from all their observations and tell what is left.

    Every point has its inverse depth in the view of the middle one of its observations, and a shift common to all of them, which
    takes the noise of that one away. Both are found in turn by least squares, linear in the inverse depth once lines of sight are
    multiplied out (Hartley and Zisserman, "Multiple View Geometry", 12.2) and weighted by the last round's depths and errors.

    Args:
        cameras: of the frames.
        unit: pixels per pixel of an image 854 wide.
        point: m ascending indices below `count`.
        frame: m frames of the clip, ascending for each point.
        xy: m×2 pixels.
        count: n points.
    """
    at = frame - cameras.start
    usable = (at >= 0) & (at < len(cameras.known))
    usable[usable] = cameras.known[at[usable]]
    point, at, place = point[usable], at[usable], (xy[usable] - cameras.center) / cameras.focal
    number = np.bincount(point, minlength=count)
    some = np.flatnonzero(number)
    if not len(some):
        unknown = np.full(count, np.nan)
        return Misfit(unknown, unknown, unknown, unknown, number)
    begin = (np.cumsum(number) - number)[some]
    anchor = begin + number[some] // 2
    sight = np.concatenate([place[anchor], np.ones((len(some), 1))], axis=1)
    turned = cameras.rotation[at[anchor]]
    direction = np.einsum("nji,nj->ni", turned, sight)  # in the world
    centre = -np.einsum("nji,nj->ni", turned, cameras.translation[at[anchor]])
    which = np.repeat(np.arange(len(some)), number[some])
    # A point is seen along `far` + its inverse depth * `toward`.
    far = np.einsum("mij,mj->mi", cameras.rotation[at], direction[which])
    toward = np.einsum("mij,mj->mi", cameras.rotation[at], centre[which]) + cameras.translation[at]
    slope = toward[:, :2] - place * toward[:, 2:]
    offset = place * far[:, 2:] - far[:, :2]
    inverse, shift = np.zeros(len(some)), np.zeros((len(some), 2))
    weight, depth, rest = np.ones(len(point)), far[:, 2], np.zeros_like(place)
    for _ in range(_ROUNDS):
        wanted = offset + shift[which] * depth[:, None]
        above = np.add.reduceat(weight * (slope * wanted).sum(axis=1), begin)
        below = np.add.reduceat(weight * (slope**2).sum(axis=1), begin)
        inverse = above / (below + 1e-12)
        depth = far[:, 2] + inverse[which] * toward[:, 2]
        depth = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
        rest = (far[:, :2] + inverse[which][:, None] * toward[:, :2]) / depth[:, None] - place
        robust = 1 / (1 + (((rest - shift[which]) * (cameras.focal / unit)) ** 2).sum(axis=1) / _SCALE**2)
        total = np.add.reduceat(robust, begin)
        shift = np.stack([np.add.reduceat(robust * rest[:, axis], begin) / total for axis in (0, 1)], axis=1)
        weight = robust / depth**2
    rest = (rest - shift[which]) * (cameras.focal / unit)
    near = inverse[which] / depth
    values = ((rest**2).sum(axis=1), rest[:, 0] ** 2, near > 0, near)
    bound = _FAR_OFF**2
    means = [np.bincount(point, np.clip(value, -bound, bound), count) / np.maximum(number, 1) for value in values]
    for mean in means:
        mean[number == 0] = np.nan
    return Misfit(np.sqrt(means[0]), np.sqrt(means[1]), means[2], means[3], number)


@dataclass(frozen=True)
class Fitted:
    """Cameras, and how tracks fit them.

    Attributes:
        cameras: of the block.
        tracks: misfit of all N tracks.
        noise: median error of those that seem static, pixels of an image 854 wide.
        noise_across: its horizontal part.
        nearest: nearness that few of these exceed.
    """

    cameras: RigidCameras
    tracks: Misfit
    noise: float
    noise_across: float
    nearest: float


class Rigidity:
    """Cameras of a block, solved when first asked for, and how tracks fit them.

    Args:
        block: the tracks.
        logit: N log odds that a track moves.
    """

    def __init__(self, block: Block, logit: np.ndarray) -> None:
        self.block, self.logit = block, logit

    @cached_property
    def fitted(self) -> Fitted | None:
        """Cameras and their noise; None where no cameras are found, or ones too noisy to tell anything."""
        block = self.block
        cameras = solve(block, self.logit)
        if cameras is None:
            return None
        row, number, frame = block.rows(np.arange(len(self.logit)))
        seen = block.tracks.visible_flat[row]
        xy = block.tracks.xy_flat[row[seen]].astype(float)
        tracks = misfit(cameras, block.unit, number[seen], frame[seen], xy, len(self.logit))
        static = (self.logit < _SEEMS_STATIC) & (tracks.observations >= _LONG)
        if not static.any() or not np.median(tracks.error[static]) <= _NOISIEST:
            return None
        noise = float(np.median(tracks.error[static]))
        fits = static & (tracks.error <= _EXPLAINED[0] * noise + _SOFT)
        nearest = float(np.percentile(tracks.nearness[fits], _NEAR_PERCENTILE))
        return Fitted(cameras, tracks, noise, float(np.median(tracks.across[static])), nearest)

    @cached_property
    def depth(self) -> tuple[np.ndarray, np.ndarray]:
        """N levels (`level_of`) of the tracks, NaN where unknown, and N flags of still ones, which tell how near the world is."""
        if self.fitted is None:
            return np.full(len(self.logit), np.nan), np.zeros(len(self.logit), bool)
        tracks = self.fitted.tracks
        known = tracks.observations >= _SHORT
        still = known & (self.logit < _SEEMS_STILL) & (tracks.error <= _EXPLAINED[0] * self.fitted.noise + _SOFT)
        return np.where(known, level_of(tracks.nearness), np.nan), still & (tracks.nearness > 0)

    @cached_property
    def order(self) -> tuple[np.ndarray, np.ndarray]:
        """`depth_order` of the N tracks; NaN where nothing tells."""
        return depth_order(self.block, *self.depth)

    @cached_property
    def doubt(self) -> np.ndarray:
        """N log odds by which a track that does not fit a still world is the likelier to be a candidate; 0 where nothing tells.

        Too little to judge a track by, since what flow drags along and what sways does not fit either.
        """
        if self.fitted is None:
            return np.zeros(len(self.logit))
        tracks = self.fitted.tracks
        error = np.where(tracks.observations >= _SHORT, _over(tracks.error, self.fitted.noise, _SOFT), 0.0)
        misplaced = np.nan_to_num(np.fmax(*self.order))
        return _BY_ERROR * np.clip(error, 0, _DOUBTED) + _BY_ORDER * np.clip(misplaced, 0, 1)

    def channels(self, found: Sequence[Cluster]) -> np.ndarray:
        """Channels `RIGID` of K clusters, K×9; NaN where they could not be measured."""
        out = np.full((len(found), len(RIGID)), np.nan)
        if not found or self.fitted is None:
            return out
        cameras, tracks, noise, noise_across = self.fitted.cameras, self.fitted.tracks, self.fitted.noise, self.fitted.noise_across
        centre = -np.einsum("tji,tj->ti", cameras.rotation, cameras.translation) * (cameras.focal / self.block.unit)
        for row, cluster in enumerate(found):
            inside = cluster.members[tracks.observations[cluster.members] >= _SHORT]
            if len(inside):
                weight = tracks.observations[inside]
                out[row, 0] = np.average(_over(tracks.error[inside], noise, _SOFT), weights=weight)
                out[row, 1] = np.average(_over(tracks.across[inside], noise_across, _SOFT), weights=weight)
            for column, order in enumerate(self.order, start=6):
                told = order[inside]
                told = np.clip(told[np.isfinite(told)], -_ORDER, _ORDER)
                out[row, column] = told.mean() if len(told) else np.nan
            lives = slice(cluster.first - cameras.start, cluster.last + 1 - cameras.start)
            placed = centre[lives][cameras.known[lives]]
            out[row, 8] = np.log(np.sqrt(placed.var(axis=0).sum()) + _SOFT) if len(placed) > 1 else np.nan
        paths = [_median_motion(self.block, cluster) for cluster in found]
        number = np.repeat(np.arange(len(found)), [len(path) for _, path in paths])
        frame = np.concatenate([first + np.arange(len(path)) for first, path in paths])
        places = np.concatenate([path for _, path in paths])
        whole = misfit(cameras, self.block.unit, number, frame, places, len(found))
        long = whole.observations >= _LONG
        out[long, 2] = _over(whole.error[long], noise, _SOFT_MEDIAN)
        out[long, 3] = _over(whole.across[long], noise_across, _SOFT_MEDIAN)
        out[long, 4] = whole.in_front[long]
        out[:, 5] = np.log(noise + _SOFT_MEDIAN)
        return out

    def explained(self, found: Sequence[Cluster]) -> np.ndarray:
        """K flags of clusters most of whose tracks stay at one place each, as well as static tracks do.

        That one half does and three quarters nearly do is as good as proof for many tracks, not for few. But whatever goes along the
        camera's own path stays at some place, too, most often one much nearer than the ground it stands on: that proves nothing.
        """
        out = np.zeros(len(found), bool)
        if not found or self.fitted is None:
            return out
        tracks = self.fitted.tracks
        bounds = np.array(_EXPLAINED) * min(self.fitted.noise, _NOISIEST_PROOF) + _SOFT
        for row, cluster in enumerate(found):
            weight = tracks.observations[cluster.members]
            long = weight >= _LONG
            # Without long tracks nothing is proven.
            if long.sum() >= _FEWEST and 2 * weight[long].sum() > weight.sum():
                inside = cluster.members[long]
                shares = [np.average(tracks.error[inside] < bound, weights=weight[long]) for bound in bounds]
                # Lines of sight that meet close behind the cameras are no better than ones that meet close before them.
                near = float(np.median(np.abs(tracks.nearness[inside])))
                out[row] = bool(shares[0] > 0.5 and shares[1] > 0.75 and near <= _NEAREST * self.fitted.nearest)
        return out


def _over(error: np.ndarray, noise: float, soft: float) -> np.ndarray:
    """Logarithms of errors over the noise."""
    return np.log(np.minimum(error, _MOST) + soft) - np.log(noise + soft)


def _median_motion(block: Block, cluster: Cluster) -> tuple[int, np.ndarray]:
    """First frame and f×2 positions of one point that makes the median step of the members at every frame.

    Over the longest time in which a member is always seen: what single tracks slide along an edge cancels out.
    """
    row, number, frame = block.rows(cluster.members)
    path = np.full((len(cluster.members), cluster.last - cluster.first + 1, 2), np.nan)
    seen = block.tracks.visible_flat[row]
    path[number[seen], frame[seen] - cluster.first] = block.tracks.xy_flat[row[seen]]
    step = np.sort(np.diff(path, axis=1), axis=0)  # unknown ones last
    count = np.isfinite(step[..., 0]).sum(axis=0)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], count > 0, [0]]).astype(int)))
    begin, end = edges[::2], edges[1::2]
    if not len(begin):
        return cluster.first, np.zeros((0, 2))
    longest = int(np.argmax(end - begin))
    at = np.arange(begin[longest], end[longest])
    middle = (step[(count[at] - 1) // 2, at] + step[count[at] // 2, at]) / 2
    moved = np.concatenate([np.zeros((1, 2)), np.cumsum(middle, axis=0)])
    offset = (path[:, at[0] : at[-1] + 2] - moved).reshape(-1, 2)
    return cluster.first + int(at[0]), moved + np.median(offset[np.isfinite(offset[:, 0])], axis=0)
