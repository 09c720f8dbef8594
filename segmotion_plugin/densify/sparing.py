"""Small parts of a mask are held against the tracks in them: what most of these call static is given back.

A pole in front of something else moves in the picture, and its colours are learned from the few of its tracks that were misjudged;
the others know better.
"""

from __future__ import annotations

import cv2
import numpy as np

_LARGEST = 0.02  # share of the picture; in larger parts single tracks are no better than the mask
_REACH = 1.6  # spacings of the tracks over which their labels are averaged
_STATIC = -0.7  # mean label below which a place seems static
_FEWEST = 3  # tracks in such a place
_MOVING = 0.25  # most of these that may move


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


def spared(soft: np.ndarray, xy: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Soft mask without the places in small parts that their tracks call static.

    Args:
        soft: h×w, above 0.5 = moves, at half the working size.
        xy: n×2 positions of the tracks of this frame, working pixels.
        moves: n bool, by the tracks themselves.

    Returns:
        h×w; the same array where nothing is spared.
    """
    height, width = soft.shape
    mask = soft > 0.5
    row, column = half_pixels(xy, soft.shape)
    inside = mask[row, column]
    if not (inside & ~moves).any():
        return soft
    row, column, moves = row[inside], column[inside], moves[inside]
    sigma = _REACH * float(np.sqrt(height * width / len(xy)))
    label = mean_around(row, column, np.where(moves, 1.0, -1.0), soft.shape, sigma, 1e-6)
    parts, part = cv2.connectedComponents(mask.astype(np.uint8))
    small = np.bincount(part.ravel(), minlength=parts) <= _LARGEST * height * width
    places, place = cv2.connectedComponents((mask & small[part] & (label < _STATIC)).astype(np.uint8))
    seen = np.bincount(place[row, column], minlength=places)
    moving = np.bincount(place[row, column], moves, minlength=places)
    static = (seen >= _FEWEST) & (moving <= _MOVING * seen)
    static[0] = False
    return np.where(static[place], 0.0, soft).astype(soft.dtype) if static.any() else soft
