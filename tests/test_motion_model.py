"""The trajectory transformer and its classifier: what may influence what, windows, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.motion.classifier import classify, classify_geometric, geometric_scores
from segmotion_plugin.motion.decoder import DecoderBlock
from segmotion_plugin.motion.features import PATCHES, WINDOW, WindowTokens, relation_features, window_tokens
from segmotion_plugin.motion.geometry import FitOptions
from segmotion_plugin.motion.model import (
    Calibration,
    ModelConfig,
    TrajectoryTransformer,
    load_weights,
    save_weights,
)
from segmotion_plugin.motion.windows import ClipWindow, Merger, plan
from segmotion_plugin.tracks import Tracks

SIZE = (854, 480)
SMALL = ModelConfig(width=16, heads=2, hidden=24, layers=2)


def scene(
    count: int = 120, frames: int = 24, moving: float = 0.0, noise: float = 0.1, seed: int = 0
) -> tuple[Tracks, np.ndarray]:
    """Points in depth before a sideways moving camera; some of them rise. Returns tracks and which ones move."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-3, -1.5, 4], [3, 1.5, 12], (count, 3))
    movers = np.array([number < moving * count for number in range(count)])
    time = np.arange(frames)
    xyz = (
        points[:, None] - time[None, :, None] * [0.03, 0, 0.01] + (movers[:, None] * time * 0.04)[..., None] * [0, 1, 0]
    )
    xy = xyz[..., :2] / xyz[..., 2:] * 500 + [427, 240] + rng.normal(0, noise, (count, frames, 2))
    visible: np.ndarray = np.all((xy >= 0) & (xy < SIZE), axis=2)
    keep = visible.sum(1) > 4
    return Tracks.from_dense(np.where(visible[..., None], xy, np.nan)[keep], visible[keep]), movers[keep]


def tokens(count: int = 60, batch: int = 1, seed: int = 0) -> WindowTokens:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 1, (batch, count, 1, 2)) * SIZE + rng.normal(0, 1, (batch, count, WINDOW, 2)).cumsum(2)
    visible = rng.random((batch, count, WINDOW)) < 0.7
    visible[:, :, :2] = True
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([SIZE] * batch, dtype=torch.float32)
    shown = torch.from_numpy(visible)
    return window_tokens(torch.from_numpy(xy).float(), shown, shown.float(), size, FitOptions(16, 2, 64), generator)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_weights(path, TrajectoryTransformer(SMALL), Calibration(track_slope=4.0))
    return path


def test_semantics_change_probabilities_but_no_attention_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, window = TrajectoryTransformer(SMALL).eval(), tokens()
    seen: list[torch.Tensor] = []
    original = DecoderBlock.query_key

    def spy(self: DecoderBlock, motion: torch.Tensor, keys: int) -> tuple[torch.Tensor, torch.Tensor]:
        query, key = original(self, motion, keys)
        seen.append(torch.softmax(query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5, dim=-1))
        return query, key

    monkeypatch.setattr(DecoderBlock, "query_key", spy)
    generator = torch.Generator().manual_seed(1)
    outputs = []
    with torch.no_grad():
        for _ in range(2):
            semantics = torch.randn(1, 60, SMALL.semantic_size, generator=generator)
            outputs.append(model(window, semantics)[0])
    blocks = len(seen) // 2
    assert blocks == SMALL.blocks
    for first, second in zip(seen[:blocks], seen[blocks:], strict=True):
        assert torch.equal(first, second)
    assert (outputs[0] - outputs[1]).abs().max() > 1e-4


def test_rotating_all_semantic_features_changes_nothing() -> None:
    torch.manual_seed(0)
    model, window = TrajectoryTransformer(SMALL).eval(), tokens()
    semantics = torch.randn(1, 60, SMALL.semantic_size)
    rotation = torch.linalg.qr(torch.randn(SMALL.semantic_size, SMALL.semantic_size)).Q
    with torch.no_grad():
        assert torch.allclose(model(window, semantics)[0], model(window, semantics @ rotation)[0], atol=1e-4)


def test_hidden_tokens_do_not_influence_other_tracks() -> None:
    torch.manual_seed(0)
    model, window = TrajectoryTransformer(SMALL).eval(), tokens()
    window.visible[0, :20, 3:] = False
    with torch.no_grad():
        before = model(window)
        window.tokens[0, :20, 3:] = torch.randn_like(window.tokens[0, :20, 3:]) * 10
        after = model(window)
    assert torch.allclose(before[0][0, 20:], after[0][0, 20:], atol=1e-5)
    assert torch.allclose(before[1][0, 20:], after[1][0, 20:], atol=1e-5)


