"""Optical flow of enlarged pictures is as fine as their originals allow."""

from __future__ import annotations

import cv2
import numpy as np

from segmotion_plugin.trackers.flow import DisFlow

_WIDTH, _HEIGHT, _RADIUS = 320, 180, 6


def _frame(step: int) -> tuple[np.ndarray, np.ndarray]:
    """A grey picture twice as large as it was drawn: discs 12 pixels wide go right before a wall that goes left; and the discs."""
    rng = np.random.default_rng(0)
    wall, thing = (cv2.GaussianBlur(rng.normal(size=(_HEIGHT, 2 * _WIDTH)).astype(np.float32), (0, 0), 1.5) for _ in range(2))
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    discs = ((x - 2 * step) % 40 - 20) ** 2 + (y % 36 - 18) ** 2 < _RADIUS**2
    drawn = np.where(discs, np.roll(thing, 2 * step, axis=1)[:, :_WIDTH], np.roll(wall, -step, axis=1)[:, :_WIDTH])
    grey = np.clip(128 + 45 * drawn / wall.std(), 0, 255).astype(np.uint8)
    size = (2 * _WIDTH, 2 * _HEIGHT)
    return cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC), cv2.resize(discs.astype(np.uint8), size) > 0


def test_more_of_a_small_thing_is_followed_in_enlarged_pictures() -> None:
    (first, discs), (second, _) = _frame(0), _frame(1)

    def right(flow: np.ndarray, step: tuple[float, float], where: np.ndarray) -> float:
        return float((np.linalg.norm(flow - np.array(step, np.float32), axis=2)[where] < 1).mean())

    plain, fine = DisFlow(*first.shape[::-1])(first, second), DisFlow(*first.shape[::-1], enlarged=2.0)(first, second)
    assert right(fine, (4, 0), discs) > right(plain, (4, 0), discs) + 0.1
    assert right(fine, (-2, 0), ~discs) > right(plain, (-2, 0), ~discs)
    slightly = DisFlow(*first.shape[::-1], enlarged=1.5)(first, second)
    np.testing.assert_array_equal(slightly, plain)
