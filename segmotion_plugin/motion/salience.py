"""Which tracks to look at first: those that a smooth flow field of the whole picture leaves unexplained.

Small movers are a handful among thousands of tracks; of a few hundred keys drawn evenly hardly one would lie on them. So part of the
keys is drawn by how much of a track's displacement a robust second-order polynomial field (the flow of a plane seen by a moving
camera, Longuet-Higgins and Prazdny 1980) leaves over, compared with the others of the window.
"""

from __future__ import annotations

import numpy as np

from segmotion_plugin.smooth_flow import fit_robustly, second_order

_STRIDES = (4, 1)
_FLOOR = 0.0005  # of the diagonal: residuals below are noise
_PAIRS = 6
_CANDIDATES = 1500


def unexplained(xy: np.ndarray, visible: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """How far tracks part from the smooth flow of all: N scores of about 0 (as the others) to 4.

    Args:
        xy: N×W×2 positions, pixels; anything where not visible.
        visible: N×W bool.
        size: (width, height) of the images, pixels.
    """
    count, columns = visible.shape
    diagonal = float(np.hypot(*size))
    place = (xy - np.array(size) / 2) / (diagonal / 2)
    x, y = place[..., 0], place[..., 1]
    total, seen = np.zeros(count), np.zeros(count)
    for stride in _STRIDES:
        starts = np.unique(np.linspace(0, max(columns - 1 - stride, 0), _PAIRS).astype(int))
        for i in starts if columns > stride else []:
            rows = np.flatnonzero(visible[:, i] & visible[:, i + stride] & (seen == 0 if stride == 1 else True))
            if len(rows) < 12:
                continue
            u, v = x[rows, i].astype(np.float64), y[rows, i].astype(np.float64)
            step = (place[rows, i + stride] - place[rows, i]).astype(np.float64)
            _, left = fit_robustly(second_order(u, v), step, np.ones(len(rows)), ridge=1e-9, floor=1e-6)
            total[rows] += np.log1p(left / (np.median(left) + _FLOOR * stride**0.5))
            seen[rows] += 1
    return total / np.maximum(seen, 1)


def keys_first(score: np.ndarray, even: np.ndarray, uniform: int) -> np.ndarray:
    """An order of N tracks in which the first `uniform` are an even draw, and those that stand out come next.

    They are sought among the first `_CANDIDATES` of the even draw only: among ever more tracks, what stands out most are failures of
    the tracker.

    Args:
        score: N, see `unexplained`.
        even: N, a random order of the tracks (its ranks serve as the random numbers of the weighted draw).
        uniform: number of evenly drawn tracks in front; geometry is fitted on them.
    """
    front, candidates, rest = even[:uniform], even[uniform:_CANDIDATES], even[_CANDIDATES:]
    if not len(candidates):
        return even
    # Weighted draw without replacement (Efraimidis and Spirakis 2006): the largest u^(1/w) first.
    chance = (np.arange(len(candidates)) + 0.5) / len(candidates)
    drawn = candidates[np.argsort(-np.log(chance) / (score[candidates] ** 2 + 1e-3), kind="stable")]
    return np.concatenate([front, drawn, rest])
