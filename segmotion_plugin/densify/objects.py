"""Grouping of dynamic tracks into objects by likeness of motion.

Neighbouring tracks that move alike over time belong together (Brox and Malik, "Object Segmentation by Long Term Analysis of Point
Trajectories", ECCV 2010). Tracks on the border of two motions follow neither, because flow is smooth; as in DBSCAN (Ester et al.,
KDD 1996) objects are the connected parts of *core* tracks, most of whose neighbours move as they do, and the others join the object
they are most often next to.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from segmotion_plugin.tracks import Tracks

_STRIDE = 3  # frames over which displacements are compared
_EVERY = 2  # frames between two looks at who is next to whom
_LEAST = 1.5  # pixels of difference over the stride that are always allowed
_RELATIVE = 0.15  # and this share of the displacement
_CORE = 0.75  # share of a core track's neighbours that move alike


def group(
    tracks: Tracks,
    dynamic: np.ndarray,
    shots: list[tuple[int, int]],
    *,
    radius: float,
    min_share: float = 0.01,
) -> np.ndarray:
    """Object ids of tracks: dynamic tracks that run close to each other and move alike are one object.

    Args:
        tracks: N tracks.
        dynamic: N bool, tracks that move.
        shots: frame ranges that no object crosses.
        radius: pixels within which tracks are neighbours.
        min_share: an object with a smaller share of the dynamic observations joins the larger one it touches most.

    Returns:
        N int32, 0 = static, 1.. = object, the largest first.
    """
    ids = np.flatnonzero(dynamic)
    object_id = np.zeros(len(tracks), np.int32)
    if not len(ids):
        return object_id
    near, unlike = _neighbours(tracks, ids, shots, radius)
    alike = near.copy()
    alike.data = (unlike.data <= near.data).astype(np.float64)  # mean of difference over tolerance at most 1
    alike.eliminate_zeros()
    degree = np.diff(near.indptr)
    core = np.diff(alike.indptr) >= _CORE * degree
    picked = alike[core][:, core]
    _, component = connected_components(picked, directed=False)
    label = np.full(len(ids), -1)
    label[core] = component
    size = tracks.length[ids].astype(np.float64)
    label = _adopt(label, alike if alike.nnz else near, near)
    label = _absorb(label, size, near, min_share * size.sum())
    amount = np.bincount(label, size)
    rank = np.zeros(len(amount), np.int32)
    order = np.argsort(-amount, kind="stable")
    order = order[amount[order] > 0]
    rank[order] = np.minimum(np.arange(1, len(order) + 1), 255)
    object_id[ids] = rank[label]
    return object_id


def _neighbours(
    tracks: Tracks, ids: np.ndarray, shots: list[tuple[int, int]], radius: float
) -> tuple[csr_matrix, csr_matrix]:
    """Symmetric n×n matrices: how often two tracks were compared, and the sum of their motion differences over the tolerance."""
    local = np.full(len(tracks), -1)
    local[ids] = np.arange(len(ids))
    end = tracks.offset[1:]
    first, second, ratio = [], [], []
    for start, stop in shots:
        for frame in range(start, stop, _EVERY):
            rows = tracks.rows_at(frame)
            owner = np.searchsorted(tracks.offset, rows, side="right") - 1
            rows, owner = rows[local[owner] >= 0], owner[local[owner] >= 0]
            if len(rows) < 2:
                continue
            # Displacement over the stride, forward where the track goes on, otherwise from the past.
            ahead = rows + _STRIDE < end[owner]
            behind = ~ahead & (rows - _STRIDE >= tracks.offset[owner])
            other = np.where(ahead, rows + _STRIDE, np.where(behind, rows - _STRIDE, rows))
            step = np.where(ahead, 1.0, -1.0)[:, None] * (tracks.xy_flat[other] - tracks.xy_flat[rows])
            known = ahead | behind
            rows, owner, step = rows[known], local[owner[known]], step[known]
            if len(rows) < 2:
                continue
            pairs = cKDTree(tracks.xy_flat[rows]).query_pairs(radius, output_type="ndarray")
            i, j = pairs[:, 0], pairs[:, 1]
            tolerance = _LEAST + _RELATIVE * np.maximum(np.linalg.norm(step[i], axis=1), np.linalg.norm(step[j], axis=1))
            first.append(owner[i])
            second.append(owner[j])
            ratio.append(np.linalg.norm(step[i] - step[j], axis=1) / tolerance)
    n = len(ids)
    if not first:
        return csr_matrix((n, n)), csr_matrix((n, n))
    a, b, value = np.concatenate(first), np.concatenate(second), np.concatenate(ratio)
    rows, columns = np.concatenate([a, b]), np.concatenate([b, a])
    near = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(n, n)).tocsr()
    unlike = coo_matrix((np.concatenate([value, value]) + 1e-12, (rows, columns)), shape=(n, n)).tocsr()
    near.sort_indices()
    unlike.sort_indices()
    return near, unlike


def _adopt(label: np.ndarray, alike: csr_matrix, near: csr_matrix) -> np.ndarray:
    """Tracks without a label take the commonest one of neighbours that move alike, else of all neighbours, else one of their own."""
    label = label.copy()
    for graph in (alike, alike, near, near):
        if (label >= 0).all() or label.max() < 0:
            break
        votes = graph @ _one_hot(label)
        best = np.asarray(votes.argmax(axis=1)).ravel()
        voted = np.asarray(votes.max(axis=1).todense()).ravel() > 0
        take = (label < 0) & voted
        label[take] = best[take]
    alone = np.flatnonzero(label < 0)
    if len(alone):
        _, component = connected_components(near[alone][:, alone], directed=False)
        label[alone] = label.max() + 1 + component
    return label


def _absorb(label: np.ndarray, size: np.ndarray, near: csr_matrix, least: float) -> np.ndarray:
    """Objects smaller than `least` join the larger one they touch most; those that touch none join the largest of all."""
    label = label.copy()
    while True:
        amount = np.bincount(label, size)
        present = np.flatnonzero(amount)
        small = present[np.argmin(amount[present])]
        if len(present) == 1 or amount[small] >= least:
            return label
        touch = np.asarray((near[label == small] @ _one_hot(label)).sum(axis=0)).ravel()
        touch[small] = 0
        label[label == small] = touch.argmax() if touch.any() else amount.argmax()


def _one_hot(label: np.ndarray) -> csr_matrix:
    known = np.flatnonzero(label >= 0)
    return csr_matrix((np.ones(len(known)), (known, label[known])), shape=(len(label), int(label.max()) + 1))
