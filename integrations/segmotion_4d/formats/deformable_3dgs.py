"""Deformable-3D-Gaussians (ingra14m/Deformable-3D-Gaussians), COLMAP branch.

    DEST/
      sparse/0/{cameras,images,points3D}.bin   one PINHOLE camera (the loader takes no other)
      images/00000.png                         undistorted; time = integer stem / (count - 1), so stems count from 0 without gaps
      keep_masks/00000.png                     keep: 255 = static, 0 = moving; not read by the loader, for your own losses

Axes are COLMAP's. The loader takes the field of view for the whole camera: the principal point is in the centre of the picture.

Loader: `scene/dataset_readers.py::readColmapSceneInfo` (`train.py -s DEST`); it ignores masks.
"""

from __future__ import annotations

from segmotion_4d.formats.colmap import WITHOUT_MASKS
from segmotion_4d.formats.four_d_gaussians import write_numbered
from segmotion_4d.spec import Format

FORMAT = Format(
    "deformable-3dgs",
    "Deformable-3D-Gaussians, scene/dataset_readers.py, COLMAP branch",
    "keep: 255 = static, 0 = moving (keep_masks/; the loader reads no masks)",
    ("masks", "poses"),
    write_numbered,
    "ignored by this program",
    "python train.py -s DEST -m MODEL",
    f"it models motion, so movers may stay; where they must not: {WITHOUT_MASKS}",
)
