"""3D tracks against the exact truth of simulated clips."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from support_processed import seen_tracks, write_processed

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import write_npz
from segmotion_plugin.reconstruct.lifting import describe, lift, lift_folder
from segmotion_plugin.reconstruct.lifting_depth import align
from segmotion_plugin.reconstruct.lifting_smooth import smooth
from segmotion_plugin.reconstruct.lifting_triangulate import observations, triangulate
from segmotion_plugin.reconstruct.tracks_3d import SOURCES, Tracks3D, load_tracks_3d, save_tracks_3d
from segmotion_plugin.simulation import SimulatedClip, SimulatedTracks, render, scenes
from segmotion_plugin.tracks import TrackMotion, Tracks

FRAMES, WIDTH, HEIGHT = 12, 160, 96
NOISE = 0.1  # pixels at this width, half a pixel at 854


@functools.cache
def simulated(name: str, seed: int) -> tuple[SimulatedClip, SimulatedTracks]:
    world = scenes.build(name, seed, FRAMES, WIDTH, HEIGHT)
    return render(world), world.sample_tracks(np.random.default_rng(seed), 600, [0, 4, 8, 11])


class Case:
    """A simulated clip with noisy tracks."""

    def __init__(self, name: str, seed: int) -> None:
        clip, self.truth = simulated(name, seed)
        rng = np.random.default_rng(seed)
        self.clip: SimulatedClip = replace(clip, cameras=copy.deepcopy(clip.cameras))
        ids = seen_tracks(self.truth)
        visible = self.truth.visible[ids]
        first, last = visible.argmax(axis=1), FRAMES - 1 - visible[:, ::-1].argmax(axis=1)
        grid = np.arange(FRAMES)
        run = (grid >= first[:, None]) & (grid <= last[:, None])
        xy = self.truth.xy[ids] + rng.normal(0, NOISE, (len(ids), FRAMES, 2))
        self.tracks = Tracks.from_dense(np.where(run[..., None], xy, np.nan), visible)
        object_id = self.truth.object_id[ids]
        moving = self.truth.moving[ids][self.tracks.track_flat, self.tracks.frame_flat]
        self.motion = TrackMotion(self.tracks, (object_id > 0).astype(np.float32), moving, object_id)
        self.xyz = self.truth.xyz[ids]

    def lift(self, **options) -> Tracks3D:  # noqa: ANN003
        return lift(self.clip.cameras, self.tracks, self.motion, self.clip.labels, **options)

    def errors(self, lifted: Tracks3D) -> tuple[np.ndarray, np.ndarray]:
        """N×K errors in metres, and as a share of the distance to the camera; NaN where not visible."""
        truth = self.xyz[lifted.track_index]
        error = np.where(lifted.visible, np.linalg.norm(lifted.xyz - truth, axis=2), np.nan)
        return error, error / np.linalg.norm(truth - self.clip.cameras.centers(), axis=2)

    def scene_depth(self) -> float:
        return float(np.median(self.clip.depth[np.isfinite(self.clip.depth)]))

    def model(self, kind: str, frame: int) -> np.ndarray:
        """What a depth model would say: true depth with a scale, a shift, smooth errors and noise of its own in every frame."""
        rng = np.random.default_rng([7, frame])
        depth = np.minimum(self.clip.depth[frame], 1e4)
        wave = cv2.resize(rng.normal(0, 1, (5, 8)).astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        value = (1 / depth if kind == "disparity" else depth) * (1 + 0.04 * wave + 0.03 * rng.normal(0, 1, depth.shape))
        return (rng.uniform(0.3, 3) * value + rng.uniform(-0.05, 0.3)).astype(np.float32)


@pytest.fixture(scope="module", params=[("two_cars_parked_twin", 1), ("stop_and_go", 0)], ids=lambda p: p[0])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(*request.param)


def reprojection(case: Case, lifted: Tracks3D, rows: np.ndarray) -> np.ndarray:
    """Pixel distances of projected 3D tracks to the 2D tracks, where visible."""
    xy = case.tracks.xy[lifted.track_index[rows]]
    result = []
    for k in range(FRAMES):
        shown = lifted.visible[rows, k]
        pixels, depth = case.clip.cameras.project(lifted.xyz[rows][shown, k], k)
        assert (depth > 0).all()
        result.append(np.linalg.norm(pixels - xy[shown, k], axis=1))
    return np.concatenate(result)


def test_static_tracks_lie_where_the_surface_is(case: Case) -> None:
    lifted = case.lift()
    static = lifted.object_id == 0
    error, _ = case.errors(lifted)
    assert static.sum() > 0.7 * (case.motion.object_id == 0).sum()
    assert np.nanmedian(error[static]) <= 0.01 * case.scene_depth()
    assert np.nanquantile(error[static], 0.9) <= 0.05 * case.scene_depth()
    assert np.median(reprojection(case, lifted, np.flatnonzero(static))) <= 1.0
    assert np.allclose(lifted.xyz[static], lifted.xyz[static][:, :1])


def test_stated_uncertainty_of_static_tracks_covers_the_error(case: Case) -> None:
    lifted = case.lift()
    static = lifted.object_id == 0
    error, _ = case.errors(lifted)
    within = error[static] < 3 * lifted.sigma[static]
    assert within[lifted.visible[static]].mean() > 0.85
    order = np.argsort(lifted.sigma[static][:, 0])
    calm, doubtful = np.array_split(np.nanmedian(error[static], axis=1)[order], 2)
    assert np.nanmedian(calm) < np.nanmedian(doubtful)


@pytest.mark.parametrize("kind", ["disparity", "depth"])
def test_a_depth_model_places_moving_tracks(case: Case, kind: str) -> None:
    lifted = case.lift(depth_map=lambda k: case.model(kind, k), depth_kind=kind)
    moving = lifted.object_id > 0
    _, relative = case.errors(lifted)
    assert set(lifted.source[moving]) == {SOURCES.index("depth-model")}
    assert np.nanmedian(relative[moving]) <= 0.05
    assert np.isfinite(lifted.xyz[moving][lifted.visible[moving]]).all()
    assert np.median(reprojection(case, lifted, np.flatnonzero(moving))) <= 1.0


def test_contact_places_objects_on_the_ground(case: Case) -> None:
    lifted = case.lift()
    _, relative = case.errors(lifted)
    for k in np.unique(lifted.object_id[lifted.object_id > 0]):
        own = lifted.object_id == k
        assert set(lifted.source[own]) == {SOURCES.index("contact")}
        assert np.nanmedian(relative[own]) <= 0.15
    moving = np.flatnonzero(lifted.object_id > 0)
    assert np.median(reprojection(case, lifted, moving)) <= 1.0
    assert all(figures["share_of_frames"] >= 0.8 for figures in describe(lifted).values())


def test_an_object_cut_off_by_the_picture_is_guessed_between_its_surroundings() -> None:
    case = Case("walker", 0)
    lifted = case.lift()
    moving = lifted.object_id > 0
    assert set(lifted.source[moving]) == {SOURCES.index("guess")}
    assert np.isfinite(lifted.xyz[moving][lifted.visible[moving]]).all()
    _, relative = case.errors(lifted)
    # A guess says how little it knows.
    stated = lifted.sigma[moving] / np.linalg.norm(lifted.xyz[moving] - case.clip.cameras.centers(), axis=2)
    assert np.nanmedian(stated) > 0.2
    assert np.nanmedian(relative[moving]) < 4 * np.nanmedian(stated)


def test_what_another_object_carries_stands_where_that_stands() -> None:
    case = Case("two_cars_parked_twin", 1)
    labels = case.clip.labels.copy()
    object_id, xy = case.motion.object_id.copy(), case.tracks.xy
    for frame in labels:
        rows = np.flatnonzero((frame == 1).any(axis=1))
        if len(rows):
            frame[: int(rows.mean())][frame[: int(rows.mean())] == 1] = 3
    column, row = (np.clip(np.nan_to_num(xy[..., i]).astype(int), 0, limit - 1) for i, limit in ((0, WIDTH), (1, HEIGHT)))
    upper = case.tracks.visible & (labels[np.arange(FRAMES)[None], row, column] == 3)
    object_id[(object_id == 1) & (upper.sum(axis=1) > 0.5 * case.tracks.visible.sum(axis=1))] = 3
    case.motion = TrackMotion(case.tracks, case.motion.probability, case.motion.moving_flat, object_id)
    case.clip = replace(case.clip, labels=labels)
    lifted = case.lift()
    _, relative = case.errors(lifted)
    load = lifted.object_id == 3
    assert load.sum() > 10 and set(lifted.source[load]) == {SOURCES.index("guess")}
    assert set(lifted.source[lifted.object_id == 1]) == {SOURCES.index("contact")}
    assert np.nanmedian(relative[load]) <= 0.15
    stated = lifted.sigma[load] / np.linalg.norm(lifted.xyz[load] - case.clip.cameras.centers(), axis=2)
    assert 0.1 < np.nanmedian(stated) < 0.3


def test_hidden_frames_inside_a_run_are_bridged_but_not_called_visible(case: Case) -> None:
    lifted = case.lift()
    moving = lifted.object_id > 0
    inside = np.isfinite(case.tracks.xy[lifted.track_index][moving][..., 0])
    assert np.array_equal(np.isfinite(lifted.xyz[moving][..., 0]), inside)
    assert np.array_equal(lifted.visible, case.tracks.visible[lifted.track_index])


def test_wrong_matches_and_lost_parallax_are_refused() -> None:
    case = Case("two_cars_parked_twin", 1)
    rng = np.random.default_rng(0)
    cameras = case.clip.cameras
    static = np.flatnonzero(case.motion.object_id == 0)
    wild = static[::10]
    xy = case.tracks.xy
    xy[wild] += rng.normal(0, 6, xy[wild].shape).astype(np.float32)
    tracks = Tracks.from_dense(xy, case.tracks.visible)
    found = triangulate(cameras, observations(tracks, cameras), len(tracks))
    long = case.tracks.visible.sum(axis=1) >= 6
    assert np.isfinite(found.xyz[wild[long[wild]], 0]).mean() < 0.05
    still = cameras.cam_from_world.copy()
    cameras.cam_from_world[:] = still[0]
    first = [np.repeat(values[static][:, :1], FRAMES, axis=1) for values in (xy, case.tracks.visible)]
    frozen = Tracks.from_dense(*first)
    assert np.isnan(triangulate(cameras, observations(frozen, cameras), len(frozen)).xyz).all()


def test_one_outlier_in_a_track_does_not_move_its_point() -> None:
    case = Case("two_cars_parked_twin", 1)
    good = case.lift()
    xy = case.tracks.xy
    xy[:, 5] += np.float32(25.0)
    case.tracks = Tracks.from_dense(xy, case.tracks.visible)
    bad = case.lift()
    both, first, second = np.intersect1d(good.track_index, bad.track_index, return_indices=True)
    seen = good.visible[first].sum(axis=1) >= 8
    static = good.object_id[first] == 0
    shift = np.linalg.norm(good.xyz[first, 0] - bad.xyz[second, 0], axis=1)[seen & static]
    assert np.median(shift) < 0.01 * case.scene_depth()


def test_alignment_finds_scale_and_shift_among_outliers() -> None:
    rng = np.random.default_rng(3)
    depth = rng.uniform(2, 30, 200)
    values = (1 / depth - 0.02) / 0.4
    values[:60] = rng.uniform(values.min(), values.max(), 60)
    fit = align(values, depth, "disparity", rng)
    assert fit is not None
    assert fit.scale == pytest.approx(0.4, rel=1e-3) and fit.shift == pytest.approx(0.02, rel=1e-2)
    assert np.allclose(fit.depth(values[60:]), depth[60:], rtol=1e-3)
    assert align(values[:5], depth[:5], "disparity", rng) is None
    assert align(-1 / depth, depth, "disparity", rng) is None


@pytest.mark.parametrize("kind", ["disparity", "depth"])
def test_alignment_is_not_bent_by_the_models_noise_and_knows_how_sure_it_is(kind: str) -> None:
    near, miss, stated = 1.5, [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        depth = rng.uniform(4, 12, 150)
        true = 1 / depth if kind == "disparity" else depth
        fit = align((true * (1 + 0.08 * rng.normal(size=150)) - 0.3) / 2, depth, kind, rng)
        assert fit is not None
        value = ((1 / near if kind == "disparity" else near) - 0.3) / 2
        miss.append(float(np.log(fit.depth(np.array([value]))[0] / near)))
        stated.append(fit.uncertainty(near))
        assert fit.uncertainty(7.0) < 0.5 * fit.uncertainty(near)
    # A fit of the known depth to the model's values, noise and all, would err by 7 % (disparity) and 17 % (depth).
    assert abs(np.median(miss)) < 0.04
    assert 0.5 < np.median(stated) / (1.4826 * np.median(np.abs(miss))) < 4


@pytest.mark.parametrize("kind", ["disparity", "depth"])
def test_a_depth_model_places_what_is_far_nearer_than_all_static_points(kind: str) -> None:
    case = Case("walker", 0)
    lifted = case.lift(depth_map=lambda k: case.model(kind, k), depth_kind=kind)
    moving = lifted.object_id > 0
    error, relative = case.errors(lifted)
    assert np.nanmedian(relative[moving]) <= (0.05 if kind == "disparity" else 0.08)
    assert (error[moving] < 2 * lifted.sigma[moving])[lifted.visible[moving]].mean() > 0.9


def test_smoothing_solves_its_normal_equations_and_holds_the_ends() -> None:
    rng = np.random.default_rng(1)
    values, weight = rng.normal(size=(4, 15)), rng.uniform(0.5, 2, (4, 15))
    difference = np.diff(np.eye(15), n=2, axis=0)
    result = smooth(values, weight, 3.0, rounds=1)
    for row in range(4):
        exact = np.linalg.solve(np.diag(weight[row]) + 3.0 * difference.T @ difference, weight[row] * values[row])
        assert np.allclose(result[row], exact, atol=1e-6)
    weight[:, :4] = 0
    values[:, :4] = np.nan
    held = smooth(values, weight, 3.0)
    assert np.allclose(held[:, :4], held[:, 4:5])
    assert np.isnan(smooth(values[:1], np.zeros((1, 15)), 3.0)).all()


def test_a_folder_is_lifted_and_read_back(tmp_path: Path) -> None:
    case = Case("two_cars_parked_twin", 1)
    write_processed(tmp_path / "out", case.clip, case.truth, every=2)
    figures = lift_folder(tmp_path / "out")
    assert figures["status"] == "ok" and set(figures["objects"]) == {"1", "2"}
    assert all(item["depth"] == "contact" for item in figures["objects"].values())
    path = tmp_path / "out" / "motion" / "tracks_3d.npz"
    with np.load(path) as data:
        count = len(data["frame_index"])
        assert data["coords"].shape == (count, figures["written"], 3) and data["visibs"].shape == data["coords"].shape[:2]
        assert data["extrinsics"].shape == (count, 4, 4) and data["intrinsics"].shape == (count, 3, 3)
        assert data["frame_index"].tolist() == list(range(0, FRAMES, 2))
    loaded = load_tracks_3d(path)
    truth = case.xyz[loaded.track_index][:, ::2]
    static = loaded.object_id == 0
    assert np.nanmedian(np.linalg.norm(loaded.xyz - truth, axis=2)[static]) <= 0.01 * case.scene_depth()
    assert loaded.names[1] == "frame_00002.png"
    again = load_tracks_3d(path)
    lift_folder(tmp_path / "out")
    assert np.array_equal(again.xyz, load_tracks_3d(path).xyz, equal_nan=True)


def test_stored_disparity_is_used_and_leaves_depth_maps(tmp_path: Path) -> None:
    case = Case("two_cars_parked_twin", 1)
    write_processed(tmp_path / "out", case.clip, case.truth)
    folder = tmp_path / "out" / "motion" / "disparity"
    folder.mkdir()
    for k, name in enumerate(case.clip.cameras.names):
        np.save(folder / f"{Path(name).stem}.npy", case.model("disparity", k).astype(np.float16))
    figures = lift_folder(tmp_path / "out")
    assert all(item["depth"] == "depth-model" for item in figures["objects"].values())
    depth = np.load(tmp_path / "out" / "motion" / "depth" / "frame_00003.npy")
    true = case.clip.depth[2]
    near = np.isfinite(true) & (true < 2 * case.scene_depth())
    assert depth.shape == true.shape
    assert np.median(np.abs(depth[near] - true[near]) / true[near]) < 0.06


def test_folders_that_cannot_be_lifted_say_why(tmp_path: Path) -> None:
    case = Case("two_cars_parked_twin", 1)
    write_processed(tmp_path / "a", case.clip, case.truth, poses=False)
    with pytest.raises(SegmotionError, match="segmotion reconstruct"):
        lift_folder(tmp_path / "a")
    write_processed(tmp_path / "b", case.clip, None)
    with pytest.raises(SegmotionError, match=r"tracks\.npz"):
        lift_folder(tmp_path / "b")
    write_npz(tmp_path / "old.npz", coords=np.zeros((2, 3, 3)))
    with pytest.raises(SegmotionError, match="another version"):
        load_tracks_3d(tmp_path / "old.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK nothing")
    with pytest.raises(SegmotionError, match="not a readable"):
        load_tracks_3d(tmp_path / "broken.npz")


def test_large_sets_keep_the_moving_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("two_cars_parked_twin", 1)
    lifted = case.lift()
    moving = int((lifted.object_id > 0).sum())
    monkeypatch.setattr("segmotion_plugin.reconstruct.tracks_3d._FILE_CELLS", FRAMES * (moving + 10))
    assert save_tracks_3d(tmp_path / "t.npz", lifted) == moving + 10
    assert (load_tracks_3d(tmp_path / "t.npz").object_id > 0).sum() == moving
