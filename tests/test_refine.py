"""What the poses say about what was called moving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support_processed import seen_tracks, write_processed

from segmotion_plugin.clip import read_rgb
from segmotion_plugin.files import write_npz, write_png
from segmotion_plugin.ingest import load_frames_json
from segmotion_plugin.masks import MotionMasks, keep_from_labels, read_grey, write_keep
from segmotion_plugin.progress import Console
from segmotion_plugin.reconstruct.refine import judge_objects, refine, worth_repeating
from segmotion_plugin.settings import ReconstructSettings
from segmotion_plugin.simulation import SimulatedClip, SimulatedTracks, render, scenes
from segmotion_plugin.tracks import TrackMotion, Tracks, load_tracks, save_tracks
from segmotion_plugin.workspace import Workspace

FRAMES, WIDTH, HEIGHT = 16, 160, 96


@pytest.fixture(scope="module")
def clip() -> SimulatedClip:
    return render(scenes.build("two_cars_parked_twin", 3, FRAMES, WIDTH, HEIGHT))


@pytest.fixture(scope="module")
def truth() -> SimulatedTracks:
    world = scenes.build("two_cars_parked_twin", 3, FRAMES, WIDTH, HEIGHT)
    return world.sample_tracks(np.random.default_rng(0), 1500, [0, 5, 10])


def tracks_of(truth: SimulatedTracks) -> tuple[Tracks, np.ndarray, np.ndarray]:
    """Tracks with a tenth of a pixel of noise, their objects, and which of them are on near static things."""
    ids = seen_tracks(truth)
    ids = ids[truth.visible[ids].sum(axis=1) >= 6]
    visible = truth.visible[ids]
    noise = np.random.default_rng(1).normal(0, 0.1, (len(ids), FRAMES, 2))
    tracks = Tracks.from_dense(np.where(visible[..., None], truth.xy[ids] + noise, np.nan), visible)
    object_id = truth.object_id[ids].astype(np.int32)
    depth = np.nanmedian(np.where(visible, truth.depth[ids], np.nan), axis=1)
    near = (object_id == 0) & (depth < np.quantile(depth[object_id == 0], 0.3))
    return tracks, object_id, near


def test_movers_stay_movers_and_static_things_are_found_out(clip: SimulatedClip, truth: SimulatedTracks) -> None:
    tracks, object_id, near = tracks_of(truth)
    object_id[near] = 9
    motion = TrackMotion(tracks, (object_id > 0).astype(np.float32), np.repeat(object_id > 0, tracks.length), object_id)
    verdicts = {verdict.object_id: verdict for verdict in judge_objects(tracks, motion, clip.cameras)}
    assert set(verdicts) == set(np.unique(object_id[object_id > 0]).tolist())
    assert verdicts[9].static and verdicts[9].consistent > 0.8
    assert not any(verdict.static for k, verdict in verdicts.items() if k != 9)


def test_without_a_static_world_nothing_is_judged(clip: SimulatedClip, truth: SimulatedTracks) -> None:
    tracks, _, _ = tracks_of(truth)
    everything = np.ones(len(tracks), np.int32)
    motion = TrackMotion(tracks, everything.astype(np.float32), np.ones(len(tracks.xy_flat), bool), everything)
    assert judge_objects(tracks, motion, clip.cameras) == []


DROPPED, RADIUS = 9, 3.0


@pytest.fixture
def folder(tmp_path: Path, clip: SimulatedClip, truth: SimulatedTracks) -> tuple[Path, list[np.ndarray], np.ndarray]:
    """A processed folder in which the picture's lower left corner was given to an object that is none.

    Returns:
        The folder, the true object ids of every image, and which tracks the wrong object has.
    """
    out = tmp_path / "out"
    write_processed(out, clip, truth)
    path = out / "motion" / "tracks.npz"
    tracks, motion, (width, height) = load_tracks(path)
    names = names_of(out)
    true_labels = [labels.copy() for labels in MotionMasks(out / "motion" / "objects", names)]
    for name, labels in zip(names, true_labels, strict=True):
        wrong = labels.copy()
        wrong[HEIGHT // 2 :, : WIDTH // 4][labels[HEIGHT // 2 :, : WIDTH // 4] == 0] = DROPPED
        write_png(out / "motion" / "objects" / f"{Path(name).stem}.png", wrong)
        write_keep(out, name, keep_from_labels(wrong, RADIUS))
    first = tracks.xy_flat[tracks.offset[:-1]]
    wrong_tracks = (motion.object_id == 0) & (first[:, 0] < WIDTH / 4) & (first[:, 1] > HEIGHT / 2)
    assert wrong_tracks.sum() > 10
    motion.object_id[wrong_tracks], motion.probability[wrong_tracks] = DROPPED, 0.9
    motion.moving_flat[wrong_tracks[tracks.track_flat]] = True
    save_tracks(path, tracks, motion, width, height)
    return out, true_labels, wrong_tracks


def names_of(out: Path) -> list[str]:
    return [entry["name"] for entry in load_frames_json(out)["images"]]


def refined(out: Path, **options: object) -> dict:
    """The report after one refinement of a folder whose images all have poses."""
    report: dict = {"settings": {"dilate": RADIUS}}
    result = ({"status": "ok", "images_registered": len(names_of(out))}, [])
    refine(Workspace.open(out), ReconstructSettings(refine=1, threads=1, downscales=0), report, result, Console(True), **options)  # type: ignore[arg-type]
    return report


@pytest.fixture
def no_second_reconstruction(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts reconstructions and makes none; the poses stay the true ones."""
    made: list[int] = []

    def counted(*_: object, **__: object) -> tuple[dict, list]:
        made.append(1)
        return {"status": "ok", "images_registered": FRAMES}, []

    monkeypatch.setattr("segmotion_plugin.reconstruct.refine.reconstruct_folder", counted)
    return made


