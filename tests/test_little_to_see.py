"""Input in which little or nothing can be followed: photos, two or three images, exposures that alternate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from segmotion_colmap.images import write_image_masks
from support_clips import jaccard, write_clip

from segmotion_plugin import pipeline
from segmotion_plugin.densify.cuts import _cuts
from segmotion_plugin.files import write_png
from segmotion_plugin.masks import MotionMasks, read_grey
from segmotion_plugin.settings import MaskSettings
from segmotion_plugin.simulation import SimulatedClip
from segmotion_plugin.trackers.flow import as_exposed

QUICK = MaskSettings(quiet=True, work_size=320)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("apart", [1, 7])
def test_two_and_three_images_get_masks(walker_clip: SimulatedClip, tmp_path: Path, count: int, apart: int) -> None:
    """Neighbouring frames, and a time-lapse."""
    for index in range(count):
        write_png(tmp_path / "in" / f"{index}.png", walker_clip.frames[index * apart])
    report = pipeline.masks(tmp_path / "in", tmp_path / "out", QUICK)
    assert report["images"] == count and len(list((tmp_path / "out" / "masks").iterdir())) == count


def test_photos_get_white_masks_and_a_reason(walker_clip: SimulatedClip, tmp_path: Path) -> None:
    for index in range(4):
        write_png(tmp_path / "in" / f"{index}.png", walker_clip.frames[4 * index - (index > 0)])
    done = write_image_masks(tmp_path / "in", tmp_path / "masks", QUICK, order="unordered")
    assert done.masked_share == [0.0] * 4 and any("no point could be followed" in warning for warning in done.warnings)
    assert all((read_grey(path) == 255).all() for path in (tmp_path / "masks").glob("*.png"))
    settings = MaskSettings(quiet=True, work_size=320, unordered=True)
    report = pipeline.run(tmp_path / "in", tmp_path / "out", settings)
    assert "status" in report["reconstruction"] and report["masks"]["tracks"] == 0


def test_a_graph_without_edges_has_no_cut() -> None:
    from scipy.sparse import csr_matrix

    for size in (1, 2, 5):
        assert list(_cuts(csr_matrix((size, size)), np.ones(size), 1.0)) == []


def test_exposures_that_alternate_leave_the_masks_as_they_are(walker_clip: SimulatedClip, tmp_path: Path) -> None:
    plain = write_clip(walker_clip, tmp_path / "plain")
    for index, frame in enumerate(walker_clip.frames):
        dimmed = np.round(frame * (0.6 if index % 2 else 1.0)).astype(np.uint8)
        write_png(tmp_path / "alternating" / f"frame{index:03d}.png", dimmed)
    scores = {}
    for name, folder in (("plain", plain), ("alternating", tmp_path / "alternating")):
        pipeline.masks(folder, tmp_path / f"{name} out", QUICK)
        names = sorted(path.name for path in (tmp_path / f"{name} out" / "images").iterdir())
        masks = MotionMasks(tmp_path / f"{name} out" / "motion" / "objects", names)
        scores[name] = np.mean([jaccard(walker_clip.labels[i] > 0, masks[i] > 0) for i in range(len(masks))])
    assert scores["alternating"] > scores["plain"] - 0.1


def test_pictures_of_about_one_brightness_are_left_alone() -> None:
    image = np.random.default_rng(0).integers(40, 200, (64, 96)).astype(np.uint8)
    assert as_exposed(image, np.roll(image, 3)) is image
    dimmed = np.round(image * 0.6).astype(np.uint8)
    assert np.abs(as_exposed(dimmed, image).astype(int) - image).max() <= 2
    black = np.zeros_like(image)
    assert as_exposed(black, image) is black and as_exposed(image, black).max() <= 1
