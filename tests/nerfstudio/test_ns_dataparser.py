"""`segmotion-data`: masks by policy, times, tracks in the world of the dataparser."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.data.datasets.base_dataset import InputDataset
from segmotion_nerfstudio import plugin
from segmotion_nerfstudio.dataparser import SegmotionDataParserConfig
from support_processed import seen_tracks, write_processed

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import read_json, write_json, write_png
from segmotion_plugin.simulation import SimulatedClip, render, sample_tracks, scenes

FRAMES = 8


@pytest.fixture(scope="module")
def world():
    return scenes.build("walker", seed=3, num_frames=FRAMES, width=96, height=64)


@pytest.fixture(scope="module")
def clip(world) -> SimulatedClip:
    return render(world)


@pytest.fixture(scope="module")
def tracks(world):
    return sample_tracks(world, np.random.default_rng(0), 80, np.array([0, 4]))


@pytest.fixture(scope="module")
def dataset(clip, tracks, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dataset") / "walk"
    write_processed(folder, clip, tracks, tracks_3d=True)
    return folder


def outputs_of(folder: Path, split: str = "train", **options):
    options.setdefault("eval_mode", "all")
    return SegmotionDataParserConfig(data=folder, **options).setup().get_dataparser_outputs(split)


def masks_of(outputs) -> list[np.ndarray]:
    return [item["mask"][..., 0].numpy() for item in map(InputDataset(outputs).__getitem__, range(FRAMES))]


def test_policies_choose_what_counts(dataset, clip):
    moving = clip.labels > 0
    assert np.array_equal(masks_of(outputs_of(dataset)), ~moving)
    assert np.array_equal(masks_of(outputs_of(dataset, mask_policy="keep-dynamic")), moving)
    assert outputs_of(dataset, mask_policy="none").mask_filenames is None


def test_moving_pixels_of_downscaled_images_follow_their_masks(dataset, clip, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(dataset, folder)
    for k in range(FRAMES):
        name = f"frame_{k + 1:05d}.png"
        write_png(folder / "images_2" / name, np.ascontiguousarray(clip.frames[k][::2, ::2]))
        write_png(folder / "masks_2" / name, np.where(clip.labels[k][::2, ::2] > 0, np.uint8(0), np.uint8(255)))
    outputs = outputs_of(folder, mask_policy="keep-dynamic", downscale_factor=2)
    assert np.array_equal(masks_of(outputs), clip.labels[:, ::2, ::2] > 0)
    write_png(folder / "motion" / "objects" / "frame_00001.png", np.zeros(clip.labels.shape[1:], np.uint8))
    assert not masks_of(outputs_of(folder, mask_policy="keep-dynamic", downscale_factor=2))[0].any()


def test_times_run_from_0_to_1(dataset, tmp_path):
    assert torch.allclose(outputs_of(dataset).cameras.times[:, 0], torch.linspace(0, 1, FRAMES))
    folder = tmp_path / "still"
    shutil.copytree(dataset, folder)
    shutil.rmtree(folder / "motion")
    plain = outputs_of(folder)
    assert plain.cameras.times is None and plain.metadata["segmotion"] == {"root": str(folder)}


def test_moving_tracks_project_onto_the_pixels_where_they_are_seen(dataset, tracks):
    outputs = outputs_of(dataset)
    motion = outputs.metadata["segmotion"]
    ids = seen_tracks(tracks)
    ids = ids[tracks.object_id[ids] > 0]
    assert len(ids) == len(motion["xyz"]) > 5 and (motion["object_id"] > 0).all()
    cameras = outputs.cameras
    for k in range(FRAMES):
        seen = motion["visible"][:, k].numpy()
        pose = cameras.camera_to_worlds[k]
        local = (motion["xyz"][seen, k] - pose[:, 3]) @ pose[:, :3]
        x = cameras.fx[k] * local[:, 0] / -local[:, 2] + cameras.cx[k]
        y = -cameras.fy[k] * local[:, 1] / -local[:, 2] + cameras.cy[k]
        truth = tracks.xy[ids[seen], k]
        assert np.abs(np.stack([x, y], axis=1) - truth).max() < 0.05


def test_few_tracks_are_the_ones_seen_longest(dataset):
    all_of_them, few = outputs_of(dataset).metadata["segmotion"], outputs_of(dataset, max_tracks=3).metadata["segmotion"]
    seen = np.sort(all_of_them["visible"].sum(1).numpy())[::-1]
    assert sorted(few["visible"].sum(1).tolist(), reverse=True) == seen[:3].tolist()


def test_images_named_train_and_eval_are_split_so(dataset, tmp_path):
    folder = tmp_path / "split"
    shutil.copytree(dataset, folder)
    meta = read_json(folder / "transforms.json")
    for number, frame in enumerate(sorted(meta["frames"], key=lambda f: f["file_path"])):
        for key in ("file_path", "mask_path"):
            old = folder / frame[key]
            frame[key] = frame[key].replace("frame_", "frame_eval_" if number >= 5 else "frame_train_")
            old.rename(folder / frame[key])
    write_json(folder / "transforms.json", meta)
    assert len(outputs_of(folder, eval_mode="auto").image_filenames) == 5
    assert len(outputs_of(folder, "val", eval_mode="auto").image_filenames) == 3
    assert len(outputs_of(dataset, eval_mode="auto").image_filenames) == FRAMES - 1


def test_datasets_without_poses_or_masks_are_named(dataset, tmp_path):
    with pytest.raises(SegmotionError, match="has no poses"):
        outputs_of(tmp_path)
    folder = tmp_path / "bare"
    shutil.copytree(dataset, folder)
    (folder / "masks" / "frame_00003.png").unlink()
    with pytest.raises(SegmotionError, match=r"frame_00003\.png: no such mask"):
        outputs_of(folder)
    meta = read_json(folder / "transforms.json")
    del meta["frames"][2]["mask_path"]
    write_json(folder / "transforms.json", meta)
    with pytest.raises(SegmotionError, match="1 of 8 frames have no mask_path"):
        outputs_of(folder)


def test_a_broken_plug_in_costs_its_own_entry_only(monkeypatch, capsys):
    monkeypatch.setattr(plugin, "_built", {})
    monkeypatch.setitem(plugin._BUILDERS, "segmotion_data", ("segmotion_nerfstudio.no_such_module", "specification"))
    assert plugin.segmotion_data is None
    assert "segmotion-data is not available (ModuleNotFoundError" in capsys.readouterr().err
    assert plugin.segmotion_nerfacto.config.method_name == "segmotion-nerfacto"
    with pytest.raises(AttributeError):
        _ = plugin.something_else
