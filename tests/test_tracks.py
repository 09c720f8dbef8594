"""Tracks keep what they were made from, in every form they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmotion_plugin import SegmotionError, TrackMotion, Tracks
from segmotion_plugin.tracks import load_tracks, save_tracks


def random_tracks(seed: int, count: int = 12, frames: int = 9) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 100, (count, frames, 2)).astype(np.float32)
    visible = np.zeros((count, frames), bool)
    for track in range(count):
        start, stop = np.sort(rng.choice(frames + 1, 2, replace=False))
        visible[track, start:stop] = rng.random(stop - start) < 0.8
        visible[track, start] = True
        xy[track, :start], xy[track, stop:] = np.nan, np.nan
    return xy, visible


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_dense_arrays_come_back_as_they_went_in(seed: int) -> None:
    xy, visible = random_tracks(seed)
    tracks = Tracks.from_dense(xy, visible)
    np.testing.assert_array_equal(tracks.visible, visible)
    np.testing.assert_array_equal(tracks.xy, xy)
    np.testing.assert_array_equal(tracks.query_frame, visible.argmax(axis=1))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 7), st.integers(1, 5))
def test_a_window_shows_the_tracks_seen_in_it(seed: int, start: int, span: int) -> None:
    xy, visible = random_tracks(seed)
    window = Tracks.from_dense(xy, visible).window(start, min(9, start + span))
    part = visible[:, start : start + span]
    np.testing.assert_array_equal(window.ids, np.flatnonzero(part.any(axis=1)))
    np.testing.assert_array_equal(window.visible, part[window.ids])
    np.testing.assert_array_equal(window.xy, xy[window.ids, start : start + span])


def test_observations_of_a_frame_are_the_visible_ones() -> None:
    xy, visible = random_tracks(4)
    tracks = Tracks.from_dense(xy, visible)
    for frame in range(9):
        ids, positions = tracks.observations_at(frame)
        np.testing.assert_array_equal(np.sort(ids), np.flatnonzero(visible[:, frame]))
        np.testing.assert_array_equal(positions, xy[ids, frame])


def test_stretches_end_where_no_track_goes_on() -> None:
    first, length = np.array([0, 1, 5, 6, 9]), np.array([4, 4, 3, 3, 1])
    rows = int(length.sum())
    offset = np.concatenate([[0], np.cumsum(length)])
    tracks = Tracks(first, offset, np.zeros((rows, 2)), np.ones(rows, bool), np.ones(rows), first, 12)
    # Frames 0 to 4 and 5 to 8 hang together; the others show no track, or one for a single frame.
    assert tracks.stretches() == [(0, 5), (5, 9)]


def test_selecting_tracks_keeps_their_observations() -> None:
    xy, visible = random_tracks(5)
    chosen = np.array([7, 2, 9])
    part = Tracks.from_dense(xy, visible).select(chosen)
    np.testing.assert_array_equal(part.xy, xy[chosen])
    np.testing.assert_array_equal(part.visible, visible[chosen])


def test_the_track_file_keeps_tracks_and_motion(tmp_path: Path) -> None:
    xy, visible = random_tracks(6)
    tracks = Tracks.from_dense(xy, visible)
    moving = np.arange(len(tracks.xy_flat)) % 3 == 0
    motion = TrackMotion(tracks, np.linspace(0, 1, 12), moving, np.arange(12) % 3)
    assert save_tracks(tmp_path / "tracks.npz", tracks, motion, 100, 80) == 12
    again, motion_again, size = load_tracks(tmp_path / "tracks.npz")
    np.testing.assert_array_equal(again.xy, xy)
    np.testing.assert_array_equal(motion_again.moving, motion.moving)
    np.testing.assert_array_equal(motion_again.object_id, motion.object_id)
    assert size == (100, 80)


@pytest.mark.parametrize(
    ("xy", "visible", "word"),
    [
        (np.zeros((3, 4)), np.zeros((3, 4), bool), "N×T×2"),
        (np.zeros((3, 4, 2)), np.zeros((3, 5), bool), "visibility"),
        (np.full((3, 4, 2), np.nan), np.ones((3, 4), bool), "not finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(xy: np.ndarray, visible: np.ndarray, word: str) -> None:
    with pytest.raises(SegmotionError, match=word):
        Tracks.from_dense(xy, visible)


def test_a_file_that_is_no_track_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tracks.npz").write_bytes(b"not a zip file")
    with pytest.raises(SegmotionError, match="not a readable track file"):
        load_tracks(tmp_path / "tracks.npz")
    with pytest.raises(SegmotionError, match="no such file"):
        load_tracks(tmp_path / "absent.npz")
