"""Before a resting camera what goes on moves; under a moving one nothing is told by that."""

from __future__ import annotations

import numpy as np

from segmotion_plugin.motion.classifier import classify
from segmotion_plugin.motion.resting_camera import unmistakable
from segmotion_plugin.tracks import Tracks

SIZE = (854, 480)
FRAMES = 24


def _grid(spacing: float = 20.0) -> np.ndarray:
    x, y = np.meshgrid(np.arange(5.0, SIZE[0], spacing), np.arange(5.0, SIZE[1], spacing))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def _tracks(paths: np.ndarray, noise: float = 0.05) -> tuple[Tracks, np.ndarray]:
    """Tracks of n×T×2 positions with noise, as far as they lie in the picture; and which of them are kept."""
    xy = paths + np.random.default_rng(1).normal(0, noise, paths.shape)
    visible = ((xy >= 0) & (xy < SIZE)).all(axis=2)
    keep = visible.sum(axis=1) >= 4
    return Tracks.from_dense(np.where(visible[keep][..., None], xy[keep], np.nan).astype(np.float32), visible[keep]), keep


def _at_rest(points: np.ndarray) -> np.ndarray:
    return np.repeat(points[:, None], FRAMES, axis=1)


def _bus(step: tuple[float, float], share: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """Paths of a street at rest, and of a strip across the picture that passes; and which are the strip's."""
    street, low, high = _grid(), SIZE[0] * (0.5 - share / 2), SIZE[0] * (0.5 + share / 2)
    street = street[(street[:, 0] < low) | (street[:, 0] > high)]
    x, y = np.meshgrid(np.arange(low + 5, high, 20.0), np.arange(-step[1] * FRAMES, SIZE[1], 20.0))
    strip = np.stack([x.ravel(), y.ravel()], axis=1)[:, None] + np.arange(FRAMES)[:, None] * np.array(step)
    paths = np.concatenate([_at_rest(street), strip])
    return paths, np.arange(len(paths)) >= len(street)


def test_what_passes_a_resting_camera_moves() -> None:
    paths, moves = _bus((0.0, 12.0))
    tracks, keep = _tracks(paths)
    assert np.array_equal(unmistakable(tracks, SIZE), moves[keep])


def test_the_classifier_is_sure_of_it() -> None:
    paths, moves = _bus((0.0, 12.0))
    tracks, keep = _tracks(paths)
    probability = classify(tracks, SIZE).probability
    assert probability[moves[keep]].min() > 0.9
    assert probability[~moves[keep]].max() < 0.5


def test_a_hand_that_sways_moves_nothing() -> None:
    # Near things sway several times as much as far ones.
    points = _grid()
    sway = 0.7 * np.stack([np.sin(0.6 * np.arange(FRAMES)), np.cos(0.5 * np.arange(FRAMES))], axis=1)
    nearness = np.where((points[:, 0] > 300) & (points[:, 0] < 360), 6.0, 1.0)
    tracks, _ = _tracks(_at_rest(points) + nearness[:, None, None] * sway)
    assert not unmistakable(tracks, SIZE).any()


def test_a_moving_camera_tells_nothing() -> None:
    # Mountains rest, the ground goes by the faster the nearer it is, and a pole stands before both.
    points = _grid()
    nearness = np.clip((points[:, 1] - 200) / 40, 0, None)
    nearness[(points[:, 0] > 300) & (points[:, 0] < 360)] = 8.0
    tracks, _ = _tracks(_at_rest(points) + nearness[:, None, None] * np.arange(FRAMES)[:, None] * np.array([1.5, 0.0]))
    assert not unmistakable(tracks, SIZE).any()


def test_a_camera_in_a_car_tells_nothing() -> None:
    # Sky and dashboard rest, the road between goes by.
    points = _grid()
    road = (points[:, 1] > 190) & (points[:, 1] < 300)
    tracks, _ = _tracks(_at_rest(points) + road[:, None, None] * np.arange(FRAMES)[:, None] * np.array([9.0, 0.0]))
    assert not unmistakable(tracks, SIZE).any()


def test_what_swings_to_and_fro_is_left_to_the_model() -> None:
    points = _grid()
    tree = (points[:, 0] > 300) & (points[:, 0] < 420) & (points[:, 1] < 300)
    swing = 9 * np.sin(np.arange(FRAMES) * 0.9)
    tracks, _ = _tracks(_at_rest(points) + tree[:, None, None] * swing[:, None] * np.array([1.0, 0.0]))
    assert not unmistakable(tracks, SIZE).any()


def test_permuting_tracks_permutes_the_answer() -> None:
    tracks, _ = _tracks(_bus((0.0, 12.0))[0])
    order = np.random.default_rng(2).permutation(len(tracks))
    assert np.array_equal(unmistakable(tracks.select(order), SIZE), unmistakable(tracks, SIZE)[order])


def test_small_pictures_are_judged_alike() -> None:
    paths, moves = _bus((0.0, 12.0))
    tracks, keep = _tracks(paths)
    small = Tracks(tracks.first, tracks.offset, tracks.xy_flat / 2, tracks.visible_flat, tracks.confidence_flat,
                   tracks.query_frame, tracks.num_frames)  # fmt: skip
    assert np.array_equal(unmistakable(small, (427, 240)), moves[keep])


def test_hidden_positions_tell_nothing() -> None:
    tracks, _ = _tracks(_bus((0.0, 12.0))[0])
    xy, visible = tracks.xy.copy(), tracks.visible.copy()
    visible[:, 10:12] = False
    straight = unmistakable(Tracks.from_dense(xy, visible), SIZE)
    xy[:, 10:12] = 400.0
    assert straight.any()
    assert np.array_equal(unmistakable(Tracks.from_dense(xy, visible), SIZE), straight)
