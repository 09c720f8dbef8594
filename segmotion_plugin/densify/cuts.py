"""Cutting fragments that hold two things apart.

Fragments are connected parts of a graph of tracks that move alike, so a few tracks between two movers suffice to make one fragment
of them. Normalised cuts (Shi and Malik, PAMI 2000) find where a graph hangs together least, and looks where exactly two things
meet that move almost alike; whether the two sides are two things is then asked of their motion and looks, as for any other two
fragments.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

from segmotion_plugin.densify.fragments import Fragments, Sightings, looks_of

_VECTORS = 4  # eigenvectors that are tried
_DEPTH = 6  # cuts after one another
_FEWEST = 16  # tracks of a fragment that is looked at
_DOUBT = 0.5  # log odds that a border moved to where looks change owes to having been moved there
_LOOSE = 2e-3  # likeness of tracks up to which looks do not spread from one to the other
_ROUNDS, _STEPS, _KEPT = 3, 12, 0.9  # of moving a border: rounds, steps of spreading in each, share that neighbours have


def cut_apart(
    seen: Sightings,
    label: np.ndarray,
    likeness: csr_matrix,
    weight: np.ndarray,
    least: float,
    features: np.ndarray | None = None,
) -> np.ndarray:
    """Labels of n tracks after fragments whose sides move and look differently were cut.

    Args:
        seen: what was seen of the tracks.
        label: n fragments 0 … K−1; −1 for tracks without one.
        likeness: n×n symmetric, how alike neighbouring tracks move.
        weight: n observations of each track.
        least: observations that a side has at least.
        features: n×C features of the tracks, as for `fragments.join`, or None.
    """
    label = label.copy()
    queue = [(k, 0) for k in range(int(label.max(initial=-1)) + 1)]
    while queue:
        k, depth = queue.pop(0)
        mine = np.flatnonzero(label == k)
        if depth >= _DEPTH or len(mine) < _FEWEST or weight[mine].sum() < 2 * least:
            continue
        part = seen.of(mine)
        best, side = 0.0, None
        inner, described = likeness[mine][:, mine], None if features is None else features[mine]
        for cut, doubt in _candidates(inner, weight[mine], least, described):
            sides = cut.astype(int)
            looks = None if described is None else looks_of(described, sides)
            odds = Fragments.measure(part, sides).same(0, 1, looks) + doubt
            if odds < best:
                best, side = odds, cut
        if side is not None:
            new = int(label.max()) + 1
            label[mine[side]] = new
            queue += [(k, depth + 1), (new, depth + 1)]
    return label


def _candidates(
    likeness: csr_matrix, weight: np.ndarray, least: float, features: np.ndarray | None
) -> Iterator[tuple[np.ndarray, float]]:
    """n bool sides and the log odds to add: cuts of the graph, and each with its border moved to where looks change."""
    looks = None if features is None else _Looks(likeness, features, weight)
    known = set()
    for cut in _cuts(likeness, weight, least):
        found = [(cut, 0.0)] if looks is None else [(cut, 0.0), (looks.refined(cut), _DOUBT)]
        for sides, doubt in found:
            name = (sides ^ sides[0]).tobytes()
            if name not in known and min(weight[sides].sum(), weight[~sides].sum()) >= least:
                known.add(name)
                yield sides, doubt


class _Looks:
    """Moves the border between two sides to where looks change, as two-means does.

    A track's own feature tells badly which side it looks like. What it tells is therefore spread over the graph, as labels are in
    Zhou et al., "Learning with Local and Global Consistency", NIPS 2003.
    """

    def __init__(self, likeness: csr_matrix, features: np.ndarray, weight: np.ndarray) -> None:
        graph = likeness.copy()
        graph.data = np.where(graph.data > _LOOSE, graph.data, 0.0)
        self.graph = diags(1 / (np.asarray(graph.sum(axis=1)).ravel() + 1e-9)) @ graph
        features = np.nan_to_num(features).astype(np.float32)
        self.features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
        self.weight = weight
        self.total = weight.astype(np.float32) @ self.features

    def refined(self, cut: np.ndarray) -> np.ndarray:
        """n bool sides, from n bool sides; all on one side when looks do not tell two apart."""
        for _ in range(_ROUNDS):
            one = np.where(cut, self.weight, 0).astype(np.float32) @ self.features
            other = self.total - one
            towards = one / max(np.linalg.norm(one), 1e-9) - other / max(np.linalg.norm(other), 1e-9)
            own = (self.features @ towards).astype(np.float64)
            spread = own
            for _ in range(_STEPS):
                spread = (1 - _KEPT) * own + _KEPT * (self.graph @ spread)
            middle = sum(np.average(spread[side], weights=self.weight[side]) for side in (cut, ~cut)) / 2
            new = spread > middle
            if (new == cut).all() or new.all() or not new.any():
                return new
            cut = new
        return cut


def _cuts(likeness: csr_matrix, weight: np.ndarray, least: float) -> Iterator[np.ndarray]:
    """n bool sides of the best cut along each of the first eigenvectors."""
    n = likeness.shape[0]
    degree = np.asarray(likeness.sum(axis=1)).ravel() + 1e-9
    scale = diags(degree**-0.5)
    if n < 3 or not likeness.nnz:  # nothing to cut, and ARPACK would begin with a vector that it calls zero
        return
    try:
        values, vectors = eigsh(scale @ likeness @ scale, k=min(_VECTORS + 1, n - 1), which="LA", v0=np.ones(n), maxiter=400, tol=1e-3)
    except ArpackNoConvergence as error:
        values, vectors = error.eigenvalues, error.eigenvectors
    edges = likeness.tocoo()
    for column in np.argsort(-values, kind="stable")[1:]:
        order = np.argsort(vectors[:, column] / np.sqrt(degree), kind="stable")
        rank = np.empty(n, int)
        rank[order] = np.arange(n)
        low, high = np.minimum(rank[edges.row], rank[edges.col]), np.maximum(rank[edges.row], rank[edges.col])
        crossing = np.cumsum(np.bincount(low, edges.data, n) - np.bincount(high, edges.data, n))[:-1] / 2
        volume = np.cumsum(degree[order])[:-1]
        price = crossing / volume + crossing / (degree.sum() - volume)
        before = np.cumsum(weight[order])[:-1]
        enough = np.minimum(before, weight.sum() - before) >= least
        if enough.any():
            yield rank > int(np.where(enough, price, np.inf).argmin())
