"""Masks of undistorted images against COLMAP's own program."""

from __future__ import annotations

from pathlib import Path

import pytest
from segmotion_colmap.binary import ColmapBinary
from segmotion_colmap.undistort import undistort_masks
from support_distortion import SINCE_3_8, check_masks, write_models


@pytest.mark.parametrize("options", [(), ("--max_image_size", "100")])
def test_masks_fit_what_the_program_undistorts(tmp_path, options):
    """The program writes cameras of full size beside pictures that it made smaller, where these have no distortion."""
    binary = ColmapBinary.find()
    assert binary is not None
    names = write_models(tmp_path, SINCE_3_8)
    dense = tmp_path / "dense"
    folders = [f"--image_path={tmp_path / 'images'}", f"--input_path={tmp_path / 'sparse'}", f"--output_path={dense}"]
    binary.run("image_undistorter", *folders, *options)
    models: list[Path | None] = [dense / "sparse"] if options else [None, dense / "sparse"]
    for number, model in enumerate(models):
        undistort_masks(tmp_path / "sparse", tmp_path / "masks", tmp_path / f"new{number}", model)
        check_masks(dense / "images", tmp_path / f"new{number}", names)
