"""The released network on clips: its inputs, the ladder without forced movers, windows; and what the presets choose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segmotion_plugin import models, presets
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.foundation import FoundationPlan, grown, tracks_of_shot
from segmotion_plugin.models import Loader
from segmotion_plugin.motion import seganymo_classifier
from segmotion_plugin.motion.seganymo import SegAnyMo
from segmotion_plugin.motion.seganymo_classifier import authors_depth, classify_seganymo, ladder, network_inputs
from segmotion_plugin.plan import Plan
from segmotion_plugin.settings import MaskSettings
from segmotion_plugin.tracks import Tracks

SIZE = (40, 30)


def make_tracks(count: int = 30, frames: int = 12, seed: int = 0) -> Tracks:
    rng = np.random.default_rng(seed)
    xy = rng.uniform([0, 0], SIZE, (count, frames, 2))
    grid, start, stop = np.arange(frames), rng.integers(0, frames // 3, count), rng.integers(2 * frames // 3, frames + 1, count)
    run = (grid >= start[:, None]) & (grid < stop[:, None])
    visible = run & (rng.random((count, frames)) > 0.2)
    confidence = np.where(run, rng.random((count, frames)), 0)
    return Tracks.from_dense(np.where(run[..., None], xy, np.nan), visible, confidence)


def test_inputs_are_normalised_and_hidden_outside_the_run() -> None:
    tracks = make_tracks()
    ids = np.array([3, 7, 11])
    visibility = np.linspace(0, 1, len(tracks.xy_flat)).astype(np.float32)
    inputs = network_inputs(tracks, ids, (2, 10), SIZE, visibility)
    assert {name: value.shape for name, value in inputs.items()} == {
        "traj": (1, 2, 3, 8),
        "mask": (1, 1, 3, 8),
        "visib_value": (1, 1, 3, 8),
        "confi_value": (1, 1, 3, 8),
    }
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in inputs.values())
    dense = tracks.xy[ids, 2:10]
    known = np.isfinite(dense).all(axis=2)
    expected = (dense - 0.5) / SIZE * 2 - 1
    np.testing.assert_allclose(inputs["traj"][0].transpose(1, 2, 0)[known], np.clip(expected[known], -1, 1), atol=1e-5)
    np.testing.assert_array_equal(inputs["mask"][0, 0], ~tracks.visible[ids, 2:10])
    np.testing.assert_allclose(inputs["visib_value"][0, 0], tracks.dense(visibility, np.float32(0))[ids, 2:10])
    np.testing.assert_allclose(inputs["confi_value"][0, 0], tracks.confidence[ids, 2:10])


def test_the_ladder_takes_the_highest_rung_that_ten_tracks_pass_and_forces_nothing() -> None:
    assert ladder(np.full(10, 0.94), 50) == 0.93
    assert ladder(np.full(9, 0.94), 50) == 0.70
    assert ladder(np.full(10, 0.94), 400) == 0.95
    assert ladder(np.full(1000, 0.2), 50) == 0.70


class Verdict:
    """Stands for the network: every track gets the number that its first feature holds."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, **inputs: np.ndarray) -> torch.Tensor:
        self.calls.append(inputs["traj"].shape[2:])
        assert inputs["depth"].max() <= 1
        return torch.from_numpy(inputs["dino"][:, 0, :, 0])[None]


def classify(tracks: Tracks, verdict: np.ndarray, model: object | None = None, **options: object) -> object:
    features = np.zeros((len(tracks), 768), np.float32)
    features[:, 0] = verdict
    maps = np.full((tracks.num_frames, SIZE[1], SIZE[0]), 255, np.uint8)
    return classify_seganymo(model or Verdict(), tracks, SIZE, features=features, depth=maps, **options)  # type: ignore[arg-type]


def test_nothing_moves_where_the_network_sees_nothing_move() -> None:
    tracks = make_tracks()
    motion = classify(tracks, np.full(len(tracks), 0.3))
    assert (motion.probability < 0.5).all() and not motion.moving_flat.any()  # type: ignore[attr-defined]


def test_what_passes_the_threshold_moves_where_it_is_seen() -> None:
    tracks = make_tracks()
    verdict = np.where(np.arange(len(tracks)) < 12, 0.97, 0.4)
    motion = classify(tracks, verdict)
    moves = motion.probability >= 0.5  # type: ignore[attr-defined]
    np.testing.assert_array_equal(moves, verdict > 0.9)
    np.testing.assert_array_equal(motion.moving_flat, moves[tracks.track_flat] & tracks.visible_flat)  # type: ignore[attr-defined]
    bold = classify(tracks, np.full(len(tracks), 0.6), sensitivity=1.0)
    assert (bold.probability >= 0.5).all()  # type: ignore[attr-defined]


def test_windows_and_parts_cover_every_track_once_per_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seganymo_classifier, "WINDOW", 6)
    monkeypatch.setattr(seganymo_classifier, "MAX_TRACKS", 8)
    tracks, model = make_tracks(), Verdict()
    verdict = np.linspace(0.05, 0.95, len(tracks))
    motion = classify(tracks, verdict, model, shots=[(0, 5), (5, 12)])
    assert (np.argsort(motion.probability) == np.argsort(verdict)).all()  # type: ignore[attr-defined]
    assert max(n for n, _ in model.calls) <= 8
    assert {frames for _, frames in model.calls} == {5, 6, 4}