def test_positions_of_hidden_points_are_ignored() -> None:
    tracks, _ = scene(80, moving=0.2)
    xy, visible = tracks.xy.copy(), tracks.visible.copy()
    visible[:30, 10:15] = False
    other = np.where(visible[..., None], xy, xy + 50)
    first = geometric_scores(Tracks.from_dense(xy, visible), SIZE)
    second = geometric_scores(Tracks.from_dense(other, visible), SIZE)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize("count", [100, 700])
def test_permuting_tracks_permutes_the_outputs(weights: Path, count: int) -> None:
    tracks, _ = scene(count, frames=30, moving=0.2)
    order = np.random.default_rng(3).permutation(len(tracks))
    features = np.random.default_rng(4).normal(size=(len(tracks), 12))
    straight = classify(tracks, SIZE, features=features, weights=weights)
    permuted = classify(tracks.select(order), SIZE, features=features[order], weights=weights)
    np.testing.assert_allclose(permuted.probability, straight.probability[order], atol=1e-5)
    assert (permuted.moving == straight.moving[order]).mean() > 0.999


def test_the_same_seed_gives_the_same_result(weights: Path) -> None:
    tracks, _ = scene(60)
    first, second = (classify(tracks, SIZE, weights=weights, seed=5).probability for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_sensitivity_raises_probabilities(weights: Path) -> None:
    tracks, _ = scene(60)
    low, high = (classify(tracks, SIZE, weights=weights, sensitivity=s).probability for s in (0.2, 0.8))
    assert (high > low).all()


def test_geometry_finds_the_movers_and_leaves_a_static_world_alone() -> None:
    tracks, movers = scene(150, moving=0.15)
    motion = classify_geometric(tracks, SIZE)
    assert motion.probability[movers].mean() > 0.5 > motion.probability[~movers].mean()
    still, _ = scene(150, moving=0.0, noise=0.03)
    flat = Tracks.from_dense(
        still.xy[:, :1] + np.arange(24)[None, :, None] * np.array([3, 1], np.float32), np.ones((len(still), 24), bool)
    )
    assert (classify_geometric(flat, SIZE).probability < 0.5).all()


def test_shipped_weights_call_nothing_moving_in_a_static_world() -> None:
    tracks, _ = scene(300, frames=40, noise=0.05, seed=2)
    motion = classify(tracks, SIZE)
    assert (motion.probability >= 0.5).mean() <= 0.005
    assert not motion.moving[motion.probability < 0.5].any()


def test_shipped_weights_find_movers() -> None:
    tracks, movers = scene(300, frames=40, moving=0.15, noise=0.05, seed=3)
    probability = classify(tracks, SIZE).probability
    assert (probability[movers] >= 0.5).mean() > 0.95
    assert (probability[~movers] >= 0.5).mean() < 0.02


@pytest.mark.parametrize("frames", [2, 5, 24, 25, 60, 200])
def test_windows_cover_every_frame_and_grow_linearly(frames: int) -> None:
    windows = plan(frames)
    for stride in {stride for _, stride in windows}:
        covered = np.zeros(frames, bool)
        for start, own in windows:
            if own == stride:
                covered[start : start + WINDOW * stride] = True
        assert covered.all()
    assert len(windows) <= 2 + frames / (WINDOW / 2) * 1.5


def test_shots_are_judged_as_if_each_were_alone() -> None:
    parts = [scene(moving=0.2, seed=seed)[0] for seed in (11, 12)]
    frames = parts[0].num_frames
    first = np.concatenate([parts[0].first, parts[1].first + frames])
    offset = np.concatenate([parts[0].offset, parts[1].offset[1:] + parts[0].offset[-1]])
    flat = [np.concatenate([getattr(p, name) for p in parts]) for name in ("xy_flat", "visible_flat", "confidence_flat")]
    joined = Tracks(first, offset, *flat, first, 2 * frames)
    alone = np.concatenate([classify(part, SIZE).probability for part in parts])
    np.testing.assert_allclose(classify(joined, SIZE).probability, alone, atol=1e-5)


def _window(ids: list[int], start: int, tracks: Tracks) -> ClipWindow:
    shown = torch.zeros(1, len(ids), WINDOW, dtype=torch.bool)
    frames = np.arange(start, min(start + WINDOW, tracks.num_frames))
    shown[0, :, : len(frames)] = torch.from_numpy(tracks.visible[ids][:, frames])
    blank = torch.zeros(1, len(ids), PATCHES, 1)
    return ClipWindow(np.array(ids), frames, 1, WindowTokens(blank, blank, blank[..., 0] > 0, shown))


def test_merging_windows_lets_motion_count_more_than_rest() -> None:
    tracks = Tracks.from_dense(np.zeros((2, 48, 2), np.float32), np.ones((2, 48), bool))
    merger = Merger(tracks, sharpness=0.5)
    for start, logit in ((0, 4.0), (12, -4.0), (24, -4.0)):
        frame = np.full((2, WINDOW), -1.0, np.float32)
        merger.add(_window([0, 1], start, tracks), np.array([logit, -4.0]), frame + 2 * (logit > 0))
    track, frame_logit = merger.result()
    assert track[0] > 2.0
    assert track[1] == pytest.approx(-4.0)
    by_frame = frame_logit.reshape(2, 48)
    assert (by_frame[:, :12] == 1).all() and (by_frame[:, 24:] == -1).all()


def test_tracks_no_window_can_judge_are_static(weights: Path) -> None:
    tracks, _ = scene(50)
    xy, visible = tracks.xy.copy(), tracks.visible.copy()
    visible[0] = False
    visible[0, 5] = True
    assert classify(Tracks.from_dense(xy, visible), SIZE, weights=weights).probability[0] < 0.01


def test_relation_features_ignore_rotation_and_unknown_rows() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 10)) * np.linspace(3, 0.2, 10)
    rotation = np.linalg.qr(rng.normal(size=(10, 10)))[0]
    first, second = relation_features(features, 8), relation_features(features @ rotation, 8)
    np.testing.assert_allclose(first @ first.T, second @ second.T, atol=1e-4)
    features[3] = np.nan
    assert not relation_features(features, 8)[3].any()


