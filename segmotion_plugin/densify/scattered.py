"""Values at scattered tracks, spread over the pixels around them."""

from __future__ import annotations

import cv2
import numpy as np


def half_pixels(xy: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Rows n and columns n at half size of n×2 positions at full working size, for images of h×w = `shape` at half size."""
    column = np.clip((xy[:, 0] / 2).astype(np.int64), 0, shape[1] - 1)
    return np.clip((xy[:, 1] / 2).astype(np.int64), 0, shape[0] - 1), column


def mean_around(
    row: np.ndarray, column: np.ndarray, value: np.ndarray, shape: tuple[int, ...], sigma: float, nothing: float
) -> np.ndarray:
    """h×w float32 mean of n values around every pixel, by Gaussian weights; where these are small `nothing` pulls it to 0."""
    total, amount = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    np.add.at(total, (row, column), value)
    np.add.at(amount, (row, column), 1.0)
    return cv2.GaussianBlur(total, (0, 0), sigma) / (cv2.GaussianBlur(amount, (0, 0), sigma) + nothing)
