"""Masks of undistorted images against pycolmap's own undistortion, for every camera model that it knows."""

from __future__ import annotations

from pathlib import Path

import pycolmap
import pytest
from segmotion_colmap.command import Undistort
from segmotion_colmap.undistort import undistort_masks
from support_distortion import HEIGHT, WIDTH, check_masks, write_models

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.masks import read_grey
from segmotion_plugin.reconstruct.database import quiet_colmap

MODELS = sorted(set(pycolmap.CameraModelId.__members__) - {"INVALID", "EQUIRECTANGULAR"})


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> tuple[Path, list[str]]:
    root = tmp_path_factory.mktemp("models")
    names = write_models(root, MODELS)
    with quiet_colmap():
        pycolmap.undistort_images(root / "dense", root / "sparse", root / "images")
    return root, names


@pytest.mark.parametrize("given", [False, True])
def test_masks_fit_the_pictures_of_every_camera_model(dense, tmp_path, given):
    root, names = dense
    assert len(names) >= 3 * 17
    undistort_masks(root / "sparse", root / "masks", tmp_path, root / "dense" / "sparse" if given else None)
    check_masks(root / "dense" / "images", tmp_path, names)
    sizes = {name: read_grey(tmp_path / f"{name}.png").shape for name in names}
    assert sizes["OPENCV_FISHEYE_zero.png"] == (HEIGHT, WIDTH) != sizes["OPENCV_FISHEYE_small.png"]


def test_masks_fit_pictures_that_were_made_smaller(dense, tmp_path):
    root, names = dense
    smaller = pycolmap.UndistortCameraOptions()
    smaller.max_image_size = 100
    with quiet_colmap():
        pycolmap.undistort_images(tmp_path / "dense", root / "sparse", root / "images", undistort_options=smaller)
    undistort_masks(root / "sparse", root / "masks", tmp_path / "masks", tmp_path / "dense" / "sparse")
    for name in names:
        assert read_grey(tmp_path / "masks" / f"{name}.png").shape == read_grey(tmp_path / "dense" / "images" / name).shape
        assert max(read_grey(tmp_path / "masks" / f"{name}.png").shape) <= 100


def test_an_equirectangular_camera_is_refused_in_one_line(tmp_path):
    write_models(tmp_path, ["EQUIRECTANGULAR"])
    with pytest.raises(SegmotionError, match="camera 1 is EQUIRECTANGULAR") as refused:
        Undistort(tmp_path / "sparse", tmp_path / "masks", tmp_path / "new").main()
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "new").exists()
