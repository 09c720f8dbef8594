"""Subspace baseline on tracks, after Karazija et al., "Learning segmentation from point trajectories", NeurIPS 2024.

Under an affine camera the trajectories of one rigid motion span a space of at most four dimensions; the paper allows for five,
over windows of 20 frames, and trains a segmenter so that what each mask leaves outside of its five leading singular values is
small. Here the same residual judges tracks directly: the subspace of the motion that most tracks share is found robustly, and a
track's score is its distance from it.
"""

from __future__ import annotations

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.tracks import Tracks

_MIN_FRAMES = 6
"""A track is judged in a window where at least this many of its frames are visible."""
_HYPOTHESES = 100
_REFINEMENTS = 8
_FIT_TRACKS = 1500


def subspace_residual(tracks: Tracks, *, rank: int = 5, window: int = 20, seed: int = 0) -> np.ndarray:
    """Distance of every track from the subspace of the dominant motion, in units of the median distance.

    Args:
        tracks: N tracks over T frames.
        rank: dimensions of the subspace.
        window: frames per window; windows overlap by half.
        seed: of the samples.

    Returns:
        N float64: root mean square distance per observation divided by the window's median, averaged over the windows that
        see the track; 1 for tracks that are never seen long enough.

    Raises:
        SegmotionError: a window too short for the rank.
    """
    if rank < 1 or window < _MIN_FRAMES or 2 * window <= rank:
        raise SegmotionError(f"rank {rank} with windows of {window} frames: windows need {_MIN_FRAMES} frames and 2 × frames > rank")
    rng = np.random.default_rng(seed)
    total, weight = np.zeros(len(tracks)), np.zeros(len(tracks))
    for start in range(0, max(tracks.num_frames - window // 2, 1), max(1, window // 2)):
        part = tracks.window(start, min(start + window, tracks.num_frames))
        seen = part.visible.sum(axis=1)
        use = np.flatnonzero(seen >= min(_MIN_FRAMES, part.visible.shape[1]))
        if len(use) < 4 * rank or 2 * part.visible.shape[1] <= rank:
            continue
        distance = _window_distance(part.xy[use].astype(np.float64), part.visible[use], rank, rng)
        median = np.median(distance)
        total[part.ids[use]] += seen[use] * distance / max(median, 1e-9)
        weight[part.ids[use]] += seen[use]
    return np.where(weight > 0, total / np.maximum(weight, 1), 1.0)


def _window_distance(xy: np.ndarray, visible: np.ndarray, rank: int, rng: np.random.Generator) -> np.ndarray:
    """n root mean square distances in pixels of n×t×2 tracks from the dominant `rank`-dimensional subspace of the window."""
    known = visible & np.isfinite(xy).all(axis=2)
    centre = xy[known].mean(axis=0)
    spread = np.abs(xy[known] - centre).max() + 1e-9
    rows = np.where(known[..., None], (xy - centre) / spread, 0.0).transpose(0, 2, 1).reshape(len(xy), -1)  # n×2t
    mask = np.concatenate([known, known], axis=1)
    complete = np.flatnonzero(known.all(axis=1))
    if len(complete) < 4 * rank:  # too few whole tracks: the best covered ones stand in, gaps filled by their nearest position
        complete = np.argsort(-known.sum(axis=1), kind="stable")[: max(4 * rank, len(known) // 4)]
    fit = complete if len(complete) <= _FIT_TRACKS else np.sort(rng.choice(complete, _FIT_TRACKS, replace=False))
    basis = _dominant_subspace(_filled(rows[fit], mask[fit]), rank, rng)
    return _distance(rows, mask, basis) * spread


def _dominant_subspace(points: np.ndarray, rank: int, rng: np.random.Generator) -> np.ndarray:
    """Orthonormal D×rank basis of the subspace that most of n×D points lie near: random samples, then reweighting."""
    dimensions = points.shape[1]
    best_cost, basis = np.inf, np.eye(dimensions, rank)
    for _ in range(_HYPOTHESES):
        candidate, _ = np.linalg.qr(points[rng.choice(len(points), rank, replace=False)].T)
        cost = np.median(_off(points, candidate))
        if cost < best_cost:
            best_cost, basis = cost, candidate
    for _ in range(_REFINEMENTS):
        distance = _off(points, basis)
        scale = 1.5 * np.median(distance) + 1e-12
        weight = 1.0 / (1.0 + (distance / scale) ** 2) ** 2
        _, vectors = np.linalg.eigh((points * weight[:, None]).T @ points)
        basis = vectors[:, -rank:]
    return basis


def _off(points: np.ndarray, basis: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points - (points @ basis) @ basis.T, axis=1)


def _distance(rows: np.ndarray, mask: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Root mean square distance per observation, each track fitted on what is seen of it (least squares)."""
    masked = mask.astype(np.float64)
    normal = np.einsum("nd,dr,ds->nrs", masked, basis, basis, optimize=True) + 1e-9 * np.eye(basis.shape[1])
    coefficients = np.linalg.solve(normal, ((rows * masked) @ basis)[..., None])[..., 0]
    squared = (((rows - coefficients @ basis.T) * masked) ** 2).sum(axis=1)
    # What fitting takes away is given back: short tracks would look rigid otherwise.
    freedom = np.maximum(masked.sum(axis=1) - basis.shape[1], 1.0)
    return np.sqrt(2.0 * squared / freedom)


def _filled(rows: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """n×2t positions with each gap filled by the nearest known position of the same track and axis."""
    count, width = rows.shape
    values, known = rows.reshape(count, 2, width // 2), mask.reshape(count, 2, width // 2)
    frames = np.arange(width // 2)
    gap = np.abs(frames[:, None] - frames[None, :])  # t×t
    nearest = np.where(known[:, :, None, :], gap, width).argmin(axis=-1)
    return np.take_along_axis(values, nearest, axis=2).reshape(count, width)
