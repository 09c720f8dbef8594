from __future__ import annotations

import numpy as np
import pytest

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation import objects, tracks
from segmotion_plugin.evaluation.davis import boundary_accuracy, region_similarity
from segmotion_plugin.tracks import Tracks


def _two_squares(num_frames: int = 6) -> np.ndarray:
    """T×40×60 labels: object 1 moves right along the top, object 2 stands at the bottom."""
    labels = np.zeros((num_frames, 40, 60), np.uint8)
    for t in range(num_frames):
        labels[t, 4:14, 5 * t : 5 * t + 10] = 1
        labels[t, 24:34, 40:50] = 2
    return labels


def _renamed(labels: np.ndarray, names: dict[int, int]) -> np.ndarray:
    table = np.zeros(256, np.uint8)
    for old, new in names.items():
        table[old] = new
    return table[labels]


def test_other_ids_are_assigned_and_score_one() -> None:
    truth = _two_squares()
    scores = objects.object_scores(truth, _renamed(truth, {1: 7, 2: 3}))
    assert scores.assigned.tolist() == [7, 3]
    assert scores.region.tolist() == scores.boundary.tolist() == [1.0, 1.0]
    assert scores.count_right and scores.switches.tolist() == [0, 0]
    assert scores.summary()["object_J"] == 1.0


def test_assignment_is_one_to_one_and_best_in_sum() -> None:
    truth = _two_squares()
    merged = _renamed(truth, {1: 1, 2: 1})
    scores = objects.object_scores(truth, merged)
    assert scores.count_predicted == 1 and not scores.count_right
    assert sorted(scores.assigned.tolist()) == [0, 1]
    assert sorted(scores.region.tolist()) == [0.0, 0.5]


def test_pair_scores_equal_the_frame_by_frame_measure() -> None:
    rng = np.random.default_rng(1)
    truth = _two_squares()
    truth[2][truth[2] == 1] = 0  # object 1 is hidden at one frame
    predicted = np.roll(truth, (1, 2), axis=(1, 2))
    predicted[rng.random(truth.shape) < 0.1] = 0
    scores = objects.object_scores(truth, predicted)
    for row, k in enumerate((1, 2)):
        region = [region_similarity(a == k, b == k) for a, b in zip(truth, predicted, strict=True)]
        boundary = [boundary_accuracy(a == k, b == k) for a, b in zip(truth, predicted, strict=True)]
        assert scores.region[row] == pytest.approx(np.mean(region))
        assert scores.boundary[row] == pytest.approx(np.mean(boundary))
    without = objects.object_scores(truth, predicted, boundaries=False)
    np.testing.assert_allclose(without.region, scores.region)
    assert np.isnan(without.boundary).all()


def test_void_label_counts_for_nobody() -> None:
    truth = _two_squares()
    predicted = truth.copy()
    truth[:, 24:34, 40:50] = 255
    scores = objects.object_scores(truth, predicted, void=255)
    assert scores.truth_ids.tolist() == [1]
    assert scores.count_predicted == 1 and scores.region.tolist() == [1.0]


def test_identity_switches() -> None:
    truth = _two_squares(8)
    predicted = truth.copy()
    predicted[4:][truth[4:] == 1] = 5  # object 1 goes on as 5: one switch
    predicted[3][truth[3] == 2] = 0  # object 2 is lost for a frame and found again: none
    scores = objects.object_scores(truth, predicted, boundaries=False)
    assert scores.switches.tolist() == [1, 0]
    halves = truth.copy()
    for t in range(8):  # two halves of changing size: still the same identity
        halves[t, 4:14, 5 * t + 4 + t % 2 * 2 : 5 * t + 10] *= 3
    assert objects.object_scores(truth, halves, boundaries=False).switches.tolist() == [0, 0]


def test_nothing_there() -> None:
    empty = np.zeros((3, 8, 9), np.uint8)
    scores = objects.object_scores(empty, empty)
    assert scores.count_right and scores.count_truth == 0
    assert np.isnan(scores.summary()["object_J"])
    scores = objects.object_scores(_two_squares(3), np.zeros((3, 40, 60), np.uint8))
    assert scores.region.tolist() == [0.0, 0.0] and scores.assigned.tolist() == [0, 0]


