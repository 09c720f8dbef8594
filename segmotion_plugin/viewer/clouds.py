"""Point clouds for other programs, cleaned, thinned and written by Open3D.

Open3D is an extra (`segmotion-plugin[clouds]`): at 0.9 GB installed it would more than double the base for one output format.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import atomic_path
from segmotion_plugin.viewer.scene import Scene

# Statistical outlier removal (Rusu et al., "Towards 3D point cloud based object maps", 2008): neighbours, and standard deviations.
_NEIGHBOURS, _DEVIATIONS = 16, 2.0
# Edge of the cells that are thinned to one point, as a share of the scene's extent.
_CELL = 0.002


def cleaned(xyz: np.ndarray, rgb: np.ndarray, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Drop points that lie apart from their neighbours and thin the rest to one per cell.

    Args:
        xyz: M×3 positions.
        rgb: M×3 uint8 colours.
        cell: edge of a cell in the unit of the positions.

    Returns:
        Positions m×3 float64 and colours m×3 uint8 (means within the cells).

    Raises:
        SegmotionError: Open3D is not installed.
    """
    cloud = _cloud(xyz, rgb)
    if len(xyz) > _NEIGHBOURS:
        cloud, _ = cloud.remove_statistical_outlier(nb_neighbors=_NEIGHBOURS, std_ratio=_DEVIATIONS)
    cloud = cloud.voxel_down_sample(cell)
    return np.asarray(cloud.points), np.round(255 * np.asarray(cloud.colors)).astype(np.uint8)


def write_cloud(scene: Scene, path: Path, frame: int) -> int:
    """Write the static world, cleaned, and the moving points of a time step as they are, in their objects' colours.

    Args:
        scene: what to write; needs cameras.
        path: file of a format that Open3D writes (ply, pcd, xyz, xyzrgb, pts).
        frame: the time step.

    Returns:
        Number of points.

    Raises:
        SegmotionError: there is no reconstruction, Open3D is missing, or it does not write this format.
    """
    if scene.cameras is None:
        raise SegmotionError(f"{scene.out}: no cameras, so no point cloud; find them with 'segmotion reconstruct {scene.out}'")
    xyz, rgb = cleaned(scene.points, scene.point_colours, _CELL * scene.extent)
    parts, colours = [xyz], [rgb]
    if scene.tracks is not None:
        for info in scene.objects:
            now = scene.tracks.xyz[(scene.tracks.object_id == info.id) & scene.tracks.visible[:, frame], frame]
            now = now[np.isfinite(now[:, 0])]
            parts.append(now.astype(np.float64))
            colours.append(np.tile(np.array(info.colour, np.uint8), (len(now), 1)))
    points = np.concatenate(parts)
    cloud = _cloud(points, np.concatenate(colours))
    import open3d

    with atomic_path(path) as temporary:
        if not open3d.io.write_point_cloud(str(temporary), cloud):  # type: ignore[arg-type]
            raise SegmotionError(f"{path}: not a format that Open3D writes; give a name that ends in .ply or .pcd")
    return len(points)


def _cloud(xyz: np.ndarray, rgb: np.ndarray) -> Any:
    try:
        import open3d
    except ImportError:
        raise SegmotionError("point clouds need Open3D: pip install 'segmotion-plugin[clouds]'") from None
    cloud = open3d.geometry.PointCloud()
    cloud.points = open3d.utility.Vector3dVector(np.asarray(xyz, np.float64))
    cloud.colors = open3d.utility.Vector3dVector(np.asarray(rgb, np.float64) / 255)
    return cloud
