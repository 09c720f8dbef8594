"""Scenes of the field, what they added to worlds (zoom, stuff, blur of movers only), and their part in training."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation.objects import moving_now_scores
from segmotion_plugin.simulation import CLASS_ID, World, follow, render, render_frames, scenes
from segmotion_plugin.simulation.field_scenes import FIELD_NAMES
from segmotion_plugin.simulation.paths import hand_walk
from segmotion_plugin.tracks import Tracks
from segmotion_plugin.training import clips
from segmotion_plugin.training.rendered import labelled

WIDTH, HEIGHT = 160, 90


def _world(name: str, seed: int = 1, frames: int = 24) -> World:
    return scenes.build(name, seed, frames, WIDTH, HEIGHT)


@pytest.mark.parametrize("name", FIELD_NAMES)
def test_worlds_of_the_field_repeat_and_their_tracks_lie_on_their_labels(name: str) -> None:
    world, again = _world(name, frames=4), _world(name, frames=4)
    np.testing.assert_array_equal(world.world_from_local, again.world_from_local)
    np.testing.assert_array_equal(world.cam_from_world, again.cam_from_world)
    assert not np.array_equal(world.cam_from_world, _world(name, 2, 4).cam_from_world)
    ((_, labels, _),) = render_frames(world, [3])
    tracks = world.sample_tracks(np.random.default_rng(0), 500, [0, 2])
    seen = tracks.visible[:, 3]
    column, row = np.floor(tracks.xy[seen, 3]).astype(int).T
    expected = np.where(tracks.stuff, 255, tracks.object_id)[seen]
    assert (labels[row, column] == expected).mean() > 0.98


def test_near_rocks_part_from_the_slopes_behind_them() -> None:
    for seed in (1, 2, 3):
        world = _world("near_rocks", seed)
        tracks = world.sample_tracks(np.random.default_rng(0), 800, [12])
        still = (tracks.object_id == 0) & tracks.visible[:, [8, 12, 16]].all(axis=1)
        found, _ = cv2.findHomography(tracks.xy[still, 8], tracks.xy[still, 16], cv2.RANSAC, 1.0)
        off = np.linalg.norm(cv2.perspectiveTransform(tracks.xy[still, 8][None], found)[0] - tracks.xy[still, 16], axis=1)
        assert (off > 2.0).mean() > 0.05, "no one plane explains what rests"
        assert np.median(tracks.depth[still, 12]) * 4 < np.percentile(tracks.depth[still, 12], 99)
        assert world.num_objects == 1 and world.moving[:, 1].any()


def test_crowds_hold_people_who_walk_and_people_who_stand() -> None:
    world = _world("crowd")
    person = world.class_ids == CLASS_ID["person"]
    assert world.num_objects >= 6 and (person & (world.object_ids == 0)).any()
    standing = {world.primitives[i].texture for i in np.flatnonzero(person & (world.object_ids == 0))}
    assert standing & {world.primitives[i].texture for i in np.flatnonzero(person & (world.object_ids > 0))}


def test_a_zoom_changes_rays_tracks_and_pictures_alike() -> None:
    world = _world("zoom")
    assert world.zoom is not None and world.focals.max() > 1.4 * world.focals.min()
    turned = replace(world, cam_from_world=np.tile(world.cam_from_world[:1], (world.num_frames, 1, 1)))
    first, last = (0, 23) if world.focals[0] < world.focals[23] else (23, 0)
    middle = np.array([WIDTH / 2, HEIGHT / 2])
    xy = middle + np.random.default_rng(0).uniform(-15, 15, (60, 2))
    tracks = follow(turned, np.full(60, first), xy)
    still = tracks.object_id == 0
    ratio = world.focals[last] / world.focals[first]
    np.testing.assert_allclose((tracks.xy[:, last] - middle)[still], ratio * (xy - middle)[still], atol=0.05)
    seen = still & tracks.visible[:, last]
    assert seen.sum() > 20
    assert (turned.raycast(last, tracks.xy[seen, last]).primitive == tracks.primitive[seen]).mean() > 0.95
    with pytest.raises(SegmotionError, match="3 zoom factors for the 24 frames"):
        replace(world, zoom=np.ones(3))
    assert clips.sped_up(world, 3).focals.tolist() == world.focals[::3].tolist()


def test_what_passes_close_is_fast_and_smeared_while_the_rest_is_sharp() -> None:
    world = _world("lorry")
    tracks = world.sample_tracks(np.random.default_rng(0), 900, [4, 8, 12, 16])
    pair = tracks.visible[:, :-1] & tracks.visible[:, 1:] & (tracks.object_id > 0)[:, None]
    step = np.linalg.norm(np.diff(tracks.xy, axis=1), axis=2)[pair] / WIDTH
    assert pair.sum() > 100 and 0.055 < np.median(step) < 0.16  # 60 to 120 pixels of 854, nearer sides faster
    calm = replace(world.effects, noise=0.0, exposure=0.0)
    frame = int(np.flatnonzero([(world.raycast(t, np.array([[WIDTH / 2, 50.0]])).object_id > 0).any() for t in range(24)])[0])
    resting = np.tile(world.cam_from_world[frame], (24, 1, 1))
    ours, full, sharp = (
        next(render_frames(replace(world, cam_from_world=resting, effects=effects), [frame]))
        for effects in (calm, replace(calm, blur_movers=False), replace(calm, blur_samples=1))
    )
    np.testing.assert_array_equal(ours[1], sharp[1])
    change = np.abs(ours[0].astype(float) - sharp[0]).max(axis=2)
    near = cv2.dilate((ours[1] > 0).astype(np.uint8), np.ones((3, 41))) > 0
    assert change[near].mean() > 5 and (change[~near] > 3).mean() < 0.02
    # With a camera at rest only shadows beyond the movers' boxes differ from blurring everything.
    assert (np.abs(ours[0].astype(float) - full[0]).max(axis=2) > 3).mean() < 0.03


def test_water_and_spray_are_stuff_and_no_objects() -> None:
    world = _world("spray", frames=6)
    clip = render(world)
    assert world.num_objects == 1 and set(np.unique(clip.labels)) == {0, 1, 255} and clip.moving.shape == (6, 2)
    exact = world.sample_tracks(np.random.default_rng(0), 600, [0])
    assert exact.stuff.any() and exact.moving[exact.stuff].all() and not exact.object_id[exact.stuff].any()
    for frame in (0, 5):  # material is found again where it went: waves are not folded
        seen = exact.stuff & exact.visible[:, frame]
        hit = world.raycast(frame, exact.xy[seen, frame])
        same = hit.primitive == exact.primitive[seen]
        size = np.array([world.primitives[i].size for i in exact.primitive[seen]])
        start = world.raycast(0, exact.xy[seen, 0]).local
        off = np.linalg.norm((hit.local - start) * size, axis=1)[same]
        assert same.mean() > 0.9 and (off < 0.02).mean() > 0.95
    step = np.linalg.norm(np.diff(exact.xyz, axis=1), axis=2).max(axis=1)
    assert (step[exact.stuff] > 1e-4).all()
    places = [np.argwhere((clip.labels == label).all(axis=0))[0][::-1] + 0.5 for label in (0, 1, 255)]
    tracks = Tracks.from_dense(np.repeat(np.array(places)[:, None], 6, axis=1), np.ones((3, 6), bool))
    stored = labelled(clip, tracks, np.zeros((3, 5), np.float16))
    assert stored.stuff.tolist() == [False, False, True] and stored.moving.any(axis=1).tolist() == [False, True, True]
    perfect = [np.where(labels == 255, 0, labels) for labels in clip.labels]
    scores = moving_now_scores(clip.labels, clip.moving, perfect, void=255).summary()
    assert scores["J_moving"] == 1.0 and scores["false_positives_per_frame"] == 0.0


def test_hands_move_as_measured() -> None:
    turns, shifts = [], []
    for seed in range(20):
        shift, turn = hand_walk(np.random.default_rng(seed), 200, 1.0)
        turns.append(np.diff(turn, 2, axis=0) / 2)
        shifts.append(np.diff(shift, 2, axis=0) / 2)
        assert np.ptp(turn, axis=0).min() > 20 * np.abs(turns[-1]).mean(), "slow motion is larger than unevenness"
    deviation = np.degrees(np.sqrt(np.mean(np.square(turns), axis=(0, 1))))
    np.testing.assert_allclose(deviation, [0.38, 0.14, 0.17], rtol=0.1)
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(shifts), axis=(0, 1))), [0.0052, 0.002, 0.0021], rtol=0.1)


def test_training_draws_scenes_of_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(clips.scenes, "build", lambda name, *_: drawn.append(name))
    for seed in range(300):
        clips.random_scene(np.random.default_rng(seed), 24, (96, 54), 1.0)
    share = np.mean([name in FIELD_NAMES for name in drawn])
    assert set(FIELD_NAMES) < set(drawn) and 0.65 < share < 0.8  # 0.6, and 5 of 16 of the rest


def test_stored_clips_without_stuff_can_be_read(tmp_path: Path) -> None:
    values = {item.name: np.zeros(3) for item in fields(clips.TrainingClip)}
    clips.TrainingClip(**values).save(tmp_path / "with.npz")
    assert len(clips.TrainingClip.load(tmp_path / "with.npz").stuff) == 3
    np.savez(tmp_path / "without.npz", **{key: value for key, value in values.items() if key != "stuff"})
    assert len(clips.TrainingClip.load(tmp_path / "without.npz").stuff) == 0
    np.savez(tmp_path / "broken.npz", **{key: value for key, value in values.items() if key != "xy"})
    with pytest.raises(SegmotionError, match="not a training clip"):
        clips.TrainingClip.load(tmp_path / "broken.npz")
