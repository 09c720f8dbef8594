"""Masked reconstruction of a small rendered clip, its database, and the inputs that cannot be reconstructed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
from PIL import Image

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation.poses import trajectory_error
from segmotion_plugin.files import write_png
from segmotion_plugin.masks import keep_from_labels
from segmotion_plugin.reconstruct import database as db
from segmotion_plugin.reconstruct.mapping import cameras_from_reconstruction
from segmotion_plugin.reconstruct.sfm import SfmResult, image_names, reconstruct
from segmotion_plugin.reconstruct.shot import SfmOptions
from segmotion_plugin.simulation import SimulatedClip, render, scenes

FRAMES, WIDTH, HEIGHT = 12, 320, 180


@pytest.fixture(scope="module")
def clip() -> SimulatedClip:
    return render(scenes.build("followed_mover", seed=5, num_frames=FRAMES, width=WIDTH, height=HEIGHT))


@pytest.fixture(scope="module")
def inputs(clip: SimulatedClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose names hold a space and sort as numbers only, and the true masks for COLMAP."""
    root = tmp_path_factory.mktemp("inputs")
    for k, (frame, labels) in enumerate(zip(clip.frames, clip.labels, strict=True)):
        write_png(root / "images" / f"view {k}.png", frame, compression=1)
        write_png(root / "keep" / f"view {k}.png.png", keep_from_labels(labels, 2.0), compression=1)
    return root


@pytest.fixture(scope="module")
def truth(clip: SimulatedClip, inputs: Path) -> Cameras:
    found = clip.cameras
    return Cameras(
        [f"view {k}.png" for k in range(FRAMES)],
        np.arange(FRAMES),
        WIDTH,
        HEIGHT,
        found.model,
        found.params,
        found.cam_from_world,
    )


