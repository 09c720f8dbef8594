"""Clusters of neighbouring tracks that the motion model finds likelier to move than what surrounds them.

A mover of a few hundred pixels is a handful of tracks among thousands, each too noisy to be sure of; pooled they tell. Which tracks
belong together is not known beforehand, so all connected sets of tracks above falling levels of the logit are taken: a component
tree (Jones, "Connected Filtering and Segmentation Using Component Trees", CVIU 1999), as maximally stable extremal regions are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from segmotion_plugin.tracks import Tracks

_LEVELS = np.arange(3.5, -2.3, -0.25)
_LEAST_OBSERVATIONS, _LEAST_UNLIKELY, _LIKELY = 10, 24, -1.0  # the second below that level, where there are many
_EVERY = 3  # frames between those in which neighbours are sought
_REACH = 2.3  # spacings of the tracks up to which two are neighbours
_STRIDE = 4
# Spacings by which the steps of neighbours over _STRIDE frames may differ at most; the last joins what is one thing loosely, as limbs.
_PARTINGS = (0.25, 0.7, np.inf)
# The same where it is known how near the tracks are, with the difference of their levels: what goes along the camera's path parts
# little from what lies behind it, but is nearer.
_PLACED_PARTINGS = ((0.25, 0.2), (0.7, np.inf), (1.5, 0.1))
_NOISE = 0.2  # pixels of an image 854 wide, of a step over one frame


@dataclass(frozen=True)
class Cluster:
    """Tracks that hang together.

    Attributes:
        members: n ascending indices of tracks.
        level: all their scores are above it.
        parting: spacings by which the steps of linked members differ at most.
        observations: number of visible observations of the members.
        share: of the tracks visible at a frame, on average over the frames it lives in.
        first: first frame.
        last: last frame.
        frames: in which a member lives.
    """

    members: np.ndarray
    level: float
    parting: float
    observations: int
    share: float
    first: int
    last: int
    frames: int


class Block:
    """The visible tracks of a range of frames, by frame and sorted by x.

    Args:
        tracks: N tracks.
        image_size: (width, height), pixels.
        start: first frame.
        stop: first frame behind.
    """

    def __init__(self, tracks: Tracks, image_size: tuple[int, int], start: int, stop: int) -> None:
        self.tracks, self.size, self.start, self.stop = tracks, np.asarray(image_size, float), start, stop
        self.unit = max(image_size) / 854.0
        """Pixels of these images per pixel of one 854 wide."""
        self._at: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._steps: dict[tuple[int, int], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        seen = [self.at(frame)[0] for frame in range(start, stop)]
        counts = [len(ids) for ids in seen if len(ids)] or [1]
        self.visible = float(np.mean(counts))
        """Mean number of tracks visible at a frame that shows any."""
        self.spacing = float(np.sqrt(self.size.prod() / np.median(counts)))
        """Pixels between neighbouring tracks."""
        self.observations = np.bincount(np.concatenate(seen), minlength=len(tracks))
        """N: visible observations of every track in these frames."""

    def at(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids n and positions n×2 of the tracks visible at a frame, by ascending x."""
        if frame not in self._at:
            ids, xy = self.tracks.observations_at(frame)
            order = np.lexsort((xy[:, 1], xy[:, 0]))
            self._at[frame] = ids[order], xy[order].astype(np.float64)
        return self._at[frame]

    def position(self, ids: np.ndarray, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """n×2 positions of tracks at another frame of the block, and n flags that they are visible there."""
        xy, visible = self.tracks.positions_at(ids, frame)
        return xy.astype(np.float64), visible & (self.start <= frame < self.stop)

    def rows(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Observations of tracks in the block: m rows of the tracks' flat arrays, m places in `ids`, ascending, and m frames."""
        first = np.maximum(self.tracks.first[ids], self.start)
        count = np.maximum(np.minimum(self.tracks.first[ids] + self.tracks.length[ids], self.stop) - first, 0)
        which, frame = _each(first, count)
        return self.tracks.offset[ids[which]] + frame - self.tracks.first[ids[which]], which, frame

    def step(self, frame: int, other: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids n, positions n×2 at a frame (by ascending x) and displacements n×2 of the tracks that another frame shows too."""
        if (frame, other) not in self._steps:
            ids, xy = self.at(frame)
            there, known = self.position(ids, other)
            self._steps[frame, other] = ids[known], xy[known], there[known] - xy[known]
        return self._steps[frame, other]


def _each(first: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of ranges of `count` frames from `first` on: for every frame in turn the place of its range, and the frame."""
    which = np.repeat(np.arange(len(first)), count)
    return which, first[which] + np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)


def neighbours(block: Block, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of tracks above the lowest level that are close to each other in some frame, and how far they ever part.

    Args:
        block: the tracks.
        score: N, see `clusters`.

    Returns:
        E×2 pairs, and E largest differences of their steps over `_STRIDE` frames while both live, in spacings: what moves together
        for a while only, as a ball and the pole behind it, is not one thing (the maximum over time as in Brox and Malik, "Object
        Segmentation by Long Term Analysis of Point Trajectories", ECCV 2010).
    """
    found = []
    for frame in range(block.start + 1, block.stop, _EVERY):
        ids, xy = block.at(frame)
        likely = score[ids] > _LEVELS[-1]
        ids, xy = ids[likely], xy[likely]
        pairs = cKDTree(xy).query_pairs(_REACH * block.spacing, output_type="ndarray") if len(ids) > 1 else np.zeros((0, 2), int)
        found.append(np.sort(ids[pairs], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0) if found else np.zeros((0, 2), np.int64)
    return pairs, _parting(block, pairs)


def _parting(block: Block, pairs: np.ndarray) -> np.ndarray:
    """E largest differences of the steps of two tracks, in spacings over `_STRIDE` frames; infinite where they never meet."""
    tracks, out = block.tracks, np.full(len(pairs), np.inf)
    first = np.maximum(tracks.first[pairs].max(axis=1), block.start)
    last = np.minimum((tracks.first + tracks.length)[pairs].min(axis=1), block.stop) - 1
    together = last - first
    # Tracks that are together for less than the stride are compared over that time, less what noise makes of it.
    stride = np.minimum(together, _STRIDE)
    met = np.flatnonzero(together > 0)
    count = (together - stride + 1)[met]
    place, frame = _each(first[met], count)
    which = met[place]
    step, shown = [], np.ones(len(which), bool)
    for column in (0, 1):
        track = pairs[which, column]
        row = tracks.offset[track] + frame - tracks.first[track]
        step.append(tracks.xy_flat[row + stride[which]] - tracks.xy_flat[row])
        shown &= tracks.visible_flat[row] & tracks.visible_flat[row + stride[which]]
    apart = np.where(shown, np.linalg.norm(step[0] - step[1], axis=1), 0.0)
    short = stride[which] < _STRIDE
    apart = np.where(short, np.maximum(apart - _NOISE * block.unit, 0) * _STRIDE / np.maximum(stride[which], 1), apart)
    if len(met):
        out[met] = np.maximum.reduceat(apart, np.cumsum(count) - count) / block.spacing
    return out


def clusters(
    block: Block,
    score: np.ndarray,
    links: tuple[np.ndarray, np.ndarray] | None = None,
    lowest: float = -np.inf,
    nearness: np.ndarray | None = None,
) -> list[Cluster]:
    """All distinct connected sets of at least two tracks: for every bound on how far neighbours part, above falling levels.

    Args:
        block: the tracks.
        score: N log odds that a track moves, or how likely it is a part of what moves otherwise.
        links: `neighbours` of all tracks above the lowest level, where they are known.
        lowest: level below which none is wanted.
        nearness: N levels (`depth_order.level_of`) of the tracks, NaN where unknown; then these bound links, too, and none is loose.
    """
    pairs, parting = neighbours(block, score) if links is None else links
    found: dict[bytes, Cluster] = {}
    bounds = [(bound, np.inf) for bound in _PARTINGS] if nearness is None else _PLACED_PARTINGS
    between = np.zeros(len(pairs)) if nearness is None else np.abs(np.subtract(*nearness[pairs].T))
    for bound, step in bounds:
        linked = (parting <= bound) & ~(between > step)
        for members, level in _component_tree(pairs[linked], score, _LEVELS[_LEVELS >= lowest]):
            key = members.tobytes()
            if key not in found:
                found[key] = _cluster(block, members, level, bound)
    return [c for c in found.values() if c.observations >= (_LEAST_OBSERVATIONS if c.level >= _LIKELY else _LEAST_UNLIKELY)]


def _component_tree(pairs: np.ndarray, score: np.ndarray, levels: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """Ascending members, and level, of all connected sets of at least two tracks, from the highest level to the lowest."""
    nodes, edge = np.unique(pairs, return_inverse=True)
    edge = edge.reshape(-1, 2)
    height = score[nodes]
    saddle = height[edge].min(axis=1) if len(edge) else np.zeros(0)
    within = np.zeros(len(nodes), np.int64)  # tracks of the largest set so far that holds a track: sets only grow
    for level in levels:
        kept = edge[saddle > level]
        if not len(kept):
            continue
        graph = coo_matrix((np.ones(len(kept), np.int8), (kept[:, 0], kept[:, 1])), shape=(len(nodes), len(nodes)))
        _, component = connected_components(graph, directed=False)
        some = np.flatnonzero((np.bincount(component) > 1)[component])  # most tracks are alone
        order = some[np.argsort(component[some], kind="stable")]
        for part in np.split(order, np.flatnonzero(np.diff(component[order])) + 1):
            if len(part) == within[part].max():
                continue
            within[part] = len(part)
            yield nodes[part], float(level)


def _cluster(block: Block, members: np.ndarray, level: float, parting: float) -> Cluster:
    first = np.maximum(block.tracks.first[members], block.start)
    stop = np.minimum(block.tracks.first[members] + block.tracks.length[members], block.stop)
    change = np.bincount(first - block.start, minlength=block.stop - block.start + 1).astype(np.int64)
    change -= np.bincount(stop - block.start, minlength=len(change))
    frames = int((np.cumsum(change) > 0).sum())
    observations = int(block.observations[members].sum())
    share = observations / max(frames, 1) / block.visible
    return Cluster(members, level, parting, observations, share, int(first.min()), int(stop.max()) - 1, frames)
