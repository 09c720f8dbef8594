"""Simulated worlds with exact truth: textured video for demos and tests, point tracks for training.

``scenes.build`` makes named scenes, ``worlds.random_world`` random ones; ``render`` turns a world into video.
"""

from __future__ import annotations

from segmotion_plugin.simulation.primitives import CLASS_ID, CLASSES, Primitive, Ripple
from segmotion_plugin.simulation.render import SimulatedClip, render, render_frames
from segmotion_plugin.simulation.tracks import SimulatedTracks, follow, sample_tracks
from segmotion_plugin.simulation.world import Effects, Look, World

__all__ = [
    "CLASSES",
    "CLASS_ID",
    "Effects",
    "Look",
    "Primitive",
    "Ripple",
    "SimulatedClip",
    "SimulatedTracks",
    "World",
    "follow",
    "render",
    "render_frames",
    "sample_tracks",
]
