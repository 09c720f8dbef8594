"""The camera's trajectory as the TUM RGB-D benchmark writes it.

    DEST/
      trajectory.txt   one line per posed image: time tx ty tz qx qy qz qw

Time is in seconds (the frame's number where the source has no time); position and rotation are those of the camera in the world
(world_from_camera), camera axes x right, y down, z forward, the scalar of the quaternion last. Scale is the reconstruction's.

Loaders: evo (`evo_traj tum`, `evo_ape tum`), the TUM RGB-D tools.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segmotion_4d.source import Processed
from segmotion_4d.spec import Format
from segmotion_plugin.files import write_text


def quaternions(rotation: np.ndarray) -> np.ndarray:
    """K×4 unit quaternions (x, y, z, w), w ≥ 0, of K×3×3 rotations."""
    from scipy.spatial.transform import Rotation

    q = Rotation.from_matrix(rotation).as_quat()
    return np.where(q[:, 3:] < 0, -q, q)


def times(source: Processed) -> np.ndarray:
    """K times in seconds of the posed images; frame numbers where the source has no time."""
    records = [source.images[i] for i in source.posed]
    if any(record.time is None for record in records):
        return np.array([record.frame for record in records], np.float64)
    return np.array([record.time for record in records], np.float64)


def _write(source: Processed, dest: Path) -> list[str]:
    centers = source.cameras.centers()
    rotations = quaternions(source.cameras.cam_from_world[:, :, :3].transpose(0, 2, 1))
    rows = np.column_stack([times(source), centers, rotations])
    lines = [f"{row[0]:.6f} " + " ".join(f"{value:.9f}" for value in row[1:]) for row in rows]
    write_text(dest / "trajectory.txt", "\n".join(lines) + "\n")
    return source.notes_on_poses()


FORMAT = Format("tum", "evo, TUM RGB-D tools", "no masks", ("poses",), _write, "none", "evo_traj tum DEST/trajectory.txt --plot")
