"""Robust second-order fits to displacements: a plane seen by a moving camera flows so (Longuet-Higgins and Prazdny 1980)."""

from __future__ import annotations

from typing import Any

import numpy as np

_ITERATIONS = 4


def second_order(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """n×6 inputs 1, x, y, x², xy, y² of n positions."""
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


def fit_robustly(
    design: np.ndarray, step: np.ndarray, weight: np.ndarray, ridge: float, floor: float
) -> tuple[np.ndarray, np.ndarray]:
    """Iteratively reweighted least squares with Cauchy weights.

    Args:
        design: n×k inputs, such as `second_order`.
        step: n×2 displacements.
        weight: n trust in each.
        ridge: added to the diagonal of the normal equations.
        floor: least scale of the weights, in the unit of the displacements; 1.5 medians of what is left come on top.

    Returns:
        k×2 coefficients, and the n lengths of what they leave.
    """
    robust = weight.astype(np.float64)
    columns = design.shape[1]
    coefficients, left = np.zeros((columns, 2)), np.zeros(len(step))
    for _ in range(_ITERATIONS):
        weighted = design * robust[:, None]
        coefficients = np.linalg.solve(weighted.T @ design + ridge * np.eye(columns), weighted.T @ step)
        left = np.linalg.norm(step - design @ coefficients, axis=1)
        robust = weight / (1 + (left / (1.5 * middle(left) + floor)) ** 2)
    return coefficients, left


def middle(values: np.ndarray) -> Any:
    """Median along the first axis of n(×…) values, one at least: numpy's own takes ten times as long on few."""
    low, high = (len(values) - 1) // 2, len(values) // 2
    ordered = np.partition(values, (low, high), axis=0)
    return (ordered[low] + ordered[high]) / 2
