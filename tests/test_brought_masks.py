"""Keep masks that users bring, in every form that painting programs write, against what COLMAP (pycolmap) reads in them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
from PIL import Image
from segmotion_4d.readers.mask_folder import MaskFolder
from segmotion_colmap.database import image_names, masked_keypoints
from segmotion_colmap.images import OwnMasks

from segmotion_plugin.clip import Clip, SourceFrame
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.extra_masks import ExtraMasks
from segmotion_plugin.files import write_png
from segmotion_plugin.masks import read_brought_keep
from segmotion_plugin.reconstruct.database import quiet_colmap

H, W = 60, 80
KEEP = np.zeros((H, W), np.uint8)
KEEP[:, : W // 2] = 255
FULL = np.full_like(KEEP, 255)


def in_colour(*colour: int) -> Image.Image:
    return Image.fromarray(np.where((KEEP > 0)[..., None], np.array(colour, np.uint8), np.uint8(0)))


def in_palette(*colours: int) -> Image.Image:
    image = Image.fromarray((KEEP > 0).astype(np.uint8)).convert("P")
    image.putpalette(colours)
    return image


def in_16_bits(value: int) -> Image.Image:
    return Image.fromarray(np.where(KEEP > 0, np.uint16(value), np.uint16(0)))


FORMS = {
    "grey": Image.fromarray(KEEP),
    "grey of value 1": Image.fromarray((KEEP > 0).astype(np.uint8)),
    "1-bit": Image.fromarray(KEEP).convert("1"),
    "white": in_colour(255, 255, 255),
    "blue": in_colour(0, 0, 255),
    "blue 7": in_colour(0, 0, 7),
    "blue 6": in_colour(0, 0, 6),
    "red 3": in_colour(3, 0, 0),
    "red 2": in_colour(2, 0, 0),
    "green 1": in_colour(0, 1, 0),
    "RGBA, alpha full": Image.merge("RGBA", [Image.fromarray(x) for x in (KEEP, KEEP, KEEP, FULL)]),
    "RGBA, alpha 0": Image.merge("RGBA", [Image.fromarray(x) for x in (KEEP, KEEP, KEEP, 0 * KEEP)]),
    "grey and alpha": Image.merge("LA", [Image.fromarray(x) for x in (KEEP, FULL)]),
    "palette of black and white": in_palette(0, 0, 0, 255, 255, 255),
    "palette of white and black": in_palette(255, 255, 255, 0, 0, 0),
    "palette of red and green": in_palette(128, 0, 0, 0, 128, 0),
    **{f"16-bit {value}": in_16_bits(value) for value in (1, 128, 129, 255, 256, 65535)},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_as_colmap_reads_it(form, tmp_path):
    path = tmp_path / "a.png"
    FORMS[form].save(path)
    expected = pycolmap.Bitmap.read(str(path), as_rgb=False).to_array() > 0
    assert np.array_equal(read_brought_keep(path) > 0, expected)
    white = np.full((H, W), 255, np.uint8)
    assert np.array_equal(ExtraMasks(tmp_path, ["a.png"], ["x.jpg"]).combine("a.png", white) > 0, expected)
    assert np.array_equal(OwnMasks(tmp_path, ["a.png"]).combine("a.png", white) > 0, expected)
    clip = Clip([], [SourceFrame("a.jpg", 0, None)], W, H, None, [(0, 1)], np.array([0]), ["frame_00001.png"])
    assert np.array_equal(MaskFolder(tmp_path, "colmap", clip).labels(0) == 0, expected)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_grey_values_are_those_of_colmap(depth, tmp_path):
    rng = np.random.default_rng(0)
    for top in (8, 255, 2000, 65535):
        write_png(tmp_path / "a.png", rng.integers(0, min(top, np.iinfo(depth).max), (64, 64, 3)).astype(depth))
        assert np.array_equal(read_brought_keep(tmp_path / "a.png"), pycolmap.Bitmap.read(str(tmp_path / "a.png"), False).to_array())


def test_masks_that_cannot_be_meant_are_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.merge("RGBA", [Image.fromarray(x) for x in (FULL, FULL, FULL, KEEP)]).save(path)
    with pytest.raises(SegmotionError, match=r"a\.png: only the alpha of this mask differs"):
        read_brought_keep(path)
    cv2.imwrite(str(tmp_path / "a.tif"), KEEP.astype(np.float32) / 255)
    with pytest.raises(SegmotionError, match="a mask of float32 values"):
        read_brought_keep(tmp_path / "a.tif")
    path.write_bytes(b"")
    with pytest.raises(SegmotionError, match="an empty file, no mask"):
        read_brought_keep(path)
    write_png(path, KEEP[::2, ::2])
    for masks in (ExtraMasks(tmp_path, ["a.png"], ["a.png"]), OwnMasks(tmp_path, ["a.png"])):
        with pytest.raises(SegmotionError, match="40×30 pixels, but a.png has 80×60"):
            masks.combine("a.png", FULL)


def extracted(images: Path, masks: Path, database: Path) -> list[str]:
    """Names of the images in a database that pycolmap made with masks."""
    reader, extraction = pycolmap.ImageReaderOptions(), pycolmap.FeatureExtractionOptions(use_gpu=False, num_threads=1)
    reader.mask_path = masks
    with quiet_colmap():
        pycolmap.extract_features(database, images, reader_options=reader, extraction_options=extraction, device=pycolmap.Device.cpu)
    return image_names(database)


def test_pycolmap_finds_the_masks_that_we_find_and_leaves_out_images_without(walker_clip, tmp_path):
    mask = np.where(walker_clip.labels[0] > 0, np.uint8(0), np.uint8(255))
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(walker_clip.frames[0]).save(tmp_path / "images" / name, quality=95)
    write_png(tmp_path / "masks" / "a.png", mask)
    write_png(tmp_path / "masks" / "b.jpg.png", mask)
    assert extracted(tmp_path / "images", tmp_path / "masks", tmp_path / "new.db") == ["a.jpg", "b.jpg"]
    assert masked_keypoints(tmp_path / "new.db", tmp_path / "masks") == {}
    write_png(tmp_path / "masks" / "a.png", 255 - mask)  # the keypoints now lie in what it masks
    assert masked_keypoints(tmp_path / "new.db", tmp_path / "masks").keys() == {"a.jpg"}
