"""A tracker of your own in the place of the embedded one: Lucas-Kanade from OpenCV, behind the protocol `WindowTracker`.

python examples/04_own_tracker.py my_video.mp4 OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from segmotion_plugin import pipeline
from segmotion_plugin.models import LOADERS, Loader
from segmotion_plugin.settings import MaskSettings
from segmotion_plugin.trackers.base import PointTracks


class LucasKanade:
    """Sparse optical flow from frame to frame, forward and backward in time from where a point was asked for."""

    name = "lucas-kanade"
    window = 40  # frames it is given at once; longer clips come in overlapping windows, and tracks are carried on

    def track_points(self, frames: np.ndarray, queries: np.ndarray) -> PointTracks:
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        count, length = len(queries), len(frames)
        xy = np.full((count, length, 2), np.nan, np.float32)  # NaN: nothing is known
        confidence = np.zeros((count, length), np.float32)
        start = queries[:, 0].astype(int)
        xy[np.arange(count), start], confidence[np.arange(count), start] = queries[:, 1:], 1
        for direction in (1, -1):
            for frame in range(length)[::direction]:
                following = frame + direction
                alive = np.flatnonzero(np.isfinite(xy[:, frame, 0]) & (direction * (frame - start) >= 0))
                if not 0 <= following < length or len(alive) == 0:
                    continue
                # OpenCV counts from the centre of the first pixel, Segmotion from its corner.
                here = xy[alive, frame][:, None] - 0.5
                there, found, _ = cv2.calcOpticalFlowPyrLK(grey[frame], grey[following], here, None)
                back, returned, _ = cv2.calcOpticalFlowPyrLK(grey[following], grey[frame], there, None)
                miss = np.linalg.norm(back - here, axis=2)[:, 0]
                good = (found[:, 0] > 0) & (returned[:, 0] > 0) & (miss < 1)
                xy[alive[good], following] = there[good, 0] + 0.5
                confidence[alive[good], following] = np.exp(-miss[good])
        visible = np.isfinite(xy).all(axis=2)
        return PointTracks(xy, visible, visible.astype(np.float32), confidence)


def main(source: Path, out: Path) -> None:
    LOADERS["lucas-kanade"] = Loader(lambda settings, device: LucasKanade())
    report = pipeline.masks(source, out, MaskSettings(tracker="lucas-kanade"))  # type: ignore[arg-type]
    print(f"{report['masks']['moving_tracks']} of {report['masks']['tracks']} tracks move")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