def test_the_real_network_runs_on_a_clip() -> None:
    torch.manual_seed(0)
    tracks = make_tracks()
    rng = np.random.default_rng(0)
    maps = np.stack([authors_depth(rng.random((30, 40))) for _ in range(12)])
    features = rng.normal(size=(len(tracks), 768)).astype(np.float32)
    motion = classify_seganymo(SegAnyMo(), tracks, SIZE, features=features, depth=maps)
    assert np.isfinite(motion.probability).all() and len(motion.probability) == len(tracks)
    with pytest.raises(SegmotionError, match="needs 30×768 features"):
        classify_seganymo(SegAnyMo(), tracks, SIZE, features=features[:, :5], depth=maps)


def test_depth_is_cut_as_in_the_authors_files() -> None:
    disparity = np.array([[0.0, 0.002, 0.0039], [0.5, 0.9, 1.0]])
    assert authors_depth(disparity).tolist() == [[0, 131, 255], [255, 255, 255]]
    assert authors_depth(np.zeros((2, 2))).tolist() == [[0, 0], [0, 0]]


def test_tracks_of_a_shot_count_from_its_first_frame() -> None:
    visible = np.zeros((3, 10), bool)
    visible[0, 1:4], visible[1, 5:9], visible[2, 4:10] = True, True, True
    xy = np.where(visible[..., None], np.arange(10)[None, :, None] + np.zeros(2), np.nan)
    tracks = Tracks.from_dense(xy, visible)
    ids, part = tracks_of_shot(tracks, 4, 10)
    assert ids.tolist() == [1, 2] and part.num_frames == 6
    np.testing.assert_array_equal(part.visible, visible[1:, 4:])
    np.testing.assert_array_equal(part.xy, tracks.xy[1:, 4:])


def test_ids_are_carried_beyond_their_borders_only_into_nothing() -> None:
    labels = np.zeros((1, 9), np.uint8)
    labels[0, 2:4], labels[0, 4:6] = 1, 2
    assert grown(labels).tolist() == [[1, 1, 1, 1, 2, 2, 2, 2, 0]]


@pytest.fixture
def nothing_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(models.LOADERS):
        monkeypatch.setitem(models.LOADERS, name, Loader(lambda settings, device: None))


def test_presets_name_every_stage_and_stages_can_be_named_alone(nothing_needed: None) -> None:
    builtin = presets.resolve(MaskSettings(preset="builtin"))
    assert type(builtin) is Plan and builtin.tracker == "dis"
    foundation = presets.resolve(MaskSettings(preset="foundation", device="cpu"))
    assert isinstance(foundation, FoundationPlan)
    assert foundation.names() == {
        "preset": "foundation",
        "tracker": "cotracker3",
        "depth": "depth-anything-v2-small",
        "semantics": "dinov2-small",
        "motion": "transformer",
        "masks": "sam2",
        "device": "cpu",
    }
    mixed = presets.resolve(MaskSettings(preset="builtin", tracker="cotracker3-online", masks="sam2-transformers", device="cpu"))
    assert (mixed.tracker, mixed.masks, mixed.semantics) == ("cotracker3-online", "sam2-transformers", "efficientnet-lite0")
    paper = presets.resolve(MaskSettings(preset="seganymo", device="cpu"))
    assert (paper.tracker, paper.semantics, paper.motion) == ("bootstapir", "dinov2-base-keys", "seganymo")
    network = presets.resolve(MaskSettings(preset="builtin", motion="seganymo", device="cpu"))
    assert (network.tracker, network.semantics, network.depth) == ("dis", "dinov2-base-keys", "depth-anything-v2-small")
    assert type(presets.resolve(MaskSettings(preset="foundation", masks="none"))) is Plan


def test_what_is_missing_is_told_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(SegmotionError, match="scaled_offline.pth"):
        presets.resolve(MaskSettings(preset="builtin", tracker="cotracker3", device="cpu"))
    with pytest.raises(SegmotionError, match="there is no hubconf.py"):
        presets.resolve(MaskSettings(preset="builtin", tracker="cotracker3", tracker_source=tmp_path, device="cpu"))
    with pytest.raises(SegmotionError, match="git clone https://github.com/google-deepmind/tapnet"):
        presets.resolve(MaskSettings(preset="seganymo", device="cpu"))
    torch.save({"model": {"x": torch.zeros(2)}}, tmp_path / "half.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "half.pth").read_bytes()[:300])
    with pytest.raises(SegmotionError, match="half.pth: not a file of weights, or damaged"):
        presets.resolve(MaskSettings(preset="builtin", tracker="cotracker3", tracker_weights=tmp_path / "half.pth", device="cpu"))
    lacking = presets.missing("foundation", MaskSettings())
    assert {"weights cotracker3-offline", "weights sam2.1-large", "code of CoTracker3"} <= set(lacking)
    mine = presets.missing("foundation", MaskSettings(sam2_size="tiny", tracker_weights=tmp_path / "own.pth"))
    assert "weights sam2.1-tiny" in mine and not {"weights cotracker3-offline", "weights sam2.1-large"} & set(mine)
    monkeypatch.setitem(models.LOADERS, "sam2", Loader(lambda settings, device: None, (), ("a_package_nobody_has",)))
    with pytest.raises(SegmotionError, match="needs the package a_package_nobody_has"):
        presets.resolve(MaskSettings(preset="builtin", masks="sam2", device="cpu"))
    assert type(presets.resolve(MaskSettings(preset="auto", device="cpu"))) is Plan
