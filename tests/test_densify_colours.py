"""A first mask is drawn again with the colours of what moves: rims go, plain insides come back, what rests stays outside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from segmotion_plugin.densify.colours import ColourOptions, colour_bins, colour_odds, draw_again
from segmotion_plugin.densify.cut import edge_weight

_SMALL = ColourOptions().scaled(0.7)


def _drawn(image: np.ndarray, evidence: np.ndarray, unlike: np.ndarray, first: np.ndarray, options: ColourOptions) -> np.ndarray:
    return draw_again(image, evidence, unlike, first, edge_weight(image, 4.0), 60, options)


def _picture(rng: np.random.Generator, truth: np.ndarray, inside: tuple[int, int, int], outside: tuple[int, int, int]) -> np.ndarray:
    image = np.where(truth[..., None], inside, outside) + rng.normal(0, 6, (*truth.shape, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def _iou(soft: np.ndarray, truth: np.ndarray) -> float:
    found = soft > 0.5
    return float((found & truth).sum() / (found | truth).sum())


def _truth() -> np.ndarray:
    truth = np.zeros((90, 120), bool)
    truth[30:60, 40:80] = True
    return truth


def test_a_rim_of_background_goes_and_a_missing_corner_comes_back() -> None:
    truth = _truth()
    image = _picture(np.random.default_rng(0), truth, (180, 60, 50), (60, 110, 70))
    first = np.zeros_like(truth)
    first[26:56, 36:84] = True  # a rim of four pixels on three sides, and the lower four rows missing
    evidence = np.where(first, 2.0, -2.0).astype(np.float32)
    drawn = _drawn(image, evidence, np.zeros(truth.shape), first.astype(np.float32), _SMALL)
    assert _iou(first.astype(np.float32), truth) < 0.8
    assert _iou(drawn, truth) > 0.97


def test_without_a_difference_in_colour_the_first_mask_stays() -> None:
    truth = _truth()
    image = _picture(np.random.default_rng(1), truth, (90, 90, 90), (90, 90, 90))
    evidence = np.where(truth, 3.0, -3.0).astype(np.float32)
    drawn = _drawn(image, evidence, np.zeros(truth.shape), truth.astype(np.float32), _SMALL)
    assert _iou(drawn, truth) > 0.95


def test_every_part_has_colours_of_its_own() -> None:
    # Each mover has the colour of the ground around the other one: colours learned together would say nothing.
    rng = np.random.default_rng(2)
    truth = np.zeros((80, 200), bool)
    truth[25:55, 30:60] = truth[25:55, 140:170] = True
    left = np.arange(200) < 100
    image = np.where(left[None, :, None] == truth[..., None], (170, 60, 60), (60, 60, 170)) + rng.normal(0, 5, (80, 200, 3))
    first = np.zeros_like(truth)
    first[22:58, 27:63] = first[22:58, 137:173] = True
    evidence = np.where(first, 2.0, -2.0).astype(np.float32)
    image = np.clip(image, 0, 255).astype(np.uint8)
    arguments = (image, evidence, np.zeros(truth.shape), first.astype(np.float32))
    assert _iou(_drawn(*arguments, _SMALL), truth) > 0.95
    assert _iou(_drawn(*arguments, replace(_SMALL, merge=60)), truth) < 0.9


def test_a_resting_twin_beside_a_mover_is_not_swallowed() -> None:
    rng = np.random.default_rng(3)
    mover, twin = _truth(), np.zeros((90, 120), bool)
    twin[30:60, 80:110] = True
    checks = 60 * ((np.indices(mover.shape) // 3).sum(axis=0) % 2)[..., None]
    image = np.where((mover | twin)[..., None], (150, 60, 60), (60, 90, 60)) + checks + rng.normal(0, 4, (90, 120, 3))
    image = np.clip(image, 0, 255).astype(np.uint8)
    evidence = np.where(mover, 2.0, -2.0).astype(np.float32)
    drawn = _drawn(image, evidence, np.where(mover, 0.5, -2.0), mover.astype(np.float32), _SMALL)
    assert _iou(drawn, mover) > 0.9
    blind = _drawn(image, evidence, np.zeros(mover.shape), mover.astype(np.float32), _SMALL)
    assert blind[twin].mean() > 0.9


def test_colour_odds_change_sign_when_inside_and_outside_do() -> None:
    rng = np.random.default_rng(5)
    bins = colour_bins(rng.integers(0, 255, (30, 40, 3)).astype(np.uint8))
    inside, outside = rng.random((30, 40)), rng.random((30, 40))
    np.testing.assert_allclose(colour_odds(bins, inside, outside), -colour_odds(bins, outside, inside), atol=1e-6)
    # Only shares count, not sizes.
    np.testing.assert_allclose(colour_odds(bins, 7 * inside, outside), colour_odds(bins, inside, outside), atol=1e-5)


def test_an_empty_mask_and_no_rounds_change_nothing() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    nothing, evidence, apart = np.zeros((20, 30), np.float32), np.ones((20, 30), np.float32), np.zeros((20, 30))
    assert not _drawn(image, evidence, apart, nothing, _SMALL).any()
    some = np.zeros((20, 30), np.float32)
    some[5:10, 5:10] = 1
    np.testing.assert_array_equal(_drawn(image, evidence, apart, some, replace(_SMALL, rounds=0)), some)
