"""The measuring of the integration: images are told apart, models are judged against the truth of a rendered clip."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest
from segmotion_nerfstudio import benchmark
from support_processed import write_processed

from segmotion_plugin.files import write_png
from segmotion_plugin.simulation import render, scenes


@pytest.fixture(scope="module")
def clip():
    return render(scenes.build("walker", seed=3, num_frames=8, width=96, height=64))


def test_images_are_told_by_their_content(clip, tmp_path):
    for number, k in enumerate((5, 0, 7)):
        write_png(tmp_path / f"{number}.png", clip.frames[k])
    assert benchmark.frame_of(sorted(tmp_path.iterdir()), clip) == {"0.png": 5, "1.png": 0, "2.png": 7}


def test_a_video_holds_the_frames_it_was_given(clip, tmp_path):
    from segmotion_plugin.clip import VideoFile

    benchmark.write_video(tmp_path / "a.mp4", clip.frames)
    decoded = np.stack([image for _, image in VideoFile(tmp_path / "a.mp4")])
    assert decoded.shape == clip.frames.shape and np.abs(decoded.astype(int) - clip.frames).mean() < 6


def test_a_true_model_has_no_error_and_keypoints_on_movers_are_counted(clip, tmp_path):
    write_processed(tmp_path, clip, None)
    row, column = (int(values[0]) for values in np.nonzero(clip.labels[0]))
    xy = np.array([[column + 0.5, row + 0.5], [0.5, 0.5], [1.5, 0.5], [2.5, 0.5]], np.float32)
    assert not clip.labels[0][0, :3].any()
    database = tmp_path / "colmap" / "database.db"
    database.unlink(missing_ok=True)
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE images (image_id INTEGER PRIMARY KEY, name TEXT, camera_id INTEGER)")
        connection.execute("CREATE TABLE cameras (camera_id INTEGER PRIMARY KEY, width INTEGER, height INTEGER)")
        connection.execute("CREATE TABLE keypoints (image_id INTEGER, rows INTEGER, cols INTEGER, data BLOB)")
        connection.execute("INSERT INTO cameras VALUES (1, 96, 64)")
        connection.execute("INSERT INTO images VALUES (1, 'frame_00001.png', 1)")
        connection.execute("INSERT INTO keypoints VALUES (1, 4, 2, ?)", (xy.tobytes(),))
    words = benchmark.judge(tmp_path, clip).split()
    assert words[:4] == ["8", "8", "25.0%", "1"] and float(words[4].rstrip("%")) < 1e-3
