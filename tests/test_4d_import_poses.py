"""Cameras found elsewhere take the place of the reconstruction, whatever program wrote them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from segmotion_4d import export, import_results
from segmotion_4d.import_command import Import
from support_4d import FRAMES, HEIGHT, WIDTH, textured
from support_processed import write_processed

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import read_json, write_png
from segmotion_plugin.settings import MaskSettings

SETTINGS = MaskSettings(dilate=0, quiet=True, motion="geometric")
ALL_4X4 = np.tile(np.eye(4), (FRAMES, 1, 1))


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """The shot, its masks and tracks, and its true cameras in every form (at half and at double size)."""
    folder = tmp_path_factory.mktemp("given")
    clip, tracks = textured()
    for t, frame in enumerate(clip.frames):
        write_png(folder / "shot" / f"shot.{1001 + t}.png", frame)
        write_png(folder / "masks" / f"shot.{1001 + t}.png", np.where(clip.labels[t] > 0, 255, 0).astype(np.uint8))
    write_processed(folder / "clip", clip, tracks, depth=True, tracks_3d=True)
    for name in ("tapip3d", "monst3r", "tum"):
        export(folder / "clip", name, folder / name)
    extrinsics = ALL_4X4.copy()
    extrinsics[:, :3] = clip.cameras.cam_from_world
    half = np.diag([0.5, 0.5, 1]) @ clip.cameras.intrinsics()
    small, inverse = np.ones((FRAMES, HEIGHT // 2, WIDTH // 2)), np.linalg.inv(extrinsics)
    np.savez(folder / "megasam.npz", cam_c2w=inverse.astype(np.float32), intrinsic=half, depths=small.astype(np.float16))
    np.savez(folder / "vggt.npz", extrinsic=extrinsics[:, :3], intrinsic=np.tile(half, (FRAMES, 1, 1)), depth=small[..., None])
    np.savez(folder / "da3.npz", extrinsics=extrinsics[:, :3], intrinsics=np.tile(half, (FRAMES, 1, 1)), depth=small)
    np.savez(folder / "pi3.npz", camera_poses=inverse)
    return folder


def take(given: Path, out: Path, poses: Path, format: str, focal: float | None = None) -> dict:
    return import_results(
        given / "shot", out, masks=given / "masks", masks_format="dynamic", tracks=given / "tapip3d" / "clip.npz",
        poses=poses, poses_format=format, focal=focal, settings=SETTINGS,
    )  # fmt: skip


@pytest.mark.parametrize("format", ["tum", "monst3r", "megasam", "vggt", "da3", "pi3"])
def test_poses_of_every_form_put_points_of_the_truth_on_their_pixels(given, tmp_path, format):
    clip, _ = textured()
    poses = {"tum": given / "tum" / "trajectory.txt", "monst3r": given / "monst3r"}.get(format, given / f"{format}.npz")
    focal = float(clip.cameras.params[0]) if format in ("tum", "pi3") else None
    report = take(given, tmp_path / "out", poses, format, focal)
    assert report["reconstruction"]["status"] == "ok" and report["reconstruction"]["tracks_3d"]["status"] == "ok"
    model = pycolmap.Reconstruction(tmp_path / "out" / "colmap" / "sparse" / "0")
    assert model.num_reg_images() == FRAMES and model.num_points3D() >= 20
    matrix = model.cameras[1].calibration_matrix()
    xyz = np.array([p.xyz for p in model.points3D.values()])
    for image in model.images.values():
        frame = int(image.name[6:11]) - 1
        camera = xyz @ image.cam_from_world().matrix()[:, :3].T + image.cam_from_world().matrix()[:, 3]
        front = camera[:, 2] > 0.5
        xy = (camera @ matrix.T)[:, :2] / camera[:, 2:]
        assert np.abs(xy - clip.cameras.project(xyz, frame)[0])[front].max() < 0.5
    assert model.compute_mean_reprojection_error() < 0.5
    assert len(read_json(tmp_path / "out" / "transforms.json")["frames"]) == FRAMES
    export(tmp_path / "out", "gsplat", tmp_path / "gsplat")


def test_the_command_takes_poses_and_depth_of_one_program_and_every_export_works(given, tmp_path):
    """MonST3R's folder gives both; masks and tracks are made here."""
    import tyro

    options = [
        "--poses",
        str(given / "monst3r"),
        "--poses-format",
        "monst3r",
        "--depth",
        str(given / "monst3r"),
        "--depth-format",
        "monst3r",
    ]
    options += [
        "--masks",
        str(given / "masks"),
        "--masks-format",
        "dynamic",
        "--tracks",
        str(given / "tapip3d" / "clip.npz"),
        "--quiet",
    ]
    assert tyro.cli(Import, args=[str(given / "shot"), str(tmp_path / "out"), *options]).main() == 0
    for name in ("shape-of-motion", "tapip3d", "monst3r", "dycheck"):
        export(tmp_path / "out", name, tmp_path / name)
    found = np.load(tmp_path / "monst3r" / "frame_0003.npy")
    true = textured()[0].depth[3]
    known = np.isfinite(true) & (found > 0)
    assert known.mean() > 0.75 and np.median(np.abs(found - true)[known] / true[known]) < 0.03


def test_poses_that_do_not_fit_are_named_and_nothing_is_left(given, tmp_path):
    def attempt(words: str, poses: Path, format: str, focal: float | None = None) -> None:
        with pytest.raises(SegmotionError, match=words):
            take(given, tmp_path / "out", poses, format, focal)
        assert not (tmp_path / "out").exists()

    attempt("no focal length: give --focal", given / "pi3.npz", "pi3")
    attempt("leave --focal out", given / "megasam.npz", "megasam", 100.0)
    attempt("not an npz file with extrinsic, intrinsic, depth", given / "megasam.npz", "vggt")
    attempt("no such file of poses", given / "none.txt", "tum", 100.0)
    (tmp_path / "words.txt").write_text("a b c\n")
    attempt("not lines of 8 numbers", tmp_path / "words.txt", "tum", 100.0)
    np.savez(tmp_path / "few.npz", camera_poses=ALL_4X4[:7])
    attempt("7 poses, but there are 10 frames", tmp_path / "few.npz", "pi3", 100.0)
    np.savez(tmp_path / "skewed.npz", camera_poses=2 * ALL_4X4)
    attempt("no rotations", tmp_path / "skewed.npz", "pi3", 100.0)
    np.savez(tmp_path / "still.npz", camera_poses=ALL_4X4)
    attempt("static tracks fit the given poses", tmp_path / "still.npz", "pi3", 100.0)
    with pytest.raises(SegmotionError, match="--poses and --poses-format belong together"):
        import_results(given / "shot", tmp_path / "out", poses=given / "pi3.npz")
