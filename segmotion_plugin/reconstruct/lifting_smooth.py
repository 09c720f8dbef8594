"""Smoothing of many time series at once, with gaps filled and outliers put aside."""

from __future__ import annotations

import numpy as np


def smooth(
    values: np.ndarray, weight: np.ndarray, stiffness: float, *, rounds: int = 4, outlier: float = 3.0
) -> np.ndarray:
    """Whittaker smoothing with second differences, reweighted so that outliers lose their say.

    Minimises the weighted squared distance to the values plus `stiffness` times the squared second differences (Eilers, "A perfect
    smoother", Anal. Chem. 2003). Series with one known value become constant; outside the known range a series is held.

    Args:
        values: N×T; ignored (may be NaN) where the weight is 0.
        weight: N×T, 0 where a value is unknown, otherwise the inverse variance.
        stiffness: in units of the weights.
        rounds: how often the weights are adapted.
        outlier: standard deviations at which a value has lost half of its weight.

    Returns:
        N×T float64; NaN for series without a known value.
    """
    weight = np.where(np.isfinite(values) & (weight > 0), weight, 0.0)
    values = np.where(weight > 0, values, 0.0).astype(np.float64)
    known = weight > 0
    some = known.any(axis=1)
    scale = np.where(some, np.where(known, weight, 0).max(axis=1, initial=0), 1.0)[:, None]
    current = weight
    result = values
    for _ in range(max(1, rounds)):
        result = _solve(values, current, stiffness, 1e-9 * scale)
        miss = np.abs(values - result) * np.sqrt(weight)
        current = weight / (1.0 + (miss / outlier) ** 2)
    steps = np.arange(values.shape[1])
    first = known.argmax(axis=1)
    last = values.shape[1] - 1 - known[:, ::-1].argmax(axis=1)
    result = np.take_along_axis(result, np.clip(steps[None], first[:, None], last[:, None]), axis=1)
    result[~some] = np.nan
    return result


def _solve(values: np.ndarray, weight: np.ndarray, stiffness: float, ridge: np.ndarray) -> np.ndarray:
    """Solve (W + s D'D) x = W y for every row: pentadiagonal, by LDL' along time with all rows at once."""
    length = values.shape[1]
    diagonal, upper, second = _penalty(length)
    # The ridge pulls to the mean of the row and only matters where nothing else holds the series.
    mean = (weight * values).sum(axis=1, keepdims=True) / np.maximum(weight.sum(axis=1, keepdims=True), 1e-300)
    main = weight + stiffness * diagonal + ridge + 1e-300
    right = weight * values + ridge * mean
    d = np.empty_like(main)
    l1, l2 = np.zeros_like(main), np.zeros_like(main)
    z = np.empty_like(main)
    for t in range(length):
        a = stiffness * upper[t - 1] if t >= 1 else 0.0
        b = stiffness * second[t - 2] if t >= 2 else 0.0
        d[:, t], z[:, t] = main[:, t], right[:, t]
        if t >= 2:
            l2[:, t] = b / d[:, t - 2]
            d[:, t] -= l2[:, t] ** 2 * d[:, t - 2]
            z[:, t] -= l2[:, t] * z[:, t - 2]
        if t >= 1:
            cross = a - (l2[:, t] * l1[:, t - 1] * d[:, t - 2] if t >= 2 else 0.0)
            l1[:, t] = cross / d[:, t - 1]
            d[:, t] -= l1[:, t] ** 2 * d[:, t - 1]
            z[:, t] -= l1[:, t] * z[:, t - 1]
    x = z / d
    for t in range(length - 2, -1, -1):
        x[:, t] -= l1[:, t + 1] * x[:, t + 1]
        if t + 2 < length:
            x[:, t] -= l2[:, t + 2] * x[:, t + 2]
    return x


def _penalty(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Diagonals of D'D for second differences of a series."""
    matrix = np.zeros((max(length - 2, 0), length))
    for row in range(len(matrix)):
        matrix[row, row : row + 3] = (1.0, -2.0, 1.0)
    full = matrix.T @ matrix
    return np.diagonal(full).copy(), np.diagonal(full, 1).copy(), np.diagonal(full, 2).copy()
