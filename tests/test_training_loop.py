"""Training: noise, samples, targets, checkpoints, calibration, export."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.motion.classifier import classify
from segmotion_plugin.motion.features import TOKEN_CHANNELS, WINDOW
from segmotion_plugin.motion.geometry import FitOptions
from segmotion_plugin.motion.model import ModelConfig, TrajectoryTransformer, load_weights
from segmotion_plugin.simulation import scenes
from segmotion_plugin.simulation.render import render
from segmotion_plugin.trackers.dis import track
from segmotion_plugin.tracks import Tracks
from segmotion_plugin.training import train
from segmotion_plugin.training.ablation import AblationConfig, variants
from segmotion_plugin.training.ablation import main as ablate
from segmotion_plugin.training.calibrate import LabelledClip, averages, calibrate, scores
from segmotion_plugin.training.clips import TrainingClip, apparent_motion, clip_path, exact_clip, pool
from segmotion_plugin.training.dataset import collate, draw_sample
from segmotion_plugin.training.loop import TrainConfig, learning_rate, loss_of, optimise
from segmotion_plugin.training.noise import tracker_noise
from segmotion_plugin.training.rendered import described_tracks, labelled

SMALL = ModelConfig(width=16, heads=2, hidden=16, layers=1, blocks=1)
FIT = FitOptions(8, 1, 48)


@pytest.fixture(scope="module")
def clip() -> TrainingClip:
    return exact_clip(11, num_tracks=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, clip: TrainingClip) -> Path:
    out = tmp_path_factory.mktemp("training")
    for name in ("exact", "tracked", "held_out"):
        for seed in range(2):
            clip.save(clip_path(out / name, seed))
    return out


def test_the_same_seed_gives_the_same_clip(clip: TrainingClip) -> None:
    again = exact_clip(11, num_tracks=120)
    np.testing.assert_array_equal(clip.xy, again.xy)
    np.testing.assert_array_equal(clip.moving, again.moving)


def test_apparent_motion_is_zero_for_what_rests() -> None:
    world = scenes.build("two_cars_parked_twin", 3, 24, 320, 180)
    tracks = world.sample_tracks(np.random.default_rng(0), 200, [0, 8])
    apparent = apparent_motion(world, tracks).astype(float)
    moves = tracks.moving.any(axis=1)
    assert np.nanmax(apparent[~moves & (tracks.object_id == 0)]) < 0.05
    assert np.nanmax(apparent[moves], axis=1).min() > 0.2


def test_stored_clips_come_back_and_damaged_ones_are_named(tmp_path: Path, clip: TrainingClip) -> None:
    path = clip_path(tmp_path, 7)
    clip.save(path)
    assert pool(tmp_path) == [path]
    np.testing.assert_array_equal(TrainingClip.load(path).xy, clip.xy)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SegmotionError, match="clip_000000007"):
        TrainingClip.load(path)


def test_noise_ends_tracks_and_drags_what_lies_beside_a_mover() -> None:
    rng = np.random.default_rng(0)
    columns = 12
    background = rng.uniform(0, 400, (400, 2))
    mover = rng.uniform(150, 250, (150, 2))
    rest = np.concatenate([background, mover])
    step = np.concatenate([np.zeros((400, 2)), np.full((150, 2), [3.0, 0.0])])
    xy = rest[:, None] + step[:, None] * np.arange(columns)[None, :, None]
    depth = np.concatenate([np.full((400, columns), 10.0), np.full((150, columns), 4.0)])
    surface = np.repeat([0, 1], [400, 150])
    visible = np.ones((550, columns), bool)
    near = (np.abs(background - 200).max(axis=1) > 52) & (np.abs(background - 200).max(axis=1) < 60)
    far = np.abs(background - 200).max(axis=1) > 120
    dragged, left, lengths = [], [], []
    for seed in range(12):
        noisy = tracker_noise(xy, visible, depth, surface, np.zeros(550, int), np.random.default_rng(seed), 1000.0)
        assert np.isfinite(noisy.xy[noisy.visible]).all()
        assert ((noisy.confidence > 0) <= noisy.visible).all()
        error = np.abs(noisy.xy[:400, 1] - noisy.xy[:400, 0] - 0.0)[:, 0]
        dragged.append(np.nanmedian(error[near]))
        left.append(np.nanmedian(error[far]))
        lengths.append(noisy.visible.sum(axis=1).mean())
    assert np.mean(dragged) > 2 * np.mean(left)
    assert min(lengths) < 0.8 * columns


def test_samples_have_targets_only_where_seen(clip: TrainingClip) -> None:
    rng = np.random.default_rng(1)
    for _ in range(6):
        sample = draw_sample(clip, rng, 96, use_depth=True, use_semantics=True, semantic_size=8)
        assert sample is not None
        assert sample.xy.shape[1] == WINDOW and len(sample.moves) <= 96
        assert (sample.visible.sum(axis=1) >= 2).all()
        assert not sample.moving[~sample.visible].any()
        np.testing.assert_array_equal(sample.moves > 0, sample.moving.any(axis=1))
        assert sample.semantics is not None and sample.semantics.shape[1] == 8


def test_batches_pad_short_samples_without_weight(clip: TrainingClip) -> None:
    rng = np.random.default_rng(2)
    samples = [draw_sample(clip, rng, count, True, True, 8) for count in (80, 30)]
    batch = collate([s for s in samples if s is not None], FIT, torch.Generator().manual_seed(0))
    assert batch.window.tokens.shape[-1] == TOKEN_CHANNELS
    assert batch.window.depth is not None
    assert (batch.weight[1, 30:] == 0).all() and not batch.window.visible[1, 30:].any()
    assert torch.isfinite(batch.window.tokens).all()
    low = loss_of(10 * (batch.moves - 0.5), 10 * (batch.moving - 0.5), batch)
    high = loss_of(-10 * (batch.moves - 0.5), -10 * (batch.moving - 0.5), batch)
    assert low < high


def test_a_stopped_training_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    config = TrainConfig(fine_steps=0, out=tmp_path, steps=2, batch=2, tracks=48, model=SMALL)
    checkpoint = tmp_path / "checkpoint.pt"
    optimise(config, folder / "exact", folder / "tracked", checkpoint, report=False)
    assert torch.load(checkpoint, weights_only=True)["step"] == 2
    config.steps = 3
    optimise(config, folder / "exact", folder / "tracked", checkpoint, report=False)
    assert torch.load(checkpoint, weights_only=True)["step"] == 3
    config.model = ModelConfig(width=24, heads=2, hidden=16, layers=1, blocks=1)
    with pytest.raises(SegmotionError, match="another shape"):
        optimise(config, folder / "exact", folder / "tracked", checkpoint, report=False)


def test_no_clips_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegmotionError, match="no training clips"):
        optimise(
            TrainConfig(fine_steps=0, steps=1, model=SMALL),
            tmp_path / "a",
            tmp_path / "b",
            tmp_path / "c.pt",
            report=False,
        )


def test_the_learning_rate_warms_up_and_falls() -> None:
    config = TrainConfig(steps=1000, learning_rate=1e-3, fine_steps=500)
    rates = [learning_rate(step, config) for step in (0, 199, 600, 999, 1000, 1500)]
    assert rates[0] < 1e-5 < rates[2] < rates[1] and rates[3] == pytest.approx(5e-5, rel=0.01)
    assert rates[4] == pytest.approx(1e-3 / 3) and rates[5] == pytest.approx(1e-3 / 60)


def test_one_command_trains_calibrates_and_exports(folder: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        fine_steps=0,
        out=folder,
        steps=2,
        batch=2,
        tracks=48,
        exact_clips=2,
        tracked_clips=0,
        held_out=0,
        export=tmp_path,
        model=SMALL,
    )
    weights = train.main(config)
    model, calibration = load_weights(weights)
    assert model.config == SMALL and calibration.track_slope > 0
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert "Apache-2.0" in card and "segmotion train" in card
    assert cv2.imread(str(tmp_path / "training_curve.png")) is not None
    stored = LabelledClip.from_training(pool(folder / "held_out")[0])
    assert np.isfinite(classify(stored.tracks, stored.size, weights=weights).probability).all()


def test_the_curve_is_written_every_fifty_steps(folder: Path, tmp_path: Path) -> None:
    config = TrainConfig(fine_steps=0, steps=50, batch=1, tracks=24, model=SMALL)
    optimise(config, folder / "exact", folder / "tracked", tmp_path / "c.pt", report=False)
    with open(tmp_path / "c.csv", newline="") as handle:
        rows = list(csv.reader(handle))
    assert [row[0] for row in rows] == ["50"] and 0 < float(rows[0][1]) < 5


def test_calibration_brings_back_the_scale_of_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    tracks = Tracks.from_dense(rng.uniform(0, 100, (4000, 2, 2)), np.ones((4000, 2), bool))
    truth_logit = rng.normal(0, 3, 4000)
    truth = (rng.random(4000) < 1 / (1 + np.exp(-truth_logit))).astype(int)
    clips = [LabelledClip("a", tracks, (100, 100), truth, np.repeat(truth > 0, 2))]

    def stretched(*_: object, **__: object) -> tuple[np.ndarray, np.ndarray]:
        return 4 * truth_logit + 6, 4 * np.repeat(truth_logit, 2)

    monkeypatch.setattr("segmotion_plugin.training.calibrate.merged_logits", stretched)
    found = calibrate(None, clips)  # type: ignore[arg-type]
    assert found.track_slope == pytest.approx(0.25, abs=0.06)
    assert found.track_bias == pytest.approx(-1.5, abs=0.4)
    assert found.frame_bias == pytest.approx(0.0, abs=0.4)


def test_averages_keep_static_clips_apart(clip: TrainingClip) -> None:
    rng = np.random.default_rng(0)
    tracks = Tracks.from_dense(rng.uniform(0, 100, (10, 2, 2)), np.ones((10, 2), bool))
    moving = LabelledClip("m", tracks, (9, 9), np.arange(10) % 2, None)
    still = LabelledClip("s", tracks, (9, 9), np.zeros(10, int), None)
    table = scores([moving, still], lambda c: (np.arange(10) % 2) * 0.9)
    mean = averages(table)
    assert mean["track_AUC"] == 1.0 and mean["track_F1"] == 1.0
    assert mean["static_called_moving"] == 0.5


def test_rendered_labels_follow_the_majority() -> None:
    clip = render(scenes.build("walker", 1_000_001, 4, 96, 54))
    labels = clip.labels
    inside = np.argwhere((labels > 0).all(axis=0))
    outside = np.argwhere((labels == 0).all(axis=0))
    points = np.stack([inside[len(inside) // 2], outside[3]])[:, ::-1] + 0.5
    tracks = Tracks.from_dense(np.repeat(points[:, None], 4, axis=1), np.ones((2, 4), bool))
    result = labelled(clip, tracks, np.zeros((2, 5), np.float16))
    assert result.moving[0].any() and not result.moving[1].any()
    assert result.features.shape == (2, 5)


def test_clips_are_tracked_and_described_at_the_working_size() -> None:
    clip = render(scenes.build("walker", 1_000_001, 4, 96, 54))
    tracks, features = described_tracks(list(clip.frames), np.random.default_rng(0), 60)
    assert len(tracks) == 60 and features.shape == (60, 152) and np.isfinite(features.astype(float)).any()
    assert (tracks.xy_flat >= 0).all() and (tracks.xy_flat <= [96, 54]).all()
    # At twice the size points lie 4 pixels apart there at least, so 2 here: closer than on the frames as they are.
    everything, _ = described_tracks(list(clip.frames), np.random.default_rng(0), 10**6)
    assert len(everything) > 1.5 * len(track(list(clip.frames)))


def test_the_ablation_table_lists_every_variant(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segmotion_plugin.training.ablation.ModelConfig", lambda: SMALL)
    monkeypatch.setattr("segmotion_plugin.training.ablation.TrainConfig", lambda **k: TrainConfig(batch=1, tracks=24, **k))
    table = ablate(AblationConfig(clips=folder, out=tmp_path, twins=1, steps=1, tracks=40))
    assert (tmp_path / "ablation.md").read_text() == table
    assert "parked twins: AUC" in table
    for name in variants(SMALL):
        assert f"| {name} |" in table
    some = AblationConfig(folder, 0, None, tmp_path / "some", 1, "shipped", ("without depth",), 40)
    table = ablate(some)
    assert "| without depth |" in table and "without semantics" not in table
    with pytest.raises(SegmotionError, match="choose from"):
        ablate(AblationConfig(clips=folder, out=tmp_path, twins=0, variants=("without sense",)))
    with pytest.raises(SegmotionError, match="held-out"):
        ablate(AblationConfig(clips=tmp_path, out=tmp_path))


def test_training_begins_with_the_weights_it_is_given(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    given = TrajectoryTransformer(SMALL).state_dict()
    still = TrainConfig(steps=1, fine_steps=0, batch=1, tracks=24, learning_rate=0.0, model=SMALL)
    reached = optimise(still, folder / "exact", folder / "tracked", tmp_path / "c.pt", report=False, initial=given)
    for key, value in given.items():
        torch.testing.assert_close(reached[key], value)
    other = TrainConfig(steps=1, fine_steps=0, batch=1, tracks=24, learning_rate=0.0, model=replace(SMALL, across_tracks=False))
    optimise(other, folder / "exact", folder / "tracked", tmp_path / "d.pt", report=False, initial=given)
