"""The cut finds the cheapest border, appearance learns from weighted labels, pixels get the object of their tracks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from segmotion_plugin import Tracks
from segmotion_plugin.densify.appearance import Samples, fit_logistic
from segmotion_plugin.densify.cut import cut, edge_weight
from segmotion_plugin.densify.labels import assign_objects, enlarge, moving_in_masks, parts_under


def test_the_cut_removes_noise_and_keeps_the_object() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((60, 80), bool)
    truth[15:45, 20:60] = True
    evidence = (np.where(truth, 1.0, -1.0) + rng.normal(0, 1.5, truth.shape)).astype(np.float32)
    weight = np.full(truth.shape, 1.5, np.float32)
    found = cut(evidence, weight, weight, steps=200) > 0.5
    assert np.mean(found != truth) < 0.02
    assert np.mean((evidence > 0) != truth) > 0.1


def test_the_cut_costs_no_more_than_any_other_mask() -> None:
    rng = np.random.default_rng(1)
    evidence = rng.normal(0, 1, (12, 14)).astype(np.float32)
    weight_x, weight_y = (rng.uniform(0.1, 0.6, evidence.shape).astype(np.float32) for _ in range(2))
    weight_x[:, -1], weight_y[-1] = 0, 0

    def cost(mask: np.ndarray) -> float:
        u = mask.astype(np.float32)
        borders = (weight_x[:, :-1] * np.abs(np.diff(u, axis=1))).sum() + (weight_y[:-1] * np.abs(np.diff(u, axis=0))).sum()
        return float(borders - (evidence * u).sum())

    best_mask = cut(evidence, weight_x, weight_y, steps=2000) > 0.5
    best = cost(best_mask)
    for _ in range(300):
        assert best <= cost(rng.random(evidence.shape) < 0.5) + 1e-3
        changed = best_mask.copy()
        changed[rng.integers(12), rng.integers(14)] ^= True
        assert best <= cost(changed) + 1e-3


def test_a_cut_that_goes_on_from_another_is_nearer_to_the_cheapest() -> None:
    rng = np.random.default_rng(3)
    truth = np.zeros((60, 80), bool)
    truth[15:45, 20:60] = True
    evidence = (np.where(truth, 0.3, -0.3) + rng.normal(0, 1.5, truth.shape)).astype(np.float32)
    weight = np.full(truth.shape, 1.5, np.float32)
    best = cut(evidence, weight, weight, steps=2000)
    duals = np.zeros_like(weight), np.zeros_like(weight)
    begun = cut(evidence, weight, weight, steps=40, duals=duals)
    gone_on = cut(evidence, weight, weight, begun, steps=20, duals=duals)
    anew = cut(evidence, weight, weight, begun, steps=20)
    assert np.abs(gone_on - best).mean() < 0.7 * np.abs(anew - best).mean()


def test_borders_are_cheap_on_image_edges() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, 15:] = 200
    across, _ = edge_weight(image, 4.0)
    assert across[10, 14] < 0.2 * across[10, 5]


def test_the_regression_finds_the_separating_direction() -> None:
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(4000, 3)).astype(np.float32)
    true = np.array([2.0, -1.0, 0.0])
    target = (rng.random(4000) < 1 / (1 + np.exp(-(inputs @ true + 0.5)))).astype(np.float32)
    weights = fit_logistic(Samples(inputs, target, np.ones(4000), np.zeros(4000)), ridge=0.1, steps=20)
    np.testing.assert_allclose(weights, [2.0, -1.0, 0.0, 0.5], atol=0.2)


def test_samples_without_weight_do_not_count() -> None:
    inputs = np.array([[1.0], [-1.0], [1.0], [-1.0]], np.float32)
    target = np.array([1.0, 0.0, 0.0, 1.0], np.float32)
    weights = fit_logistic(Samples(inputs, target, np.array([1.0, 1.0, 0.0, 0.0]), np.zeros(4)), ridge=0.1, steps=20)
    assert weights[0] > 0.5


@pytest.mark.parametrize("seed", range(6))
def test_a_local_model_of_a_small_mover_fits_no_worse_than_the_prior(seed: int) -> None:
    # A prior that is sure and wrong about many samples: an undamped step of Newton's method overshoots here.
    rng = np.random.default_rng(seed)
    inputs = rng.normal(0, 1, (3000, 12)).astype(np.float32)
    target = (inputs[:, 0] > 2.0).astype(np.float32)
    prior = np.concatenate([rng.normal(0, 8, 12), [-12.0]]).astype(np.float32)
    samples = Samples(inputs, target, np.ones(3000), np.zeros(3000))

    def loss(weights: np.ndarray) -> float:
        score = inputs @ weights[:-1].astype(np.float64) + weights[-1]
        return float((np.logaddexp(0, score) - target * score).sum() + ((weights - prior) ** 2).sum())

    assert loss(fit_logistic(samples, prior=prior, ridge=2.0, steps=4)) < loss(prior)


def test_fewer_samples_that_stand_for_all_give_nearly_the_same_model() -> None:
    rng = np.random.default_rng(4)
    inputs = rng.normal(size=(20_001, 3)).astype(np.float32)
    target = (inputs @ [1.0, -2.0, 0.5] + rng.logistic(size=len(inputs)) > 0).astype(np.float32)
    samples = Samples(inputs, target, rng.uniform(0.5, 1.5, len(inputs)), np.arange(len(inputs)))
    few = samples.thinned(5000)
    assert len(few.target) <= 5000 and few.weight.sum() == pytest.approx(samples.weight.sum(), rel=0.03)
    np.testing.assert_array_equal(few.inputs, inputs[few.frame])
    np.testing.assert_allclose(fit_logistic(few, ridge=3.0), fit_logistic(samples, ridge=3.0), atol=0.15)
    assert samples.thinned(len(inputs)) is samples


def test_pixels_belong_to_the_nearest_track() -> None:
    dynamic = np.zeros((20, 40), bool)
    dynamic[5:15, 4:36] = True
    xy = np.array([[16.0, 20.0], [64.0, 20.0], [40.0, 2.0]], np.float32)
    labels = assign_objects(dynamic, xy, np.array([2, 1, 0]))
    assert labels[10, 6] == 2 and labels[10, 34] == 1 and labels[2, 20] == 0
    big = enlarge(dynamic.astype(np.float32), labels, 80, 40)
    assert big.shape == (40, 80) and set(np.unique(big)) == {0, 1, 2}


@pytest.mark.parametrize("apart", [True, False])
def test_movers_far_from_each_other_are_different_objects(apart: bool) -> None:
    from segmotion_plugin.densify.objects import group

    rng = np.random.default_rng(3)
    frames = 8
    start = np.concatenate([rng.uniform(0, 20, (30, 2)), rng.uniform(0, 20, (30, 2)) + (200 if apart else 5)])
    xy = start[:, None] + np.arange(frames)[None, :, None] * np.array([3.0, 0.0])
    tracks = Tracks.from_dense(xy.astype(np.float32), np.ones((60, frames), bool))
    object_id = group(tracks, np.ones(60, bool), [(0, frames)], radius=15.0, size=(320, 180))
    assert len(set(object_id.tolist())) == (2 if apart else 1)
    assert (object_id > 0).all()


def test_touching_movers_of_different_motion_are_different_objects() -> None:
    from segmotion_plugin.densify.objects import group

    rng = np.random.default_rng(4)
    frames = 10
    left, right = rng.uniform([0, 0], [40, 60], (150, 2)), rng.uniform([40, 0], [80, 60], (150, 2))
    speed = np.concatenate([np.tile([2.0, 0.0], (150, 1)), np.tile([0.0, 2.0], (150, 1))])
    xy = np.concatenate([left, right])[:, None] + np.arange(frames)[None, :, None] * speed[:, None]
    tracks = Tracks.from_dense(xy.astype(np.float32), np.ones((300, frames), bool))
    object_id = group(tracks, np.ones(300, bool), [(0, frames)], radius=14.0, size=(320, 180))
    first, second = np.bincount(object_id[:150]).argmax(), np.bincount(object_id[150:]).argmax()
    assert first != second
    assert (object_id[:150] == first).mean() > 0.9 and (object_id[150:] == second).mean() > 0.9


def _group(xy: np.ndarray, visible: np.ndarray | None = None) -> np.ndarray:
    """Objects of N×T×2 moving tracks beside static ones."""
    from segmotion_plugin.densify.objects import group

    frames = xy.shape[1]
    still = np.stack(np.meshgrid(np.arange(10, 320, 25.0), np.arange(10, 180, 25.0)), axis=-1).reshape(-1, 1, 2)
    everything = np.concatenate([xy, np.repeat(still, frames, axis=1)]).astype(np.float32)
    seen = np.ones(everything.shape[:2], bool)
    if visible is not None:
        seen[: len(xy)] = visible
    moving = np.arange(len(everything)) < len(xy)
    return group(Tracks.from_dense(everything, seen), moving, [(0, frames)], radius=14.0, size=(320, 180))[: len(xy)]


def _block(x: float, y: float, columns: int = 8, rows: int = 8) -> np.ndarray:
    return np.stack(np.meshgrid(x + 4.0 * np.arange(columns), y + 4.0 * np.arange(rows)), axis=-1).reshape(-1, 2)


def test_a_swinging_limb_stays_with_its_body() -> None:
    time = np.arange(24)[None, :, None]
    body = _block(60, 40)[:, None] + time * np.array([4.0, 0.0])
    leg = _block(72, 72, 3, 6)[:, None] + time * np.array([4.0, 0.0]) + 9.0 * np.sin(time * 0.9) * np.array([1.0, 0.0])
    assert np.unique(_group(np.concatenate([body, leg]))).tolist() == [1]


def test_what_hides_and_comes_back_is_the_same_object() -> None:
    time = np.arange(30)[None, :, None]
    path = _block(30, 60)[:, None] + time * np.array([5.0, 0.0])
    before = np.repeat((np.arange(30) < 12)[None], len(path), axis=0)
    after = np.repeat((np.arange(30) > 16)[None], len(path), axis=0)
    found = _group(np.concatenate([path, path]), np.concatenate([before, after]))
    assert np.unique(found).tolist() == [1]


def test_things_that_touch_for_a_while_and_part_are_two() -> None:
    time = np.arange(30)[None, :, None]
    one = _block(40, 50)[:, None] + time * np.array([4.0, 0.0])
    other = _block(160, 82)[:, None] - time * np.array([4.0, 0.0])
    found = _group(np.concatenate([one, other]))
    first, second = np.bincount(found[:64]).argmax(), np.bincount(found[64:]).argmax()
    assert first != second and (found[:64] == first).mean() > 0.95 and (found[64:] == second).mean() > 0.95


def test_a_few_tracks_between_two_movers_do_not_make_one_of_them() -> None:
    from segmotion_plugin.densify.cuts import cut_apart
    from segmotion_plugin.densify.fragments import Sightings

    time = np.arange(30)[None, :, None]
    one = _block(40, 50)[:, None] + time * np.array([4.0, 0.0])
    other = _block(72, 50)[:, None] + time * np.array([1.0, 1.0])
    xy = np.concatenate([one, other]).astype(np.float32)
    tracks = Tracks.from_dense(xy, np.ones(xy.shape[:2], bool))
    side = np.repeat([0, 1], 64)
    likeness = np.where(side[:, None] == side[None], 1.0, 0.02)
    seen = Sightings.collect(tracks, np.arange(128), np.zeros(len(tracks.xy_flat), int), (320, 180), (0, 30))
    weight = tracks.length.astype(np.float64)
    found = cut_apart(seen, np.zeros(128, int), csr_matrix(likeness), weight, 100.0)
    assert len(np.unique(found)) == 2 and len(np.unique(found[:64])) == 1 and len(np.unique(found[64:])) == 1
    # One thing is not cut, wherever its graph is weakest.
    together = Tracks.from_dense(np.concatenate([one, one + [32.0, 0.0]]).astype(np.float32), np.ones((128, 30), bool))
    seen = Sightings.collect(together, np.arange(128), np.zeros(len(tracks.xy_flat), int), (320, 180), (0, 30))
    assert np.unique(cut_apart(seen, np.zeros(128, int), csr_matrix(likeness), weight, 100.0)).tolist() == [0]


def test_objects_of_two_shots_are_never_the_same() -> None:
    from segmotion_plugin.densify.objects import group

    time = np.arange(20)[None, :, None]
    path = _block(60, 60)[:, None] + time * np.array([4.0, 0.0])
    xy, visible = np.concatenate([path, path]).astype(np.float32), np.ones((128, 20), bool)
    visible[:64, 10:] = visible[64:, :10] = False
    xy[~visible] = np.nan
    found = group(Tracks.from_dense(xy, visible), np.ones(128, bool), [(0, 10), (10, 20)], radius=14.0, size=(320, 180))
    assert sorted({*found[:64].tolist()}) == [1] and sorted({*found[64:].tolist()}) == [2]


def test_masks_tell_which_tracks_move_and_what_hangs_together() -> None:
    xy = np.array([[10.0, 10.0], [14.0, 10.0], [60.0, 10.0], [90.0, 30.0]], np.float32)[:, None].repeat(3, axis=1)
    tracks = Tracks.from_dense(xy, np.ones((4, 3), bool))
    mask = np.zeros((20, 50), bool)
    mask[3:8, 3:10] = mask[3:8, 28:33] = True
    part, seen = parts_under(tracks, [(0, mask), (1, mask)])
    part, seen = part.reshape(4, 3), seen.reshape(4, 3)
    assert part[0, 0] == part[1, 0] >= 0 and part[2, 0] >= 0 and part[2, 0] != part[0, 0]
    assert (part[3] == -1).all() and (part[:, 2] == -1).all() and seen[:, :2].all() and not seen[:, 2].any()
    # Masks raise the doubtful ones that they cover and drop those that they do not, unless a frame without masks is all they have.
    probability = np.array([0.9, 0.2, 0.001, 0.9])
    assert moving_in_masks(tracks, probability, part.ravel(), seen.ravel()).tolist() == [True, True, False, False]
    nowhere = np.zeros_like(seen.ravel())
    assert moving_in_masks(tracks, probability, np.full(12, -1), nowhere).tolist() == [True, False, False, True]


def test_what_looks_alike_comes_back_as_the_same_object_and_what_does_not_is_another() -> None:
    from segmotion_plugin.densify.fragments import Sightings, join

    time = np.arange(40)[None, :, None]
    path = (_block(30, 60)[:, None] + time * np.array([5.0, 0.0])).astype(np.float32)
    seen = np.concatenate([np.repeat((np.arange(40) < 10)[None], 64, axis=0), np.repeat((np.arange(40) > 24)[None], 64, axis=0)])
    tracks = Tracks.from_dense(np.where(seen[..., None], np.concatenate([path, path + [0.0, 30.0]]), np.nan), seen)
    sightings = Sightings.collect(tracks, np.arange(128), np.zeros(len(tracks.xy_flat), int), (320, 180), (0, 40))
    label, alike = np.repeat([0, 1], 64), np.ones((128, 3), np.float32)
    assert np.unique(join(sightings, label, alike)).tolist() == [0]
    alike[64:] = [1.0, -1.0, -1.0]
    assert np.unique(join(sightings, label, alike)).tolist() == [0, 1]


def test_a_small_animal_without_a_rigid_part_is_an_object() -> None:
    rng = np.random.default_rng(5)
    time = np.arange(30)[None, :, None]
    body = _block(40, 30, 12, 12)[:, None] + time * np.array([3.0, 0.0])
    swing = 6.0 * np.sin(time * 0.9 + rng.uniform(0, 2 * np.pi, (36, 1, 1))) * np.array([1.0, 0.0])
    animal = _block(270, 120, 6, 6)[:, None] - time * np.array([5.0, 0.0]) + swing
    found = _group(np.concatenate([body, animal]))
    assert np.unique(found[:144]).tolist() == [1] and np.unique(found[144:]).tolist() == [2]
