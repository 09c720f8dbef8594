from __future__ import annotations

import cv2
import numpy as np
import pytest

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation.baselines import epipolar
from segmotion_plugin.evaluation.baselines.subspace import subspace_residual
from segmotion_plugin.evaluation.davis import sequence_scores
from segmotion_plugin.evaluation.tracks import roc_auc
from segmotion_plugin.tracks import Tracks


def _layers(moves: bool, count: int = 6) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A camera travels sideways past a near and a far wall; a red square, when it moves, rises across the epipolar lines."""
    rng = np.random.default_rng(2)

    def texture(width: int) -> np.ndarray:
        grain = cv2.GaussianBlur(rng.random((120, width)).astype(np.float32), (0, 0), 1.5)
        return ((grain - grain.min()) / np.ptp(grain) * 200).astype(np.uint8)

    far, near, square = texture(240), texture(260), texture(40)[:40]
    frames, masks = [], []
    for t in range(count):
        image = np.repeat(far[:, 2 * t : 2 * t + 160, None], 3, axis=2)
        image[80:] = near[80:, 5 * t : 5 * t + 160, None]
        mask = np.zeros((120, 160), bool)
        top = 34 - (5 * t if moves else 0)
        left = 80 - (0 if moves else 2 * t)
        mask[top : top + 40, left : left + 40] = True
        image[mask] = (square[..., None] * [1.0, 0.2, 0.2] + [55, 0, 0]).reshape(-1, 3).astype(np.uint8)
        frames.append(np.ascontiguousarray(image))
        masks.append(mask if moves else np.zeros_like(mask))
    return frames, masks


def test_what_leaves_the_epipolar_lines_is_masked() -> None:
    frames, truth = _layers(moves=True)
    options = epipolar.Options(features="colour", dynamic=0.5)
    masks = list(epipolar.epipolar_masks(frames, options))
    assert [mask.shape for mask in masks] == [(120, 160)] * 6 and masks[0].dtype == np.uint8
    region, _ = sequence_scores(truth, masks)
    assert region.mean() > 0.7
    for first, second in zip(masks, epipolar.epipolar_masks(frames, options), strict=True):
        np.testing.assert_array_equal(first, second)


def test_parallax_alone_is_not_masked() -> None:
    frames, _ = _layers(moves=False)
    masks = list(epipolar.epipolar_masks(frames, epipolar.Options(features="colour", dynamic=0.5)))
    assert np.mean(masks) < 0.01


def test_pretrained_features_are_used_by_default() -> None:
    frames, truth = _layers(moves=True, count=2)
    region, _ = sequence_scores(truth, epipolar.epipolar_masks(frames, epipolar.Options(dynamic=0.5)))
    assert region.mean() > 0.5


def test_epipolar_input_is_checked() -> None:
    with pytest.raises(SegmotionError, match="two frames or more, got 1"):
        list(epipolar.epipolar_masks([np.zeros((20, 20, 3), np.uint8)]))
    with pytest.raises(SegmotionError, match="'efficientnet' or 'colour', got 'dino'"):
        list(epipolar.epipolar_masks([np.zeros((40, 40, 3), np.uint8)] * 2, epipolar.Options(features="dino")))


def _views(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    points = np.stack([rng.uniform(-3, 3, count), rng.uniform(-2, 2, count), rng.uniform(4, 12, count)], axis=1)
    turned = points @ cv2.Rodrigues(np.array([0.01, 0.03, 0.0]))[0].T + [0.4, 0.05, 0.1]
    first, second = (300 * p[:, :2] / p[:, 2:] + 200 for p in (points, turned))
    return first, second


def test_fundamental_matrix_survives_a_third_of_wrong_matches() -> None:
    rng = np.random.default_rng(0)
    first, second = _views(rng, 300)
    second[:100] += rng.normal(0, 30, (100, 2))
    matrix = epipolar.fundamental_matrix(first, second)
    assert matrix is not None
    error = epipolar.squared_sampson_error(matrix, first, second)
    assert np.median(error[100:]) < 0.01 < 1 < np.median(error[:100])
    assert epipolar.fundamental_matrix(first[:10], second[:10]) is None


def test_sampson_error_is_the_distance_to_the_nearest_exact_match() -> None:
    """For a pure sideways motion the epipolar lines are rows: a match d rows apart is d²/2 from a perfect one."""
    sideways = np.array([[0.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    first, second = np.array([[3.0, 7.0], [1.0, 2.0]]), np.array([[9.0, 7.0], [4.0, 5.0]])
    np.testing.assert_allclose(epipolar.squared_sampson_error(sideways, first, second), [0.0, 4.5])


def test_logistic_regression_finds_calibrated_odds() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(40_000) < 0.2
    inputs = rng.normal(0, 1, (40_000, 3)) + positive[:, None] * [1.0, -2.0, 0.0]
    model = epipolar.LogisticRegression(inputs, positive, ridge=1e-6)
    # Two normal distributions of unit variance, equally weighted, have exactly logistic odds with the shift as coefficients.
    np.testing.assert_allclose(model.coefficients[:3] / model.scale, [1.0, -2.0, 0.0], atol=0.1)
    assert model(inputs[positive]).mean() > 0.8 > 0.2 > model(inputs[~positive]).mean()


def _rigid_tracks(rng: np.random.Generator, frames: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """120 points of the world and 30 of a body that moves on its own, seen by an affine camera that pans and turns."""
    world, body = rng.uniform(-1, 1, (120, 3)), rng.uniform(-0.2, 0.2, (30, 3))
    xy = np.zeros((150, frames, 2))
    for t in range(frames):
        camera = cv2.Rodrigues(np.array([0.01 * t, 0.02 * t, 0.0]))[0][:2]
        own = cv2.Rodrigues(np.array([0.0, 0.0, 0.12 * t]))[0]
        path = np.array([0.3 * np.sin(0.4 * t), 0.02 * t, 0.1 * np.cos(0.3 * t)])
        xy[:120, t] = world @ camera.T
        xy[120:, t] = (body @ own.T + path) @ camera.T
        xy[:, t] += [0.02 * t, 0.01 * t]
    return (200 * xy + 300 + rng.normal(0, 0.3, xy.shape)).astype(np.float32), np.arange(150) >= 120


def test_tracks_outside_of_the_dominant_subspace_stand_out() -> None:
    xy, moving = _rigid_tracks(np.random.default_rng(0))
    score = subspace_residual(Tracks.from_dense(xy, np.ones(xy.shape[:2], bool)))
    assert score.shape == (150,) and np.median(score[~moving]) == pytest.approx(0.9, abs=0.2)
    assert roc_auc(score, moving) > 0.97


def test_gaps_and_short_tracks() -> None:
    rng = np.random.default_rng(0)
    xy, moving = _rigid_tracks(rng)
    visible = np.ones(xy.shape[:2], bool)
    visible[np.arange(0, 150, 3), 12:] = False  # every third track ends early
    visible[:, ::7] &= rng.random((150, 5)) < 0.5
    visible[5] = False
    visible[5, 3:5] = True  # seen for two frames only
    hidden = xy.copy()
    hidden[~visible] = np.nan
    score = subspace_residual(Tracks.from_dense(hidden, visible))
    assert np.isfinite(score).all() and score[5] == 1.0
    assert roc_auc(score, moving) > 0.93
    np.testing.assert_array_equal(score, subspace_residual(Tracks.from_dense(hidden, visible)))


def test_windows_must_hold_the_subspace() -> None:
    tracks = Tracks.from_dense(np.zeros((4, 8, 2), np.float32), np.ones((4, 8), bool))
    assert subspace_residual(tracks).tolist() == [1.0] * 4  # too few tracks to tell
    with pytest.raises(SegmotionError, match="rank 5 with windows of 4 frames"):
        subspace_residual(tracks, window=4)