def test_moving_now() -> None:
    truth = _two_squares(4)
    moving = np.zeros((4, 3), bool)
    moving[:3, 1] = True  # object 1 moves in frames 0–2, object 2 only at frame 1
    moving[1, 2] = True
    scores = objects.moving_now_scores(truth, moving, truth)
    np.testing.assert_allclose(scores.region, [0.5, 1.0, 0.5, np.nan])
    assert scores.false_positives.tolist() == [1, 0, 1, 2]
    assert scores.share[0] == pytest.approx(200 / 2400)
    exact = objects.moving_now_scores(truth, moving, truth, moving)
    np.testing.assert_allclose(exact.region, [1.0, 1.0, 1.0, np.nan])
    assert exact.false_positives.tolist() == [0, 0, 0, 0]
    assert exact.summary() == {"J_moving": 1.0, "false_positives_per_frame": 0.0, "share_masked_at_rest": 0.0}
    with pytest.raises(SegmotionError, match="moving must be 4 frames × at least 3 labels"):
        objects.moving_now_scores(truth, moving[:, :2], truth)


def test_masked_share() -> None:
    labels = np.zeros((2, 10, 10), np.uint8)
    labels[1, :2] = 4
    assert objects.masked_share(labels).tolist() == [0.0, 0.2]


def test_lengths_must_agree() -> None:
    with pytest.raises(SegmotionError, match="after 2 frames only the prediction goes on"):
        objects.object_scores(_two_squares(2), _two_squares(3))


def test_truth_of_tracks_is_the_label_of_most_visible_frames() -> None:
    labels = np.zeros((4, 10, 10), np.uint8)
    labels[:, :, 5:] = 2
    labels[3, :, 5:] = 3
    nan = np.nan
    xy = np.array(
        [
            [[7.5, 1], [7.5, 1], [7.5, 1], [7.5, 1]],  # on object 2 three times, on 3 once
            [[4.99, 1], [4.99, 1], [5.0, 1], [5.0, 1]],  # half of the time: not most
            [[7, 1], [1, 1], [1, 1], [7, 1]],  # where visible: static once, on an object once hidden
            [[-3, 1], [12, 1], [1, 10.0], [1, -1]],  # never inside the image
            [[nan, nan], [nan, nan], [9.9, 9.9], [9.9, 9.9]],
        ],
        np.float32,
    )
    visible = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1]], bool)
    found = tracks.track_truth(Tracks.from_dense(xy, visible), labels)
    assert found.tolist() == [2, 0, 0, -1, 2]
    for count, word in ((3, "3 masks"), (5, "more masks")):
        with pytest.raises(SegmotionError, match=word):
            tracks.track_truth(Tracks.from_dense(xy, visible), np.zeros((count, 10, 10), np.uint8))


def test_area_under_the_curve_equals_the_share_of_ordered_pairs() -> None:
    rng = np.random.default_rng(0)
    score, positive = rng.integers(0, 8, 200).astype(float), rng.random(200) < 0.3
    wins = (score[positive][:, None] > score[~positive]) + 0.5 * (score[positive][:, None] == score[~positive])
    assert tracks.roc_auc(score, positive) == pytest.approx(wins.mean(), abs=1e-12)
    assert np.isnan(tracks.roc_auc(score, np.zeros(200, bool)))
    with pytest.raises(SegmotionError, match="1 of 200 scores"):
        tracks.roc_auc(np.where(np.arange(200) == 3, np.nan, score), positive)


def test_best_f1_equals_a_search_over_thresholds() -> None:
    rng = np.random.default_rng(0)
    score, positive = rng.integers(0, 12, 150) / 4.0, rng.random(150) < 0.3
    score += positive
    found, threshold = tracks.best_f1(score, positive)
    assert found == pytest.approx(max(tracks.f1_score(score >= s, positive) for s in np.unique(score)))
    assert found == tracks.f1_score(score >= threshold, positive)
    assert tracks.f1_score(np.array([True, True, False]), np.array([True, False, True])) == 0.5
    assert tracks.f1_score(np.zeros(3, bool), np.zeros(3, bool)) == 1.0


def test_track_scores_leave_unseen_tracks_out() -> None:
    summary = tracks.track_scores(np.array([0.9, 0.8, 0.2, 0.1, 0.99]), np.array([2, 0, 1, 0, -1]), threshold=0.5)
    assert summary["track_AUC"] == 0.75
    assert summary["track_F1"] == 0.5
    assert summary["track_best_F1"] == pytest.approx(0.8)
    assert summary["tracks_on_movers"] == summary["tracks_called_moving"] == 0.5
