"""Trackers of points: windows and carrying on, CoTracker3's adapter on a stand-in repository, BootsTAPIR's on a stand-in model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from segmotion_plugin import devices
from segmotion_plugin.devices import in_chunks, resolve_device
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.trackers import cotracker
from segmotion_plugin.trackers.base import PointTracks, SamplingOptions, track_clip
from segmotion_plugin.trackers.bootstapir import BootsTAPIR, build_model
from segmotion_plugin.trackers.cotracker import CoTracker3, build_predictor

STAND_IN = Path(__file__).parent / "cotracker_stand_in"
HEIGHT, WIDTH = 40, 56


def shifting(count: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """A texture that shifts by whole pixels, around the borders, and where it stands in each frame (T×2, x and y)."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    position = np.cumsum(np.concatenate([[[0, 0]], rng.integers(-1, 2, (count - 1, 2))]), axis=0)
    return [np.roll(texture, (y, x), axis=(0, 1)) for x, y in position], position


def weights_of(predictor: Any, path: Path) -> Path:
    torch.manual_seed(1)
    torch.save({name: torch.randn_like(value) for name, value in predictor.model.state_dict().items()}, path)
    return path


@pytest.fixture(params=[False, True], ids=["offline", "online"])
def tracker(request: pytest.FixtureRequest, tmp_path: Path) -> CoTracker3:
    weights = weights_of(build_predictor(request.param, STAND_IN), tmp_path / "weights.pth")
    return CoTracker3.load(request.param, source=STAND_IN, weights=weights, device="cpu")


def test_cotracker_follows_points_from_their_query_frame(tracker: CoTracker3) -> None:
    frames, position = shifting(11)
    queries = np.array([[0, 20.5, 18.25], [3, 30.0, 22.5], [7, 25.5, 12.0]], np.float32)
    found = tracker.track_points(np.stack(frames), queries)
    expected = queries[:, None, 1:] + position[None] - position[queries[:, 0].astype(int)][:, None]
    known = np.isfinite(found.xy).all(axis=2)
    np.testing.assert_allclose(found.xy[known], expected[known], atol=1e-3)
    before = np.arange(11)[None] < queries[:, :1]
    assert (known == (~before if tracker.online else np.ones_like(before))).all()
    assert found.visible[known].all() and not found.visible[~known].any()


def test_chunks_of_points_change_nothing_and_features_are_computed_once(tracker: CoTracker3) -> None:
    frames, _ = shifting(9)
    queries = np.array([[0, x, 20.0] for x in np.linspace(10, 45, 12)], np.float32)
    whole = tracker.track_points(np.stack(frames), queries)
    calls = tracker.predictor.model.fnet.calls
    tracker._chunk = 5
    parts = tracker.track_points(np.stack(frames), queries)
    np.testing.assert_array_equal(whole.xy, parts.xy)
    assert tracker.predictor.model.fnet.calls - calls == calls  # as many again as for all points at once, not three times as many


