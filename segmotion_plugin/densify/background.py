"""The still world as other frames show it: background that was uncovered before or will be, and its shaded likeness.

Where a mover stands now, the still world can be seen some frames earlier or later. Static tracks tell how the picture there maps to
this frame. What looks the same in any of them rests: the ground between two legs, a rim that flow dragged along, what is seen through
a wheel. What looks like none of them is something else. A cast shadow moves with its caster but shows the ground's own colours, darker
by about one factor in all channels (Horprasert et al., "A Statistical Approach for Real-time Robust Background Subtraction and Shadow
Detection", ICCV Frame-rate Workshop 1999); pixels like that count as ground, though less surely.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from segmotion_plugin.boxes import Box
from segmotion_plugin.densify.explain import KEPT, Recent, Seen, flow_between, follow, mismatch, places, splat

NEAR = 14
"""Pixels at half size around tracks that move, within which another frame does not show the still world."""

_STATIC_TRACKS = 40  # in common with another frame, for its picture to be mapped
_STILL_PIXELS = 50  # that tell how well the still world can be told here
_DARK = 8.0  # grey levels added before logarithms: dark pixels have no colour


@dataclass(frozen=True)
class BackgroundOptions:
    """Constants chosen on DAVIS training sequences and rendered scenes."""

    offsets: tuple[int, ...] = (4, -4, 6, -6, 12, -12, 20, -20)
    """Frames that are looked at, counted from the one in question."""
    slope: float = 1.5
    """Log odds per factor e of colour difference."""
    factor: float = 3.0
    """A difference is undecided at this many times what still pixels have..."""
    level: float = 3.0
    """...plus so many grey levels."""
    most_still: float = 2.0
    """Largest log odds that a pixel is the still world's."""
    most_other: float = 0.5
    """Largest log odds that it is not: things in the still world hide one another, and the map between frames is not exact."""
    shaded: float = 1.0
    """Log odds that a pixel which looks shaded is the still world's, on top."""
    tint: float = 0.15
    """Difference of the channels' log ratios at which a pixel no longer looks shaded."""
    least_shade: float = 0.1
    """Mean log ratio from which on it does..."""
    most_shade: float = 1.2
    """...and up to which."""


class Background:
    """Tells for the frames of one shot how unlike the still world their pixels are; threads may ask at the same time.

    Args:
        colours: gives a frame at half size, h×w×3 uint8 RGB.
        image: gives a frame as h×w×3 uint8 CIELAB, a little blurred.
        at: gives the visible tracks of a frame.
        shot: half-open frame range.
        options: constants.
    """

    def __init__(
        self,
        colours: Callable[[int], np.ndarray],
        image: Callable[[int], np.ndarray],
        at: Callable[[int], Seen],
        shot: tuple[int, int],
        options: BackgroundOptions,
    ) -> None:
        self._colours, self._image, self._at, self._shot, self._options = colours, image, at, shot, options
        self._moving = Recent(lambda frame: _near(at(frame), (image(frame).shape[0], image(frame).shape[1])), KEPT)

    def __call__(self, frame: int, box: Box) -> np.ndarray:
        """float32 of the box's size: log odds that a pixel shows something else than the still world; 0 where no frame tells."""
        options = self._options
        image = self._image(frame)
        shape = (image.shape[0], image.shape[1])
        tracks = self._at(frame)
        own = _logarithm(self._colours(frame)[box])
        least = np.full(own.shape[:2], np.inf, np.float32)
        shaded = np.zeros(own.shape[:2], np.float32)
        for offset in options.offsets:
            other = frame + offset
            if not self._shot[0] <= other < self._shot[1]:
                continue
            other_tracks = self._at(other)
            flow = flow_between(tracks, other_tracks, shape, box, _STATIC_TRACKS)
            if flow is None:
                continue
            there = places(box, flow)
            moving = cv2.remap(self._moving(other), there, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=1)
            open_there = moving == 0
            difference = mismatch(image, self._image(other), flow, box)
            least = np.where(open_there, np.minimum(least, difference), least)
            if options.shaded > 0:
                seen = follow(self._colours(other), flow, box)
                shaded = np.where(open_there, np.maximum(shaded, self._shade(own, _logarithm(seen))), shaded)
        known = np.isfinite(least)
        still = known & (self._moving(frame)[box] == 0)
        if still.sum() < _STILL_PIXELS:
            return np.zeros(least.shape, np.float32)
        undecided = options.factor * float(np.median(least[still])) + options.level
        least[~known] = undecided
        odds = options.slope * np.log((least + 0.5) / (undecided + 0.5))
        return (np.clip(odds, -options.most_still, options.most_other) - options.shaded * shaded).astype(np.float32)

    def _shade(self, own: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Likeness in [0, 1] to a darker version of what was seen; h×w×3 logarithms of colours."""
        # Channel by channel: reducing an axis of length 3 takes numpy several times as long.
        red, green, blue = cv2.split(cv2.blur(own - seen, (3, 3)))
        mean = (red + green + blue) / 3
        tint = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
        darker = (mean < -self._options.least_shade) & (mean > -self._options.most_shade)
        return np.where(darker, np.clip(1 - tint / self._options.tint, 0, 1), 0).astype(np.float32)


def _near(tracks: Seen, shape: tuple[int, int]) -> np.ndarray:
    """h×w uint8: 1 near tracks that move."""
    _, xy, probability = tracks
    return splat(xy[probability > 0.5], shape, NEAR).astype(np.uint8)


def _logarithm(colours: np.ndarray) -> np.ndarray:
    """h×w×3 float32 logarithms of the brightness in an h×w×3 uint8 image, a little blurred."""
    return np.log(cv2.GaussianBlur(colours.astype(np.float32), (3, 3), 0) + _DARK)
