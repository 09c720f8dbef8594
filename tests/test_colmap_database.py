"""Masks for COLMAP databases that exist."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from segmotion_colmap.command import Check, Filter
from segmotion_colmap.database import filter_database, image_names, kept_keypoints, keypoints, masked_keypoints

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import write_png
from segmotion_plugin.reconstruct.database import quiet_colmap

BASE = 2147483647


@pytest.fixture(scope="module")
def project(tmp_path_factory, walker_clip) -> Path:
    """Four images, their masks, and a database that was matched without them."""
    root = tmp_path_factory.mktemp("project")
    names = [f"{k}.png" for k in range(4)]
    for k, name in enumerate(names):
        write_png(root / "images" / name, walker_clip.frames[2 * k])
        write_png(root / "masks" / f"{name}.png", np.where(walker_clip.labels[2 * k] > 0, np.uint8(0), np.uint8(255)))
    path = root / "database.db"
    extraction = pycolmap.FeatureExtractionOptions(use_gpu=False, num_threads=1)
    extraction.sift.max_num_features = 600
    with quiet_colmap():
        pycolmap.extract_features(path, root / "images", image_names=names, extraction_options=extraction, device=pycolmap.Device.cpu)
    matching = pycolmap.FeatureMatchingOptions(use_gpu=False, num_threads=1)
    pairing = pycolmap.SequentialPairingOptions(overlap=1, quadratic_overlap=False)
    with quiet_colmap():
        pycolmap.match_sequential(path, matching_options=matching, pairing_options=pairing, device=pycolmap.Device.cpu)
    return root


def matches(path: Path) -> dict[tuple[str, str], np.ndarray]:
    """Matched positions (x1, y1, x2, y2) of every pair."""
    points = keypoints(path)
    with closing(sqlite3.connect(path)) as connection:
        names = dict(connection.execute("SELECT image_id, name FROM images"))
        rows = connection.execute("SELECT pair_id, rows, data FROM matches").fetchall()
    result = {}
    for pair_id, count, data in rows:
        first, second = (names[i] for i in divmod(pair_id, BASE))
        index = np.frombuffer(data or b"", np.uint32).reshape(count, 2)
        result[first, second] = np.concatenate([points[first][index[:, 0]], points[second][index[:, 1]]], axis=1)
    return result


def test_no_keypoint_in_masked_pixels_is_left_and_all_others_are(project, tmp_path):
    before = hashlib.sha256((project / "database.db").read_bytes()).hexdigest()
    inside = masked_keypoints(project / "database.db", project / "masks")
    assert sum(inside.values()) > 50
    report = filter_database(project / "database.db", project / "masks", tmp_path / "new.db")
    assert report.dropped == sum(inside.values())
    assert masked_keypoints(tmp_path / "new.db", project / "masks") == {}
    assert sum(map(len, keypoints(tmp_path / "new.db").values())) == report.keypoints - report.dropped
    assert hashlib.sha256((project / "database.db").read_bytes()).hexdigest() == before
    assert not [p for p in tmp_path.iterdir() if p.name != "new.db"]


def test_matches_between_static_points_keep_their_places(project, tmp_path):
    from segmotion_plugin.masks import read_grey

    report = filter_database(project / "database.db", project / "masks", tmp_path / "new.db", verify="none")
    old, new = matches(project / "database.db"), matches(tmp_path / "new.db")
    keep = {name: read_grey(project / "masks" / f"{name}.png") for name in image_names(project / "database.db")}
    assert old.keys() == new.keys()
    for (first, second), places in old.items():
        static = kept_keypoints(places[:, :2], keep[first]) & kept_keypoints(places[:, 2:], keep[second])
        assert np.array_equal(new[first, second], places[static])
    assert report.matches_dropped == sum(map(len, old.values())) - sum(map(len, new.values())) > 0


def test_two_view_geometries_are_estimated_anew_from_static_matches(project, tmp_path):
    report = filter_database(project / "database.db", project / "masks", tmp_path / "new.db")
    assert report.verified_with is not None and report.verified_with.startswith("pycolmap")
    with pycolmap.Database.open(tmp_path / "new.db") as db:
        assert db.num_verified_image_pairs() >= 2
        for pair_id, geometry in zip(*db.read_two_view_geometries(), strict=True):
            ids = pycolmap.pair_id_to_image_pair(pair_id)
            for side, image_id in enumerate(ids):
                assert geometry.inlier_matches[:, side].max() < len(db.read_keypoints(image_id))
                assert len(db.read_descriptors(image_id).data) == len(db.read_keypoints(image_id))


def test_dropped_matches_leave_room_for_matching_again(project, tmp_path):
    report = filter_database(project / "database.db", project / "masks", tmp_path / "new.db", matches="drop")
    assert report.verified_with is None and matches(tmp_path / "new.db") == {}


def test_a_database_of_colmap_3_8_stays_one(project, tmp_path):
    old = tmp_path / "old.db"
    with closing(sqlite3.connect(project / "database.db")) as new, closing(sqlite3.connect(old)) as connection:
        connection.executescript(
            "CREATE TABLE images (image_id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, camera_id INTEGER NOT NULL);"
            "CREATE TABLE cameras (camera_id INTEGER PRIMARY KEY, model INTEGER, width INTEGER, height INTEGER, params BLOB,"
            " prior_focal_length INTEGER);"
            "CREATE TABLE keypoints (image_id INTEGER PRIMARY KEY, rows INTEGER, cols INTEGER, data BLOB);"
            "CREATE TABLE descriptors (image_id INTEGER PRIMARY KEY, rows INTEGER, cols INTEGER, data BLOB);"
            "CREATE TABLE matches (pair_id INTEGER PRIMARY KEY, rows INTEGER, cols INTEGER, data BLOB);"
            "CREATE TABLE two_view_geometries (pair_id INTEGER PRIMARY KEY, rows INTEGER, cols INTEGER, data BLOB, config INTEGER);"
            "PRAGMA user_version = 3800;"
        )
        for table, columns in (
            ("cameras", "camera_id, model, width, height, params, prior_focal_length"),
            ("images", "image_id, name, camera_id"),
            ("keypoints", "image_id, rows, cols, data"),
            ("descriptors", "image_id, rows, cols, data"),
            ("matches", "pair_id, rows, cols, data"),
        ):
            rows = new.execute(f"SELECT {columns} FROM {table}").fetchall()
            connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
        connection.commit()
        schema = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    report = filter_database(old, project / "masks", tmp_path / "new.db", colmap_cmd="no-such-colmap")
    assert report.verified_with is None and report.dropped > 50
    with closing(sqlite3.connect(tmp_path / "new.db")) as connection:
        assert connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall() == schema
        assert connection.execute("PRAGMA user_version").fetchone() == (3800,)
    with pytest.raises(SegmotionError, match="no-such-colmap: no such program"):
        filter_database(old, project / "masks", tmp_path / "x.db", verify="colmap", colmap_cmd="no-such-colmap")
    assert not (tmp_path / "x.db").exists()


def test_a_database_of_colmap_4_that_an_older_program_tried_to_open_is_still_one(project, tmp_path):
    """COLMAP 3.8 gives up on it, yet leaves its own number in user_version."""
    tried = tmp_path / "tried.db"
    shutil.copyfile(project / "database.db", tried)
    with closing(sqlite3.connect(tried)) as connection:
        connection.execute("PRAGMA user_version = 3800")
        connection.commit()
    report = filter_database(tried, project / "masks", tmp_path / "new.db", colmap_cmd="no-such-colmap")
    assert report.verified_with is not None and report.verified_with.startswith("pycolmap")


def test_masks_of_another_size_are_refused_with_both_sizes(project, tmp_path):
    """COLMAP looks their pixels up unscaled, so that all of the picture beyond them counts as masked."""
    for name in image_names(project / "database.db"):
        write_png(tmp_path / "half" / f"{name}.png", np.full((90, 160), 255, np.uint8))
    said = r"half/0\.png\.png: 160×90 pixels, but the camera of 0\.png has 320×180"
    with pytest.raises(SegmotionError, match=said):
        Check(project / "database.db", tmp_path / "half").main()
    with pytest.raises(SegmotionError, match=said):
        Filter(project / "database.db", tmp_path / "half", output=tmp_path / "new.db").main()
    assert not (tmp_path / "new.db").exists()


def test_a_mask_without_the_images_suffix_serves_it_too(project, tmp_path):
    for name in image_names(project / "database.db"):
        shutil.copyfile(project / "masks" / f"{name}.png", tmp_path / f"{Path(name).stem}.png")
    assert masked_keypoints(project / "database.db", tmp_path) == masked_keypoints(project / "database.db", project / "masks")


def test_a_keypoint_counts_by_the_pixel_it_lies_in():
    keep = np.array([[0, 255], [255, 255]], np.uint8)
    xy = np.array([[0.99, 0.99], [1.0, 0.0], [0.5, 1.0], [2.0, 0.5], [-0.1, 1.5]])
    assert kept_keypoints(xy, keep).tolist() == [False, True, True, False, False]


def test_commands_say_what_they_found(project, tmp_path, capsys):
    assert Check(project / "database.db", project / "masks").main() == 1
    assert "segmotion colmap filter" in capsys.readouterr().out
    copy = tmp_path / "database.db"
    shutil.copyfile(project / "database.db", copy)
    assert Filter(copy, project / "masks", in_place=True, matches="drop").main() == 0
    assert Check(copy, project / "masks").main() == 0
    with pytest.raises(SegmotionError, match="--output DATABASE or --in-place"):
        Filter(copy, project / "masks").main()
    with pytest.raises(SegmotionError, match="exists already"):
        Filter(copy, project / "masks", output=copy).main()


def test_bad_input_is_named(project, tmp_path):
    with pytest.raises(SegmotionError, match="no such database"):
        masked_keypoints(tmp_path / "none.db", project / "masks")
    (tmp_path / "text.db").write_text("not a database, and long enough to be read as a header")
    with pytest.raises(SegmotionError, match="not a COLMAP database"):
        masked_keypoints(tmp_path / "text.db", project / "masks")
    with pytest.raises(SegmotionError, match=r"0\.png\.png: missing"):
        filter_database(project / "database.db", tmp_path, tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()
