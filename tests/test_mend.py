"""Flow that is lost in one direction is taken from the other, or from the pair of frames before."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from segmotion_plugin.trackers.far import lost, missed_at_rest
from segmotion_plugin.trackers.mend import mend

SIZE = (80, 140)
SIDE, STEP = 14, np.array([9.0, -3.0], np.float32)


def _pair() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Two pictures of a textured square that goes far over a still wall, and the true flows between them."""
    rng = np.random.default_rng(5)
    wall = cv2.resize(rng.integers(80, 150, (20, 35), dtype=np.uint8), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    square = cv2.resize(rng.integers(150, 255, (5, 5), dtype=np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    images, flows = [], []
    for x, y, step in ((40, 40, STEP), (49, 37, -STEP)):
        image, flow = wall.copy(), np.zeros((*SIZE, 2), np.float32)
        image[y : y + SIDE, x : x + SIDE] = square
        flow[y : y + SIDE, x : x + SIDE] = step
        images.append(image)
        flows.append(flow)
    return (images[0], images[1]), (flows[0], flows[1])


def _uncovered(truth: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of each picture, some way from what the square covers in the other one (that has no true flow)."""
    on = [flow.any(axis=2) for flow in truth]
    covered = (cv2.dilate((on[1 - k] & ~on[k]).astype(np.uint8), np.ones((7, 7))) > 0 for k in (0, 1))
    first, second = (~mask for mask in covered)
    return first, second


def _mended(flows: tuple[np.ndarray, np.ndarray], last: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    images, _ = _pair()
    absolute = missed_at_rest(1.0)
    gone = lost(images, flows, absolute), lost(images[::-1], flows[::-1], absolute)
    return mend(images, flows, gone, last)


@pytest.mark.parametrize("direction", [0, 1])
def test_what_one_direction_lost_the_other_tells(direction: int) -> None:
    _, truth = _pair()
    flows = truth[0].copy(), truth[1].copy()
    flows[direction][:] = 0
    replaced = _mended(flows)
    on = truth[direction].any(axis=2)
    right = np.linalg.norm(flows[direction] - truth[direction], axis=2) < 0.5
    assert right[on].mean() > 0.85 and right[~on].mean() > 0.98
    assert replaced[direction][on].mean() > 0.85
    same = (flows[1 - direction] == truth[1 - direction]).all(axis=2)
    assert same[_uncovered(truth)[1 - direction]].all()


def test_what_both_directions_lost_goes_on_as_before() -> None:
    _, truth = _pair()
    flows = np.zeros_like(truth[0]), np.zeros_like(truth[1])
    _mended(flows, last=-truth[0])
    on = truth[0].any(axis=2), truth[1].any(axis=2)
    for flow, true, mask in zip(flows, truth, on, strict=True):
        assert (np.linalg.norm(flow - true, axis=2) < 0.5)[mask].mean() > 0.85


def test_a_step_that_explains_nothing_is_not_taken() -> None:
    _, truth = _pair()
    flows = np.zeros_like(truth[0]), np.zeros_like(truth[1])
    before = -truth[0] * 3
    assert not any(where.any() for where in _mended(flows, last=before))
    assert not flows[0].any() and not flows[1].any()


def test_right_flow_stays_as_it_is() -> None:
    _, truth = _pair()
    flows = truth[0].copy(), truth[1].copy()
    replaced = _mended(flows, last=np.full_like(truth[0], 4.0))
    open_ = _uncovered(truth)
    assert not any((where & clear).any() for where, clear in zip(replaced, open_, strict=True))
    for flow, true, where in zip(flows, truth, replaced, strict=True):
        assert np.array_equal(flow[~where], true[~where])
