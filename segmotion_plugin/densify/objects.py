"""Grouping of dynamic tracks into objects by likeness of motion.

Neighbouring tracks that move alike over time belong together (Brox and Malik, "Object Segmentation by Long Term Analysis of Point
Trajectories", ECCV 2010). Tracks on the border of two motions follow neither, because flow is smooth; as in DBSCAN (Ester et al.,
KDD 1996) objects are made of the connected parts of *core* tracks, most of whose neighbours move as they do, and the others join
the object they are most often next to. Parts that hold two motions are cut (`cuts`), parts of one thing joined (`fragments`).
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from segmotion_plugin.densify.cuts import cut_apart
from segmotion_plugin.densify.fragments import Sightings, join, patches
from segmotion_plugin.tracks import Tracks

_STRIDE = 3  # frames over which displacements are compared
_EVERY = 2  # frames between two looks at who is next to whom
_LEAST = 0.003  # difference over the stride that is always allowed, as a share of the image's longer side
_RELATIVE = 0.15  # and this share of the displacement
_LINK = 0.55  # share of the radius over which tracks are one patch
_PARTED = 0.15  # share of common frames in different patches beyond which two tracks are not of one thing
_CORE = 0.6  # share of a core track's neighbours that move alike
_ENOUGH = 14.0  # observations per frame of the shot that make an object, however large the others are
_PIECE = 0.25  # share of an object that a fragment has at least
_REST = 2.0  # and one of tracks that do not move alike, fragments
_SURE = 8.0  # common looks that count fully when fragments are cut apart
_WEAK = 1e-3  # likeness of tracks that part


def group(
    tracks: Tracks,
    dynamic: np.ndarray,
    shots: list[tuple[int, int]],
    *,
    radius: float,
    size: tuple[int, int],
    features: np.ndarray | None = None,
    patch: np.ndarray | None = None,
    min_share: float = 0.03,
) -> np.ndarray:
    """Object ids of tracks: dynamic tracks that run close to each other and move alike are one object.

    Args:
        tracks: N tracks.
        dynamic: N bool, tracks that move.
        shots: frame ranges that no object crosses.
        radius: pixels within which tracks are neighbours.
        size: (width, height) that the tracks are measured in.
        features: N×C features of the tracks (NaN = unknown); they tell whether what comes back is what went away.
        patch: for every observation of the tracks the part of the frame's mask that it lies in, −1 where in none; absent, dynamic
            tracks that lie close to each other at a frame make a patch.
        min_share: an object with a smaller share of the shot's dynamic observations joins the one it is most often in a patch with.

    Returns:
        N int32, 0 = static, 1.. = object, the largest first.
    """
    label = np.full(len(tracks), -1)
    if patch is None:
        patch = patches(tracks, np.flatnonzero(dynamic), _LINK * radius)
    if features is not None:
        known = np.isfinite(features).all(axis=1)
        features = features - features[known].mean(axis=0) if known.any() else None
    count = 0
    for shot in shots:
        ids = np.flatnonzero(dynamic & (tracks.first >= shot[0]) & (tracks.first < shot[1]))
        if len(ids):
            label[ids] = count + _group_shot(tracks, ids, shot, radius, size, features, patch, min_share)
            count = int(label.max()) + 1
    object_id = np.zeros(len(tracks), np.int32)
    moving = label >= 0
    amount = np.bincount(label[moving], tracks.length[moving], count)
    rank = np.zeros(count, np.int32)
    order = np.argsort(-amount, kind="stable")
    order = order[amount[order] > 0]
    rank[order] = np.minimum(np.arange(1, len(order) + 1), 255)
    object_id[moving] = rank[label[moving]]
    return object_id


def _group_shot(
    tracks: Tracks,
    ids: np.ndarray,
    shot: tuple[int, int],
    radius: float,
    size: tuple[int, int],
    features: np.ndarray | None,
    patch: np.ndarray,
    min_share: float,
) -> np.ndarray:
    """Labels 0, 1, … of the dynamic tracks `ids` of a shot; see `group`."""
    near, unlike = _neighbours(tracks, ids, [shot], radius, _LEAST * max(size))
    pairs = coo_matrix(near)
    parted = _parted(tracks, ids, patch, pairs.row, pairs.col)
    alike = near.copy()
    alike.data = ((unlike.data <= near.data) & ~parted).astype(np.float64)  # mean of difference over tolerance at most 1
    alike.eliminate_zeros()
    degree = np.diff(near.indptr)
    core = (np.diff(alike.indptr) >= _CORE * degree) & (degree > 0)
    _, component = connected_components(alike[core][:, core], directed=False)
    label = np.full(len(ids), -1)
    label[core] = component
    weight = tracks.length[ids].astype(np.float64)
    enough = min(min_share * weight.sum(), _ENOUGH * (shot[1] - shot[0]))
    least = _PIECE * enough
    label = _dropped(_adopt(label, alike), weight, least)
    near.data[parted] = 0
    label = _remnants(label, near, weight, least)
    seen = Sightings.collect(tracks, ids, patch, size, shot)
    likeness = near.copy()
    likeness.data = np.minimum(near.data, _SURE) * np.exp(-np.sqrt(unlike.data / np.maximum(near.data, 1.0)))
    likeness.data = np.where(parted, _WEAK, np.maximum(likeness.data, 0.1 * _WEAK))
    looks = None if features is None else features[ids]
    label = cut_apart(seen, label, likeness, weight, least, looks)
    label = join(seen, label, looks)
    # What has few tracks that move alike for long counts with all that lie in its patches.
    label = _dropped(_by_patch(seen, label), weight, enough)
    return _by_patch(seen, label)


def _neighbours(
    tracks: Tracks, ids: np.ndarray, shots: list[tuple[int, int]], radius: float, least: float
) -> tuple[csr_matrix, csr_matrix]:
    """Symmetric n×n matrices: how often two tracks were compared, and the sum of their motion differences over the tolerance.

    `least` pixels of difference are always allowed.
    """
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
            tolerance = least + _RELATIVE * np.maximum(np.linalg.norm(step[i], axis=1), np.linalg.norm(step[j], axis=1))
            first.append(owner[i])
            second.append(owner[j])
            ratio.append((np.linalg.norm(step[i] - step[j], axis=1) / tolerance) ** 4)
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


def _parted(tracks: Tracks, ids: np.ndarray, patch: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """P bool: pairs of tracks that lie in different patches in more than a few of the frames in which both are seen in one."""
    out = np.zeros(len(first), bool)
    for begin in range(0, len(first), 100_000):
        a, b = ids[first[begin : begin + 100_000]], ids[second[begin : begin + 100_000]]
        start = np.maximum(tracks.first[a], tracks.first[b])
        length = np.maximum(np.minimum(tracks.first[a] + tracks.length[a], tracks.first[b] + tracks.length[b]) - start, 0)
        pair = np.repeat(np.arange(len(a)), length)
        frame = start[pair] + np.arange(len(pair)) - np.repeat(np.cumsum(length) - length, length)
        here = patch[tracks.offset[a[pair]] + frame - tracks.first[a[pair]]]
        there = patch[tracks.offset[b[pair]] + frame - tracks.first[b[pair]]]
        known = (here >= 0) & (there >= 0)
        total = np.bincount(pair, known, minlength=len(a))
        out[begin : begin + len(a)] = np.bincount(pair, known & (here != there), minlength=len(a)) > _PARTED * total
    return out


def _adopt(label: np.ndarray, alike: csr_matrix) -> np.ndarray:
    """Tracks without a label take the commonest one of neighbours that move alike."""
    label = label.copy()
    for graph in (alike, alike):
        if (label >= 0).all() or label.max() < 0:
            break
        votes = graph @ _one_hot(label)
        best = np.asarray(votes.argmax(axis=1)).ravel()
        voted = np.asarray(votes.max(axis=1).todense()).ravel() > 0
        take = (label < 0) & voted
        label[take] = best[take]
    return label


def _remnants(label: np.ndarray, near: csr_matrix, weight: np.ndarray, least: float) -> np.ndarray:
    """Tracks without a label make fragments with neighbours that have none either and stay in one patch with them.

    What has no rigid part, such as a small animal, has no core tracks to begin with.
    """
    left = np.flatnonzero(label < 0)
    if not len(left):
        return label
    graph = near[left][:, left]
    graph.eliminate_zeros()
    _, component = connected_components(graph, directed=False)
    amount = np.bincount(component, weight[left])
    number = np.where(amount >= _REST * least, int(label.max(initial=-1)) + np.cumsum(amount >= _REST * least), -1)
    out = label.copy()
    out[left] = number[component]
    return out


def _dropped(label: np.ndarray, weight: np.ndarray, least: float) -> np.ndarray:
    """Labels 0 … K−1 of the pieces of at least `least` (the largest piece always), −1 for the others."""
    known = label >= 0
    if not known.any():
        return np.zeros(len(label), int)
    amount = np.bincount(label[known], weight[known])
    keep = amount >= min(least, amount.max())
    new = np.where(keep, np.cumsum(keep) - 1, -1)
    return np.where(known, new[np.maximum(label, 0)], -1)


def _by_patch(seen: Sightings, label: np.ndarray) -> np.ndarray:
    """Tracks without a label take the commonest one of the patches they lie in, else that of the nearest labelled track."""
    number = int(label.max()) + 1
    votes, near = np.zeros((len(label), number)), np.zeros((len(label), number))
    order = np.argsort(seen.frame, kind="stable")
    for rows in np.split(order, np.searchsorted(seen.frame[order], np.arange(1, seen.num_frames))):
        track, patch = seen.owner[rows], seen.patch[rows]
        known = label[track] >= 0
        if known.all() or not known.any():
            continue
        inside = known & (patch >= 0)
        counts = np.zeros((int(patch.max(initial=0)) + 1, number))
        np.add.at(counts, (patch[inside], label[track[inside]]), 1)
        asking = ~known & (patch >= 0)
        votes[track[asking]] += counts[patch[asking]]
        _, closest = cKDTree(seen.xy[rows[known]]).query(seen.xy[rows[~known]])
        np.add.at(near, (track[~known], label[track[known]][closest]), 1)
    guess = np.where(votes.any(axis=1), votes.argmax(axis=1), near.argmax(axis=1))
    return np.where(label >= 0, label, guess)


def _one_hot(label: np.ndarray) -> csr_matrix:
    known = np.flatnonzero(label >= 0)
    return csr_matrix((np.ones(len(known)), (known, label[known])), shape=(len(label), int(label.max()) + 1))
