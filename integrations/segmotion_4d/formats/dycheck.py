"""The layout of Nerfies, HyperNeRF and DyCheck.

    DEST/
      rgb/{1,2,4,8}x/00000.png        undistorted pictures; width and height are multiples of 8
      camera/00000.json               orientation (camera from world), position, focal_length, principal_point, image_size; no
                                      distortion
      depth/1x/00000.npy              H×W×1 float32 along the optical axis, 0 where unknown; only where motion/depth is there
      dynamic_mask/1x/00000.png       ours: dynamic: 255 = moves, 0 = static (the layout has no place for masks and loaders ignore it)
      metadata.json                   {id: {warp_id, appearance_id, time_id: number of the frame, camera_id: 0}}
      dataset.json                    ids, train_ids (all), val_ids (every eighth again: loaders want some, nothing is held out)
      splits/{train,val}.json         the same for DyCheck
      scene.json                      scale 1, center 0, near, far; ours: "world", which undoes the normalisation below
      extra.json                      factor, fps, bbox, lookat, up
      points.npy                      M×3 float32 static points
      points3D_downsample2.ply        the same with colours, for 4DGaussians
      points3D_downsample.ply         a hard link to it, for older versions of 4DGaussians

Axes are COLMAP's; pixel centres lie at (0.5, 0.5). Loaders disagree on whether `scale` and `center` apply to near and
far and to the points; so positions are normalised when they are written (x' = scale (x - center), the scene's diagonal becomes 1), and
scene.json holds scale 1 and center 0, for which all agree. Pixels are square and the principal point is the picture's centre, since
some readers know one focal length only.

Loaders: nerfstudio's `dycheck` dataparser and DyCheck (both need depth), Nerfies, HyperNeRF, 4DGaussians (`dataset.json` branch),
Deformable-3D-Gaussians (Nerfies branch).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from segmotion_4d.pinhole import Pinhole
from segmotion_4d.source import Processed
from segmotion_4d.spec import Format
from segmotion_4d.writing import link, save_array
from segmotion_plugin.files import write_json, write_png

_FACTORS = (1, 2, 4, 8)
_VALIDATION_STEP = 8
_MOST_POINTS = 40_000


def _write(source: Processed, dest: Path) -> list[str]:
    view = Pinhole(source.cameras, square=True, multiple=_FACTORS[-1])
    ids = [f"{k:05d}" for k in range(len(source.posed))]
    points, colors = _thinned(*source.points)
    scale, center = _normalisation(points, source.cameras.centers())
    notes = source.notes_on_poses()
    lacking = source.lacking("depth")
    if lacking:
        notes.append(f"nerfstudio's dycheck dataparser and DyCheck will not load this: it has no {lacking}")
    for k, index in enumerate(source.steps("frames", source.posed)):
        image = view.image(source.image_path(index))
        for factor in _FACTORS:
            size = view.width // factor, view.height // factor
            small = image if factor == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            write_png(dest / "rgb" / f"{factor}x" / f"{ids[k]}.png", small, compression=1)
        dynamic = np.where(view.nearest(source.labels(index)) > 0, np.uint8(255), np.uint8(0))
        write_png(dest / "dynamic_mask" / "1x" / f"{ids[k]}.png", dynamic)
        if not lacking:
            save_array(dest / "depth" / "1x" / f"{ids[k]}.npy", view.nearest(source.depth(index))[..., None] * np.float32(scale))
        write_json(dest / "camera" / f"{ids[k]}.json", _camera(source, view, k, scale, center))
    _write_lists(dest, ids)
    _write_scene(source, dest, points, scale, center)
    save_array(dest / "points.npy", ((points - center) * scale).astype(np.float32))
    _write_ply(dest / "points3D_downsample2.ply", (points - center) * scale, colors)
    link(dest / "points3D_downsample2.ply", dest / "points3D_downsample.ply")
    return notes


def _camera(source: Processed, view: Pinhole, k: int, scale: float, center: np.ndarray) -> dict:
    return {
        "orientation": source.cameras.cam_from_world[k, :, :3],
        "position": (source.cameras.centers()[k] - center) * scale,
        "focal_length": view.focal[0],
        "principal_point": [view.width / 2, view.height / 2],
        "skew": 0.0,
        "pixel_aspect_ratio": 1.0,
        "radial_distortion": [0.0, 0.0, 0.0],
        "tangential_distortion": [0.0, 0.0],
        "image_size": [view.width, view.height],
    }


def _thinned(points: np.ndarray, colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(points) <= _MOST_POINTS:
        return points, colors
    rows = np.sort(np.random.default_rng(0).choice(len(points), _MOST_POINTS, replace=False))
    return points[rows], colors[rows]


def _normalisation(points: np.ndarray, centers: np.ndarray) -> tuple[float, np.ndarray]:
    """Scale and centre of the box of the cameras and of the points without their outermost 2 % on each side."""
    box = np.quantile(points, [0.02, 0.98], axis=0) if len(points) else centers
    low, high = np.minimum(box.min(axis=0), centers.min(axis=0)), np.maximum(box.max(axis=0), centers.max(axis=0))
    return 1.0 / max(float(np.linalg.norm(high - low)), 1e-9), (low + high) / 2


def _write_lists(dest: Path, ids: list[str]) -> None:
    held = ids[::_VALIDATION_STEP]
    write_json(
        dest / "metadata.json", {name: {"warp_id": k, "appearance_id": k, "time_id": k, "camera_id": 0} for k, name in enumerate(ids)}
    )
    write_json(dest / "dataset.json", {"count": len(ids), "num_exemplars": len(ids), "ids": ids, "train_ids": ids, "val_ids": held})
    for split, names in (("train", ids), ("val", held)):
        numbers = [int(name) for name in names]
        write_json(dest / "splits" / f"{split}.json", {"frame_names": names, "time_ids": numbers, "camera_ids": [0] * len(names)})


def _write_scene(source: Processed, dest: Path, points: np.ndarray, scale: float, center: np.ndarray) -> None:
    near, far = source.depth_range
    write_json(
        dest / "scene.json",
        {
            "scale": 1.0,
            "center": [0.0, 0.0, 0.0],
            "near": 0.75 * near * scale,
            "far": 1.25 * far * scale,
            "world": {"scale": scale, "center": center},
        },
    )
    cameras = (source.cameras.centers() - center) * scale
    everything = np.concatenate([(points - center) * scale, cameras])
    axes = source.cameras.cam_from_world[:, :, :3]
    middle = (near * far) ** 0.5 * scale
    up = -axes[:, 1].mean(axis=0)
    write_json(
        dest / "extra.json",
        {
            "factor": 1,
            "fps": source.fps or 30.0,
            "bbox": np.stack([everything.min(axis=0), everything.max(axis=0)]),
            "lookat": (cameras + middle * axes[:, 2]).mean(axis=0),
            "up": up / max(float(np.linalg.norm(up)), 1e-9),
        },
    )


def _write_ply(path: Path, xyz: np.ndarray, colors: np.ndarray) -> None:
    kinds = [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")] + [(name, "u1") for name in ("red", "green", "blue")]
    rows = np.zeros(len(xyz), dtype=kinds)
    for axis, name in enumerate("xyz"):
        rows[name] = xyz[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        rows[name] = colors[:, channel]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [f"property {'float' if kind == '<f4' else 'uchar'} {name}" for name, kind in kinds] + ["end_header", ""]
    path.write_bytes("\n".join(header).encode("ascii") + rows.tobytes())


FORMAT = Format(
    "dycheck",
    "nerfstudio's dycheck dataparser, DyCheck, Nerfies, HyperNeRF, 4DGaussians (dataset.json)",
    "dynamic: 255 = moves, 0 = static (dynamic_mask/; loaders read no masks)",
    ("masks", "poses"),
    _write,
    "ignored by this program",
    "python train.py -s DEST --expname clip --configs arguments/hypernerf/default.py",
    "4DGaussians' command; in nerfstudio: ns-train METHOD --data DEST dycheck",
)
