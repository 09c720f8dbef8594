"""What is rigid with the world cannot lie behind everything around it: opaque surfaces would hide it.

A mover that goes along the camera's own path fits a still world at some depth. Most often that is a wrong one: a walker on the
ground seems to be farther away than the ground beside it, or to float before all of its surroundings.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from segmotion_plugin.motion.clusters import Block

_EVERY = 6  # frames between those that are looked at
_AROUND, _REACH = 24, 6.0  # still tracks around another, and spacings up to which they are sought
_FEWEST = 8  # of them
_FARTHEST, _NEAREST = 0.1, 0.9  # quantiles of their nearness
_SOFT = 0.05  # nearness that is added before logarithms are taken


def level_of(nearness: np.ndarray) -> np.ndarray:
    """Logarithms of inverse depths, of which the median is about 1; what is far away or beyond is all at one level."""
    return np.asarray(np.log(np.maximum(nearness, 0.0) + _SOFT))


def depth_order(block: Block, level: np.ndarray, still: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By how much tracks lie behind, and before, almost all that is still around them.

    Args:
        block: the tracks.
        level: N, `level_of` the place where each best fits a still world; NaN where unknown.
        still: N flags of tracks that tell how near the world is.

    Returns:
        N logarithms of ratios of nearness, positive for what lies behind all around, and N for what lies before it; means over the
        frames looked at, NaN where too little is still around.
    """
    total, count = np.zeros((2, len(level))), np.zeros(len(level))
    for frame in range(block.start, block.stop, _EVERY):
        ids, xy = block.at(frame)
        here, asked = still[ids], np.isfinite(level[ids])
        if here.sum() <= _FEWEST:
            continue
        distance, other = cKDTree(xy[here]).query(xy[asked], k=_AROUND, distance_upper_bound=_REACH * block.spacing)
        # A track does not count among those around itself; missing ones come last.
        around = np.append(level[ids[here]], np.inf)[np.where(distance > 0, other, here.sum())]
        around = np.sort(around, axis=1)
        found = np.isfinite(around).sum(axis=1)
        enough = found >= _FEWEST
        row, last = np.flatnonzero(enough), found[enough] - 1
        farthest = around[row, np.floor(_FARTHEST * last).astype(int)]
        nearest = around[row, np.ceil(_NEAREST * last).astype(int)]
        which = ids[asked][enough]
        total[0, which] += farthest - level[which]
        total[1, which] += level[which] - nearest
        count[which] += 1
    with np.errstate(invalid="ignore", divide="ignore"):
        behind, before = total / count
    return behind, before