def test_a_folder_is_unmasked_where_nothing_moves(folder: tuple[Path, list[np.ndarray], np.ndarray]) -> None:
    out, true_labels, wrong_tracks = folder
    report = refined(out)
    verdict = {entry["object_id"]: entry["static"] for entry in report["refinement"]}
    assert verdict[DROPPED] and not any(static for k, static in verdict.items() if k != DROPPED)
    for labels, after in zip(true_labels, MotionMasks(out / "motion" / "objects", names_of(out)), strict=True):
        assert np.array_equal(labels, after)
    assert str(DROPPED) not in report["masks"]["objects"]
    _, motion, _ = load_tracks(out / "motion" / "tracks.npz")
    assert (motion.object_id[wrong_tracks] == 0).all() and (motion.probability[wrong_tracks] < 0.05).all()


def test_only_the_dropped_object_is_freed(
    folder: tuple[Path, list[np.ndarray], np.ndarray], no_second_reconstruction: list[int]
) -> None:
    out, true_labels, _ = folder
    painted = np.zeros((HEIGHT, WIDTH), bool)
    painted[5:20, WIDTH - 30 :] = True
    names = names_of(out)
    for name in names:
        keep = read_grey(out / "masks" / f"{Path(name).stem}.png")
        write_keep(out, name, np.where(painted, np.uint8(0), keep))
    refined(out)
    for name, labels in zip(names, true_labels, strict=True):
        expected = np.where(painted, np.uint8(0), keep_from_labels(labels, RADIUS))
        assert np.array_equal(read_grey(out / "masks" / f"{Path(name).stem}.png"), expected)
        assert np.array_equal(read_grey(out / "colmap_masks" / f"{name}.png"), expected)