@pytest.mark.parametrize("function", [classify, classify_geometric])
def test_bad_input_is_named(function: Any, weights: Path) -> None:
    tracks, _ = scene(30, frames=6)
    hidden = Tracks.from_dense(tracks.xy, np.zeros_like(tracks.visible))
    broken = tracks.select(np.arange(30))
    broken.xy_flat[4] = np.nan
    cases: list[tuple[Tracks, dict[str, Any], str]] = [
        (tracks.select(np.array([0])), {}, "at least 2 tracks"),
        (tracks.select(np.array([], int)), {}, "at least 2 tracks"),
        (Tracks.from_dense(tracks.xy[:, :1], tracks.visible[:, :1]), {}, "at least 2 frames"),
        (hidden, {}, "visible"),
        (broken, {}, "not finite"),
        (tracks, {"features": np.zeros((3, 8))}, "N×D"),
        (tracks, {"depth": np.zeros((30, 6, 2))}, "observations"),
        (tracks, {"sensitivity": 2.0}, "sensitivity"),
    ]
    for bad, options, message in cases:
        with pytest.raises(SegmotionError, match=message):
            function(bad, SIZE, weights=weights, **options)
    with pytest.raises(SegmotionError, match="width, height"):
        function(tracks, (0, 480), weights=weights)


def test_weights_of_another_kind_are_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(SegmotionError, match="no weights"):
        load_weights(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(SegmotionError, match="safetensors"):
        load_weights(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(2)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(SegmotionError, match="config"):
        load_weights(tmp_path / "other.safetensors")
    model = TrajectoryTransformer(SMALL)
    model.decoder.pool = torch.nn.Linear(3, 5)
    save_weights(tmp_path / "shape.safetensors", model, Calibration())
    with pytest.raises(SegmotionError, match="should have shape"):
        load_weights(tmp_path / "shape.safetensors")


def test_depth_is_optional_and_used(weights: Path) -> None:
    tracks, _ = scene(60, moving=0.2)
    depth = np.random.default_rng(0).uniform(1, 9, len(tracks.xy_flat))
    depth[::7] = np.nan
    without, given = classify(tracks, SIZE, weights=weights), classify(tracks, SIZE, weights=weights, depth=depth)
    assert np.isfinite(given.probability).all()
    assert np.abs(without.probability - given.probability).max() > 1e-6