@pytest.fixture(scope="module")
def solved(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[SfmResult, Path, list]:
    work = tmp_path_factory.mktemp("colmap")
    steps: list[tuple[str, int, int]] = []
    options = SfmOptions(threads=1)
    result = reconstruct(inputs / "images", inputs / "keep", work, options, lambda *step: steps.append(step))
    return result, work, steps


def test_poses_are_right_with_true_masks(solved: tuple[SfmResult, Path, list], truth: Cameras) -> None:
    result, work, _ = solved
    assert (result.status, result.reason) == ("ok", "")
    assert result.images_registered == FRAMES
    assert result.models == [work / "sparse" / "0"]
    model = pycolmap.Reconstruction(work / "sparse" / "0")
    errors = trajectory_error(cameras_from_reconstruction(model, truth.names), truth)
    assert errors.trajectory_fraction < 0.01
    assert errors.rotation_max_deg < 1.0
    assert errors.focal_ratio == pytest.approx(1.0, abs=0.03)


def test_runs_from_different_priors_agree(solved: tuple[SfmResult, Path, list]) -> None:
    result, _, _ = solved
    candidates = result.shots[0].candidates
    assert len(candidates) >= 2
    assert len({candidate.prior_focal for candidate in candidates}) == len(candidates)
    assert result.agreement is not None and result.agreement < 0.01
    assert result.shots[0].chosen == int(np.argmin([c.epipolar_error or np.inf for c in candidates]))


def test_no_keypoint_lies_in_masked_pixels(solved: tuple[SfmResult, Path, list], inputs: Path, tmp_path: Path) -> None:
    result, work, _ = solved
    assert result.keypoints > 1000
    assert result.keypoints_in_masks == 0
    assert db.check_no_keypoint_masked(work / "database.db", inputs / "keep") == 0
    # The same count on a database made without masks is what the masks removed, and what the estimate should say.
    names = image_names(inputs / "images")
    free = tmp_path / "free.db"
    db.extract(free, inputs / "images", names, None, camera_model="SIMPLE_RADIAL", max_features=4096, threads=1, seed=0)
    removed = db.check_no_keypoint_masked(free, inputs / "keep")
    assert removed > 50
    assert 0.5 * removed < result.keypoints_dropped < 2.0 * removed
    assert sum(db.keypoint_counts(free).values()) - removed == result.keypoints


def test_progress_covers_every_step(solved: tuple[SfmResult, Path, list]) -> None:
    _, _, steps = solved
    assert list(dict.fromkeys(name for name, _, _ in steps)) == ["features", "matches", "mapping"]
    assert all(0 < done <= total for _, done, total in steps)
    assert ("features", FRAMES, FRAMES) in steps


def test_report_holds_plain_values(solved: tuple[SfmResult, Path, list]) -> None:
    import json

    values = json.loads(json.dumps(solved[0].to_dict()))
    assert values["models"] == ["sparse/0"]
    assert values["shots"][0]["candidates"][0]["registered"] == FRAMES
    assert set(values["seconds"]) == {"features", "matches", "mapping"}


def test_shots_are_matched_and_reconstructed_apart(inputs: Path, tmp_path: Path) -> None:
    names = image_names(inputs / "images")
    groups = [names[:7], names[7:]]
    result = reconstruct(inputs / "images", inputs / "keep", tmp_path, SfmOptions(threads=1, groups=groups, max_runs=1))
    with pycolmap.Database.open(tmp_path / "database.db") as base:
        name_of = {image.image_id: image.name for image in base.read_all_images()}
        pairs = [pycolmap.pair_id_to_image_pair(pair) for pair in base.read_two_view_geometries()[0]]
    assert pairs
    assert all((name_of[a] in groups[0]) == (name_of[b] in groups[0]) for a, b in pairs)
    assert [shot.images for shot in result.shots] == [7, 5]
    assert result.status == "ok"
    for path in result.models:
        model = pycolmap.Reconstruction(path)
        found = {image.name for image in model.images.values() if image.has_pose}
        assert found <= set(groups[0]) or found <= set(groups[1])
    assert set(result.names) <= set(groups[0])


def test_one_thread_repeats_exactly(inputs: Path, tmp_path: Path) -> None:
    names = image_names(inputs / "images")[:6]
    poses = []
    for turn in ("first", "second"):
        options = SfmOptions(threads=1, groups=[names], max_runs=1)
        result = reconstruct(inputs / "images", inputs / "keep", tmp_path / turn, options)
        assert result.status == "ok"
        model = pycolmap.Reconstruction(result.models[0])
        poses.append(cameras_from_reconstruction(model, names).cam_from_world)
    np.testing.assert_array_equal(poses[0], poses[1])


def test_a_camera_that_stands_still_gives_no_model(clip: SimulatedClip, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(5):
        noisy = clip.frames[0] + rng.normal(0.0, 2.0, clip.frames[0].shape)
        write_png(tmp_path / "images" / f"{k}.png", np.clip(noisy, 0, 255).astype(np.uint8))
    stale = tmp_path / "colmap" / "sparse" / "0"
    stale.mkdir(parents=True)
    (stale / "images.bin").write_bytes(b"of an earlier run")
    result = reconstruct(tmp_path / "images", None, tmp_path / "colmap", SfmOptions(threads=1))
    assert result.status == "none"
    assert "stands still" in result.reason
    assert result.models == [] and not (tmp_path / "colmap" / "sparse").exists()
    assert result.shots[0].candidates == [], "no mapper run is spent on it"


def test_a_turning_camera_gives_no_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    grain = rng.integers(0, 256, (160, 300, 3), dtype=np.uint8)
    panorama = cv2.resize(grain, (900, 480), interpolation=cv2.INTER_CUBIC)
    matrix = np.array([[300.0, 0.0, 160.0], [0.0, 300.0, 90.0], [0.0, 0.0, 1.0]])
    centred = np.array([[300.0, 0.0, 450.0], [0.0, 300.0, 240.0], [0.0, 0.0, 1.0]])
    for k in range(6):
        turn, _ = cv2.Rodrigues(np.array([0.01 * k, 0.08 * (k - 2.5), 0.0]))
        homography = matrix @ turn @ np.linalg.inv(centred)
        view = cv2.warpPerspective(panorama, homography, (320, 180), flags=cv2.INTER_LINEAR)
        write_png(tmp_path / "images" / f"{k}.png", view)
    result = reconstruct(tmp_path / "images", None, tmp_path / "colmap", SfmOptions(threads=1))
    assert result.status == "none"
    assert "the camera only turns" in result.reason
    assert result.shots[0].candidates == [], "no mapper run is spent on it"


def test_images_without_a_common_view_give_no_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    for k in range(4):
        coarse = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        write_png(tmp_path / "images" / f"{k}.png", cv2.resize(coarse, (240, 160), interpolation=cv2.INTER_CUBIC))
    result = reconstruct(tmp_path / "images", None, tmp_path / "colmap", SfmOptions(threads=1))
    assert (result.status, result.images_registered) == ("none", 0)
    assert "do not overlap" in result.reason


def test_two_images_are_too_few(inputs: Path, tmp_path: Path) -> None:
    names = image_names(inputs / "images")[:2]
    result = reconstruct(inputs / "images", inputs / "keep", tmp_path, SfmOptions(threads=1, groups=[names]))
    assert result.status == "none"
    assert "three or more images, and there are 2" in result.reason


def test_masks_that_colmap_would_misread_in_silence_are_refused(inputs: Path, tmp_path: Path) -> None:
    names = image_names(inputs / "images")
    for name in names[:-1]:
        write_png(tmp_path / f"{name}.png", np.full((HEIGHT, WIDTH), 255, np.uint8))
    with pytest.raises(SegmotionError, match=rf"{names[-1]}.png: no such mask \(1 of {FRAMES}"):
        reconstruct(inputs / "images", tmp_path, tmp_path / "colmap")
    write_png(tmp_path / f"{names[-1]}.png", np.full((HEIGHT // 2, WIDTH // 2), 255, np.uint8))
    with pytest.raises(SegmotionError, match=f"{WIDTH // 2}×{HEIGHT // 2} pixels, its image has {WIDTH}×{HEIGHT}"):
        reconstruct(inputs / "images", tmp_path, tmp_path / "colmap")
    assert not (tmp_path / "colmap").exists()


def test_folders_that_hold_no_usable_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SegmotionError, match="no such folder"):
        reconstruct(tmp_path / "nowhere", None, tmp_path / "colmap")
    (tmp_path / "images").mkdir()
    with pytest.raises(SegmotionError, match="no images in this folder"):
        reconstruct(tmp_path / "images", None, tmp_path / "colmap")
    write_png(tmp_path / "images" / "1.png", np.zeros((20, 30), np.uint8))
    write_png(tmp_path / "images" / "2.png", np.zeros((20, 31), np.uint8))
    with pytest.raises(SegmotionError, match="2.png: 31×20 pixels, but 1.png has 30×20"):
        reconstruct(tmp_path / "images", None, tmp_path / "colmap")


def test_images_are_taken_in_natural_order(inputs: Path, solved: tuple[SfmResult, Path, list]) -> None:
    names = [f"view {k}.png" for k in range(FRAMES)]
    assert image_names(inputs / "images") == names
    result, work, _ = solved
    assert result.names == names
    with pycolmap.Database.open(work / "database.db") as base:
        entered = [image.name for image in sorted(base.read_all_images(), key=lambda i: i.image_id)]
    assert entered == sorted(names)


def test_sequential_pairs_reach_far_and_exhaustive_ones_are_all() -> None:
    assert db.pairs_of(4, "exhaustive", 10) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    pairs = db.pairs_of(100, "sequential", 10)
    assert {j - i for i, j in pairs} == {1, 2, 4, 8, 16, 32, 64}
    assert len(pairs) == len(set(pairs)) == sum(100 - step for step in (1, 2, 4, 8, 16, 32, 64))
    assert db.choose_matching(16, "auto", ordered=True) == "exhaustive"
    assert db.choose_matching(80, "auto", ordered=True) == "sequential"
    assert db.choose_matching(80, "auto", ordered=False) == "exhaustive"


def test_focal_length_is_read_from_exif_where_most_images_have_it(tmp_path: Path) -> None:
    for k in range(5):
        exif = Image.Exif()
        exif[0x010F], exif[0x0110] = "maker", "model"
        if k < 3:
            exif.get_ifd(0x8769)[0xA405] = 28  # focal length in terms of 35 mm film
        Image.new("RGB", (600, 400)).save(tmp_path / f"{k}.jpg", exif=exif)
    found = db.exif_focal(tmp_path, image_names(tmp_path))
    assert found == pytest.approx(28.0 / 36.0 * 600.0, rel=0.05)
    assert db.exif_focal(tmp_path, ["2.jpg", "3.jpg", "4.jpg"]) is None
