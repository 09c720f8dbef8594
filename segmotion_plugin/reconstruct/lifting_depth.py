"""Depth maps of a monocular model, brought to the scale of the reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["disparity", "depth"]

# A fit to fewer points than these is not trusted.
_LEAST_POINTS = 8
# Errors of depth models are smooth over the picture: however many points there are, hardly more than these err on their own.
_INDEPENDENT = 40


@dataclass(frozen=True)
class Alignment:
    """How a model's values become depth: `1 / (scale · v + shift)` for disparity, `scale · v + shift` for depth.

    Attributes:
        kind: what the values are.
        scale: factor; positive.
        shift: offset.
        error: median relative error of the depth at the points of the fit.
        middle: disparity or depth where the fit is surest.
        doubt: standard deviations of the fitted disparity or depth in the middle, and per unit away from it.
    """

    kind: Kind
    scale: float
    shift: float
    error: float
    middle: float
    doubt: tuple[float, float]

    def depth(self, values: np.ndarray, farthest: float = np.inf) -> np.ndarray:
        """Depth in world units, NaN where the fit gives none in front of the camera; at most `farthest`."""
        line = self.scale * np.asarray(values, np.float64) + self.shift
        if self.kind == "depth":
            return np.where(line > 0, np.minimum(line, farthest), np.nan)
        floor = 0.0 if np.isinf(farthest) else 1.0 / farthest
        positive = np.maximum(line, floor)
        return np.divide(1.0, positive, out=np.full_like(positive, np.nan), where=positive > 0)

    def uncertainty(self, depth: float) -> float:
        """Relative standard deviation of a depth that the fit gives; large far away from the points that it was made with."""
        target = 1.0 / depth if self.kind == "disparity" else depth
        return float(np.hypot(self.doubt[0], self.doubt[1] * (target - self.middle)) / target)


def align(values: np.ndarray, depth: np.ndarray, kind: Kind, rng: np.random.Generator) -> Alignment | None:
    """Fit scale and shift of one frame to points of known depth, with outliers.

    Two-point hypotheses are judged by the median relative error of the depth they give (least median of squares, Rousseeuw 1984);
    the best is refined by reweighted least squares on its inliers.

    Args:
        values: n values of the model at the points.
        depth: n known depths along the optical axis.
        kind: "disparity" (larger is nearer) or "depth".
        rng: draws the hypotheses.

    Returns:
        None where there are too few points or no fit has a positive scale.
    """
    good = np.isfinite(values) & np.isfinite(depth) & (depth > 0)
    v, z = np.asarray(values, np.float64)[good], np.asarray(depth, np.float64)[good]
    if len(v) < _LEAST_POINTS or np.ptp(v) <= 0:
        return None
    target = 1.0 / z if kind == "disparity" else z
    first, second = rng.integers(0, len(v), (2, 256))
    usable = v[first] != v[second]
    first, second = first[usable], second[usable]
    scale = (target[first] - target[second]) / (v[first] - v[second])
    shift = target[first] - scale * v[first]
    scale, shift = scale[scale > 0], shift[scale > 0]
    if not len(scale):
        return None
    miss = np.abs(scale[:, None] * v + shift[:, None] - target) / target
    best = int(np.argmin(np.median(miss, axis=1)))
    a, b = float(scale[best]), float(shift[best])
    mean_t, variance_t, information = float(target.mean()), float(target.var()), float((1.0 / target**2).sum())
    for _ in range(10):
        relative = (a * v + b - target) / target
        spread = 1.4826 * float(np.median(np.abs(relative))) + 1e-9
        weight = 1.0 / (1.0 + (relative / (2 * spread)) ** 2) / target**2
        mean_v, mean_t = np.average(v, weights=weight), np.average(target, weights=weight)
        # The noise is the model's: its values are fitted to the known depth and the line is turned round. The other way about noise
        # would flatten the line, which places whatever is nearer than the points too far away.
        common = np.average((v - mean_v) * (target - mean_t), weights=weight)
        if common <= 0:
            break
        variance_t, information = float(np.average((target - mean_t) ** 2, weights=weight)), float(weight.sum())
        a = variance_t / float(common)
        b = float(mean_t - a * mean_v)
    error = float(np.median(np.abs(a * v + b - target) / target))
    # The noise is relative, so a point tells as much as the inverse square of its depth or disparity.
    level = 1.4826 * error / np.sqrt(information * min(1.0, _INDEPENDENT / len(v)))
    return Alignment(kind, a, b, error, float(mean_t), (float(level), float(level / np.sqrt(max(variance_t, 1e-300)))))


def sample_nearest(image: np.ndarray, xy: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Values of an H×W map at n×2 pixels of an image of (width, height) `size`: the nearest cell, so that no edge is mixed."""
    height, width = image.shape[:2]
    column = np.clip(np.floor(xy[:, 0] * (width / size[0])), 0, width - 1).astype(np.int64)
    row = np.clip(np.floor(xy[:, 1] * (height / size[1])), 0, height - 1).astype(np.int64)
    return image[row, column]
