"""Images with an EXIF turn, as COLMAP's program and nerfstudio see them."""

from __future__ import annotations

import numpy as np
import pytest
from segmotion_colmap.binary import ColmapBinary
from segmotion_colmap.database import keypoints
from support_turns import HEIGHT, WIDTH, left_half, picture, write_turned

from segmotion_plugin.clip import read_rgb
from segmotion_plugin.files import write_png


@pytest.mark.parametrize("orientation", [3, 6])
def test_the_program_takes_the_mask_of_the_stored_pixels(orientation, tmp_path):
    binary = ColmapBinary.find()
    assert binary is not None
    write_turned(tmp_path / "images" / "a.jpg", orientation)
    write_png(tmp_path / "masks" / "a.jpg.png", left_half())
    binary.extract(tmp_path / "new.db", tmp_path / "images", camera_model="SIMPLE_RADIAL", mask_dir=tmp_path / "masks")
    xy = keypoints(tmp_path / "new.db")["a.jpg"]
    assert len(xy) > 200 and xy[:, 0].max() < WIDTH / 2 and xy[:, 1].max() > 0.9 * HEIGHT


@pytest.mark.parametrize("same_dimensions", [True, False])
def test_nerfstudio_turns_images_only_where_their_sizes_differ(same_dimensions, tmp_path):
    """`ns-process-data images` copies the stored pixels; with --no-same-dimensions it lets FFmpeg turn them."""
    from nerfstudio.process_data.process_data_utils import copy_images_list

    source = write_turned(tmp_path / "in" / "a.jpg", 6)
    (made,) = copy_images_list([source], tmp_path / "images", num_downscales=0, same_dimensions=same_dimensions)
    image = read_rgb(made).astype(int)
    expected = picture() if same_dimensions else np.rot90(picture(), -1)
    assert image.shape == expected.shape
    assert np.abs(image - expected).mean() < 12


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_nerfstudio_reads_images_as_stored_but_turns_tiffs(suffix, tmp_path):
    from types import SimpleNamespace

    from nerfstudio.data.datasets.base_dataset import InputDataset

    source = write_turned(tmp_path / f"a.{suffix}", 6)
    expected = picture() if suffix == "jpg" else np.rot90(picture(), -1)
    dataset = SimpleNamespace(_dataparser_outputs=SimpleNamespace(image_filenames=[source]), scale_factor=1.0)
    assert np.abs(InputDataset.get_numpy_image(dataset, 0).astype(int) - expected).mean() < 8