def test_memory_that_runs_out_halves_the_chunk(tracker: CoTracker3, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, _ = shifting(5)
    queries = np.array([[0, x, 20.0] for x in np.linspace(10, 45, 8)], np.float32)
    whole = tracker.track_points(np.stack(frames), queries)
    follow, name = (tracker._online, "_online") if tracker.online else (tracker._offline, "_offline")

    def greedy(video: torch.Tensor, asked: torch.Tensor, most: int) -> Any:
        if asked.shape[1] > most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return follow(video, asked)

    tracker._chunk = 8
    monkeypatch.setattr(tracker, name, lambda video, asked: greedy(video, asked, 3))
    np.testing.assert_array_equal(tracker.track_points(np.stack(frames), queries).xy, whole.xy)
    monkeypatch.setattr(tracker, name, lambda video, asked: greedy(video, asked, 0))
    with pytest.raises(SegmotionError, match="out of memory in CoTracker3"):
        tracker.track_points(np.stack(frames), queries)


def test_long_clips_are_tracked_in_windows_and_tracks_are_carried_on(tracker: CoTracker3) -> None:
    frames, position = shifting(40)
    options = SamplingOptions(num_tracks=60, query_step=4, window=12)
    tracks = track_clip(tracker, frames, options=options, seed=3)
    origin = tracks.xy_flat - position[tracks.frame_flat]
    start = np.repeat(origin[tracks.offset[:-1]], tracks.length, axis=0)
    assert np.abs(origin - start).max() < 1e-2  # every track stays on its point of the texture
    assert tracks.length.max() > 20  # longer than a window
    per_frame = np.bincount(tracks.frame_flat[tracks.visible_flat], minlength=40)
    assert per_frame.min() > 5 and per_frame.max() <= 60
    assert (tracks.query_frame >= tracks.first).all()
    assert len(tracks.visibility_flat) == len(tracks.xy_flat)


def test_no_track_crosses_a_cut(tracker: CoTracker3) -> None:
    frames, _ = shifting(20)
    tracks = track_clip(tracker, frames, [(0, 7), (7, 8), (8, 20)], options=SamplingOptions(num_tracks=30, window=6))
    last = tracks.first + tracks.length - 1
    assert ((tracks.first >= 8) == (last >= 7)).all()


def test_the_same_seed_gives_the_same_tracks(tracker: CoTracker3) -> None:
    frames, _ = shifting(10)
    options = SamplingOptions(num_tracks=20)
    first, second, other = (track_clip(tracker, frames, options=options, seed=seed).xy_flat for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_missing_code_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SegmotionError, match="no checkout of facebookresearch/co-tracker"):
        build_predictor(source=tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SegmotionError, match="git clone .*CC-BY-NC"):
        build_predictor()


def test_code_in_the_cache_of_torch_hub_is_used_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "_get_cache_or_reload", lambda *_args, **_kwargs: str(STAND_IN))
    cotracker.cached_code(tmp_path).mkdir(parents=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hasattr(build_predictor(online=True), "step")


def test_wrong_weights_are_told(tmp_path: Path) -> None:
    torch.save({"something": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(SegmotionError, match="does not hold the weights of CoTracker3"):
        CoTracker3.load(source=STAND_IN, weights=tmp_path / "other.pth", device="cpu")


class StandInTapir(torch.nn.Module):
    """The calls of tapnet's PyTorch model; points move by one pixel of its raster to the right per frame."""

    num_pips_iter = 2

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.grids = 0

    def get_feature_grids(
        self, video: torch.Tensor, is_training: bool, refinement_resolutions: list | None = None
    ) -> SimpleNamespace:
        assert video.shape[2:] == (256, 256, 3) and video.min() >= -1 and video.max() <= 1
        self.grids += 1
        return SimpleNamespace(frames=video.shape[1])

    def get_query_features(
        self,
        video: torch.Tensor,
        is_training: bool,
        query_points: torch.Tensor,
        feature_grids: Any = None,
        refinement_resolutions: list | None = None,
    ) -> torch.Tensor:
        return query_points

    def estimate_trajectories(
        self,
        video_size: Sequence[int],
        is_training: bool,
        feature_grids: Any,
        query_features: Any,
        query_points_in_video: torch.Tensor | None,
        query_chunk_size: int | None = None,
        causal_context: dict | None = None,
        get_causal_context: bool = False,
    ) -> dict[str, list[torch.Tensor]]:
        assert tuple(video_size) == (256, 256) and query_points_in_video is not None
        grids, points = feature_grids, query_points_in_video
        assert list(range(0, points.shape[1], query_chunk_size))  # type: ignore[arg-type]  # the real one fails without a number, too
        time = torch.arange(grids.frames)[None, None] - points[..., :1]
        tracks = torch.stack([points[..., 2:3] + time, points[..., 1:2] + 0 * time], dim=-1)
        occlusion = torch.where(tracks[..., 0] < 256, -9.0, 9.0)
        wild = [torch.full_like(tracks, 1e6)] * 2
        return {"tracks": [*wild, tracks], "occlusion": [occlusion] * 3, "expected_dist": [torch.full_like(occlusion, -9.0)] * 3}


def test_bootstapir_scales_points_to_its_raster_and_reads_its_two_doubts() -> None:
    model = StandInTapir()
    frames = np.stack(shifting(6)[0])
    queries = np.array([[2, WIDTH / 2, HEIGHT / 2], [0, WIDTH - 0.5, 3.0]], np.float32)
    found = BootsTAPIR(model, "cpu").track_points(frames, queries)
    expected = queries[:, None, 1:] + np.stack([(np.arange(6)[None] - queries[:, :1]) * WIDTH / 256, np.zeros((2, 6))], -1)
    np.testing.assert_allclose(found.xy, expected, atol=1e-3)
    assert found.visible[0].all() and found.visible[1].tolist() == [True] * 3 + [False] * 3
    assert model.grids == 1
    many = np.repeat(queries, 300, axis=0)
    assert BootsTAPIR(model, "cpu").track_points(frames, many).xy.shape == (600, 6, 2)
    assert model.grids == 2  # computed once, however many chunks


def test_bootstapir_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SegmotionError, match="git clone https://github.com/google-deepmind/tapnet"):
        build_model(None)
    with pytest.raises(SegmotionError, match="no checkout of tapnet"):
        build_model(tmp_path)
    package = tmp_path / "tapnet" / "torch"
    package.mkdir(parents=True)
    (package / "tapir_model.py").write_text("import a_package_nobody_has\n")
    with pytest.raises(SegmotionError, match="a_package_nobody_has"):
        build_model(tmp_path)


class Wrong:
    name, window = "wrong", 8

    def track_points(self, frames: np.ndarray, queries: np.ndarray) -> PointTracks:
        flat = np.ones((len(queries), len(frames)), np.float32)
        return PointTracks(np.zeros((len(queries), len(frames) + 1, 2)), flat > 0, flat, flat)


def test_a_tracker_that_returns_other_shapes_is_told() -> None:
    with pytest.raises(SegmotionError, match="tracker wrong: xy must have shape"):
        track_clip(Wrong(), shifting(4)[0])


def test_chunks_shrink_until_they_fit_and_stay_small() -> None:
    sizes = []

    def run(part: slice) -> int:
        sizes.append(part.stop - part.start)
        if sizes[-1] > 3:
            raise MemoryError
        return sizes[-1]

    assert sum(in_chunks(run, 10, 8, "it")) == 10
    assert sizes == [8, 4, 2, 2, 2, 2, 2]
    with pytest.raises(ZeroDivisionError):
        in_chunks(lambda part: 1 // 0, 3, 2, "it")


def test_devices_that_are_not_there_are_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto").type == "cpu"
    expected = {"cuda": "sees 0 CUDA devices", "cuda:3": "sees 0 CUDA devices", "mps": "Apple GPU", "tpu9": "no device"}
    for name, words in expected.items():
        with pytest.raises(SegmotionError, match=words):
            resolve_device(name)
    assert devices.free_bytes(torch.device("cpu")) > 0
