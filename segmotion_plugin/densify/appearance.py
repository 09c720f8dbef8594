"""What moving things look like in this clip: a classifier that is learned from the clip's own tracks.

The idea is RoMo's (Goli et al., "RoMo: Robust Motion Segmentation Improves Structure from Motion", ICCV 2025): motion gives
sparse labels, and a small classifier on image features spreads them to every pixel. Here it is a logistic regression on backbone
features, colour and position, fitted to the whole clip and then, around each frame, refitted with the whole clip's weights as its
prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np

POSITION_CHANNELS = 5
COLOUR_CHANNELS = 9


def colour_inputs(lab: np.ndarray) -> np.ndarray:
    """…×9 inputs from …×3 CIELAB values scaled to about [-1, 1]: the values, their squares and products."""
    a, b, c = lab[..., 0], lab[..., 1], lab[..., 2]
    return np.stack([a, b, c, a * a, b * b, c * c, a * b, a * c, b * c], axis=-1)


def position_inputs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """…×5 inputs x, y, x², y², xy of positions scaled to [-1, 1]."""
    return np.stack([x, y, x * x, y * y, x * y], axis=-1)


def scaled_lab(frame: np.ndarray) -> np.ndarray:
    """H×W×3 float32 CIELAB of an H×W×3 uint8 RGB image, each channel about [-1, 1]."""
    lab = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB).astype(np.float32)
    return (lab - np.float32(128)) / np.array([64, 24, 24], np.float32)


@dataclass
class Samples:
    """Labelled points of a clip: inputs n×D, target n in [0, 1], weight n, frame n."""

    inputs: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    frame: np.ndarray

    def thinned(self, most: int) -> Samples:
        """Every k-th point, each for k of them, so that about `most` are left; all where there are no more than that."""
        every = -(-len(self.target) // most)
        if every <= 1:
            return self
        return Samples(self.inputs[::every], self.target[::every], every * self.weight[::every], self.frame[::every])

    @classmethod
    def joined(cls, parts: Sequence[Samples]) -> Samples:
        """The points of all parts."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def fit_logistic(samples: Samples, prior: np.ndarray | None = None, ridge: float = 1.0, steps: int = 8) -> np.ndarray:
    """Weights (D+1, bias last) of a logistic regression by Newton's method.

    Args:
        samples: labelled points.
        prior: weights to which the ridge penalty pulls; zero when absent.
        ridge: strength of the penalty, in units of one sample.
        steps: of Newton's method.
    """
    x = np.concatenate([samples.inputs, np.ones((len(samples.inputs), 1), np.float32)], axis=1)
    base = np.zeros(x.shape[1]) if prior is None else prior.astype(np.float64)
    weights = base.copy()
    penalty = np.full(x.shape[1], ridge)
    if prior is None:
        penalty[-1] *= 1e-3

    def scored(candidate: np.ndarray) -> tuple[float, np.ndarray]:
        score = np.clip(x @ candidate.astype(np.float32), -30, 30).astype(np.float64)
        misfit = samples.weight @ (np.logaddexp(0.0, score) - samples.target * score)
        return float(misfit + 0.5 * (penalty * (candidate - base) ** 2).sum()), score

    loss, score = scored(weights)
    for _ in range(steps):
        p = 1.0 / (1.0 + np.exp(-score))
        gradient = x.T @ (samples.weight * (p - samples.target)).astype(np.float32) + penalty * (weights - base)
        curvature = np.maximum(samples.weight * p * (1 - p), 1e-6)
        hessian = ((x * curvature[:, None].astype(np.float32)).T @ x).astype(np.float64)
        hessian[np.diag_indices_from(hessian)] += penalty
        step = np.linalg.solve(hessian, gradient)
        # A full step overshoots where almost all samples are on one side (small movers): it is halved until it leads down.
        while True:
            lower, there = scored(weights - step)
            if lower < loss or np.abs(step).max() < 1e-3:
                break
            step = step / 2
        if lower >= loss:
            break
        weights, loss, score = weights - step, lower, there
        if np.abs(step).max() < 1e-3:
            break
    return weights.astype(np.float32)
