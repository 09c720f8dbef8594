"""Segmotion: what moves in a video, where, and in which 3D world.

The types that cross module borders are re-exported here; what needs a heavy package is imported when it is used.
"""

from __future__ import annotations

# Pillow is to come before pycolmap, which brings a zlib of its own: whichever is loaded first serves both.
import PIL.Image  # noqa: F401

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.masks import MotionMasks
from segmotion_plugin.tracks import TrackMotion, Tracks

__version__ = "0.1.0"

__all__ = ["Cameras", "MotionMasks", "SegmotionError", "TrackMotion", "Tracks", "__version__"]
