"""Small parts of masks held against the tracks in them."""

from __future__ import annotations

import numpy as np

from segmotion_plugin.densify.sparing import spared

SHAPE = (180, 320)  # half the working size


def grid() -> np.ndarray:
    """Positions of tracks every 10 working pixels."""
    x, y = np.meshgrid(np.arange(5, 640, 10.0), np.arange(5, 360, 10.0))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def box(left: int, top: int, right: int, bottom: int) -> tuple[np.ndarray, np.ndarray]:
    """A soft mask, 0.9 in a box given in half pixels, and which tracks of the grid lie in it."""
    soft = np.zeros(SHAPE, np.float32)
    soft[top:bottom, left:right] = 0.9
    xy = grid() / 2
    return soft, (xy[:, 0] > left) & (xy[:, 0] < right) & (xy[:, 1] > top) & (xy[:, 1] < bottom)


def test_a_small_part_whose_tracks_are_static_is_given_back() -> None:
    ball, on_ball = box(40, 60, 65, 85)
    pole, _ = box(200, 30, 212, 90)
    after = spared(np.maximum(ball, pole), grid(), on_ball)
    assert np.array_equal(after, ball)


def test_a_pole_that_touches_a_ball_goes_and_the_ball_stays() -> None:
    ball, on_ball = box(100, 60, 125, 85)
    pole, on_pole = box(125, 60, 134, 115)  # with the ball still below a fiftieth of the picture
    after = spared(np.maximum(ball, pole), grid(), on_ball & ~on_pole)
    assert (after[ball > 0] > 0.5).mean() > 0.95
    assert (after[pole > 0] > 0.5).mean() < 0.6


def test_a_few_static_tracks_take_nothing_from_a_mover() -> None:
    ball, on_ball = box(100, 60, 140, 100)
    moves = on_ball.copy()
    moves[np.flatnonzero(on_ball)[::5]] = False
    assert spared(ball, grid(), moves) is ball


def test_a_large_part_is_left_to_the_mask() -> None:
    soft, _ = box(60, 30, 260, 150)
    assert spared(soft, grid(), np.zeros(len(grid()), bool)) is soft


def test_parts_without_tracks_stay() -> None:
    soft, inside = box(100, 60, 125, 85)
    assert spared(soft, grid()[~inside], np.zeros((~inside).sum(), bool)) is soft
