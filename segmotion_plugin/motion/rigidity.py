"""Whether clusters of tracks stay at one place of a world seen by moving cameras: reprojection errors, pooled.

A pole close to the camera parts from everything around it and is rigid with the world all the same; over many frames that shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from segmotion_plugin.motion.clusters import Block, Cluster
from segmotion_plugin.motion.rigid_cameras import RigidCameras, solve

RIGID = (
    "residual to cameras", "residual to cameras, across", "residual of median motion", "residual of median motion, across",
    "in front", "noise of cameras",
)  # fmt: skip

_SEEMS_STATIC = -1.0  # logit of the tracks that tell the noise
_SAMPLE = 400  # of them
_SAMPLE_OF_LARGE = 1000  # of the tracks of all larger clusters
_FEWEST = 8  # tracks of one of these that prove anything
_LONG = 6  # observations of a track or of a median motion that can be tested
_SHORT = 5  # the same for members of a cluster
_NOISIEST = 1.5  # pixels of an image 854 wide; noisier cameras tell nothing
_NOISIEST_PROOF = 0.6  # same pixels; beyond it slow movers would be taken for static ones
_MOST = 6.0  # same pixels; what is worse is equally bad
_SOFT, _SOFT_MEDIAN = 0.3, 0.1  # same pixels, added before logarithms are taken
_ROUNDS, _SCALE = 4, 3.0  # of robust triangulation, and the scale of its weights, same pixels
_EXPLAINED = (4.0, 7.0)  # errors over the noise, of one half and of three quarters of a cluster that is static
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
        nearness: n, mean of its inverse depths, 1 for the middle one of the tracks that told the cameras; 0 far away.
        observations: n.
    """

    error: np.ndarray
    across: np.ndarray
    in_front: np.ndarray
    nearness: np.ndarray
    observations: np.ndarray


def misfit(cameras: RigidCameras, unit: float, point: np.ndarray, frame: np.ndarray, xy: np.ndarray, count: int) -> Misfit:
    """Triangulate points from all their observations and tell what is left.

    The linear method (Hartley and Zisserman, "Multiple View Geometry", 12.2) with the weights of the last round, which also count
    far-off observations less.

    Args:
        cameras: of the frames.
        unit: pixels per pixel of an image 854 wide.
        point: m ascending indices below `count`.
        frame: m frames of the clip.
        xy: m×2 pixels.
        count: n points.
    """
    at = frame - cameras.start
    usable = (at >= 0) & (at < len(cameras.known))
    usable[usable] = cameras.known[at[usable]]
    point, at, place = point[usable], at[usable], (xy[usable] - cameras.center) / cameras.focal
    number = np.bincount(point, minlength=count)
    some = np.flatnonzero(number)
    begin = (np.cumsum(number) - number)[some]
    pose = np.concatenate([cameras.rotation, cameras.translation[..., None]], axis=2)[at]
    rows = place[:, :, None] * pose[:, 2:] - pose[:, :2]
    squares = rows.transpose(0, 2, 1) @ rows
    inside = np.zeros(count, np.int64)
    inside[some] = np.arange(len(some))
    error, across, front, near = (np.full(count, np.inf) for _ in range(4))
    # A camera that hardly moves would put points into its own centre, which no line misses, so that far away is tried, too.
    for columns in (3, 4):
        weight, rest, ahead, inverse = np.ones(len(point)), np.zeros((len(point), 2)), np.zeros(len(point)), np.zeros(len(point))
        for _ in range(_ROUNDS if len(some) else 0):
            normal = np.add.reduceat(squares[:, :columns, :columns] * weight[:, None, None], begin)
            normal /= np.maximum(np.trace(normal, axis1=1, axis2=2), 1e-30)[:, None, None]
            position = np.linalg.eigh(normal)[1][:, :, 0]
            view = np.einsum("mij,mj->mi", pose[:, :, :columns], position[inside[point]])
            depth = np.where(np.abs(view[:, 2]) < 1e-9, 1e-9, view[:, 2])
            rest = (view[:, :2] / depth[:, None] - place) * (cameras.focal / unit)
            weight = 1 / (depth**2 * (1 + (rest**2).sum(axis=1) / _SCALE**2))
            if columns == 4:
                inverse = position[inside[point], 3] / depth
            ahead = (inverse > 0).astype(float) if columns == 4 else np.ones(len(point))
        values = ((rest**2).sum(axis=1), rest[:, 0] ** 2, ahead, np.abs(inverse))
        means = [np.bincount(point, np.minimum(value, _FAR_OFF**2), count) / np.maximum(number, 1) for value in values]
        better = means[0] < error
        for best, mean in zip((error, across, front, near), means, strict=True):
            best[better] = mean[better]
    for value in (error, across, front, near):
        value[number == 0] = np.nan
    return Misfit(np.sqrt(error), np.sqrt(across), front, near, number)


