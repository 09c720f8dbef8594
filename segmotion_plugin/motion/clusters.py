"""Clusters of neighbouring tracks that the motion model finds likelier to move than what surrounds them.

A mover of a few hundred pixels is a handful of tracks among thousands, each too noisy to be sure of; pooled they tell. Which tracks
belong together is not known beforehand, so all connected sets of tracks above falling levels of the logit are taken: a component
tree (Jones, "Connected Filtering and Segmentation Using Component Trees", CVIU 1999), as maximally stable extremal regions are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from segmotion_plugin.tracks import Tracks

_LEVELS = np.arange(2.5, -2.3, -0.25)
_LEAST_OBSERVATIONS = 10
_EVERY = 3  # frames between those in which neighbours are sought
_REACH = 2.3  # spacings of the tracks up to which two are neighbours
_STRIDE = 4
_ALIKE = 0.4  # spacings by which the steps of neighbours over _STRIDE frames may differ
_NOISE = 0.2  # pixels of an image 854 wide, of a step over one frame


@dataclass(frozen=True)
class Cluster:
    """Tracks that hang together.

    Attributes:
        members: n ascending indices of tracks.
        level: all their logits are above it.
        observations: number of visible observations of the members.
        share: of the tracks visible at a frame, on average over the frames it lives in.
        first: first frame.
        last: last frame.
        frames: in which a member lives.
    """

    members: np.ndarray
    level: float
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
        tracks = self.tracks
        since = frame - tracks.first[ids]
        inside = (since >= 0) & (since < tracks.length[ids]) & (self.start <= frame < self.stop)
        row = np.where(inside, tracks.offset[ids] + since, 0)
        return tracks.xy_flat[row].astype(np.float64), inside & tracks.visible_flat[row]

    def step(self, frame: int, other: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids n, positions n×2 at a frame (by ascending x) and displacements n×2 of the tracks that another frame shows too."""
        if (frame, other) not in self._steps:
            ids, xy = self.at(frame)
            there, known = self.position(ids, other)
            self._steps[frame, other] = ids[known], xy[known], there[known] - xy[known]
        return self._steps[frame, other]


def neighbours(block: Block, logit: np.ndarray) -> np.ndarray:
    """E×2 pairs of tracks above the lowest level that are close to each other in some frame and move alike there.

    Args:
        block: the tracks.
        logit: N.
    """
    found = []
    tolerance = _ALIKE * block.spacing
    for frame in range(block.start + 1, block.stop, _EVERY):
        ids, xy = block.at(frame)
        likely = logit[ids] > _LEVELS[-1]
        ids, xy = ids[likely], xy[likely]
        pairs = cKDTree(xy).query_pairs(_REACH * block.spacing, output_type="ndarray") if len(ids) > 1 else np.zeros((0, 2), int)
        if not len(pairs):
            continue
        alike, compared = np.zeros(len(pairs), bool), np.zeros(len(pairs), bool)
        # Tracks that are too short for the long stride are compared over one frame.
        for stride, bound in ((_STRIDE, tolerance), (1, tolerance / _STRIDE + _NOISE * block.unit)):
            still = ~compared
            for other in (frame + stride, frame - stride):
                there, known = block.position(ids, other)
                apart = np.linalg.norm((there - xy)[pairs[:, 0]] - (there - xy)[pairs[:, 1]], axis=1)
                both = known[pairs].all(axis=1) & still
                alike |= both & (apart < bound)
                compared |= both
        found.append(np.sort(ids[pairs[alike]], axis=1))
    return np.unique(np.concatenate(found), axis=0) if found else np.zeros((0, 2), np.int64)


def clusters(block: Block, logit: np.ndarray) -> list[Cluster]:
    """All distinct connected sets of at least two tracks, from the highest level to the lowest.

    Args:
        block: the tracks.
        logit: N log odds that a track moves.
    """
    pairs = neighbours(block, logit)
    nodes, edge = np.unique(pairs, return_inverse=True)
    edge = edge.reshape(-1, 2)
    height = logit[nodes]
    saddle = height[edge].min(axis=1) if len(edge) else np.zeros(0)
    found: list[Cluster] = []
    within = np.zeros(len(nodes), np.int64)  # tracks of the largest set so far that holds a track: sets only grow
    for level in _LEVELS:
        kept = edge[saddle > level]
        if not len(kept):
            continue
        graph = coo_matrix((np.ones(len(kept), np.int8), (kept[:, 0], kept[:, 1])), shape=(len(nodes), len(nodes)))
        _, component = connected_components(graph, directed=False)
        order = np.argsort(component, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(component[order])) + 1):
            if len(part) < 2 or len(part) == within[part].max():
                continue
            within[part] = len(part)
            cluster = _cluster(block, nodes[part], float(level))
            if cluster.observations >= _LEAST_OBSERVATIONS:
                found.append(cluster)
    return found


def _cluster(block: Block, members: np.ndarray, level: float) -> Cluster:
    first = np.maximum(block.tracks.first[members], block.start)
    stop = np.minimum(block.tracks.first[members] + block.tracks.length[members], block.stop)
    change = np.bincount(first - block.start, minlength=block.stop - block.start + 1).astype(np.int64)
    change -= np.bincount(stop - block.start, minlength=len(change))
    frames = int((np.cumsum(change) > 0).sum())
    observations = int(block.observations[members].sum())
    share = observations / max(frames, 1) / block.visible
    return Cluster(members, level, observations, share, int(first.min()), int(stop.max()) - 1, frames)
