"""Damaged COLMAP models are refused before COLMAP reads them: it would run on for ever, or take what is not there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from segmotion_4d.source import Processed
from support_viewer import FRAMES, processed

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.reconstruct.job import load_cameras
from segmotion_plugin.reconstruct.model_files import check_model, read_model
from segmotion_plugin.reconstruct.static_points import read_points
from segmotion_plugin.viewer.scene import load_scene

FILES = ("cameras.bin", "rigs.bin", "frames.bin", "images.bin", "points3D.bin")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return processed(tmp_path_factory.mktemp("model") / "out")


def test_whole_models_are_read(out: Path) -> None:
    model = read_model(out / "colmap" / "sparse" / "0")
    assert model.num_images() == FRAMES and model.num_points3D() == len(read_points(out)) > 0


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["short", "shorter", "long", "count", "empty"])
def test_files_that_do_not_end_where_they_say_are_named(out: Path, tmp_path: Path, name: str, damage: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(out / "colmap" / "sparse" / "0", folder)
    data = (folder / name).read_bytes()
    changed = {"short": data[:-3], "shorter": data[:-20], "long": data + b"\0", "count": (10**9).to_bytes(8, "little") + data[8:]}
    (folder / name).write_bytes(changed.get(damage, b""))
    with pytest.raises(SegmotionError, match=f"{name}: not a readable COLMAP model"):
        check_model(folder)


def test_damage_that_keeps_the_length_is_told_too(out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(out / "colmap" / "sparse" / "0", folder)
    data = bytearray((folder / "frames.bin").read_bytes())
    data[8:16] = b"\xff" * 8  # frame and rig that are nowhere
    (folder / "frames.bin").write_bytes(bytes(data))
    with pytest.raises(SegmotionError, match="not a readable COLMAP model"):
        read_model(folder)


def test_rigs_of_several_sensors_and_models_without_rigs_pass(out: Path, tmp_path: Path) -> None:
    import pycolmap

    model = pycolmap.Reconstruction()
    for number, kind in enumerate(("SIMPLE_PINHOLE", "FULL_OPENCV", "PINHOLE"), start=1):
        model.add_camera(pycolmap.Camera.create_from_model_name(number, kind, 50.0, 64, 48))
    rig = pycolmap.Rig(rig_id=1)
    rig.add_ref_sensor(model.cameras[1].sensor_id)
    rig.add_sensor(model.cameras[2].sensor_id, pycolmap.Rigid3d(np.eye(3, 4)))
    rig.add_sensor(model.cameras[3].sensor_id, None)
    model.add_rig(rig)
    model.write_binary(tmp_path)
    assert read_model(tmp_path).num_cameras() == 3
    old = tmp_path / "old"
    shutil.copytree(out / "colmap" / "sparse" / "0", old)
    for name in ("rigs.bin", "frames.bin"):
        (old / name).unlink()
    check_model(old)


def test_viewer_and_exports_share_the_check(tmp_path: Path) -> None:
    out = processed(tmp_path / "out")
    path = out / "colmap" / "sparse" / "0" / "frames.bin"
    path.write_bytes(path.read_bytes()[:-20])
    for read in (load_cameras, read_points, load_scene, lambda folder: Processed(folder).cameras):
        with pytest.raises(SegmotionError, match="cut off"):
            read(out)
