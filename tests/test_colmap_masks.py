"""Keep masks for folders of images that COLMAP is to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from segmotion_colmap.clip_masks import find_masks, list_images, looks_ordered
from segmotion_colmap.command import Masks
from segmotion_colmap.images import write_image_masks

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import read_json, write_png
from segmotion_plugin.masks import read_grey
from segmotion_plugin.settings import MaskSettings

ONLY_OWN = MaskSettings(masks="none", quiet=True)


def own_masks(folder: Path, images: Path, names: list[str]) -> dict[str, np.ndarray]:
    """A dark box at a place of its own in every mask."""
    result = {}
    for number, name in enumerate(names):
        height, width = read_grey(images / name).shape
        keep = np.full((height, width), 255, np.uint8)
        keep[5 + number : 25 + number, 10 : 40 + number] = 0
        write_png(folder / f"{name}.png", keep)
        result[name] = keep
    return result


@pytest.fixture
def rig(tmp_path, walker_clip) -> Path:
    """Two cameras in sub-folders of different picture sizes, names without leading zeros."""
    for number, frame in enumerate(walker_clip.frames[:4]):
        write_png(tmp_path / "rig" / "left" / f"{8 + number}.png", frame)
        write_png(tmp_path / "rig" / "right" / f"{8 + number}.png", frame[:120])
    return tmp_path / "rig"


def test_every_image_of_every_folder_gets_the_mask_of_its_own_name(rig, tmp_path):
    names = [path.relative_to(rig).as_posix() for path in list_images(rig)]
    assert names == [f"{side}/{k}.png" for side in ("left", "right") for k in (8, 9, 10, 11)]
    own = own_masks(tmp_path / "own", rig, names)
    settings = MaskSettings(masks="none", quiet=True, extra_masks=tmp_path / "own")
    done = write_image_masks(rig, tmp_path / "masks", settings, motion=tmp_path / "motion")
    written = sorted(p.relative_to(tmp_path / "masks").as_posix() for p in (tmp_path / "masks").rglob("*.png"))
    assert written == sorted(f"{name}.png" for name in names)
    for name, keep in own.items():
        assert np.array_equal(read_grey(tmp_path / "masks" / f"{name}.png"), keep)
    assert done.masked_share == pytest.approx([float((own[name] == 0).mean()) for name in names])
    entries = read_json(tmp_path / "motion" / "right" / "frames.json")["images"]
    assert [entry["source"] for entry in entries] == names[4:]
    assert not list(tmp_path.glob(".segmotion-*"))


def test_own_masks_are_combined_with_what_moves(walker_clip, walker_folder, tmp_path):
    corner = np.full(walker_clip.labels.shape[1:], 255, np.uint8)
    corner[:20, :30] = 0
    write_png(tmp_path / "own" / "mask.png", corner)
    settings = MaskSettings(quiet=True, motion="geometric", dilate=0, work_size=160, extra_masks=tmp_path / "own")
    done = write_image_masks(walker_folder, tmp_path / "masks", settings, motion=tmp_path / "motion")
    moving = 0
    for entry in read_json(tmp_path / "motion" / "frames.json")["images"]:
        objects = read_grey(tmp_path / "motion" / "objects" / f"{Path(entry['name']).stem}.png") > 0
        moving += int(objects.sum())
        keep = np.where(objects, np.uint8(0), corner)
        assert np.array_equal(read_grey(tmp_path / "masks" / f"{entry['source']}.png"), keep)
    assert moving > 0 and len(done.names) == 16


def test_masks_that_are_there_stay_unless_told_otherwise(rig, tmp_path):
    write_png(tmp_path / "masks" / "mine.png", np.zeros((4, 4), np.uint8))
    for overwrite in (False, True):
        with pytest.raises(SegmotionError, match="nothing was touched"):
            write_image_masks(rig, tmp_path / "masks", ONLY_OWN, overwrite=overwrite)
    assert [p.name for p in (tmp_path / "masks").iterdir()] == ["mine.png"]
    write_image_masks(rig, tmp_path / "ours", ONLY_OWN)
    with pytest.raises(SegmotionError, match="--overwrite"):
        write_image_masks(rig, tmp_path / "ours", ONLY_OWN)
    (tmp_path / "ours" / "left" / "8.png.png").unlink()
    write_image_masks(rig, tmp_path / "ours", ONLY_OWN, overwrite=True)
    assert (read_grey(tmp_path / "ours" / "left" / "8.png.png") == 255).all()
    write_png(tmp_path / "ours" / "left" / "8.png.png", np.zeros((180, 320), np.uint8))  # painted by hand
    with pytest.raises(SegmotionError, match="8.png.png: changed since Segmotion wrote it"):
        write_image_masks(rig, tmp_path / "ours", ONLY_OWN, overwrite=True)
    assert (read_grey(tmp_path / "ours" / "left" / "8.png.png") == 0).all()


def test_a_mask_of_another_size_is_refused_and_nothing_is_written(rig, tmp_path):
    write_png(tmp_path / "own" / "left" / "9.png.png", np.zeros((10, 10), np.uint8))
    with pytest.raises(SegmotionError, match=r"left/9\.png\.png: 10×10 pixels, but left/9\.png has 320×180"):
        write_image_masks(rig, tmp_path / "masks", MaskSettings(masks="none", quiet=True, extra_masks=tmp_path / "own"))
    assert not (tmp_path / "masks").exists()


def test_own_masks_of_which_none_fits_are_refused(rig, tmp_path):
    write_png(tmp_path / "own" / "other.png", np.zeros((180, 320), np.uint8))
    with pytest.raises(SegmotionError, match="no mask in this folder is named after an image"):
        write_image_masks(rig, tmp_path / "masks", MaskSettings(masks="none", quiet=True, extra_masks=tmp_path / "own"))


def test_errors_name_the_users_files(tmp_path, walker_clip):
    first, second = tmp_path / "a" / "one.png", tmp_path / "b" / "two.png"
    write_png(first, walker_clip.frames[0])
    write_png(second, walker_clip.frames[1][:100])
    with pytest.raises(SegmotionError, match="b/two.png: 320×100 pixels"):
        find_masks([first, second], tmp_path / "scratch", ONLY_OWN)
    with pytest.raises(SegmotionError, match="at least two images"):
        find_masks([first], tmp_path / "scratch", ONLY_OWN)


def test_frames_of_a_clip_look_ordered_and_photos_do_not(walker_folder, tmp_path):
    clip = list_images(walker_folder)
    assert looks_ordered(clip)
    rng = np.random.default_rng(0)
    for number in range(6):
        coarse = rng.integers(0, 255, (12, 20, 3), dtype=np.uint8)
        write_png(tmp_path / f"{number}.png", np.kron(coarse, np.ones((10, 10, 1), np.uint8)))
    assert not looks_ordered(list_images(tmp_path))


def test_choosing_frames_is_refused_because_every_image_needs_a_mask(rig, tmp_path):
    with pytest.raises(SegmotionError, match="mask for every image"):
        Masks(rig, tmp_path / "masks", mask=MaskSettings(every=2)).main()


def test_folders_without_images_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SegmotionError, match="no images in this folder or below"):
        list_images(tmp_path / "empty")
    with pytest.raises(SegmotionError, match="no such folder"):
        list_images(tmp_path / "nowhere")
