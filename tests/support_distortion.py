"""Sparse models with one picture per camera model and strength of distortion; every picture is its own keep mask."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from segmotion_plugin.files import write_png
from segmotion_plugin.masks import read_grey

WIDTH, HEIGHT, FOCAL = 160, 120, 120.0
STRENGTHS = {"zero": 0.0, "small": 0.01, "strong": 0.2}
SINCE_3_8 = [
    "SIMPLE_PINHOLE",
    "PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "OPENCV_FISHEYE",
    "FULL_OPENCV",
    "FOV",
    "SIMPLE_RADIAL_FISHEYE",
    "RADIAL_FISHEYE",
    "THIN_PRISM_FISHEYE",
]
"""The camera models of COLMAP 3.8."""


def parameters(model: str, strength: str):
    """A pycolmap camera; its first distortion term is the strength, the others are .3 of it."""
    import pycolmap

    camera = pycolmap.Camera.create_from_model_name(1, model, FOCAL, WIDTH, HEIGHT)
    params = np.array(camera.params)
    extra = list(camera.extra_params_idxs())
    if model == "EUCM":  # alpha and beta: (0, 1) is a pinhole
        params[extra] = {"zero": (0.0, 1.0), "small": (0.1, 1.0), "strong": (0.6, 1.1)}[strength]
    else:
        params[extra] = STRENGTHS[strength] * np.where(np.arange(len(extra)) == 0, 1.0, 0.3)
    camera.params = params
    return camera


def write_models(root: Path, models: Iterable[str]) -> list[str]:
    """Write `images/`, `masks/` and `sparse/` (binary) with a camera and a picture `MODEL_strength.png` for each of them.

    Returns:
        The names of the pictures.
    """
    import pycolmap

    rng = np.random.default_rng(0)
    picture = np.kron((rng.random((6, 8)) > 0.4).astype(np.uint8) * 255, np.ones((20, 20), np.uint8))
    reconstruction = pycolmap.Reconstruction()
    names = [f"{model}_{strength}.png" for model in models for strength in STRENGTHS]
    for number, name in enumerate(names, start=1):
        camera = parameters(*name[:-4].rsplit("_", 1))
        camera.camera_id = number
        reconstruction.add_camera_with_trivial_rig(camera)
        image = pycolmap.Image(name=name, keypoints=np.zeros((0, 2)), camera_id=number, image_id=number)
        reconstruction.add_image_with_trivial_frame(image, pycolmap.Rigid3d())
        write_png(root / "images" / name, np.repeat(picture[..., None], 3, axis=2))
        write_png(root / "masks" / f"{name}.png", picture)
    (root / "sparse").mkdir(parents=True)
    reconstruction.write_binary(root / "sparse")
    return names


def check_masks(pictures: Path, masks: Path, names: Iterable[str]) -> None:
    """Every mask has the size of its undistorted picture, and says the same where that is plainly black or white."""
    for name in names:
        picture, mask = read_grey(pictures / name), read_grey(masks / f"{name}.png")
        assert mask.shape == picture.shape, name
        plain = (picture < 30) | (picture > 225)
        assert plain.mean() > 0.75, name
        assert np.mean((mask > 0)[plain] == (picture > 127)[plain]) > 0.995, name
