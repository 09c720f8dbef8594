"""The real programs: COLMAP's binary under ns-process-data with motion masks, and the console script that users call."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import segmotion_nerfstudio
from segmotion_colmap.binary import ColmapBinary
from segmotion_colmap.database import filter_database, masked_keypoints
from segmotion_nerfstudio import process_data, shim
from segmotion_nerfstudio.add_masks import add_masks
from support_processed import write_dataset_of_others

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.evaluation.poses import trajectory_error
from segmotion_plugin.files import read_json, write_png
from segmotion_plugin.reconstruct.mapping import cameras_from_reconstruction
from segmotion_plugin.settings import MaskSettings
from segmotion_plugin.simulation import SimulatedClip, render, scenes

FRAMES, WIDTH, HEIGHT = 14, 320, 180
INTEGRATIONS = Path(segmotion_nerfstudio.__file__).parents[1]


@pytest.fixture(scope="module")
def clip() -> SimulatedClip:
    """A lorry with a textured side fills half of the picture and goes along with the camera."""
    return render(scenes.build("demo", seed=1, num_frames=FRAMES, width=WIDTH, height=HEIGHT))


@pytest.fixture(scope="module")
def folder(clip, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("clip")
    for k, frame in enumerate(clip.frames):
        write_png(root / "data" / f"shot_{k}.png", frame)
        write_png(root / "own" / f"shot_{k}.png", np.where(clip.labels[k] > 0, np.uint8(0), np.uint8(255)))
    return root


def test_the_binary_reconstructs_the_world_behind_a_large_mover(clip, folder):
    import pycolmap

    out = folder / "out"
    arguments = ["images", "--data", str(folder / "data"), "--output-dir", str(out), "--no-gpu", "--sfm-tool", "colmap"]
    arguments += ["--num-downscales", "1", "--motion-mask", "--motion-mask-method", "none", "--motion-mask-extra", str(folder / "own")]
    assert process_data.entrypoint(arguments) == 0
    entries = read_json(out / "motion" / "frames.json")["images"]
    shot = {entry["name"]: int(Path(entry["source"]).stem[5:]) for entry in entries}
    names = sorted(shot, key=shot.__getitem__)
    found = cameras_from_reconstruction(pycolmap.Reconstruction(out / "colmap" / "sparse" / "0"), names)
    truth = Cameras(names, np.arange(FRAMES), WIDTH, HEIGHT, clip.cameras.model, clip.cameras.params, clip.cameras.cam_from_world)
    errors = trajectory_error(found, truth)
    assert errors.registered == 1.0
    assert errors.trajectory_fraction < 0.01
    assert masked_keypoints(out / "colmap" / "database.db", out / "colmap_masks") == {}
    frames = read_json(out / "transforms.json")["frames"]
    assert len(frames) == FRAMES and all((out / frame["mask_path"]).is_file() for frame in frames)
    assert read_json(out / "motion" / "report.json")["reconstruction"]["images_registered"] == FRAMES


def test_a_database_of_the_binary_is_filtered_and_verified_by_it(folder, tmp_path):
    binary = ColmapBinary.find()
    assert binary is not None
    database = tmp_path / "database.db"
    binary.extract(database, folder / "data", camera_model="SIMPLE_RADIAL")
    binary.match(database, "sequential")
    masks = tmp_path / "masks"
    for path in (folder / "own").iterdir():
        (masks / f"{path.name}.png").parent.mkdir(exist_ok=True)
        (masks / f"{path.name}.png").write_bytes(path.read_bytes())
    assert sum(masked_keypoints(database, masks).values()) > 1000
    report = filter_database(database, masks, tmp_path / "filtered.db", verify="colmap")
    assert report.verified_with == f"COLMAP {binary.version[0]}.{binary.version[1]}"
    assert masked_keypoints(tmp_path / "filtered.db", masks) == {}
    assert binary.map(tmp_path / "filtered.db", folder / "data", tmp_path / "sparse", tolerance=1.6) >= 1


def test_the_console_script_gains_the_flag_and_gets_its_own_help_back(tmp_path):
    script = tmp_path / "ns-process-data"
    content = shim.console_script().read_bytes()
    script.write_bytes(shim.original(shim.console_script()) or content)
    script.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(INTEGRATIONS), str(INTEGRATIONS.parent)]), "COLUMNS": "100"}

    def help_text() -> str:
        command = [sys.executable, str(script), "images", "--help"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    before = help_text()
    shim.enable(script)
    extended = help_text()
    shim.disable(script)
    assert "--motion-mask" in extended and "--motion-mask" not in before
    assert "--percent-radius-crop" in extended
    assert help_text() == before


def test_poses_that_the_mover_spoiled_are_found_anew(clip, tmp_path):
    """Also the way of ns-process-data with --sfm-tool pycolmap: the same function finds the cameras."""
    dataset = tmp_path / "dataset"
    meta = write_dataset_of_others(dataset, clip, transform_matrix=np.eye(4).tolist())
    for k in range(FRAMES):
        write_png(tmp_path / "own" / f"frame_{k + 1:05d}.png", np.where(clip.labels[k] > 0, np.uint8(0), np.uint8(255)))
    done = add_masks(dataset, MaskSettings(masks="none", extra_masks=tmp_path / "own", quiet=True), rerun_sfm=True)
    assert done["reconstruction"]["images_registered"] == FRAMES and done["reconstruction"]["keypoints_in_masks"] == 0
    assert read_json(dataset / "transforms.before.json") == meta
    frames = sorted(read_json(dataset / "transforms.json")["frames"], key=lambda f: f["file_path"])
    assert [frame["mask_path"] for frame in frames] == [f"masks/frame_{k + 1:05d}.png" for k in range(FRAMES)]
    cam_from_world = []
    for frame in frames:
        pose = np.array(frame["transform_matrix"])
        pose[:, 1:3] *= -1  # OpenGL's camera axes to OpenCV's; the world differs by a similarity only
        cam_from_world.append(np.linalg.inv(pose)[:3])
    names = [f"frame_{k + 1:05d}.png" for k in range(FRAMES)]
    truth = clip.cameras
    found = Cameras(names, np.arange(FRAMES), WIDTH, HEIGHT, truth.model, truth.params, np.array(cam_from_world))
    known = Cameras(names, np.arange(FRAMES), WIDTH, HEIGHT, truth.model, truth.params, truth.cam_from_world)
    assert trajectory_error(found, known).trajectory_fraction < 0.01
