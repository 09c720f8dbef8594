"""A reconstructed folder as a nerfstudio dataset: `transforms.json`, `sparse_pc.ply`, downscaled images and masks.

The files are those that `ns-process-data` of nerfstudio 1.1.5 writes (its `colmap_to_json`), with two additions
that its parsers read: `mask_path` on every frame, and `time` where it is known. Frames are sorted by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segmotion_plugin.clip import natural_key
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import atomic_path, write_json, write_png
from segmotion_plugin.reconstruct.mapping import cameras_from_reconstruction
from segmotion_plugin.reconstruct.model_files import read_model

if TYPE_CHECKING:
    import pycolmap

# nerfstudio's world: x stays, COLMAP's z becomes y, and COLMAP's y (down) becomes minus z.
APPLIED_TRANSFORM = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, -1.0, 0.0, 0.0]])


def write(
    out: Path,
    model: Path,
    *,
    times: Mapping[str, float] | None = None,
    downscales: int = 3,
    with_masks: bool = True,
) -> int:
    """Write `transforms.json`, `sparse_pc.ply` and the downscaled folders of OUT.

    Args:
        out: folder with `images/`, and `masks/<stem>.png` for every image when `with_masks`.
        model: COLMAP model, for instance `out/colmap/sparse/0`.
        times: seconds of every image; they are brought to 0..1 over the registered images, as nerfstudio wants them.
        downscales: how many halvings: 3 writes images_2, images_4 and images_8 (and masks).
        with_masks: give every frame its `mask_path`, and write downscaled masks.

    Returns:
        Number of frames.

    Raises:
        SegmotionError: there is no model, it has several cameras, or a registered image has no mask.
    """
    out = Path(out)
    data = transforms(model, times=times, with_masks=with_masks)
    names = [Path(frame["file_path"]).name for frame in data["frames"]]
    lacking = [name for name in names if with_masks and not (out / "masks" / f"{Path(name).stem}.png").is_file()]
    if lacking:
        raise SegmotionError(
            f"{out / 'masks' / Path(lacking[0]).stem}.png: no such mask ({len(lacking)} of {len(names)} are missing)\n"
            "nerfstudio wants a mask for every frame or for none"
        )
    if downscales > 0:
        factors = [2**k for k in range(1, downscales + 1)]
        # All images, not only the registered ones: nerfstudio picks the folder by its existence.
        write_downscaled(out, "images", factors)
        if with_masks:
            write_downscaled(out, "masks", factors)
    write_points(model, out / "sparse_pc.ply")
    write_json(out / "transforms.json", data)
    return len(names)


def transforms(model: Path, *, times: Mapping[str, float] | None = None, with_masks: bool = True) -> dict[str, Any]:
    """Content of `transforms.json` for a COLMAP model with one camera.

    `transform_matrix` is the camera's 4×4 pose in nerfstudio's world with OpenGL axes (x right, y up, z back):
    APPLIED_TRANSFORM times COLMAP's world-from-camera, with the camera's y and z turned.

    Raises:
        SegmotionError: there is no model, or it has several cameras.
    """
    reconstruction = _read(model)
    images = sorted((i for i in reconstruction.images.values() if i.has_pose), key=lambda i: natural_key(i.name))
    cameras = cameras_from_reconstruction(reconstruction, [image.name for image in images])
    matrix, distortion = cameras.intrinsics(), cameras.distortion()
    data: dict[str, Any] = {
        "w": cameras.width,
        "h": cameras.height,
        "fl_x": matrix[0, 0],
        "fl_y": matrix[1, 1],
        "cx": matrix[0, 2],
        "cy": matrix[1, 2],
        **dict(zip(("k1", "k2", "p1", "p2"), distortion.tolist(), strict=True)),
        # nerfstudio's name for a perspective lens with these terms, whatever COLMAP's model was.
        "camera_model": "OPENCV",
    }
    scaled = _unit_times(times, cameras.names) if times else {}
    frames: list[dict[str, Any]] = []
    for image, pose in zip(images, cameras.cam_from_world, strict=True):
        world_from_cam = np.eye(4)
        world_from_cam[:3, :3] = pose[:, :3].T
        world_from_cam[:3, 3] = -pose[:, :3].T @ pose[:, 3]
        world_from_cam[:3, 1:3] *= -1.0
        world_from_cam[:3] = APPLIED_TRANSFORM[:, :3] @ world_from_cam[:3]
        frame: dict[str, Any] = {
            "file_path": f"images/{image.name}",
            "transform_matrix": world_from_cam.tolist(),
            "colmap_im_id": int(image.image_id),
        }
        if with_masks:
            frame["mask_path"] = f"masks/{Path(image.name).stem}.png"
        if image.name in scaled:
            frame["time"] = scaled[image.name]
        frames.append(frame)
    data["frames"] = frames
    data["applied_transform"] = APPLIED_TRANSFORM.tolist()
    data["ply_file_path"] = "sparse_pc.ply"
    return data


def write_points(model: Path, path: Path) -> int:
    """Write a model's points with their colours as ASCII PLY, in nerfstudio's world. Returns their number."""
    reconstruction = _read(model)
    points = list(reconstruction.points3D.values())
    xyz = np.array([point.xyz for point in points]).reshape(-1, 3) @ APPLIED_TRANSFORM[:, :3].T
    colors = np.array([point.color for point in points], dtype=np.uint8).reshape(-1, 3)
    header = ["ply", "format ascii 1.0", f"element vertex {len(points)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    header += [f"property uint8 {color}" for color in ("red", "green", "blue")]
    lines = [
        f"{x:8f} {y:8f} {z:8f} {r} {g} {b}" for (x, y, z), (r, g, b) in zip(xyz.tolist(), colors.tolist(), strict=True)
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join([*header, "end_header", *lines]) + "\n", encoding="ascii")
    return len(points)


def write_downscaled(out: Path, folder: str, factors: Sequence[int] = (2, 4, 8)) -> None:
    """Write copies of `out/folder` as `folder_2`, … of size (w // k, h // k), as ffmpeg's scale filter truncates.

    Images are averaged over the pixels that fall together; masks take the nearest pixel, so that they stay 0 and 255.
    Images keep their names and suffixes; copies that are newer than their source are kept.
    """
    import cv2

    is_mask = folder == "masks"
    for path in sorted((out / folder).iterdir()):
        if not path.is_file() or path.name.startswith("."):
            continue
        targets = {k: out / f"{folder}_{k}" / path.name for k in factors}
        if all(t.is_file() and t.stat().st_mtime_ns >= path.stat().st_mtime_ns for t in targets.values()):
            continue
        flags = cv2.IMREAD_GRAYSCALE if is_mask else cv2.IMREAD_COLOR
        # Read from bytes and without orientation: COLMAP and nerfstudio take pixels as stored.
        encoded = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        image = cv2.imdecode(encoded, flags | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None:
            raise SegmotionError(f"{path}: not a readable image")
        height, width = image.shape[:2]
        for k, target in targets.items():
            size = (max(width // k, 1), max(height // k, 1))
            small = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST if is_mask else cv2.INTER_AREA)
            if target.suffix.lower() == ".png":
                write_png(target, small if is_mask else small[..., ::-1])
                continue
            ok, data = cv2.imencode(target.suffix, small, [cv2.IMWRITE_JPEG_QUALITY, 95])
            if not ok:
                raise SegmotionError(f"{target}: images of this kind cannot be written")
            with atomic_path(target) as temporary:
                temporary.write_bytes(data.tobytes())


def _read(model: Path) -> pycolmap.Reconstruction:
    if not (Path(model) / "images.bin").is_file():
        raise SegmotionError(f"{model}: no COLMAP model here (images.bin is missing)")
    reconstruction = read_model(model)
    if reconstruction.num_cameras() != 1:
        raise SegmotionError(
            f"{model}: {reconstruction.num_cameras()} cameras; transforms.json is written for one shared camera"
        )
    return reconstruction


def _unit_times(times: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    known = {name: float(times[name]) for name in names if name in times}
    if len(known) < len(names):  # nerfstudio wants times on every frame or on none
        return {}
    first, last = min(known.values()), max(known.values())
    span = last - first
    return {name: (at - first) / span if span > 0 else 0.0 for name, at in known.items()}
