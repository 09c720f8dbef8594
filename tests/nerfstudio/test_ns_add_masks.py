"""Masks for finished datasets that others made."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from segmotion_nerfstudio.add_masks import add_masks
from segmotion_nerfstudio.dataparser import SegmotionDataParserConfig
from support_processed import write_dataset_of_others
from support_turns import write_turned

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import read_json, write_json, write_png
from segmotion_plugin.masks import read_grey
from segmotion_plugin.settings import MaskSettings
from segmotion_plugin.simulation import SimulatedClip, render, scenes


@pytest.fixture(scope="module")
def clip() -> SimulatedClip:
    return render(scenes.build("walker", seed=3, num_frames=6, width=96, height=64))


@pytest.fixture
def dataset(clip, tmp_path) -> Path:
    """As a phone app leaves it: poses, images, downscaled images, and nothing about masks."""
    folder = tmp_path / "dataset"
    write_dataset_of_others(folder, clip, app={"blur": 0.5})
    for path in (folder / "images").iterdir():
        write_png(folder / "images_2" / path.name, np.zeros((32, 48, 3), np.uint8))
    return folder


def own(folder: Path, clip: SimulatedClip) -> MaskSettings:
    for k, labels in enumerate(clip.labels):
        write_png(folder / f"frame_{k + 1:05d}.png", np.where(labels > 0, np.uint8(0), np.uint8(255)))
    return MaskSettings(masks="none", extra_masks=folder, quiet=True)


def test_every_frame_gets_its_mask_and_nothing_else_changes(clip, dataset, tmp_path):
    before = read_json(dataset / "transforms.json")
    done = add_masks(dataset, own(tmp_path / "own", clip))
    after = read_json(dataset / "transforms.json")
    for k, frame in enumerate(sorted(after["frames"], key=lambda f: f["file_path"])):
        assert frame.pop("mask_path") == f"masks/frame_{k + 1:05d}.png"
        assert np.array_equal(read_grey(dataset / "masks" / f"frame_{k + 1:05d}.png") == 0, clip.labels[k] > 0)
        assert read_grey(dataset / "masks_2" / f"frame_{k + 1:05d}.png").shape == (32, 48)
    assert after == before
    assert done["masked_share"] == pytest.approx(float((clip.labels > 0).mean()))
    outputs = SegmotionDataParserConfig(data=dataset, eval_mode="all").setup().get_dataparser_outputs("train")
    assert len(outputs.mask_filenames) == 6


def test_masks_can_be_made_again_but_not_over_those_of_the_user(clip, dataset, tmp_path):
    settings = own(tmp_path / "own", clip)
    add_masks(dataset, settings)
    add_masks(dataset, MaskSettings(masks="none", quiet=True))
    assert (read_grey(dataset / "masks" / "frame_00001.png") == 255).all()
    painted = np.full((64, 96), 7, np.uint8)
    write_png(dataset / "masks" / "frame_00001.png", painted)
    for overwrite in (False, True):
        with pytest.raises(SegmotionError, match="frame_00001.png: changed since Segmotion wrote it"):
            add_masks(dataset, settings, overwrite=overwrite)
    assert np.array_equal(read_grey(dataset / "masks" / "frame_00001.png"), painted)
    for path in (dataset / "masks", dataset / "colmap_masks", dataset / "motion"):
        shutil.rmtree(path)
    write_png(dataset / "masks" / "mine.png", painted)
    with pytest.raises(SegmotionError, match="mine.png: not written by Segmotion"):
        add_masks(dataset, settings, overwrite=True)
    shutil.rmtree(dataset / "masks")
    with pytest.raises(SegmotionError, match="have a mask_path already"):
        add_masks(dataset, settings)
    add_masks(dataset, settings, overwrite=True)
    assert (read_grey(dataset / "masks" / "frame_00001.png") == 0).any()


def test_what_fails_leaves_the_masks_that_were_there(clip, dataset, tmp_path):
    add_masks(dataset, own(tmp_path / "own", clip))
    before = {p: p.read_bytes() for p in dataset.rglob("*") if p.is_file()}
    write_png(tmp_path / "own" / "frame_00004.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(SegmotionError, match="9×9 pixels"):
        add_masks(dataset, MaskSettings(masks="none", extra_masks=tmp_path / "own", quiet=True))
    assert {p: p.read_bytes() for p in dataset.rglob("*") if p.is_file()} == before


def test_datasets_that_cannot_be_used_are_named(dataset, tmp_path, monkeypatch):
    settings = MaskSettings(masks="none", quiet=True)
    with pytest.raises(SegmotionError, match="no finished nerfstudio dataset"):
        add_masks(tmp_path, settings)
    meta = read_json(dataset / "transforms.json")

    def refused(word: str, **changes) -> None:
        write_json(dataset / "transforms.json", {**meta, **changes})
        with pytest.raises(SegmotionError, match=word):
            add_masks(dataset, settings)
        assert not (dataset / "masks").exists()

    refused("without poses", frames=[{"file_path": "images/frame_00001.png"}])
    refused("without poses", frames=[])
    refused("named in transforms.json and missing", frames=[{**meta["frames"][0], "file_path": "images/gone.png"}])
    refused("two frames are called frame_00001", frames=[meta["frames"][0], meta["frames"][0]])
    refused("its camera 48×32", w=48, h=32)
    refused("equirectangular", camera_model="EQUIRECTANGULAR")
    write_turned(dataset / "images" / "turned.tif", 6)
    refused("turned.tif: nerfstudio turns this TIFF", frames=[{**meta["frames"][0], "file_path": "images/turned.tif"}])
    (dataset / "transforms.json").write_text("{")
    with pytest.raises(SegmotionError, match="not a nerfstudio dataset"):
        add_masks(dataset, settings)
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, who may write everywhere
    with pytest.raises(SegmotionError, match="cannot be written"):
        add_masks(dataset, settings)
