from __future__ import annotations

import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation import davis


def _golden_cases() -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Recorded masks and scores of the reference implementation, where they are at hand, and one case worked by hand.

    The hand case: a 4×4 square at the origin of a 10×10 image against one shifted right by one; tolerance ceil(.008·14.1) = 1.
    """
    truth, shifted = np.zeros((2, 10, 10), dtype=bool)
    truth[:4, :4] = True
    shifted[:4, 1:5] = True
    # True boundary: column 3 in rows 0–3 and row 3 in columns 0–3, 7 pixels. The other: column 4 in rows 0–3, row 3 in columns
    # 1–4, and column 0 in rows 0–3, left of the square, 12 less the shared corner = 11. Within 1 pixel of the other lie all 7;
    # of the true one all but column 0 in rows 0 and 1, so 9 of 11.
    cases = [("by hand", truth[None], shifted[None], np.array([12 / 20]), np.array([2 * (9 / 11) / (1 + 9 / 11)]))]
    shared = Path(os.environ.get("SEGMOTION_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    path = shared / "golden" / "davis_metrics_reference.npz"
    if path.is_file():
        with np.load(path) as data:
            for name in sorted({key.split(".")[0] for key in data.files}):
                shape = tuple(data[f"{name}.shape"])
                truth, predicted = (
                    np.unpackbits(data[f"{name}.{part}"], count=int(np.prod(shape))).reshape(shape).astype(bool)
                    for part in ("gt", "pred")
                )
                cases.append((name, truth, predicted, data[f"{name}.J"], data[f"{name}.F"]))
    return cases


@pytest.mark.parametrize("case", _golden_cases(), ids=lambda case: case[0])
def test_scores_equal_the_reference(case) -> None:
    _, truth, predicted, region, boundary = case
    ours_region, ours_boundary = davis.sequence_scores(truth, predicted)
    np.testing.assert_allclose(ours_region, region, atol=1e-6)
    np.testing.assert_allclose(ours_boundary, boundary, atol=1e-6)


def _plain_f(truth: np.ndarray, predicted: np.ndarray) -> float:
    """The measure as published, pixel by pixel: neighbours by shifting, matching by distances of all boundary pairs."""

    def line(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
        return (mask ^ padded[:-1, 1:]) | (mask ^ padded[1:, :-1]) | (mask ^ padded[1:, 1:])

    a, b = np.argwhere(line(truth)), np.argwhere(line(predicted))
    if not len(a) or not len(b):
        return float(len(a) == len(b))
    close = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1)) <= np.ceil(0.008 * np.hypot(*truth.shape))
    recall, precision = close.any(axis=1).mean(), close.any(axis=0).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(2, 60), st.floats(0.2, 0.8))
def test_boundary_measure_equals_the_plain_definition(seed: int, height: int, width: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = (cv2.blur(rng.random((height, width)), (5, 5)) > level for _ in range(2))
    assert davis.boundary_accuracy(truth, predicted) == pytest.approx(_plain_f(truth, predicted), abs=1e-12)


def test_wider_images_have_a_wider_tolerance() -> None:
    assert davis.tolerance((480, 854)) == 8
    assert davis.tolerance((10, 10)) == 1
    assert davis.tolerance((480, 854), bound=3) == 3
    truth, predicted = np.zeros((2, 480, 854), dtype=bool)
    truth[100:300, 100:300] = True
    predicted[100:300, 108:308] = True
    assert davis.boundary_accuracy(truth, predicted) == 1.0
    predicted = np.roll(predicted, 1, axis=1)
    assert 0.4 < davis.boundary_accuracy(truth, predicted) < 0.6


def test_masks_without_a_boundary() -> None:
    empty, full, some = np.zeros((20, 30), bool), np.ones((20, 30), bool), np.zeros((20, 30), bool)
    some[5:9, 5:9] = True
    assert davis.region_similarity(empty, empty) == davis.boundary_accuracy(empty, empty) == 1.0
    assert davis.region_similarity(some, empty) == davis.boundary_accuracy(some, empty) == 0.0
    assert davis.region_similarity(empty, some) == davis.boundary_accuracy(empty, some) == 0.0
    assert davis.boundary_accuracy(full, empty) == 1.0  # neither has a boundary, as in the reference
    assert davis.region_similarity(full, empty) == 0.0


def test_void_pixels_count_for_neither() -> None:
    truth, predicted, void = np.zeros((3, 40, 40), dtype=bool)
    truth[10:20, 10:20] = True
    predicted[10:20, 10:30] = True
    void[:, 20:] = True
    assert davis.region_similarity(truth, predicted) == 0.5
    assert davis.region_similarity(truth, predicted, void) == 1.0
    assert davis.boundary_accuracy(truth, predicted) < davis.boundary_accuracy(truth, predicted, void) == 1.0


def test_matrix_equals_single_pairs() -> None:
    rng = np.random.default_rng(3)
    masks = [cv2.blur(rng.random((60, 80)), (9, 9)) > 0.5 for _ in range(5)]
    matrix = davis.boundary_accuracies(masks[:2], masks[2:])
    assert matrix.shape == (2, 3)
    for row in range(2):
        for column in range(3):
            assert matrix[row, column] == davis.boundary_accuracy(masks[row], masks[2 + column])
    assert davis.boundary_accuracies([], masks).shape == (0, 5)


def test_a_full_size_frame_takes_milliseconds() -> None:
    truth, predicted = np.zeros((2, 480, 854), dtype=bool)
    cv2.ellipse(truth.view(np.uint8), (427, 240), (300, 180), 10, 0, 360, 1, -1)
    cv2.ellipse(predicted.view(np.uint8), (440, 235), (310, 170), 5, 0, 360, 1, -1)
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        davis.boundary_accuracy(truth, predicted)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.01


def test_sequences_must_fit() -> None:
    frame = np.zeros((4, 5), bool)
    with pytest.raises(SegmotionError, match="after 1 frames only the truth goes on"):
        davis.sequence_scores([frame, frame], [frame])
    with pytest.raises(SegmotionError, match="only the prediction goes on"):
        davis.sequence_scores([frame], [frame, frame])
    with pytest.raises(SegmotionError, match=r"frame 0: true mask \(4, 5\) and predicted mask \(5, 4\)"):
        davis.sequence_scores([frame], [frame.T])
    with pytest.raises(SegmotionError, match="no frame"):
        davis.sequence_scores([], [])


def test_static_pixels_masked_leave_the_border_out_and_movers_missed_count_all() -> None:
    truth, predicted = np.zeros((2, 2, 50, 50), bool)  # tolerance ceil(.008·70.7) = 1
    truth[0, 10:20, 10:20] = True
    predicted[0, 10:20, 10:25] = True  # 15 wide: one column of the spill is border, four are static
    predicted[0, 10:15, 10:20] = False
    static = 2 * 2500 - (100 + 40)
    scores = davis.masked_and_missed(truth, predicted)
    assert scores == {"static_masked": 40 / static, "mover_missed": 0.5}
    void = np.zeros((2, 50, 50), bool)
    void[0, :, 22:], void[0, :12] = True, True
    scores = davis.masked_and_missed(truth, predicted, void)
    assert scores["mover_missed"] == 30 / 80  # rows 12 to 14 of 12 to 19
    assert scores["static_masked"] == 8 / (2500 + 38 * 22 - 8 * 10 - (8 + 8 + 10))
    assert davis.masked_and_missed([truth[1]], [predicted[1]]) == {"static_masked": 0.0, "mover_missed": None}
    with pytest.raises(SegmotionError, match="differ in length"):
        davis.masked_and_missed(truth, predicted[:1])
