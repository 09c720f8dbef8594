"""nerfstudio's own dataparsers load the exports, and their cameras put points of the truth on the pixels that show them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from segmotion_4d import export
from support_4d import FRAMES, check_dynamic, positions, read_png, truth
from support_processed import write_processed


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("exports")
    write_processed(root / "clip", *truth("distorted"), depth=True)
    for name in ("nerfstudio", "colmap", "colmap-undistorted", "dycheck"):
        export(root / "clip", name, root / name)
    return root


def check_outputs(outputs, world: np.ndarray, offset: np.ndarray) -> None:
    """Project points of the truth through nerfstudio's cameras: world 3×3 and offset bring COLMAP's world into the dataparser's."""
    clip, _ = truth("distorted")
    assert len(outputs.image_filenames) == FRAMES
    for index, path in enumerate(outputs.image_filenames):
        frame = int("".join(c for c in Path(path).stem if c.isdigit())) - (1 if "frame" in Path(path).stem else 0)
        row, column = (a.ravel() for a in np.mgrid[2:64:6, 2:96:6])
        depth = clip.depth[frame, row, column]
        row, column, depth = (a[np.isfinite(depth)] for a in (row, column, depth))
        rays = clip.cameras.rays(np.stack([column + 0.5, row + 0.5], axis=1)) * depth[:, None]
        pose = clip.cameras.cam_from_world[frame]
        xyz = (rays - pose[:, 3]) @ pose[:, :3] @ world.T + offset
        camera = outputs.cameras
        c2w = camera.camera_to_worlds[index].double().numpy()
        local = (xyz - c2w[:, 3]) @ c2w[:, :3]
        plane = np.stack([local[:, 0] / -local[:, 2], local[:, 1] / local[:, 2]], axis=1)  # OpenGL axes
        if camera.distortion_params is not None:
            k1, k2, _, _, p1, p2 = camera.distortion_params[index].double().numpy()
            x, y = plane.T
            r2 = x * x + y * y
            radial = 1 + k1 * r2 + k2 * r2 * r2
            plane = np.stack(
                [x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y], axis=1
            )
        fx, fy, cx, cy = (float(getattr(camera, n)[index]) for n in ("fx", "fy", "cx", "cy"))
        xy = plane * (fx, fy) + (cx, cy)
        picture = read_png(path)
        height, width = picture.shape[:2]
        assert (int(camera.width[index]), int(camera.height[index])) == (width, height)
        inside = ((xy > 1) & (xy < (width - 1, height - 1))).all(axis=1)
        assert inside.sum() > 60
        expected, _ = clip.cameras.project((rays - pose[:, 3]) @ pose[:, :3], frame)
        assert np.abs(positions(picture, xy[inside]) - expected[inside]).max() < 0.3


def masks_are_right(outputs) -> None:
    from nerfstudio.data.datasets.base_dataset import InputDataset

    clip, _ = truth("distorted")
    dataset = InputDataset(outputs)
    for index, path in enumerate(outputs.image_filenames):
        frame = int(Path(path).stem[6:]) - 1
        keep = dataset.get_data(index)["mask"][..., 0].numpy()
        check_dynamic(clip.labels[frame], read_png(path), ~keep)


def test_nerfstudio_data(folder):
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    config = NerfstudioDataParserConfig(data=folder / "nerfstudio", eval_mode="all", downscale_factor=1)
    outputs = config.setup().get_dataparser_outputs("train")
    transform = outputs.dataparser_transform.double().numpy()
    scale = outputs.dataparser_scale
    check_outputs(outputs, scale * transform[:, :3], scale * transform[:, 3])
    masks_are_right(outputs)


@pytest.mark.parametrize("name", ["colmap", "colmap-undistorted"])
def test_colmap(folder, name):
    from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig

    config = ColmapDataParserConfig(
        data=folder / name, colmap_path=Path("sparse/0"), masks_path=Path("masks"), eval_mode="all", downscale_factor=1
    )
    outputs = config.setup().get_dataparser_outputs("train")
    transform = outputs.dataparser_transform.double().numpy()
    scale = outputs.dataparser_scale
    check_outputs(outputs, scale * transform[:, :3], scale * transform[:, 3])
    masks_are_right(outputs)
    assert len(outputs.metadata["points3D_xyz"]) > 30


def test_dycheck(folder):
    from nerfstudio.data.dataparsers.dycheck_dataparser import DycheckDataParserConfig

    parser = DycheckDataParserConfig(data=folder / "dycheck").setup()
    outputs = parser.get_dataparser_outputs("train")
    scene = json.loads((folder / "dycheck" / "scene.json").read_text())["world"]
    # The dataparser turns the world in its own way; what it does to the first camera's axes tells how.
    camera = json.loads((folder / "dycheck" / "camera" / "00000.json").read_text())
    own = np.array(camera["orientation"]).T @ np.diag([1.0, -1.0, -1.0])
    turn = outputs.cameras.camera_to_worlds[0, :, :3].double().numpy() @ own.T
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-5)
    scale = outputs.metadata["scale"] * scene["scale"]
    check_outputs(outputs, scale * turn, -scale * turn @ np.array(scene["center"]))
    times = outputs.cameras.times[:, 0].numpy()
    np.testing.assert_allclose(times, np.arange(FRAMES) / (FRAMES - 1), atol=1e-6)
    for path in outputs.metadata["depth_filenames"]:
        assert np.load(path).shape[:2] == read_png(outputs.image_filenames[0]).shape[:2]
