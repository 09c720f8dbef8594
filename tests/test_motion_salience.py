"""Which tracks are looked at first, and what the others are told."""

from __future__ import annotations

import numpy as np

from segmotion_plugin.motion.salience import keys_first, unexplained
from segmotion_plugin.motion.windows import _spread
from segmotion_plugin.tracks import Tracks


def panning(rng: np.random.Generator, count: int = 400, movers: int = 4) -> np.ndarray:
    """Tracks of a slow pan; the first few go their own way. N×24×2."""
    xy = rng.uniform((50, 50), (750, 430), (count, 2))[:, None] + np.arange(24)[:, None] * np.array([1.5, 0.2])
    xy = xy + rng.normal(0, 0.1, xy.shape)
    xy[:movers] += np.arange(24)[:, None] * np.array([-1.0, 1.0])
    return xy.astype(np.float32)


def test_small_movers_stand_out() -> None:
    rng = np.random.default_rng(0)
    xy = panning(rng)
    score = unexplained(xy, np.ones(xy.shape[:2], bool), (854, 480))
    assert score[:4].min() > 1.5 * score[4:].max()


def test_hidden_positions_are_not_read() -> None:
    rng = np.random.default_rng(1)
    xy, visible = panning(rng), rng.random((400, 24)) < 0.8
    other = np.where(visible[..., None], xy, 1e4).astype(np.float32)
    size = (854, 480)
    assert np.array_equal(unexplained(xy, visible, size), unexplained(other, visible, size))


def test_the_order_of_keys_is_a_permutation_with_the_salient_in_front() -> None:
    rng = np.random.default_rng(2)
    even = rng.permutation(1000)
    score = np.full(1000, 0.3)
    score[even[-5:]] = 3.0
    order = keys_first(score, even, 50)
    assert np.array_equal(np.sort(order), np.arange(1000))
    assert np.array_equal(order[:50], even[:50])
    assert set(even[-5:]) <= set(order[50:120])


def test_few_tracks_keep_their_order() -> None:
    even = np.random.default_rng(3).permutation(30)
    assert np.array_equal(keys_first(np.zeros(30), even, 50), even)


def test_tracks_without_a_verdict_take_that_of_neighbours_that_move_alike() -> None:
    rng = np.random.default_rng(4)
    xy = np.repeat(rng.uniform(100, 140, (60, 1, 2)), 10, axis=1)
    xy[:30] += np.arange(10)[:, None] * np.array([4.0, 0.0])
    tracks = Tracks.from_dense(xy.astype(np.float32), np.ones((60, 10), bool))
    judged = np.ones(60, bool)
    judged[[0, 59]] = False
    track = np.where(np.arange(60) < 30, 3.0, -3.0)
    track[[0, 59]] = -10.0
    frame = np.repeat(np.where(np.arange(60) < 30, 2.0, -2.0), 10)
    frame[:10], frame[-10:] = -10.0, -10.0
    _spread(tracks, judged, track, frame)
    assert track[0] > 1 and track[59] < -1
    assert frame[:10].min() > 0.5 and frame[-10:].max() < -0.5
