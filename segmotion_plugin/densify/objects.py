"""Grouping of dynamic tracks into objects."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from segmotion_plugin.tracks import Tracks


def group(tracks: Tracks, dynamic: np.ndarray, shots: list[tuple[int, int]], *, radius: float, min_share: float = 0.01) -> np.ndarray:
    """Object ids of tracks: dynamic tracks that run close to each other and move alike are one object.

    Args:
        tracks: N tracks.
        dynamic: N bool, tracks that move.
        shots: frame ranges that no object crosses.
        radius: pixels within which tracks are neighbours.
        min_share: objects with a smaller share of the dynamic observations are given to the nearest larger one.

    Returns:
        N int32, 0 = static, 1.. = object, the largest first.
    """
    ids = np.flatnonzero(dynamic)
    object_id = np.zeros(len(tracks), np.int32)
    if not len(ids):
        return object_id
    local = np.full(len(tracks), -1)
    local[ids] = np.arange(len(ids))
    near: list[np.ndarray] = []
    for start, stop in shots:
        for frame in range(start, stop, 2):
            rows = tracks.rows_at(frame)
            owner = local[np.searchsorted(tracks.offset, rows, side="right") - 1]
            rows, owner = rows[owner >= 0], owner[owner >= 0]
            if len(rows) > 1:
                pairs = cKDTree(tracks.xy_flat[rows]).query_pairs(radius, output_type="ndarray")
                near.append(owner[pairs])
    pairs = np.concatenate(near) if near else np.zeros((0, 2), np.int64)
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(ids), len(ids)))
    _, component = connected_components(graph, directed=False)
    size = np.bincount(component, tracks.length[ids])
    order = np.argsort(-size, kind="stable")
    keep = order[size[order] >= min_share * size.sum()][:255]
    rank = np.zeros(len(size), np.int32)
    rank[keep] = np.arange(1, len(keep) + 1)
    rank[rank == 0] = 1
    object_id[ids] = rank[component]
    return object_id
