"""What docs/colmap.md says of COLMAP 3.8: databases of COLMAP 4, names and forms of masks."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from segmotion_colmap.binary import ColmapBinary
from segmotion_colmap.database import filter_database, keypoints, masked_keypoints
from support_turns import WIDTH, left_half, picture

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import write_png
from segmotion_plugin.reconstruct.database import quiet_colmap


@pytest.fixture
def colmap_3_8() -> ColmapBinary:
    binary = ColmapBinary.find()
    assert binary is not None
    if binary.version >= (4, 0):
        pytest.fail("these tests describe COLMAP before 4; mend docs/colmap.md and them together")
    return binary


def version_of(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


def two_images(folder: Path) -> Path:
    for number in range(2):
        write_png(folder / f"{number}.png", picture())
    return folder


def test_a_database_of_pycolmap_4_is_none_for_3_8_and_is_filtered_all_the_same(colmap_3_8, tmp_path):
    images, database = two_images(tmp_path / "images"), tmp_path / "database.db"
    options = pycolmap.FeatureExtractionOptions(use_gpu=False, num_threads=1)
    with quiet_colmap():
        pycolmap.extract_features(database, images, extraction_options=options, device=pycolmap.Device.cpu)
        pycolmap.match_exhaustive(database, device=pycolmap.Device.cpu)
    assert version_of(database) >= 4_000_000
    with pytest.raises(SegmotionError, match="SQLite error"):
        colmap_3_8.match(database, "exhaustive")
    assert version_of(database) < 4_000_000  # it gave up, and left its number
    for number in range(2):
        write_png(tmp_path / "masks" / f"{number}.png.png", left_half())
    report = filter_database(database, tmp_path / "masks", tmp_path / "new.db")
    assert report.verified_with is not None and report.verified_with.startswith("pycolmap") and report.dropped > 100
    assert masked_keypoints(tmp_path / "new.db", tmp_path / "masks") == {}


def test_pycolmap_4_changes_a_database_of_3_8_for_good(colmap_3_8, tmp_path):
    images, database = two_images(tmp_path / "images"), tmp_path / "database.db"
    colmap_3_8.extract(database, images, camera_model="SIMPLE_RADIAL")
    assert version_of(database) < 4_000_000
    with pycolmap.Database.open(database) as db:
        assert db.num_images() == 2
    assert version_of(database) >= 4_000_000


@pytest.mark.parametrize(
    ("name", "keep", "masked"),
    [
        ("0.png.png", left_half(), True),
        ("0.png.png", (left_half() > 0).astype(np.uint8), True),
        ("0.png", left_half(), False),  # COLMAP 4 takes this name too
    ],
)
def test_3_8_knows_one_name_for_masks_and_keeps_images_without(colmap_3_8, tmp_path, name, keep, masked):
    write_png(tmp_path / "masks" / name, keep)
    colmap_3_8.extract(
        tmp_path / "new.db", two_images(tmp_path / "images"), camera_model="SIMPLE_RADIAL", mask_dir=tmp_path / "masks"
    )
    found = keypoints(tmp_path / "new.db")
    assert (found["0.png"][:, 0].max() < WIDTH / 2) == masked
    assert found["1.png"][:, 0].max() > WIDTH / 2


@pytest.mark.parametrize(("value", "found"), [(65535, True), (256, True), (255, False)])
def test_3_8_takes_the_upper_half_of_16_bits(colmap_3_8, tmp_path, value, found):
    """COLMAP 4 rounds value / 257, so that 129 and more keep."""
    images = two_images(tmp_path / "images")
    write_png(tmp_path / "masks" / "0.png.png", np.where(left_half() > 0, np.uint16(value), np.uint16(0)))
    colmap_3_8.extract(tmp_path / "new.db", images, camera_model="SIMPLE_RADIAL", mask_dir=tmp_path / "masks")
    assert (len(keypoints(tmp_path / "new.db")["0.png"]) > 0) == found
