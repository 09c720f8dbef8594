"""4DGaussians (hustvl/4DGaussians), COLMAP branch.

    DEST/
      sparse/0/{cameras,images,points3D}.bin   one PINHOLE camera; images in frame order, since time = position / count
      images/00000.png                         undistorted, stems are the position
      keep_masks/00000.png                     keep: 255 = static, 0 = moving; not read by the loader, for your own losses

Axes are COLMAP's. The loader takes the field of view for the whole camera: the principal point is in the centre of the picture.
`points3D.ply` is made by the loader at its first run.

Loader: `scene/dataset_readers.py::readColmapSceneInfo` (`train.py -s DEST`); it ignores masks.
"""

from __future__ import annotations

from pathlib import Path

from segmotion_4d.formats.colmap import WITHOUT_MASKS, place_image, write_pinhole_model
from segmotion_4d.pinhole import Pinhole
from segmotion_4d.source import Processed
from segmotion_4d.spec import Format
from segmotion_plugin.files import write_png


def write_numbered(source: Processed, dest: Path) -> list[str]:
    """Write an undistorted COLMAP folder whose image stems count from 0 in frame order."""
    view = Pinhole(source.cameras)
    names = write_pinhole_model(source, view, dest / "sparse" / "0", lambda k, image: f"{k:05d}")
    for index, name in source.steps("images", list(zip(source.posed, names, strict=True))):
        place_image(source, view, index, dest / "images" / name)
        write_png(dest / "keep_masks" / f"{Path(name).stem}.png", view.nearest(source.keep(index)))
    return source.notes_on_poses()


FORMAT = Format(
    "4dgaussians",
    "4DGaussians, scene/dataset_readers.py, COLMAP branch",
    "keep: 255 = static, 0 = moving (keep_masks/; the loader reads no masks)",
    ("masks", "poses"),
    write_numbered,
    "ignored by this program",
    "python train.py -s DEST --expname clip",
    f"it models motion, so movers may stay; where they must not: {WITHOUT_MASKS}",
)
