"""The output folder of MonST3R (Junyi42/monst3r), as its viewer and its followers read it.

    DEST/
      frame_0000.png                  undistorted pictures
      frame_0000.npy                  depth along the optical axis, H×W float32, 0 where unknown
      conf_0.npy                      H×W float32: 10 where the depth is known, 0 elsewhere (the viewer shows what is above 1)
      dynamic_mask_0.png              dynamic: 255 = moves, 0 = static
      enlarged_dynamic_mask_0.png     the same, grown by a 5×5 box as MonST3R does
      pred_traj.txt                   one line per frame: index tx ty tz qw qx qy qz (camera in the world; scalar first, unlike TUM)
      pred_intrinsics.txt             one line per frame: the nine numbers of the calibration matrix, row by row

Camera axes: x right, y down, z forward; the viewer takes pixel centres at (0.5, 0.5). The numbers in mask and confidence files are not
padded, those of frames are.

Loader: MonST3R's `viser/visualizer_monst3r.py` (`Record3dLoader_Customized`), and 4D pipelines that start from MonST3R's results.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from segmotion_4d.formats.tum import quaternions
from segmotion_4d.pinhole import Pinhole
from segmotion_4d.source import Processed
from segmotion_4d.spec import Format
from segmotion_4d.writing import save_array
from segmotion_plugin.files import write_png, write_text

_TRUSTED = 10.0


def _write(source: Processed, dest: Path) -> list[str]:
    view = Pinhole(source.cameras)
    for k, index in enumerate(source.steps("frames", source.posed)):
        depth = view.nearest(source.depth(index))
        dynamic = np.where(view.nearest(source.labels(index)) > 0, np.uint8(255), np.uint8(0))
        write_png(dest / f"frame_{k:04d}.png", view.image(source.image_path(index)), compression=1)
        save_array(dest / f"frame_{k:04d}.npy", depth)
        save_array(dest / f"conf_{k}.npy", np.where(depth > 0, np.float32(_TRUSTED), np.float32(0)))
        write_png(dest / f"dynamic_mask_{k}.png", dynamic)
        write_png(dest / f"enlarged_dynamic_mask_{k}.png", cv2.dilate(dynamic, np.ones((5, 5), np.uint8)))
    turns = quaternions(source.cameras.cam_from_world[:, :, :3].transpose(0, 2, 1))[:, [3, 0, 1, 2]]
    rows = np.column_stack([source.cameras.centers(), turns])
    lines = [f"{float(k)} " + " ".join(f"{value:.9f}" for value in row) for k, row in enumerate(rows)]
    write_text(dest / "pred_traj.txt", "\n".join(lines) + "\n")
    matrix = " ".join(f"{value:.6f}" for value in view.intrinsics().ravel())
    write_text(dest / "pred_intrinsics.txt", f"{matrix}\n" * len(rows))
    return source.notes_on_poses()


FORMAT = Format(
    "monst3r",
    "MonST3R's viewer and followers",
    "dynamic: 255 = moves, 0 = static",
    ("masks", "poses", "depth"),
    _write,
    "read as data",
    "python viser/visualizer_monst3r.py --data DEST",
)
