"""Keep masks for undistorted images: `colmap image_undistorter` undistorts no masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segmotion_colmap.database import read_keep
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import write_png
from segmotion_plugin.reconstruct import model_files

if TYPE_CHECKING:
    import pycolmap


def undistort_masks(model: Path, masks: Path, output: Path, undistorted: Path | None = None) -> list[str]:
    """Write the keep masks of undistorted images under the same names, `<output>/<image name>.png`.

    Args:
        model: sparse model with the distorted cameras (the input of image_undistorter).
        masks: folder of keep masks of the distorted images.
        output: folder of the new masks.
        undistorted: sparse model that image_undistorter wrote (`dense/sparse`); when absent its default options are assumed.

    Returns:
        Names of the images.

    Raises:
        SegmotionError: no model, a missing mask, or one of another size than its camera.
    """
    source = read_model(model)
    target = None if undistorted is None else read_model(undistorted)
    flat = {} if target is None else {image.name: target.cameras[image.camera_id] for image in target.images.values()}
    import pycolmap

    options = pycolmap.UndistortCameraOptions()
    default = {} if target else {number: pycolmap.undistort_camera(options, camera) for number, camera in source.cameras.items()}
    key: tuple[int, int] | None = None
    position = np.zeros((0, 0, 2))
    names = []
    for image in sorted(source.images.values(), key=lambda i: i.name):
        camera = source.cameras[image.camera_id]
        if target is not None and image.name not in flat:
            continue  # image_undistorter was given a list of images
        plain = flat[image.name] if target is not None else default[image.camera_id]
        keep = read_keep(masks, image.name)
        if keep.shape != (camera.height, camera.width):
            raise SegmotionError(
                f"{masks}/{image.name}.png: {keep.shape[1]}×{keep.shape[0]} pixels, but the camera has "
                f"{camera.width}×{camera.height}; masks must have the size of the distorted images"
            )
        if key != (image.camera_id, plain.camera_id):  # images of one camera mostly follow each other
            key, position = (image.camera_id, plain.camera_id), _source_positions(plain, camera)
        write_png(Path(output) / f"{image.name}.png", _nearest(keep, position))
        names.append(image.name)
    if not names:
        raise SegmotionError(f"{undistorted}: holds none of the images of {model}")
    return names


def read_model(folder: Path) -> pycolmap.Reconstruction:
    """Read a sparse model, binary or text.

    Raises:
        SegmotionError: there is none in this folder, or a damaged one.
    """
    if (Path(folder) / "cameras.bin").is_file():
        return model_files.read_model(folder)
    if not (Path(folder) / "cameras.txt").is_file():
        raise SegmotionError(f"{folder}: no sparse model (cameras.bin or cameras.txt) in this folder")
    import pycolmap

    try:
        return pycolmap.Reconstruction(str(folder))
    except (ValueError, RuntimeError) as error:
        raise SegmotionError(f"{folder}: not a readable sparse model ({error})") from None


def _source_positions(plain: pycolmap.Camera, camera: pycolmap.Camera) -> np.ndarray:
    """H×W×2 positions in the distorted image of the pixel centres of the undistorted one."""
    columns, rows = np.meshgrid(np.arange(plain.width) + 0.5, np.arange(plain.height) + 0.5)
    rays = plain.cam_from_img(np.stack([columns.ravel(), rows.ravel()], axis=1))
    rays = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)
    return np.asarray(camera.img_from_cam(rays)).reshape(plain.height, plain.width, 2)


def _nearest(keep: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Nearest mask value; 0 beyond the image, where the undistorted picture is empty."""
    index = np.floor(np.nan_to_num(position, nan=-1.0)).astype(np.int64)
    inside = ((index >= 0) & (index < np.array(keep.shape[::-1]))).all(axis=-1)
    result = np.zeros(position.shape[:2], np.uint8)
    result[inside] = np.where(keep[index[inside][:, 1], index[inside][:, 0]] > 0, 255, 0)
    return result
