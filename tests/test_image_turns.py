"""Images with an EXIF turn: masks are those of the pixels as stored, which is what COLMAP reads."""

from __future__ import annotations

import numpy as np
import pycolmap
import pytest
from PIL import Image
from segmotion_colmap.database import keypoints, masked_keypoints
from support_turns import HEIGHT, ORIENTATION, WIDTH, left_half, picture, write_turned

from segmotion_plugin import pipeline
from segmotion_plugin.clip import read_rgb
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.extra_masks import read_alpha
from segmotion_plugin.files import read_json, write_png
from segmotion_plugin.masks import read_brought_keep, read_grey
from segmotion_plugin.reconstruct.database import image_size, quiet_colmap
from segmotion_plugin.settings import MaskSettings


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_we_see_what_pycolmap_sees(suffix, orientation, tmp_path):
    path = write_turned(tmp_path / f"a.{suffix}", orientation)
    theirs = pycolmap.Bitmap.read(str(path), as_rgb=True).to_array().astype(int)
    assert theirs.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(read_rgb(path) - theirs).max() <= 6  # two decoders of JPEG
    assert np.abs(theirs - picture()).mean() < 8


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_pycolmap_takes_the_mask_of_the_stored_pixels(orientation, tmp_path):
    """It turns the picture before it looks for features, and their places back: counts differ a little, places do not."""
    write_turned(tmp_path / "images" / "a.jpg", orientation)
    write_png(tmp_path / "masks" / "a.jpg.png", left_half())
    reader, extraction = pycolmap.ImageReaderOptions(), pycolmap.FeatureExtractionOptions(use_gpu=False, num_threads=1)
    reader.mask_path = tmp_path / "masks"
    database = tmp_path / "new.db"
    with quiet_colmap():
        pycolmap.extract_features(
            database, tmp_path / "images", reader_options=reader, extraction_options=extraction, device=pycolmap.Device.cpu
        )
    xy = keypoints(database)["a.jpg"]
    assert len(xy) > 200 and xy[:, 0].max() < WIDTH / 2 and xy[:, 1].max() > 0.9 * HEIGHT
    assert masked_keypoints(database, tmp_path / "masks") == {}
    write_png(tmp_path / "masks" / "a.jpg.png", 255 - left_half())
    assert masked_keypoints(database, tmp_path / "masks") == {"a.jpg": len(xy)}


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_our_masks_lie_on_the_stored_pixels(suffix, tmp_path):
    """A turned TIFF becomes a PNG without a turn, which all programs see alike."""
    for number in range(2):
        path = write_turned(tmp_path / "in" / f"{number}.{suffix}", 6)
        write_png(tmp_path / "own" / f"{path.name}.png", left_half())
    pipeline.masks(tmp_path / "in", tmp_path / "out", MaskSettings(masks="none", quiet=True, extra_masks=tmp_path / "own"))
    for entry in read_json(tmp_path / "out" / "motion" / "frames.json")["images"]:
        assert np.array_equal(read_grey(tmp_path / "out" / "colmap_masks" / f"{entry['name']}.png"), left_half())
        made = tmp_path / "out" / "images" / entry["name"]
        assert np.abs(np.array(Image.open(made)).astype(int) - picture()).mean() < 8  # nerfstudio reads with Pillow
        assert np.abs(pycolmap.Bitmap.read(str(made), as_rgb=True).to_array().astype(int) - picture()).mean() < 8


def test_a_mask_painted_over_the_turned_view_is_told(tmp_path):
    for number in range(2):
        path = write_turned(tmp_path / "in" / f"{number}.jpg", 6)
        write_png(tmp_path / "own" / f"{path.name}.png", np.rot90(left_half(), -1))
    settings = MaskSettings(masks="none", quiet=True, extra_masks=tmp_path / "own")
    with pytest.raises(SegmotionError, match="120×160 pixels, but frame_00001.jpg has 160×120.*over a turned view"):
        pipeline.masks(tmp_path / "in", tmp_path / "out", settings)


@pytest.mark.parametrize("options", [{}, {"big_tiff": True}, {"compression": "tiff_lzw"}])
def test_turned_tiffs_are_read_as_stored(options, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = tmp_path / "a.tif"
    Image.fromarray(np.dstack([picture(), left_half()])).save(path, exif=exif, **options)
    visible = left_half() > 0  # OpenCV blackens what is transparent
    assert np.array_equal(read_rgb(path)[visible], picture()[visible])
    assert image_size(path) == (WIDTH, HEIGHT)
    assert np.array_equal(read_alpha(path), left_half())
    Image.fromarray(left_half()).save(path, exif=exif, **options)
    assert np.array_equal(read_brought_keep(path), left_half())


def test_webp_becomes_what_pycolmap_reads(tmp_path):
    for number in range(2):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(picture()).save(tmp_path / "in" / f"{number}.webp", lossless=True)
    assert pycolmap.Bitmap.read(str(tmp_path / "in" / "0.webp"), as_rgb=True) is None
    pipeline.masks(tmp_path / "in", tmp_path / "out", MaskSettings(masks="none", quiet=True))
    made = sorted((tmp_path / "out" / "images").iterdir())
    assert len(made) == 2 and all(np.array_equal(pycolmap.Bitmap.read(str(p), as_rgb=True).to_array(), picture()) for p in made)
