"""Tracks in agreement with masks."""

from __future__ import annotations

import numpy as np

from segmotion_plugin.densify.agreement import MaskVotes
from segmotion_plugin.tracks import TrackMotion, Tracks


def still_tracks(xy: list[tuple[float, float]], frames: int = 6) -> Tracks:
    points = np.repeat(np.array(xy, np.float32)[:, None], frames, axis=1)
    return Tracks.from_dense(points, np.ones(points.shape[:2], bool))


def judged(tracks: Tracks, probability: list[float], object_id: list[int]) -> TrackMotion:
    owner = np.array(object_id, np.int32)
    return TrackMotion(tracks, np.array(probability, np.float32), (owner > 0)[tracks.track_flat], owner)


def agree(tracks: Tracks, motion: TrackMotion, labels: np.ndarray, scale: tuple[float, float] = (1.0, 1.0)) -> TrackMotion:
    votes = MaskVotes(tracks, scale)
    for frame in range(tracks.num_frames):
        votes.add(frame, labels)
    return votes.agree(motion)


def test_the_halo_loses_and_the_missed_inside_gains() -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[10:30, 20:40] = 2
    tracks = still_tracks([(30, 20), (25, 15), (45, 20), (5, 5)])
    result = agree(tracks, judged(tracks, [0.9, 0.3, 0.7, 0.05], [2, 0, 2, 0]), labels)
    assert result.object_id.tolist() == [2, 2, 0, 0]
    assert (result.probability >= 0.5).tolist() == [True, True, False, False]
    moving = result.moving_flat.reshape(4, 6)
    assert moving[:2].all() and not moving[2:].any()


def test_positions_are_scaled_to_the_masks() -> None:
    labels = np.zeros((80, 120), np.uint8)
    labels[40:, 60:] = 1
    tracks = still_tracks([(35, 25), (10, 10)])
    result = agree(tracks, judged(tracks, [0.4, 0.4], [0, 0]), labels, (2.0, 2.0))
    assert result.object_id.tolist() == [1, 0]


def test_tracks_that_no_mask_saw_stay_as_they_are() -> None:
    tracks = still_tracks([(30, 20), (5, 5)])
    motion = judged(tracks, [0.8, 0.1], [1, 0])
    result = MaskVotes(tracks, (1.0, 1.0)).agree(motion)
    assert result.object_id.tolist() == [1, 0]
    assert np.allclose(result.probability, motion.probability, atol=1e-5)
    assert np.array_equal(result.moving_flat, motion.moving_flat)
