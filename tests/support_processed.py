"""Writes a processed folder from a simulated clip, with the exact truth in every file that the real pipeline would write."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.files import atomic_path, read_json, write_json, write_npz, write_png
from segmotion_plugin.mask_files import MaskSummary
from segmotion_plugin.masks import keep_from_labels, write_keep
from segmotion_plugin.simulation import SimulatedClip, SimulatedTracks
from segmotion_plugin.tracks import TrackMotion, Tracks, save_tracks

# COLMAP's world to nerfstudio 1.1.5's (`colmap_to_json`): x stays, y and z are swapped, the new z is turned round.
APPLIED_TRANSFORM = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]])


def write_processed(
    folder: Path,
    clip: SimulatedClip,
    tracks: SimulatedTracks | None,
    *,
    every: int = 1,
    sources: list[str] | None = None,
    poses: bool = True,
    depth: bool = False,
    tracks_3d: bool = False,
    dilate: float = 0.0,
) -> None:
    """Write a processed folder with exact truth.

    Args:
        folder: where; made.
        clip: the rendered clip; its cameras must cover all frames.
        tracks: exact tracks for `motion/tracks.npz`; no track file when absent.
        every: every N-th frame becomes an image, as `--every`.
        sources: names of the T source files; a video `clip.mp4` when absent.
        poses: write `colmap/sparse/0`, `sparse_pc.ply` and `transforms.json`.
        depth: write `motion/depth/<stem>.npy` (H×W float32 along the optical axis; NaN for the sky).
        tracks_3d: write `motion/tracks_3d.npz` (needs tracks).
        dilate: pixels by which the keep masks are grown around what moves.
    """
    folder = Path(folder)
    total, height, width = clip.labels.shape
    selected = np.arange(0, total, every)
    names = [f"frame_{i + 1:05d}.png" for i in range(len(selected))]
    for name in ("images", "masks", "colmap_masks", "motion/objects"):
        (folder / name).mkdir(parents=True)
    area: dict[int, list[float]] = {}
    summary = MaskSummary()
    masked = []
    for name, frame in zip(names, selected, strict=True):
        labels = clip.labels[frame]
        keep = keep_from_labels(labels, dilate)
        write_png(folder / "images" / name, clip.frames[frame])
        write_png(folder / "motion" / "objects" / name, labels)
        write_keep(folder, name, keep)
        masked.append(float((keep == 0).mean()))
        summary.share_by_image.append(float((labels > 0).mean()))
        for k in np.unique(labels[labels > 0]).tolist():
            area.setdefault(k, []).append(float((labels == k).mean()))
        if depth:
            with atomic_path(folder / "motion" / "depth" / f"{Path(name).stem}.npy") as path:
                np.save(path, np.where(np.isfinite(clip.depth[frame]), clip.depth[frame], np.nan).astype(np.float32))
    summary.moving_share, summary.masked_share = float(np.mean(summary.share_by_image)), float(np.mean(masked))
    summary.objects = {str(k): {"images": len(v), "mean_share": float(np.mean(v))} for k, v in sorted(area.items())}
    entries = [
        {
            "name": name,
            "source": sources[frame] if sources else "clip.mp4",
            "number": frame,
            "frame": frame,
            "time": frame / clip.fps,
        }
        for name, frame in zip(names, selected.tolist(), strict=True)
    ]
    write_json(folder / "motion" / "frames.json", {"fps": clip.fps, "frame_count": total, "shots": [[0, total]], "images": entries})
    cameras = Cameras(names, selected, width, height, clip.cameras.model, clip.cameras.params, clip.cameras.cam_from_world[selected])
    if tracks is not None:
        summary.tracks, summary.moving_tracks = _write_tracks(folder, tracks, width, height)
        if tracks_3d:
            _write_tracks_3d(folder, tracks, cameras)
    report: dict = {
        "segmotion": "source",
        "input": "clip.mp4",
        "settings": {},
        "plan": {},
        "seed": 0,
        "frames": total,
        "images": len(names),
        "size": [width, height],
        "work_size": [width, height],
        "shots": [[0, total]],
        "masks": asdict(summary),
        "stages": {},
        "warnings": [],
    }
    if poses:
        points = _write_colmap(folder, clip, cameras)
        _write_ply(folder / "sparse_pc.ply", points)
        _write_transforms(folder, cameras)
        report["reconstruction"] = {"status": "ok", "images": len(names), "registered": len(names), "points": len(points)}
    write_json(folder / "motion" / "report.json", report)
    stages = {"images": {"key": "truth", "info": {"names": names}}}
    write_json(folder / "motion" / "state.json", {"made_by": "segmotion", "stages": stages})


def seen_tracks(tracks: SimulatedTracks) -> np.ndarray:
    """Indices of the simulated tracks that `write_processed` writes: those visible at some frame."""
    return np.flatnonzero(tracks.visible.any(axis=1))


def _write_tracks(folder: Path, truth: SimulatedTracks, width: int, height: int) -> tuple[int, int]:
    """Runs go from the first to the last visible frame, as a tracker gives them."""
    ids = seen_tracks(truth)
    visible = truth.visible[ids]
    first, last = visible.argmax(axis=1), visible.shape[1] - 1 - visible[:, ::-1].argmax(axis=1)
    grid = np.arange(visible.shape[1])
    run = (grid >= first[:, None]) & (grid <= last[:, None])
    tracks = Tracks.from_dense(np.where(run[..., None], truth.xy[ids], np.nan), visible, None, truth.query_frame[ids])
    object_id = truth.object_id[ids]
    moving = truth.moving[ids][tracks.track_flat, tracks.frame_flat]
    motion = TrackMotion(tracks, (object_id > 0).astype(np.float32), moving, object_id)
    save_tracks(folder / "motion" / "tracks.npz", tracks, motion, width, height)
    return len(ids), int((object_id > 0).sum())


def _write_tracks_3d(folder: Path, truth: SimulatedTracks, cameras: Cameras) -> None:
    """As `save_tracks_3d` lays it out, over the images (T of them), with the world of the reconstruction."""
    ids = seen_tracks(truth)
    frames = cameras.frame_index
    count = len(frames)
    extrinsics = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
    extrinsics[:, :3] = cameras.cam_from_world
    write_npz(
        folder / "motion" / "tracks_3d.npz",
        coords=truth.xyz[ids][:, frames].transpose(1, 0, 2).astype(np.float32),
        extrinsics=extrinsics,
        intrinsics=np.tile(cameras.intrinsics().astype(np.float32), (count, 1, 1)),
        visibs=truth.visible[ids][:, frames].T,
        sigma=np.zeros((count, len(ids)), np.float32),
        object_id=truth.object_id[ids],
        depth_source=np.full(len(ids), "depth-model"),
        track_index=np.arange(len(ids), dtype=np.int32),
        frame_index=frames,
        names=np.array(cameras.names),
    )


def _static_points(clip: SimulatedClip, cameras: Cameras) -> list[tuple[np.ndarray, np.ndarray, list[tuple[int, np.ndarray]]]]:
    """Points of the static world under a grid of pixels: position, colour, and (camera, pixel) where they are seen."""
    _, height, width = clip.labels.shape
    columns, rows = np.meshgrid(np.linspace(4, width - 5, 7).astype(int), np.linspace(4, height - 5, 5).astype(int))
    result = []
    for k in sorted({0, len(cameras) // 2, len(cameras) - 1}):
        frame = int(cameras.frame_index[k])
        for row, column in zip(rows.ravel(), columns.ravel(), strict=True):
            distance = clip.depth[frame, row, column]
            if clip.labels[frame, row, column] or not np.isfinite(distance):
                continue
            ray = cameras.rays(np.array([[column + 0.5, row + 0.5]]))[0]
            pose = cameras.cam_from_world[k]
            xyz = pose[:, :3].T @ (ray * distance - pose[:, 3])
            seen = []
            for other in range(len(cameras)):
                xy, z = cameras.project(xyz[None], other)
                c, r = np.floor(xy[0]).astype(int)
                if not (0 <= c < width and 0 <= r < height and z[0] > 0):
                    continue
                there = int(cameras.frame_index[other])
                if not clip.labels[there, r, c] and abs(clip.depth[there, r, c] - z[0]) < 0.02 * z[0]:
                    seen.append((other, xy[0]))
            if len(seen) >= 2:
                result.append((xyz, clip.frames[frame, row, column], seen))
    return result


def _write_colmap(folder: Path, clip: SimulatedClip, cameras: Cameras) -> list[tuple[np.ndarray, np.ndarray]]:
    import pycolmap

    points = _static_points(clip, cameras)
    pixels: list[list[np.ndarray]] = [[] for _ in cameras.names]
    observed = []
    for _, _, seen in points:
        elements = []
        for k, xy in seen:
            elements.append((k + 1, len(pixels[k])))
            pixels[k].append(xy)
        observed.append(elements)
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(
        model=cameras.model, width=cameras.width, height=cameras.height, params=cameras.params.tolist(), camera_id=1
    )
    model.add_camera_with_trivial_rig(camera)
    for k, name in enumerate(cameras.names):
        image = pycolmap.Image(name=name, keypoints=np.array(pixels[k]).reshape(-1, 2), camera_id=1, image_id=k + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(cameras.cam_from_world[k]))
    for (xyz, color, _), elements in zip(points, observed, strict=True):
        track = pycolmap.Track()
        for image_id, index in elements:
            track.add_element(image_id, index)
        model.add_point3D(xyz, track, color)
    model.update_point_3d_errors()
    target = folder / "colmap" / "sparse" / "0"
    target.mkdir(parents=True)
    model.write_binary(target)
    return [(xyz, color) for xyz, color, _ in points]


def _write_ply(path: Path, points: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Points in nerfstudio's world, as `create_ply_from_colmap` writes them."""
    lines = ["ply", "format ascii 1.0", f"element vertex {len(points)}"]
    lines += [f"property float {axis}" for axis in "xyz"]
    lines += [f"property uint8 {color}" for color in ("red", "green", "blue")] + ["end_header"]
    for xyz, color in points:
        x, y, z = APPLIED_TRANSFORM[:, :3] @ xyz
        lines.append(f"{x:8f} {y:8f} {z:8f} {color[0]} {color[1]} {color[2]}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_transforms(folder: Path, cameras: Cameras) -> None:
    """`transforms.json` as nerfstudio 1.1.5's `colmap_to_json` writes it, with the mask of every frame."""
    matrix, (k1, k2, p1, p2) = cameras.intrinsics(), cameras.distortion()
    frames = []
    for k, name in enumerate(cameras.names):
        world_from_camera = np.linalg.inv(np.vstack([cameras.cam_from_world[k], [0, 0, 0, 1]]))
        world_from_camera[:3, 1:3] *= -1  # OpenCV's camera axes to OpenGL's
        world_from_camera[:3] = APPLIED_TRANSFORM[:, :3] @ world_from_camera[:3]
        frames.append(
            {
                "file_path": f"images/{name}",
                "transform_matrix": world_from_camera,
                "colmap_im_id": k + 1,
                "mask_path": f"masks/{Path(name).stem}.png",
            }
        )
    write_json(
        folder / "transforms.json",
        {
            "w": cameras.width,
            "h": cameras.height,
            "fl_x": matrix[0, 0],
            "fl_y": matrix[1, 1],
            "cx": matrix[0, 2],
            "cy": matrix[1, 2],
            "k1": k1,
            "k2": k2,
            "p1": p1,
            "p2": p2,
            "camera_model": "OPENCV",
            "frames": frames,
            "applied_transform": APPLIED_TRANSFORM,
            "ply_file_path": "sparse_pc.ply",
        },
    )


def write_dataset_of_others(folder: Path, clip: SimulatedClip, **of_every_frame: Any) -> dict[str, Any]:
    """Write a dataset as a phone app leaves it: poses and images, and nothing about masks.

    Args:
        folder: of the dataset.
        clip: what it shows.
        of_every_frame: entries that every frame gets besides, or in place of its own.

    Returns:
        What its transforms.json holds.
    """
    write_processed(folder, clip, None)
    for name in ("masks", "colmap_masks", "motion", "colmap"):
        shutil.rmtree(folder / name)
    meta = read_json(folder / "transforms.json")
    for frame in meta["frames"]:
        del frame["mask_path"]
        frame.update(of_every_frame)
    write_json(folder / "transforms.json", meta)
    return meta