@dataclass(frozen=True)
class Fitted:
    """Cameras, and how tracks that seem static fit them.

    Attributes:
        cameras: of the block.
        noise: their median error, pixels of an image 854 wide.
        noise_across: its horizontal part.
        nearest: nearness (see `Misfit`) that few of them exceed.
    """

    cameras: RigidCameras
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
        cameras = solve(self.block, self.logit)
        if cameras is None:
            return None
        static = np.flatnonzero((self.logit < _SEEMS_STATIC) & (self.block.observations >= _LONG))
        still = _of_tracks(cameras, self.block, self._sample(static, _SAMPLE))
        long = still.observations >= _LONG
        if not long.any() or not np.median(still.error[long]) <= _NOISIEST:
            return None
        noise = float(np.median(still.error[long]))
        fits = long & (still.error <= _EXPLAINED[0] * noise + _SOFT)
        nearest = float(np.percentile(still.nearness[fits], _NEAR_PERCENTILE))
        return Fitted(cameras, noise, float(np.median(still.across[long])), nearest)

    def _sample(self, ids: np.ndarray, most: int) -> np.ndarray:
        """About `most` of some tracks, whatever their order."""
        start = self.block.tracks.xy_flat[self.block.tracks.offset[ids]]
        return ids[np.lexsort((*start.T, self.block.tracks.first[ids]))][:: max(1, len(ids) // most)]

    def channels(self, found: Sequence[Cluster]) -> np.ndarray:
        """Channels `RIGID` of K clusters, K×6; NaN where they could not be measured."""
        out = np.full((len(found), len(RIGID)), np.nan)
        if not found or self.fitted is None:
            return out
        cameras, noise, noise_across = self.fitted.cameras, self.fitted.noise, self.fitted.noise_across
        members = np.unique(np.concatenate([cluster.members for cluster in found]))
        tracks = _of_tracks(cameras, self.block, members)
        known = tracks.observations >= _SHORT
        for row, cluster in enumerate(found):
            inside = np.searchsorted(members, cluster.members)
            inside = inside[known[inside]]
            if len(inside):
                weight = tracks.observations[inside]
                out[row, 0] = np.average(_over(tracks.error[inside], noise, _SOFT), weights=weight)
                out[row, 1] = np.average(_over(tracks.across[inside], noise_across, _SOFT), weights=weight)
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
        cameras, noise = self.fitted.cameras, self.fitted.noise
        members = np.sort(self._sample(np.unique(np.concatenate([cluster.members for cluster in found])), _SAMPLE_OF_LARGE))
        tracks = _of_tracks(cameras, self.block, members)
        bounds = np.array(_EXPLAINED) * min(noise, _NOISIEST_PROOF) + _SOFT
        for row, cluster in enumerate(found):
            inside = np.isin(members, cluster.members)
            weight = tracks.observations[inside]
            long = weight >= _LONG
            # Without long tracks nothing is proven.
            if long.sum() >= _FEWEST and 2 * weight[long].sum() > weight.sum():
                error = tracks.error[inside][long]
                shares = [np.average(error < bound, weights=weight[long]) for bound in bounds]
                near = float(np.median(tracks.nearness[inside][long]))
                out[row] = bool(shares[0] > 0.5 and shares[1] > 0.75 and near <= _NEAREST * self.fitted.nearest)
        return out


def _over(error: np.ndarray, noise: float, soft: float) -> np.ndarray:
    """Logarithms of errors over the noise."""
    return np.log(np.minimum(error, _MOST) + soft) - np.log(noise + soft)


def _of_tracks(cameras: RigidCameras, block: Block, ids: np.ndarray) -> Misfit:
    """Misfit of tracks by their visible observations in the block."""
    row, number, frame = block.rows(ids)
    seen = block.tracks.visible_flat[row]
    return misfit(cameras, block.unit, number[seen], frame[seen], block.tracks.xy_flat[row[seen]].astype(float), len(ids))


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
