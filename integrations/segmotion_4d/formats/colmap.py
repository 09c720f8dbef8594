"""COLMAP folders: as the images are, and undistorted.

    DEST/
      images/frame_00001.png            hard links (`colmap`), or undistorted pictures (`colmap-undistorted`)
      masks/frame_00001.png             keep: 255 = static, 0 = moving; for programs that are pointed at it
      colmap_masks/frame_00001.png.png  the same under the one name that every COLMAP version reads (--ImageReader.mask_path)
      sparse/0/{cameras,images,points3D,rigs,frames}.bin

Axes are COLMAP's (camera: x right, y down, z forward; cam_from_world); the centre of the top-left pixel is at (0.5, 0.5). The
undistorted variant holds one PINHOLE camera with the principal point in the centre of the picture and images in frame order, since
most readers of such folders know only fields of view.

Loaders: COLMAP and pycolmap; OpenSplat, 2DGS and other programs that ignore masks (undistorted). Those that use masks, or want
smaller copies of the pictures, have formats of their own (`splats.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from segmotion_4d.pinhole import Pinhole
from segmotion_4d.source import ImageRecord, Processed
from segmotion_4d.spec import Format
from segmotion_4d.writing import link, unique
from segmotion_plugin.files import write_png
from segmotion_plugin.reconstruct.model_files import read_model

_POLARITY = "keep: 255 = static, 0 = moving"
WITHOUT_MASKS = (
    "movers' points are left out of the cloud that training begins with, their pixels still count in its loss; "
    "segmotion-splatfacto (ns-train) leaves these out too"
)


def _write_original(source: Processed, dest: Path) -> list[str]:
    unique(((image.name, f"{image.stem}.png") for image in source.images), "masks")
    for image in source.steps("images", source.images):
        link(source.image_path_of(image), dest / "images" / image.name)
        link(source.keep_path_of(image), dest / "masks" / f"{image.stem}.png")
        link(source.keep_path_of(image), dest / "colmap_masks" / f"{image.name}.png")
    if source.moving_points:
        _write_without_movers(source, dest / "sparse" / "0")
    else:
        for file in sorted(source.model_path.glob("*.bin")):
            link(file, dest / "sparse" / "0" / file.name)
    return source.notes_on_poses("are not in the model; their pictures and masks are there")


def _write_undistorted(source: Processed, dest: Path) -> list[str]:
    view = Pinhole(source.cameras)
    names = write_pinhole_model(source, view, dest / "sparse" / "0", lambda k, image: image.stem)
    for index, name in source.steps("images", list(zip(source.posed, names, strict=True))):
        place_image(source, view, index, dest / "images" / name)
        target = dest / "masks" / f"{Path(name).stem}.png"
        if view.identical:
            link(source.keep_path_of(source.images[index]), target)
        else:
            write_png(target, view.nearest(source.keep(index)))
        link(target, dest / "colmap_masks" / f"{name}.png")
    return source.notes_on_poses()


def _write_without_movers(source: Processed, folder: Path) -> None:
    model = read_model(source.model_path)
    for number in source.moving_points:
        model.delete_point3D(number)
    folder.mkdir(parents=True)
    model.write_binary(folder)


def place_image(source: Processed, view: Pinhole, index: int, target: Path) -> None:
    """Put image `index` into the view: a hard link where nothing changes, else a PNG."""
    path = source.image_path(index)
    if view.identical and path.suffix == target.suffix:
        link(path, target)
    else:
        write_png(target, view.image(path), compression=1)


def image_suffix(source: Processed, view: Pinhole) -> str:
    """Suffix of exported pictures: the source's where they are linked, else .png."""
    suffixes = {Path(image.name).suffix for image in source.images}
    return suffixes.pop() if view.identical and len(suffixes) == 1 else ".png"


def write_pinhole_model(
    source: Processed, view: Pinhole, folder: Path, rename: Callable[[int, ImageRecord], str], suffix: str | None = None
) -> list[str]:
    """Write the undistorted model: one PINHOLE camera, images 1 … K in frame order, points with their observations.

    Args:
        source: the processed folder.
        view: the undistorted camera.
        folder: where the model goes.
        rename: gives the stem of an image from its position among the posed ones and its record.
        suffix: of the image names; by default that of `image_suffix`.

    Returns:
        The K image names.

    Raises:
        SegmotionError: two images would get one name.
    """
    import pycolmap

    records = [source.images[index] for index in source.posed]
    suffix = suffix or image_suffix(source, view)
    names = [rename(k, record) + suffix for k, record in enumerate(records)]
    unique(zip((r.name for r in records), names, strict=True), "images")
    by_name = {image.name: image for image in source.model.images.values()}
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(
            model="PINHOLE",
            width=view.width,
            height=view.height,
            params=[*view.focal, view.width / 2, view.height / 2],
            camera_id=1,
        )
    )
    new_id: dict[int, int] = {}
    for k, (record, name) in enumerate(zip(records, names, strict=True)):
        old = by_name[record.name]
        new_id[old.image_id] = k + 1
        pixels = np.array([point.xy for point in old.points2D], np.float64).reshape(-1, 2)
        image = pycolmap.Image(name=name, keypoints=view.points(pixels), camera_id=1, image_id=k + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(source.cameras.cam_from_world[k]))
    for number, point in source.model.points3D.items():
        if number in source.moving_points:
            continue
        track = pycolmap.Track()
        for element in point.track.elements:
            if element.image_id in new_id:
                track.add_element(new_id[element.image_id], element.point2D_idx)
        if track.length() >= 2:
            model.add_point3D(point.xyz, track, point.color)
    model.update_point_3d_errors()
    folder.mkdir(parents=True)
    model.write_binary(folder)
    return names


ORIGINAL = Format(
    "colmap",
    "COLMAP, pycolmap",
    _POLARITY,
    ("masks", "poses"),
    _write_original,
    "only for SfM",
    "colmap feature_extractor --database_path DEST/database.db --image_path DEST/images --ImageReader.mask_path DEST/colmap_masks",
)
UNDISTORTED = Format(
    "colmap-undistorted",
    "OpenSplat, 2DGS and other readers of an undistorted COLMAP folder",
    _POLARITY,
    ("masks", "poses"),
    _write_undistorted,
    "ignored by this program",
    "opensplat DEST",
    f"{WITHOUT_MASKS}; programs that use masks have formats of their own",
)
