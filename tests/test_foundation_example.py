"""The example of a tracker of one's own: it follows a moving texture, forward and backward, and loses what leaves."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np

from segmotion_plugin.trackers.base import SamplingOptions, track_clip


def test_the_examples_tracker_follows_a_moving_texture() -> None:
    path = Path(__file__).resolve().parents[1] / "examples" / "04_own_tracker.py"
    spec = importlib.util.spec_from_file_location("own_tracker", path)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (120, 200, 3)).astype(np.uint8), (0, 0), 2)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    frames = [np.ascontiguousarray(texture[20:90, 3 * t : 3 * t + 110]) for t in range(12)]
    queries = np.array([[5, 60.25, 30.75], [0, 8.5, 20.5]], np.float32)
    found = example.LucasKanade().track_points(np.stack(frames), queries)
    expected = queries[0, 1:] - np.stack([3 * (np.arange(12) - 5), np.zeros(12)], axis=1)
    assert found.visible[0].all()
    np.testing.assert_allclose(found.xy[0], expected, atol=0.1)
    assert found.visible[1, 0] and not found.visible[1, 6:].any()

    tracks = track_clip(example.LucasKanade(), frames, options=SamplingOptions(num_tracks=80, window=6), seed=1)
    long = np.flatnonzero(tracks.length == 12)
    assert len(long) > 5
    moved = tracks.xy[long][:, -1] - tracks.xy[long][:, 0]
    assert np.median(np.linalg.norm(moved - [-33.0, 0.0], axis=1)) < 0.1
