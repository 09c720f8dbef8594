"""Iterative prompting against an oracle segmenter whose mistakes are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from segmotion_plugin.densify.followed import FollowedMasks, duplicates, follow
from segmotion_plugin.densify.oracle import OracleSegmenter, half_of, touching
from segmotion_plugin.densify.prompting import Observations, PromptingOptions, corrections, key_frames, segment_objects
from segmotion_plugin.densify.prompting_benchmark import ORACLES, LabelWorld, make_world, our_rules, paper_rules, score
from segmotion_plugin.densify.segmenter import MaskPrompt
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.tracks import Tracks

NUM_WORLDS = 100


@pytest.fixture(scope="module")
def worlds() -> list[LabelWorld]:
    return [make_world(seed) for seed in range(NUM_WORLDS)]


@pytest.mark.parametrize(("oracle", "count_right", "mean_iou"), [("perfect", 0.95, 0.95), ("noisy", 0.85, 0.85)])
def test_marks_on_a_hundred_worlds(worlds: list[LabelWorld], oracle: str, count_right: float, mean_iou: float) -> None:
    rows = []
    for seed, world in enumerate(worlds):
        rows.append(score(world, our_rules(world, OracleSegmenter(world.labels, seed, **ORACLES[oracle]))))
    right, iou = np.mean(rows, axis=0)
    assert right >= count_right
    assert iou >= mean_iou


def test_better_than_the_rules_of_the_papers_code(worlds: list[LabelWorld]) -> None:
    ours, theirs = [], []
    for seed, world in enumerate(worlds[:25]):
        for rules, rows in ((our_rules, ours), (paper_rules, theirs)):
            rows.append(score(world, rules(world, OracleSegmenter(world.labels, seed, **ORACLES["noisy"]))))
    assert np.mean(ours, axis=0)[0] > np.mean(theirs, axis=0)[0] + 0.1
    assert np.mean(ours, axis=0)[1] > np.mean(theirs, axis=0)[1] + 0.1


def test_the_same_input_gives_the_same_masks(worlds: list[LabelWorld]) -> None:
    world = worlds[3]
    first, second = (our_rules(world, OracleSegmenter(world.labels, 3, **ORACLES["noisy"])) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_nothing_dynamic_gives_empty_masks_and_no_question() -> None:
    world = make_world(1)
    world.dynamic[:] = False
    oracle = OracleSegmenter(world.labels)
    assert our_rules(world, oracle).max() == 0
    assert oracle.clicks == 0


def test_scattered_wrong_labels_make_no_object() -> None:
    world = make_world(2)
    rng = np.random.default_rng(0)
    static = np.flatnonzero((world.segment == 0) | (world.segment > world.movers))
    world.dynamic[:] = False
    world.dynamic[rng.choice(static, 25, replace=False)] = True
    assert our_rules(world, OracleSegmenter(world.labels, 2)).max() == 0


def test_objects_of_tracks_follow_their_segments() -> None:
    world = make_world(4)
    frames = [np.zeros((*world.labels.shape[1:], 3), np.uint8)] * len(world.labels)
    object_id, masks = segment_objects(frames, world.tracks, world.dynamic, OracleSegmenter(world.labels, 4))
    for k in range(1, world.movers + 1):
        ids = object_id[(world.segment == k) & world.dynamic & world.tracks.visible.any(axis=1)]
        assert np.bincount(ids).max() >= 0.9 * len(ids)
    assert (object_id[~world.dynamic] == 0).all()
    assert set(np.unique(object_id)) - {0} == {k for t in range(len(frames)) for k in masks.objects(t)}


def test_an_object_is_absent_where_its_tracks_are_all_hidden() -> None:
    labels = np.zeros((9, 20, 30), np.uint8)
    labels[:, 5:15, 5:15] = 1
    xy = np.tile(np.stack(np.meshgrid([6.5, 9.5, 12.5], [7.5, 10.5, 12.5]), -1).reshape(-1, 1, 2), (1, 9, 1))
    visible = np.ones((9, 9), bool)
    visible[:, 3:7] = False  # hidden in frames 3 to 6, says the tracker; the segmenter does not notice
    tracks = Tracks.from_dense(xy, visible)
    frames = [np.zeros((20, 30, 3), np.uint8)] * 9
    _, masks = segment_objects(frames, tracks, np.ones(9, bool), OracleSegmenter(labels))
    assert [bool(masks.labels(t).any()) for t in range(9)] == [True] * 4 + [False] * 2 + [True] * 3


class DriftingSegmenter(OracleSegmenter):
    """Leaves the object five frames after a prompt."""

    def propagate(self, prompts: Sequence[MaskPrompt], start: int, stop: int) -> Iterator[tuple[int, dict[int, np.ndarray]]]:
        for frame, scores in super().propagate(prompts, start, stop):
            near = {p.object_id for p in prompts if abs(p.frame - frame) <= 5}
            yield frame, {k: value if k in near else np.roll(value, 40, axis=1) for k, value in scores.items()}


def test_a_mask_that_drifts_is_prompted_anew() -> None:
    world = make_world(5, num_frames=48)
    frames = [np.zeros((*world.labels.shape[1:], 3), np.uint8)] * 48
    options = {rounds: PromptingOptions(votes=3, key_frames=4, rounds=rounds) for rounds in (0, 2)}
    iou = {}
    for rounds, setting in options.items():
        _, masks = segment_objects(frames, world.tracks, world.dynamic, DriftingSegmenter(world.labels, 5), setting)
        iou[rounds] = score(world, np.stack([masks.labels(t) for t in range(48)]))[1]
    assert iou[2] > 0.9 > iou[0]


def test_windows_give_what_one_pass_gives() -> None:
    world = make_world(6)
    frames = [np.zeros((*world.labels.shape[1:], 3), np.uint8)] * len(world.labels)
    labels = []
    for window in (240, 7):
        options = PromptingOptions(window=window)
        _, masks = segment_objects(frames, world.tracks, world.dynamic, OracleSegmenter(world.labels, 6), options)
        labels.append(np.stack([masks.labels(t) for t in range(len(frames))]))
    np.testing.assert_array_equal(labels[0], labels[1])


def test_an_object_without_prompt_enters_a_window_with_its_last_mask() -> None:
    labels = np.zeros((12, 10, 10), np.uint8)
    for frame in range(12):
        labels[frame, 2:6, frame // 2 : frame // 2 + 4] = 1
    prompt = MaskPrompt(1, 0, labels[0] == 1)
    masks = follow([prompt], OracleSegmenter(labels), labels.shape, window=5)
    np.testing.assert_array_equal(np.stack([masks.labels(t) for t in range(12)]), labels)


def test_duplicates_are_chained_and_neighbours_are_not() -> None:
    masks = FollowedMasks(4, 10, 40)
    score_of = {}
    for k, (left, right) in {1: (0, 20), 2: (1, 20), 3: (2, 19), 4: (20, 40)}.items():
        score_of[k] = np.full((10, 40), -1, np.float32)
        score_of[k][:, left:right] = 1
    for frame in range(4):
        masks.store(frame, {k: score_of[k] for k in ((1, 2, 4) if frame < 2 else (2, 3, 4))})
    assert duplicates(masks) == {1: 1, 2: 1, 3: 1, 4: 4}


def test_overlaps_go_to_the_higher_score_and_back_when_it_leaves() -> None:
    masks = FollowedMasks(1, 4, 6)
    low, high = np.full((4, 6), 1.0, np.float32), np.full((4, 6), -1.0, np.float32)
    high[:, :3] = 5.0
    masks.store(0, {1: low, 2: high})
    assert (masks.labels(0)[:, :3] == 2).all() and (masks.labels(0)[:, 3:] == 1).all()
    masks.discard(0, [2])
    assert (masks.labels(0) == 1).all()
    masks.rename({1: 3})
    assert (masks.labels(0) == 3).all()


def test_corrections_point_at_what_was_wrong() -> None:
    xy = np.array([[1, 1], [2, 1], [9, 1], [5, 5]], np.float32) + 0.5
    own, inside = np.array([True, True, True, False]), np.array([True, True, False, True])
    points, positive = corrections(xy, own, inside)
    assert positive.tolist() == [True, True, False]
    assert points.tolist() == [xy[1].tolist(), xy[2].tolist(), xy[3].tolist()]


class HungrySegmenter(OracleSegmenter):
    """Runs out of memory as torch does."""

    def propagate(self, prompts: Sequence[MaskPrompt], start: int, stop: int) -> Iterator[tuple[int, dict[int, np.ndarray]]]:
        raise RuntimeError("CUDA out of memory. Tried to allocate 1.50 GiB")
        yield


def test_memory_that_runs_out_is_told_with_what_to_do() -> None:
    labels = np.ones((4, 6, 6), np.uint8)
    prompts = [MaskPrompt(k, 0, labels[0] == 1) for k in (1, 2)]
    with pytest.raises(SegmotionError, match="out of memory while 2 objects were followed through frames 0 to 3"):
        follow(prompts, HungrySegmenter(labels), labels.shape, window=10)


def test_positions_outside_the_image_are_in_no_mask() -> None:
    mask = np.ones((4, 6), bool)
    xy = np.array([[-0.1, 1], [0, 0], [5.99, 3.99], [6.0, 1], [1, 4.0]])
    assert Observations.inside(mask, xy).tolist() == [False, True, True, False, False]


def test_key_frames_hold_both_ends() -> None:
    assert key_frames(100, 5).tolist() == [0, 25, 50, 74, 99]
    assert key_frames(3, 16).tolist() == [0, 1, 2]
    assert key_frames(1, 16).tolist() == [0]


def test_flags_that_do_not_fit_are_named() -> None:
    tracks = Tracks.from_dense(np.zeros((3, 2, 2)), np.ones((3, 2), bool))
    with pytest.raises(SegmotionError, match="3 tracks need as many flags"):
        Observations(tracks, np.ones(4, bool))


def test_the_oracle_makes_its_mistakes_and_can_be_corrected() -> None:
    labels = np.zeros((1, 20, 40), np.uint8)
    labels[0, 5:15, 5:20], labels[0, 5:15, 20:30] = 1, 2
    on_first, on_second = np.array([[7.5, 9.5]]), np.array([[25.5, 9.5]])
    merged = OracleSegmenter(labels, merge=1.0)
    np.testing.assert_array_equal(merged.click(0, on_first, np.array([True])), labels[0] > 0)
    both = np.concatenate([on_first, on_second])
    np.testing.assert_array_equal(merged.click(0, both, np.array([True, False])), labels[0] == 1)
    part = OracleSegmenter(labels, part=1.0).click(0, on_first, np.array([True]))
    assert part[9, 7] and 0 < part.sum() < 150
    assert not OracleSegmenter(labels, miss=1.0).click(0, on_first, np.array([True])).any()
    assert touching(labels[0], 1) == {2}
    halves = [half_of(labels[0] == 2, name) for name in ("left", "right")]
    np.testing.assert_array_equal(halves[0] | halves[1], labels[0] == 2)
    assert not (halves[0] & halves[1]).any()
