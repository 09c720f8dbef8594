"""Hard cuts: where a video jumps from one shot to the next."""

from __future__ import annotations

import cv2
import numpy as np

_WIDTH = 160  # width of the small grey pictures that are compared


class CutDetector:
    """Tells for each new frame whether a new shot begins with it.

    Two tests must agree: the colour histogram changes by far more than between the frames before, and the optical flow between
    small pictures cannot be followed there and back. Fast motion fails the second test only in part, a flash only the first.
    """

    def __init__(self) -> None:
        self._histogram: np.ndarray | None = None
        self._grey: np.ndarray | None = None
        self._recent: list[float] = []
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def __call__(self, frame: np.ndarray) -> bool:
        """Look at the next frame (H×W×3 uint8 RGB); True when a cut lies between it and the one before."""
        height = max(16, round(_WIDTH * frame.shape[0] / frame.shape[1]))
        small = cv2.resize(frame, (_WIDTH, height), interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        histogram = cv2.calcHist([cv2.cvtColor(small, cv2.COLOR_RGB2LAB)], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3).ravel()
        histogram = histogram / histogram.sum()
        cut = False
        if self._histogram is not None and self._grey is not None:
            change = 1.0 - float(np.sqrt(histogram * self._histogram).sum())
            usual = float(np.median(self._recent)) if self._recent else 0.0
            if change > max(0.08, 4.0 * usual):
                cut = self._unfollowable(self._grey, grey)
            self._recent = [] if cut else (self._recent + [change])[-8:]
        self._histogram, self._grey = histogram, grey
        return cut

    def _unfollowable(self, first: np.ndarray, second: np.ndarray) -> bool:
        """True when most pixels do not return to within a pixel of their start along forward and backward flow."""
        forward = self._flow.calc(first, second, None)
        backward = self._flow.calc(second, first, None)
        rows, columns = np.mgrid[: first.shape[0], : first.shape[1]].astype(np.float32)
        x, y = columns + forward[..., 0], rows + forward[..., 1]
        home = cv2.remap(backward, x, y, cv2.INTER_LINEAR, borderValue=(1e3, 1e3, 0, 0))
        miss = np.linalg.norm(forward + home, axis=2)
        warped = cv2.remap(second, x, y, cv2.INTER_LINEAR, borderValue=255)
        alike = np.abs(warped.astype(np.float32) - first) < 25
        return float(np.mean((miss < 1.0) & alike)) < 0.15
