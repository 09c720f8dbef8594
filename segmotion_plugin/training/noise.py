"""Makes exact simulated tracks look like those of a real tracker, whose errors are what a motion classifier must not fall for.

Imitated: jitter, drift, runs that end early and start anew, smooth flow that drags what lies just outside a silhouette along with
the nearer surface (the halo), textureless regions that do not follow, and regions of incoherent motion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree


@dataclass
class NoisyTracks:
    """Tracks as a tracker would give them: xy n×t×2 float32, visible n×t bool, confidence n×t float32."""

    xy: np.ndarray
    visible: np.ndarray
    confidence: np.ndarray


def tracker_noise(
    xy: np.ndarray,
    visible: np.ndarray,
    depth: np.ndarray,
    surface: np.ndarray,
    start: np.ndarray,
    rng: np.random.Generator,
    diagonal: float,
) -> NoisyTracks:
    """Add a tracker's errors; their strength differs from call to call.

    Args:
        xy: n×t×2 exact positions, NaN behind the camera.
        visible: n×t exact visibility.
        depth: n×t depths, inf for the sky.
        surface: n ids; points of one surface do not drag each other.
        start: n, column where each track begins (0 or less: it was there before).
        rng: source of randomness.
        diagonal: of the image in pixels; error sizes scale with it.
    """
    unit = diagonal / 1000.0
    count, columns = visible.shape
    visible = _runs(visible & np.isfinite(xy).all(axis=2), start, rng)
    exact = np.where(visible[..., None], xy, 0.0).astype(np.float64)
    step = np.diff(exact, axis=1) * (visible[:, 1:] & visible[:, :-1])[..., None]
    step = _smooth_regions(step, exact, visible, rng, unit)
    error = np.zeros_like(exact)
    radius = rng.uniform(4.0, 16.0) * unit
    strength = rng.uniform(0.6, 1.0) if rng.random() < 0.85 else 0.0
    drift = np.broadcast_to(
        _skewed(rng, 0.0, 0.2) * unit * rng.lognormal(0.0, 0.6, (count, 1)), (count, columns - 1)
    ).copy()
    lost = np.flatnonzero(rng.random(count) < rng.uniform(0.0, 0.04))  # such points hold on to nothing
    drift[lost] += np.exp(rng.uniform(np.log(0.3), np.log(4.0), (len(lost), 1))) * unit
    # The error of flow grows with its length.
    drift += _skewed(rng, 0.0, 0.04) * np.linalg.norm(step, axis=2)
    offset = np.zeros((count, 2))
    dragged = np.zeros((count, columns))
    for column in range(columns - 1):
        both = np.flatnonzero(visible[:, column] & visible[:, column + 1])
        if len(both) < 8:
            continue
        moved = step[both, column] - (exact[both, column + 1] - exact[both, column])
        here = exact[both, column] + offset[both]
        pull, share = _halo(here, step[both, column], depth[both, column], surface[both], radius)
        fresh = rng.normal(size=(len(both), 2)) * drift[both, column, None] + moved + strength * pull
        offset[both] += fresh
        dragged[both, column + 1] = strength * share
        ended = ~visible[:, column + 1]
        offset[ended] = 0
        error[:, column + 1] = offset
    jitter = _skewed(rng, 0.02, 0.5) * unit * rng.lognormal(0.0, 0.5, (count, 1, 1))
    out = exact + error + rng.normal(size=exact.shape) * jitter
    return NoisyTracks(
        xy=np.where(visible[..., None], out, np.nan).astype(np.float32),
        visible=visible,
        confidence=_confidence(visible, dragged, rng),
    )


def _skewed(rng: np.random.Generator, low: float, high: float) -> float:
    """Between two bounds, small values more often."""
    return low + (high - low) * rng.random() ** 2


def _runs(visible: np.ndarray, start: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Visibility of tracks that end at occlusion and by chance, or (some clips) that survive occlusion."""
    count, columns = visible.shape
    if rng.random() < 0.2:  # a tracker that finds points again
        return visible & (rng.random(visible.shape) > rng.uniform(0, 0.08))
    column = np.arange(columns)
    started = column[None] >= start[:, None]
    gone = np.cumsum(~visible & started, axis=1) > 0
    typical = np.exp(rng.uniform(np.log(0.004), np.log(0.15)))
    hazard = np.clip(typical * rng.lognormal(0.0, 1.0, count), 0, 0.5)
    life = rng.geometric(np.maximum(hazard, 1e-4))
    # Of a run that began before the window we see the rest; a geometric law has no memory.
    return visible & started & ~gone & (column[None] < np.maximum(start, 0)[:, None] + np.maximum(life, 2)[:, None])


def _halo(
    here: np.ndarray, step: np.ndarray, depth: np.ndarray, surface: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """How nearer surfaces close by drag each of m points: m×2 displacement and m share in [0, 1]."""
    neighbours = min(8, len(here))
    distance, index = cKDTree(here).query(here, k=neighbours, distance_upper_bound=2 * radius)
    absent = ~np.isfinite(distance)
    index = np.where(absent, 0, index)
    own, other = np.minimum(depth, 1e4), np.minimum(depth[index], 1e4)
    drags = ~absent & (surface[index] != surface[:, None]) & (other < 0.9 * own[:, None])
    distance = np.where(drags, distance, np.inf)
    nearest = distance.argmin(axis=1)
    rows = np.arange(len(here))
    share = np.exp(-((distance[rows, nearest] / radius) ** 2))
    pull = share[:, None] * (step[index[rows, nearest]] - step)
    return pull, share


def _smooth_regions(
    step: np.ndarray, xy: np.ndarray, visible: np.ndarray, rng: np.random.Generator, unit: float
) -> np.ndarray:
    """Displacements with textureless regions (too slow, or taken from the surroundings) and incoherent ones (wandering)."""
    step = step.copy()
    first = xy[np.arange(len(xy)), visible.argmax(axis=1)]
    for kind in ("textureless", "incoherent"):
        if rng.random() > (0.4 if kind == "textureless" else 0.3):
            continue
        for _ in range(int(rng.integers(1, 4))):
            centre = first[rng.integers(len(first))]
            inside = np.flatnonzero(np.linalg.norm(first - centre, axis=1) < rng.uniform(25, 140) * unit)
            if kind == "textureless":
                common = np.median(step[inside], axis=0, keepdims=True)
                share = rng.uniform(0.1, 0.9)
                target = common if rng.random() < 0.6 else 0.0 * common
                step[inside] += share * (target - step[inside])
            else:
                size = np.exp(rng.uniform(np.log(0.2), np.log(2.5))) * unit
                wander = rng.normal(size=(len(inside), step.shape[1], 2)) * size
                if rng.random() < 0.5:  # neighbours wander together for a while
                    wander = 0.5 * wander + 0.7 * size * rng.normal(size=(1, step.shape[1], 2))
                step[inside] += wander - np.mean(wander, axis=1, keepdims=True)
    return step


def _confidence(visible: np.ndarray, dragged: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A round-trip confidence: near 1, lower beside edges, or 1 throughout (trackers that give none)."""
    if rng.random() < 0.3:
        return visible.astype(np.float32)
    miss = rng.exponential(rng.uniform(0.02, 0.15), visible.shape) + rng.uniform(0, 0.5) * dragged
    return (np.exp(-miss) * visible).astype(np.float32)