def test_extra_masks_hold_on_the_dropped_object_too(
    folder: tuple[Path, list[np.ndarray], np.ndarray], no_second_reconstruction: list[int], tmp_path: Path
) -> None:
    out, true_labels, _ = folder
    extra = np.full((HEIGHT, WIDTH), 255, np.uint8)
    extra[HEIGHT - 20 :, :10] = 0
    write_png(tmp_path / "extra" / "mask.png", extra)
    refined(out, extra_masks=tmp_path / "extra")
    for name, labels in zip(names_of(out), true_labels, strict=True):
        keep = read_grey(out / "masks" / f"{Path(name).stem}.png")
        assert np.array_equal(keep, np.minimum(extra, keep_from_labels(labels, RADIUS)))


def test_the_alpha_of_the_images_holds_on_the_dropped_object_too(
    folder: tuple[Path, list[np.ndarray], np.ndarray], no_second_reconstruction: list[int]
) -> None:
    out, true_labels, _ = folder
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[HEIGHT - 20 :, :10] = 0
    for name in names_of(out):
        image = out / "images" / name
        write_png(image.with_suffix(".png"), np.dstack([read_rgb(image), alpha]))
    report = refined(out)
    for name, labels in zip(names_of(out), true_labels, strict=True):
        keep = read_grey(out / "masks" / f"{Path(name).stem}.png")
        assert np.array_equal(keep, np.minimum(alpha, keep_from_labels(labels, RADIUS)))
    assert report["masks"]["alpha_images"] == len(true_labels)


def test_tracks_keep_their_index_in_the_whole_clip(
    folder: tuple[Path, list[np.ndarray], np.ndarray], no_second_reconstruction: list[int]
) -> None:
    out, _, wrong_tracks = folder
    path = out / "motion" / "tracks.npz"
    with np.load(path, allow_pickle=False) as data:
        arrays = {key: data[key] for key in data.files}
    arrays["track_index"] = 3 * arrays["track_index"] + 5  # as where only some tracks of a long clip are stored
    write_npz(path, **arrays)
    refined(out)
    with np.load(path, allow_pickle=False) as after:
        assert set(after.files) == set(arrays)
        for key in ("track_index", "xy", "visible", "confidence", "query_frame", "size"):
            np.testing.assert_array_equal(after[key], arrays[key])
        assert not after["moving"][wrong_tracks].any()
        assert np.array_equal(after["moving"][~wrong_tracks], arrays["moving"][~wrong_tracks])


def test_the_cameras_are_found_again_only_where_that_can_matter() -> None:
    registered = np.ones(20, bool)
    assert worth_repeating(np.full(20, 0.03), registered)
    assert not worth_repeating(np.full(20, 0.01), registered)
    registered[15:] = False
    assert worth_repeating(np.where(registered, 0.0, 0.01), registered), "images without a pose gained something"
    assert not worth_repeating(np.where(registered, 0.01, 0.001), registered), "only images that have a pose gained"


def test_much_freed_leads_to_one_more_reconstruction_and_little_to_none(
    folder: tuple[Path, list[np.ndarray], np.ndarray], no_second_reconstruction: list[int]
) -> None:
    out, true_labels, _ = folder
    names = names_of(out)
    painted = {name: read_grey(out / "masks" / f"{Path(name).stem}.png") for name in names}
    refined(out)
    assert len(no_second_reconstruction) == 1
    # The same object once more, which now masks one row of pixels only.
    path = out / "motion" / "tracks.npz"
    tracks, motion, (width, height) = load_tracks(path)
    first = tracks.xy_flat[tracks.offset[:-1]]
    motion.object_id[(motion.object_id == 0) & (first[:, 0] < WIDTH / 4) & (first[:, 1] > HEIGHT / 2)] = DROPPED
    save_tracks(path, tracks, motion, width, height)
    for name, labels in zip(names, true_labels, strict=True):
        row = labels.copy()
        row[HEIGHT - 1, : WIDTH // 4] = DROPPED
        write_png(out / "motion" / "objects" / f"{Path(name).stem}.png", row)
        write_keep(out, name, np.maximum(painted[name], keep_from_labels(row, 0.0)))
    refined(out)
    assert len(no_second_reconstruction) == 1
    assert not any((labels == DROPPED).any() for labels in MotionMasks(out / "motion" / "objects", names))
