"""Every export is read back as the loader that it is for reads it, and held against the truth of a simulated clip."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from segmotion_4d import FORMATS, export
from support_4d import FRAMES, HEIGHT, KINDS, WIDTH, check_camera, check_depth, check_dynamic, object_in_npy, read_png, truth
from support_processed import seen_tracks, write_processed


@pytest.fixture(scope="module", params=KINDS)
def clip(request, tmp_path_factory):
    """(kind, simulated clip, simulated tracks, exports by format name)."""
    kind = request.param
    folder = tmp_path_factory.mktemp(kind)
    simulated, tracks = truth(kind)
    write_processed(folder / "clip one", simulated, tracks, depth=True, tracks_3d=True)
    for name in FORMATS:
        export(folder / "clip one", name, folder / name)
    return kind, simulated, tracks, folder


def pinhole_from_colmap(folder: Path) -> tuple[np.ndarray, tuple[int, int], list[tuple[str, np.ndarray]]]:
    """Matrix, size, and (name, pose) in the order of images.bin, read byte by byte as readers of 3D Gaussian Splatting do."""
    with open(folder / "cameras.bin", "rb") as handle:
        count, _, model, width, height = struct.unpack("<QiiQQ", handle.read(32))
        fx, fy, cx, cy = struct.unpack("<4d", handle.read(32))
    assert count == 1 and model == 1  # PINHOLE
    images = []
    with open(folder / "images.bin", "rb") as handle:
        for _ in range(struct.unpack("<Q", handle.read(8))[0]):
            values = struct.unpack("<i7di", handle.read(64))
            name = b"".join(iter(lambda: handle.read(1), b"\0")).decode()
            handle.read(24 * struct.unpack("<Q", handle.read(8))[0])
            w, x, y, z = values[1:5]
            rotation = np.array(
                [
                    [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                    [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                    [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
                ]
            )
            images.append((name, np.column_stack([rotation, values[5:8]])))
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), (width, height), images


def test_colmap_original_has_images_masks_and_model_as_they_were(clip):
    import pycolmap

    _, simulated, _, folder = clip
    model = pycolmap.Reconstruction(folder / "colmap" / "sparse" / "0")
    assert sorted(image.name for image in model.images.values()) == [f"frame_{i + 1:05d}.png" for i in range(FRAMES)]
    for image in model.images.values():
        frame = int(image.name[6:11]) - 1
        np.testing.assert_allclose(image.cam_from_world().matrix(), simulated.cameras.cam_from_world[frame], atol=1e-9)
        picture = read_png(folder / "colmap" / "images" / image.name)
        for mask in (f"masks/{image.name[:-4]}.png", f"colmap_masks/{image.name}.png"):
            keep = read_png(folder / "colmap" / mask)
            assert keep.dtype == np.uint8 and set(np.unique(keep)) == {0, 255}
            check_dynamic(simulated.labels[frame], picture, keep == 0)
    source = folder / "clip one" / "images" / "frame_00001.png"
    assert (folder / "colmap" / "images" / "frame_00001.png").samefile(source), "images are linked, not copied"


def test_colmap_undistorted_is_a_centred_pinhole_that_pycolmap_reads(clip):
    import pycolmap

    kind, simulated, _, folder = clip
    root = folder / "colmap-undistorted"
    model = pycolmap.Reconstruction(root / "sparse" / "0")
    camera = model.cameras[1]
    assert camera.model_name == "PINHOLE"
    assert camera.params[2] == camera.width / 2 and camera.params[3] == camera.height / 2
    assert model.num_points3D() > 30
    # The observations were undistorted with the pictures.
    assert model.compute_mean_reprojection_error() < 0.01
    for frame in (0, FRAMES - 1):
        image = next(i for i in model.images.values() if i.name == f"frame_{frame + 1:05d}.png")
        picture = read_png(root / "images" / image.name)
        assert picture.shape[:2] == (camera.height, camera.width)
        check_camera(simulated, frame, picture, camera.calibration_matrix(), image.cam_from_world().matrix())
        check_dynamic(simulated.labels[frame], picture, read_png(root / "colmap_masks" / f"{image.name}.png") == 0)
    if kind == "plain":
        assert (camera.width, camera.height) == (WIDTH, HEIGHT)
        linked = folder / "clip one" / "images" / "frame_00001.png"
        assert (root / "images" / "frame_00001.png").samefile(linked), "what needs no change is linked"


@pytest.mark.parametrize("name", ["4dgaussians", "deformable-3dgs"])
def test_gaussian_folders_give_time_by_order_and_by_integer_stem(clip, name):
    _, simulated, _, folder = clip
    matrix, (width, height), images = pinhole_from_colmap(folder / name / "sparse" / "0")
    # Both loaders know fields of view only, so the axis must be the centre of the picture.
    assert matrix[0, 2] == width / 2 and matrix[1, 2] == height / 2
    assert [int(Path(n).stem) for n, _ in images] == list(range(FRAMES)), "4DGaussians: time is the position in images.bin"
    assert sorted(n for n, _ in images) == [n for n, _ in images], "sorted by name is sorted by time"
    for frame, (image, pose) in enumerate(images):
        picture = read_png(folder / name / "images" / image)
        assert picture.shape == (height, width, 3)
        check_camera(simulated, frame, picture, matrix, pose)
        check_dynamic(simulated.labels[frame], picture, read_png(folder / name / "keep_masks" / f"{Path(image).stem}.png") == 0)


def test_nerfstudio_export_holds_every_file_that_transforms_json_names(clip):
    _, simulated, _, folder = clip
    root = folder / "nerfstudio"
    meta = json.loads((root / "transforms.json").read_text())
    assert len(meta["frames"]) == FRAMES and (root / meta["ply_file_path"]).is_file()
    for frame in meta["frames"]:
        number = int(Path(frame["file_path"]).stem[6:]) - 1
        picture, keep = read_png(root / frame["file_path"]), read_png(root / frame["mask_path"])
        check_dynamic(simulated.labels[number], picture, keep == 0)


def test_shape_of_motion_loads_images_masks_depth_tracks_and_cameras(clip):
    _, simulated, tracks, folder = clip
    root, seq = folder / "shape-of-motion", "clip-one"
    # CasualDataset.__init__: names are the sorted stems of the image folder, and everything else hangs on them.
    images = sorted((root / "images" / "" / seq).iterdir())
    names = [p.stem for p in images]
    assert len(names) == FRAMES
    recon = object_in_npy(root / "droid_recon" / f"{seq}.npy")
    height, width = read_png(images[0]).shape[:2]
    h, w = recon["img_shape"]
    fx, fy, cx, cy = recon["intrinsics"]
    matrix = np.array([[fx * width / w, 0, cx * width / w], [0, fy * height / h, cy * height / h], [0, 0, 1]])
    poses = np.linalg.inv(recon["traj_c2w"].astype(np.float64))
    assert len(poses) == FRAMES and recon["tstamps"].astype("int").max() == FRAMES - 1
    centred = matrix + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # its grid has pixel centres on whole numbers
    for t in (0, FRAMES - 1):
        picture = read_png(images[t])
        mask = read_png(root / "masks" / seq / f"{names[t]}.png")
        moving = mask.reshape((*mask.shape[:2], -1)).max(axis=-1) > 0
        check_dynamic(simulated.labels[t], picture, moving)
        disparity = np.load(root / "aligned_depth_anything" / seq / f"{names[t]}.npy")
        depth = 1.0 / np.clip(disparity, a_min=1e-6, a_max=1e6)
        known = depth < 5 * simulated.depth[np.isfinite(simulated.depth)].max()
        check_depth(simulated, t, picture, np.where(known, depth, 0), centred, poses[t])
    # load_target_tracks and parse_tapir_track_info
    ids = seen_tracks(tracks)
    dynamic = ids[tracks.object_id[ids] > 0]
    seen_somewhere = 0
    for q in (0, 4, FRAMES - 1):
        targets = [np.load(root / "bootstapir" / seq / f"{names[q]}_{name}.npy") for name in names]
        assert {t.dtype for t in targets} == {np.dtype(np.float32)} and len({t.shape for t in targets}) == 1
        block = np.stack(targets, axis=1).astype(np.float64)
        assert block.shape[1:] == (FRAMES, 4) and np.isfinite(block).all()
        visible = (1 / (1 + np.exp(block[..., 2]))) * (1 / (1 + np.exp(block[..., 3]))) > 0.5
        expected = dynamic[tracks.visible[dynamic, q]]
        inside = visible[:, q]
        assert inside.sum() == len(expected)
        for t in range(FRAMES):
            np.testing.assert_array_equal(visible[inside, t], tracks.visible[expected, t])
            # Tracks lie where the camera sees their points.
            camera = tracks.xyz[expected, t] @ poses[t, :3, :3].T + poses[t, :3, 3]
            pixel = (camera @ matrix.T)[:, :2] / camera[:, 2:]
            error = np.abs(block[inside, t, :2] - pixel)[tracks.visible[expected, t]]
            seen_somewhere += len(error)
            assert (error < 0.05).all()
    assert seen_somewhere > 50


def test_tapip3d_and_spatialtracker_read_one_file_and_tapip3d_its_input(clip):
    _, simulated, tracks, folder = clip
    data = np.load(folder / "tapip3d" / "clip-one.npz")
    count, channels, height, width = data["video"].shape
    assert (count, channels) == (FRAMES, 3) and data["video"].dtype == np.float32 and data["video"].max() <= 1
    assert data["coords"].dtype == np.float32 and data["visibs"].dtype == np.float32
    ids = seen_tracks(tracks)
    assert data["coords"].shape == (FRAMES, len(ids), 3) and data["visibs"].shape == (FRAMES, len(ids))
    np.testing.assert_allclose(data["coords"], tracks.xyz[ids].transpose(1, 0, 2), rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(data["visibs"], tracks.visible[ids].T)  # float32, since the page of both knows no bool
    np.testing.assert_array_equal(data["object_id"], tracks.object_id[ids])
    assert data["unc_metric"].shape == data["depths"].shape == (FRAMES, height, width)
    given = np.load(folder / "tapip3d" / "tapip3d_input.npz")
    assert given["video"].dtype == np.uint8 and given["video"].shape == (FRAMES, height, width, 3)
    for t in (0, FRAMES - 1):
        for source in (data, given):
            picture = source["video"][t]
            picture = picture if picture.dtype == np.uint8 else np.round(255 * picture).astype(np.uint8).transpose(1, 2, 0)
            matrix = source["intrinsics"][t].astype(np.float64)
            matrix[:2, 2] += 0.5
            check_depth(simulated, t, picture, source["depths"][t], matrix, source["extrinsics"][t].astype(np.float64))
        check_dynamic(simulated.labels[t], picture, data["dynamic"][t] > 0)


def test_dycheck_layout_for_nerfies_hypernerf_and_4dgaussians(clip):
    _, simulated, _, folder = clip
    root = folder / "dycheck"
    scene, dataset, metadata, extra = (json.loads((root / f"{n}.json").read_text()) for n in ("scene", "dataset", "metadata", "extra"))
    assert scene["scale"] == 1 and scene["center"] == [0, 0, 0] and 0 < scene["near"] < scene["far"]
    assert dataset["count"] == dataset["num_exemplars"] == len(dataset["ids"]) == FRAMES
    assert set(dataset["val_ids"]) <= set(dataset["ids"]) and len(dataset["val_ids"]) > 0
    scale, center = scene["world"]["scale"], np.array(scene["world"]["center"])
    centers = []
    for t, name in enumerate(dataset["ids"]):
        assert metadata[name] == {"warp_id": t, "appearance_id": t, "time_id": t, "camera_id": 0}
        camera = json.loads((root / "camera" / f"{name}.json").read_text())
        rotation, position = np.array(camera["orientation"]), np.array(camera["position"])
        centers.append(position)
        focal, (cx, cy), (width, height) = camera["focal_length"], camera["principal_point"], camera["image_size"]
        assert camera["pixel_aspect_ratio"] == 1 and not np.any(camera["radial_distortion"] + camera["tangential_distortion"])
        assert (cx, cy) == (width / 2, height / 2) and width % 8 == height % 8 == 0
        for factor in (1, 2, 4, 8):
            assert read_png(root / "rgb" / f"{factor}x" / f"{name}.png").shape == (height // factor, width // factor, 3)
        picture, depth = read_png(root / "rgb" / "1x" / f"{name}.png"), np.load(root / "depth" / "1x" / f"{name}.npy")
        assert depth.shape == (height, width, 1) and depth.dtype == np.float32
        matrix = np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1]])
        # Undo the normalisation: x' = scale (x - center).
        pose = np.column_stack([rotation, -rotation @ (position / scale + center)])
        check_camera(simulated, t, picture, matrix, pose)
        check_depth(simulated, t, picture, depth[..., 0] / scale, matrix, pose)
        check_dynamic(simulated.labels[t], picture, read_png(root / "dynamic_mask" / "1x" / f"{name}.png") == 255)
    points = np.load(root / "points.npy")
    low, high = np.array(extra["bbox"])
    assert points.shape[1] == 3 and ((points >= low - 1e-6) & (points <= high + 1e-6)).all()
    assert np.linalg.norm(np.ptp(np.array(centers), axis=0)) <= 1
    # 4DGaussians opens the one with the 2; versions before it the other.
    assert (root / "points3D_downsample.ply").samefile(root / "points3D_downsample2.ply")
    header, _, body = (root / "points3D_downsample2.ply").read_bytes().partition(b"end_header\n")
    assert f"element vertex {len(points)}".encode() in header
    assert all(f"property float {n}".encode() in header for n in ("x", "y", "z", "nx", "ny", "nz"))
    rows = np.frombuffer(body, dtype=[("p", "<f4", 6), ("c", "u1", 3)])
    np.testing.assert_allclose(rows["p"][:, :3], points, atol=1e-6)


def test_monst3r_viewer_reads_frames_depth_masks_and_trajectory(clip):
    from scipy.spatial.transform import Rotation

    _, simulated, _, folder = clip
    root = folder / "monst3r"

    def files(pattern):  # Record3dLoader_Customized sorts by the number behind the last underscore
        return sorted(root.glob(pattern), key=lambda p: int(p.stem.split("_")[-1]))

    matrices = np.loadtxt(root / "pred_intrinsics.txt").reshape(-1, 3, 3)
    lines = np.loadtxt(root / "pred_traj.txt")
    rotations = Rotation.from_quat(np.concatenate([lines[:, 5:], lines[:, 4:5]], -1)).as_matrix()
    pictures, depths, masks, trust = (files(p) for p in ("frame_*.png", "frame_*.npy", "enlarged_dynamic_mask_*.png", "conf_*.npy"))
    assert len(pictures) == len(depths) == len(masks) == len(trust) == len(lines) == len(matrices) == FRAMES
    for t in (0, FRAMES - 1):
        picture, depth = read_png(pictures[t]), np.load(depths[t])
        pose = np.column_stack([rotations[t].T, -rotations[t].T @ lines[t, 1:4]])
        check_depth(simulated, t, picture, np.where(np.load(trust[t]) > 1, depth, 0), matrices[t], pose)
        mask = read_png(root / f"dynamic_mask_{t}.png")
        check_dynamic(simulated.labels[t], picture, mask == 255)
        assert ((read_png(masks[t]) == 255) >= (mask == 255)).all()


def test_davis_masks_are_palette_pictures_of_object_ids(clip):
    from PIL import Image

    from segmotion_plugin.evaluation.datasets import davis_sequences

    _, simulated, _, folder = clip
    (sequence,) = davis_sequences(folder / "davis")
    assert sequence.name == "clip-one" and len(sequence) == FRAMES
    assert sequence.images[0].name == "00000.jpg"
    with Image.open(sequence.masks[0]) as image:
        assert image.mode == "P"
        assert image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0], "DAVIS' colours"
    for t, path in enumerate(sequence.masks):
        np.testing.assert_array_equal(read_png(path), simulated.labels[t])
    assert (folder / "davis" / "ImageSets" / "2017" / "val.txt").read_text() == "clip-one\n"


def test_mattes_hold_one_object_each_for_every_frame(clip):
    _, simulated, _, folder = clip
    root = folder / "mattes"
    objects = [int(k) for k in np.unique(simulated.labels) if k]
    assert sorted(p.name for p in root.iterdir() if p.is_dir()) == ["all"] + [f"object_{k:02d}" for k in objects]
    for t in range(FRAMES):
        name = f"clip.{t + 1:04d}.png"
        np.testing.assert_array_equal(read_png(root / "all" / name) == 255, simulated.labels[t] > 0)
        for k in objects:
            matte = read_png(root / f"object_{k:02d}" / name)
            assert set(np.unique(matte)) <= {0, 255}
            np.testing.assert_array_equal(matte == 255, simulated.labels[t] == k)


def test_tum_trajectory_is_read_by_evo(clip):
    from evo.tools import file_interface

    _, simulated, _, folder = clip
    path = file_interface.read_tum_trajectory_file(str(folder / "tum" / "trajectory.txt"))
    np.testing.assert_allclose(path.timestamps, np.arange(FRAMES) / simulated.fps, atol=1e-5)
    np.testing.assert_allclose(path.positions_xyz, simulated.cameras.centers(), atol=1e-6)
    for pose, true in zip(path.poses_se3, simulated.cameras.cam_from_world, strict=True):
        np.testing.assert_allclose(np.linalg.inv(pose)[:3], true, atol=1e-5)
