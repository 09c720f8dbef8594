"""The nerfstudio dataset: what transforms.json promises, checked on a synthetic COLMAP model."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import write_png
from segmotion_plugin.reconstruct import nerfstudio_dataset
from segmotion_plugin.reconstruct.mapping import cameras_from_reconstruction, change_camera_model

NAMES = ["frame_00001.png", "frame_00002.png", "frame_00003.png", "frame_00004.png", "frame_00010.png"]


def synthetic_model(camera_model: str = "SIMPLE_RADIAL") -> pycolmap.Reconstruction:
    """Five cameras around random points, with names that sort differently as text and as numbers."""
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, len(NAMES)
    options.num_points3D = 40
    options.camera_model_id = pycolmap.CameraModelId.SIMPLE_RADIAL
    options.camera_params = [80.0, 50.5, 30.5, 0.05]
    options.camera_width, options.camera_height = 101, 61
    pycolmap.set_random_seed(1)
    model = pycolmap.synthesize_dataset(options)
    for image, name in zip(sorted(model.images.values(), key=lambda i: -i.image_id), NAMES, strict=True):
        image.name = name
    rng = np.random.default_rng(2)
    for point in model.points3D.values():
        point.color = rng.integers(0, 256, 3).astype(np.uint8)
    change_camera_model(model, camera_model)
    return model


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.fixture(scope="module", params=["SIMPLE_RADIAL", "OPENCV", "PINHOLE"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    (out / "colmap" / "sparse" / "0").mkdir(parents=True)
    synthetic_model(request.param).write(out / "colmap" / "sparse" / "0")
    for name in NAMES:
        write_png(out / "images" / name, rng.integers(0, 256, (61, 101, 3), dtype=np.uint8))
        write_png(out / "masks" / name, np.where(rng.random((61, 101)) < 0.5, 255, 0).astype(np.uint8))
    times = {name: 2.0 + k for k, name in enumerate(NAMES)}
    assert nerfstudio_dataset.write(out, out / "colmap" / "sparse" / "0", times=times) == len(NAMES)
    return out


def test_a_point_of_the_cloud_lands_where_colmap_sees_it(folder: Path) -> None:
    data = json.loads((folder / "transforms.json").read_text())
    model = pycolmap.Reconstruction(folder / "colmap" / "sparse" / "0")
    lines = (folder / data["ply_file_path"]).read_text().split("end_header\n")[1].splitlines()
    cloud = np.array([line.split()[:3] for line in lines], dtype=np.float64)
    assert len(cloud) == model.num_points3D() == 40
    cameras = cameras_from_reconstruction(model, NAMES)
    xyz = np.array([point.xyz for point in model.points3D.values()])
    for k, frame in enumerate(data["frames"]):
        pose = np.array(frame["transform_matrix"])
        local = (cloud - pose[:3, 3]) @ pose[:3, :3]
        x, y = local[:, 0] / -local[:, 2], -local[:, 1] / -local[:, 2]
        r2 = x * x + y * y
        radial = 1 + data["k1"] * r2 + data["k2"] * r2 * r2
        ours = np.stack([data["fl_x"] * x * radial + data["cx"], data["fl_y"] * y * radial + data["cy"]], axis=1)
        theirs, depth = cameras.project(xyz, k)
        front = depth > 0.1
        assert front.sum() > 20
        np.testing.assert_allclose(ours[front], theirs[front], atol=2e-3)
    colors = np.array([line.split()[3:] for line in lines], dtype=int)
    np.testing.assert_array_equal(colors, [point.color for point in model.points3D.values()])


def test_frames_carry_masks_and_times_in_the_order_of_their_names(folder: Path) -> None:
    data = json.loads((folder / "transforms.json").read_text())
    assert [frame["file_path"] for frame in data["frames"]] == [f"images/{name}" for name in NAMES]
    assert [frame["mask_path"] for frame in data["frames"]] == [f"masks/{name}" for name in NAMES]
    assert [frame["time"] for frame in data["frames"]] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert (data["w"], data["h"], data["camera_model"]) == (101, 61, "OPENCV")
    assert data["applied_transform"] == [[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]]


def test_copies_are_truncated_in_size_and_masks_stay_black_and_white(folder: Path) -> None:
    for k in (2, 4, 8):
        for name in NAMES:
            image, mask = pixels(folder / f"images_{k}" / name), pixels(folder / f"masks_{k}" / name)
            assert image.shape == (61 // k, 101 // k, 3)
            assert mask.shape == (61 // k, 101 // k)
            assert set(np.unique(mask)) == {0, 255}
    full, half = pixels(folder / "images" / NAMES[0]), pixels(folder / "images_2" / NAMES[0])
    assert abs(full.mean(axis=(0, 1)) - half.mean(axis=(0, 1))).max() < 2.0, "colours keep their places"


def test_copies_follow_a_mask_that_changed(folder: Path) -> None:
    import os

    target = folder / "masks" / NAMES[1]
    before = target.read_bytes()
    write_png(target, np.zeros((61, 101), np.uint8))
    later = (folder / "masks_2" / NAMES[1]).stat().st_mtime_ns + 10**9
    os.utime(target, ns=(later, later))
    nerfstudio_dataset.write_downscaled(folder, "masks", (2,))
    assert not pixels(folder / "masks_2" / NAMES[1]).any()
    target.write_bytes(before)
    nerfstudio_dataset.write_downscaled(folder, "masks", (2, 4, 8))


def test_a_missing_mask_or_model_is_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    with pytest.raises(SegmotionError, match=r"no such mask \(5 of 5"):
        nerfstudio_dataset.write(tmp_path, folder / "colmap" / "sparse" / "0")
    assert not (tmp_path / "transforms.json").exists()
    with pytest.raises(SegmotionError, match="no COLMAP model"):
        nerfstudio_dataset.write(tmp_path, tmp_path)


def test_a_model_that_was_cut_off_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "colmap" / "sparse" / "0", tmp_path / "0")
    data = (tmp_path / "0" / "images.bin").read_bytes()
    (tmp_path / "0" / "images.bin").write_bytes(data[: len(data) // 2])
    with pytest.raises(SegmotionError, match="images.bin: not a readable COLMAP model"):
        nerfstudio_dataset.transforms(tmp_path / "0")
    with pytest.raises(SegmotionError, match="images.bin: not a readable COLMAP model"):
        nerfstudio_dataset.write_points(tmp_path / "0", tmp_path / "points.ply")


def test_times_that_are_not_known_for_every_frame_are_left_out(folder: Path) -> None:
    data = nerfstudio_dataset.transforms(folder / "colmap" / "sparse" / "0", times={NAMES[0]: 1.0})
    assert all("time" not in frame for frame in data["frames"])


if list(importlib.metadata.distributions(name="nerfstudio")):

    def test_nerfstudio_itself_writes_the_same(folder: Path, tmp_path: Path) -> None:
        from nerfstudio.process_data.colmap_utils import colmap_to_json

        colmap_to_json(folder / "colmap" / "sparse" / "0", tmp_path)
        theirs = json.loads((tmp_path / "transforms.json").read_text())
        ours = json.loads((folder / "transforms.json").read_text())
        assert {k: v for k, v in ours.items() if k != "frames"} == {
            k: pytest.approx(v) if isinstance(v, float) else v for k, v in theirs.items() if k != "frames"
        }
        by_name = {frame["file_path"]: frame for frame in theirs["frames"]}
        for frame in ours["frames"]:
            np.testing.assert_allclose(
                frame["transform_matrix"], by_name[frame["file_path"]]["transform_matrix"], atol=1e-9
            )
            assert frame["colmap_im_id"] == by_name[frame["file_path"]]["colmap_im_id"]
        header, points = (folder / "sparse_pc.ply").read_text().split("end_header\n")
        their_header, their_points = (tmp_path / "sparse_pc.ply").read_text().split("end_header\n")
        assert header == their_header
        np.testing.assert_allclose(
            np.array(sorted(line.split() for line in points.splitlines()), float),
            np.array(sorted(line.split() for line in their_points.splitlines()), float),
            atol=2e-6,
        )

    def test_nerfstudio_loads_the_folder_with_masks(folder: Path) -> None:
        from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
        from nerfstudio.data.datasets.base_dataset import InputDataset

        parser = NerfstudioDataParserConfig(data=folder, downscale_factor=2, eval_mode="all").setup()
        outputs = parser.get_dataparser_outputs("train")
        dataset = InputDataset(outputs)
        assert len(dataset) == len(NAMES)
        item = dataset[0]
        assert tuple(item["image"].shape) == (30, 50, 3)
        assert tuple(item["mask"].shape) == (30, 50, 1)
        assert 0 < int(item["mask"].sum()) < 30 * 50
