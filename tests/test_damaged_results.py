"""Results that were damaged since are told of by the commands that read them: which file, and how to make it again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from segmotion_4d import export
from segmotion_4d.readers.tapip3d_tracks import read_tracks
from segmotion_colmap.undistort import undistort_masks
from support_4d import FRAMES, HEIGHT, WIDTH, textured
from support_distortion import write_models
from support_processed import write_processed

from segmotion_plugin import SegmotionError
from segmotion_plugin.files import write_png
from segmotion_plugin.reconstruct.model_files import read_model
from segmotion_plugin.reconstruct.tracks_3d import load_tracks_3d


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processed") / "clip"
    write_processed(folder, *textured(), depth=True, tracks_3d=True)
    return folder


def other_size(path: Path) -> None:
    write_png(path, np.zeros((WIDTH, HEIGHT + 7), np.uint8))


def damaged_header(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"), }", b" , }", 1))


def no_archive(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def with_arrays(**changed: np.ndarray):  # noqa: ANN201
    def change(path: Path) -> None:
        with np.load(path) as data:
            arrays = {key: data[key] for key in data.files}
        np.savez(path, **(arrays | changed))

    return change


def no_utf8(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"frame_00002", b"\xff\xfe\xfdme_00002"))


@pytest.mark.parametrize(
    ("form", "name", "damage", "told"),
    [
        ("tapip3d", "motion/objects/frame_00001.png", other_size, "frame_00001.png: .*pixels"),
        ("tapip3d", "motion/depth/frame_00001.npy", damaged_header, "not a readable depth map"),
        ("tapip3d", "motion/tracks_3d.npz", no_archive, "not a readable track file"),
        ("tapip3d", "motion/tracks_3d.npz", with_arrays(frame_index=np.zeros(3)), "frame_index is an array"),
        ("shape-of-motion", "motion/tracks.npz", with_arrays(size=np.full(2, np.nan)), "do not fit each other"),
        ("tum", "colmap/sparse/0/images.bin", no_utf8, "not UTF-8"),
    ],
)
def test_exports_name_the_damaged_file(clip: Path, tmp_path: Path, form: str, name: str, damage, told: str) -> None:  # noqa: ANN001
    shutil.copytree(clip, tmp_path / "clip")
    damage(tmp_path / "clip" / name)
    with pytest.raises(SegmotionError, match=told):
        export(tmp_path / "clip", form, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_counts_beyond_all_numbers_are_damage(clip: Path, tmp_path: Path) -> None:
    shutil.copytree(clip / "colmap" / "sparse" / "0", tmp_path / "model")
    points = tmp_path / "model" / "points3D.bin"
    points.write_bytes(points.read_bytes()[:51] + b"\xff" * 8 + points.read_bytes()[59:])
    with pytest.raises(SegmotionError, match="points3D.bin: not a readable COLMAP model"):
        read_model(tmp_path / "model")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_cameras_of_no_sense_are_refused_before_colmap_takes_them(tmp_path: Path, value: float) -> None:
    write_models(tmp_path, ["SIMPLE_RADIAL"])
    model = pycolmap.Reconstruction(str(tmp_path / "sparse"))
    camera = model.cameras[1]
    camera.params = np.array([*camera.params[:-1], value])
    model.write_binary(tmp_path / "sparse")
    with pytest.raises(SegmotionError, match="camera 1 has numbers that make no sense"):
        undistort_masks(tmp_path / "sparse", tmp_path / "masks", tmp_path / "new")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"intrinsics": np.array(3)}, "intrinsics is an array"),
        ({"visibs": np.ones(7)}, "visibs is an array"),
        ({"coords": np.array(["text"])}, "coords is an array"),
        ({"extrinsics": np.ones((FRAMES, 2, 2))}, "not T×4×4"),
        ({"visibs": np.ones((FRAMES, 3, 2))}, "T×N"),
    ],
)
def test_tracks_of_others_with_wrong_arrays_are_named(clip: Path, tmp_path: Path, changed: dict, told: str) -> None:
    export(clip, "tapip3d", tmp_path / "export")
    path = tmp_path / "export" / "clip.npz"
    with_arrays(**changed)(path)
    with pytest.raises(SegmotionError, match=told):
        read_tracks(path, FRAMES, WIDTH, HEIGHT)


def test_tracks_of_another_layout_are_named(clip: Path, tmp_path: Path) -> None:
    shutil.copyfile(clip / "motion" / "tracks_3d.npz", tmp_path / "a.npz")
    with_arrays(depth_source=np.array(3))(tmp_path / "a.npz")
    with pytest.raises(SegmotionError, match="depth_source is an array"):
        load_tracks_3d(tmp_path / "a.npz")
