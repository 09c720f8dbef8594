"""Keep masks for undistorted images: `colmap image_undistorter` undistorts no masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segmotion_colmap.database import read_keep
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import write_png
from segmotion_plugin.reading import check_pixels, inside
from segmotion_plugin.reconstruct import model_files
from segmotion_plugin.reconstruct.database import image_size

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
        SegmotionError: no model, an equirectangular camera, a missing mask, or one of another size than its camera.
    """
    source = read_model(model)
    target = None if undistorted is None else read_model(undistorted)
    flat = {} if target is None else {image.name: target.cameras[image.camera_id] for image in target.images.values()}
    import pycolmap

    options = pycolmap.UndistortCameraOptions()
    used = {image.camera_id: source.cameras[image.camera_id] for image in source.images.values()}
    for number, camera in sorted(used.items()):
        if camera.model == pycolmap.CameraModelId.EQUIRECTANGULAR:
            raise SegmotionError(
                f"{model}: camera {number} is EQUIRECTANGULAR, of which there is no undistorted picture (COLMAP copies it); "
                "cut perspective views out of the pictures and their masks first"
            )
    # COLMAP copies the pictures of cameras without distortion, fisheyes too, although it would compute another camera for them.
    default = {number: c if c.is_undistorted() else pycolmap.undistort_camera(options, c) for number, c in used.items() if not target}
    key: tuple[int, int] | None = None
    position = np.zeros((0, 0, 2))
    names = []
    for image in sorted(source.images.values(), key=lambda i: i.name):
        camera = source.cameras[image.camera_id]
        if target is not None and image.name not in flat:
            continue  # image_undistorter was given a list of images
        plain = flat[image.name] if target is not None else default[image.camera_id]
        keep = read_keep(masks, image.name, (camera.width, camera.height))
        plain = _as_pictured(plain, camera, undistorted, image.name)
        if key != (image.camera_id, plain.camera_id):  # images of one camera mostly follow each other
            key, position = (image.camera_id, plain.camera_id), _source_positions(plain, camera)
        write_png(inside(output, f"{image.name}.png", model), _nearest(keep, position))
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
        model = pycolmap.Reconstruction(str(folder))
    except (ValueError, RuntimeError, IndexError) as error:
        raise SegmotionError(f"{folder}: not a readable sparse model ({error})") from None
    model_files.check_values(model, folder)
    return model


def _as_pictured(plain: pycolmap.Camera, camera: pycolmap.Camera, undistorted: Path | None, name: str) -> pycolmap.Camera:
    """The camera of the picture beside the model (`dense/images`), where it is not the one that the model holds: with
    --max_image_size, COLMAP 3.8 undistorts and shrinks pictures of cameras without distortion, and leaves the cameras as they were."""
    import pycolmap

    picture = None if undistorted is None else Path(undistorted).parent / "images" / name
    if picture is None or not picture.is_file():
        return plain
    size = image_size(picture)
    if size == (plain.width, plain.height):
        return plain
    options = pycolmap.UndistortCameraOptions()
    options.max_image_size = max(size)
    shrunk = pycolmap.undistort_camera(options, camera)
    if size != (shrunk.width, shrunk.height):
        raise SegmotionError(
            f"{picture}: {size[0]}×{size[1]} pixels, but its camera in {undistorted} has {plain.width}×{plain.height}; "
            "make model and pictures anew with one run of image_undistorter"
        )
    return shrunk


def _source_positions(plain: pycolmap.Camera, camera: pycolmap.Camera) -> np.ndarray:
    """H×W×2 positions in the distorted image of the pixel centres of the undistorted one."""
    check_pixels(plain.width, plain.height, f"undistorted pictures of camera {camera.camera_id}")
    columns, rows = np.meshgrid(np.arange(plain.width) + 0.5, np.arange(plain.height) + 0.5)
    centres = np.stack([columns.ravel(), rows.ravel()], axis=1)
    if plain.model == camera.model and plain.width == camera.width and np.array_equal(plain.params, camera.params):
        # A copied picture; a fisheye may see behind the camera.
        return centres.reshape(plain.height, plain.width, 2)
    rays = plain.cam_from_img(centres)
    rays = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)
    return np.asarray(camera.img_from_cam(rays)).reshape(plain.height, plain.width, 2)


def _nearest(keep: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Nearest mask value; 0 beyond the image, where the undistorted picture is empty."""
    index = np.floor(np.nan_to_num(position, nan=-1.0)).astype(np.int64)
    inside = ((index >= 0) & (index < np.array(keep.shape[::-1]))).all(axis=-1)
    result = np.zeros(position.shape[:2], np.uint8)
    result[inside] = np.where(keep[index[inside][:, 1], index[inside][:, 0]] > 0, 255, 0)
    return result
