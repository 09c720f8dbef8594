"""Paths of bodies and cameras over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from segmotion_plugin.simulation import geometry as geo

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Path:
    """Where a body stands and what it faces.

    Attributes:
        position: T x 3 metres, the point on the ground below the body (or its centre, when it flies).
        heading: T radians about the world's z axis; 0 faces +x.
        travelled: T metres along the path, drives gaits and wheels.
        tilt: T x 2 roll and pitch in radians.
    """

    position: Array
    heading: Array
    travelled: Array
    tilt: Array

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return len(self.position)

    @property
    def pose(self) -> Array:
        """``world_from_body`` T x 3 x 4; the body's x axis points forward, y to the left, z up."""
        turn = geo.rotation("z", self.heading)
        turn = turn @ geo.rotation("y", self.tilt[:, 1]) @ geo.rotation("x", self.tilt[:, 0])
        return geo.affine(turn, self.position)


def at_rest(num_frames: int, position: ArrayLike, heading: float = 0.0) -> Path:
    """A path that stays where it is."""
    place = np.tile(np.asarray(position, float), (num_frames, 1))
    return Path(place, np.full(num_frames, float(heading)), np.zeros(num_frames), np.zeros((num_frames, 2)))


def drive(
    start: ArrayLike,
    heading: float,
    speed: Array,
    turn_rate: ArrayLike = 0.0,
    anchor: int | None = None,
) -> Path:
    """A path along the ground (or at constant height) with given speeds.

    Args:
        start: Position in metres at the anchor frame, 3 values.
        heading: Direction in radians at the anchor frame.
        speed: T metres per frame; the value at frame t leads from t to t + 1.
        turn_rate: Radians per metre travelled.
        anchor: Frame in which the body is at ``start``; the middle of the clip when none.
    """
    count = len(speed)
    anchor = count // 2 if anchor is None else anchor
    travelled = np.concatenate([[0.0], np.cumsum(speed[:-1])])
    angle = heading + np.asarray(turn_rate) * (travelled - travelled[anchor])
    middle = (angle[:-1] + angle[1:]) / 2
    steps = speed[:-1, None] * np.stack([np.cos(middle), np.sin(middle), np.zeros(count - 1)], axis=1)
    position = np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)])
    position += np.asarray(start, float) - position[anchor]
    return Path(position, angle, travelled, np.zeros((count, 2)))


def speed_profile(num_frames: int, cruise: float, intervals: list[tuple[float, float]] | None = None) -> Array:
    """Speeds that ramp up and down smoothly.

    Args:
        num_frames: Number of frames T.
        cruise: Metres per frame at full speed.
        intervals: Moving times as shares of the clip, such as ``[(0.0, 0.4), (0.7, 1.0)]``; always moving when none.

    Returns:
        T speeds, exactly zero at rest.
    """
    if intervals is None:
        return np.full(num_frames, float(cruise))
    frame = np.arange(num_frames)
    ramp = max(2.0, 0.06 * num_frames)
    total = np.zeros(num_frames)
    for start, stop in intervals:
        first, last = start * num_frames, stop * num_frames
        rising = geo.ease((frame - first) / ramp) if start > 0 else np.ones(num_frames)
        falling = geo.ease((last - 1 - frame) / ramp) if stop < 1 else np.ones(num_frames)
        total = np.maximum(total, np.minimum(rising, falling))
    return cruise * total


def hand_shake(
    rng: np.random.Generator, num_frames: int, position: float, angle: float, fps: float
) -> tuple[Array, Array]:
    """Shake of a hand-held camera.

    Args:
        rng: Source of randomness.
        num_frames: Number of frames T.
        position: Deviation of the position in metres.
        angle: Deviation of the viewing direction in radians.
        fps: Frames per second; the slowest sway takes about two seconds.

    Returns:
        Offsets of the position T x 3 and of yaw, pitch and roll T x 3.
    """
    period = 2.2 * fps
    return (
        position * geo.smooth_noise(rng, num_frames, 3, period),
        angle * geo.smooth_noise(rng, num_frames, 3, period) * (1, 1, 0.7),
    )


# Of a phone held in two hands on its walk round a near thing, measured on the poses of a real clip at neighbouring stored frames: how
# far one frame's pose is from the middle of its neighbours' (medians), and that this grows with the step to the power of 1.5.
_HELD_TURN = np.radians([0.38, 0.14, 0.17])  # yaw, pitch and roll
_HELD_SHIFT = np.array([0.0052, 0.0020, 0.0021])  # right, down and forward, as shares of the distance
_HELD_GROWTH = 1.5
_HELD_PERIODS = 64.0 / 2 ** np.arange(5)  # frames


def hand_walk(rng: np.random.Generator, num_frames: int, strength: float) -> tuple[Array, Array]:
    """Motion of a hand-held camera with the spectrum of a real one: the slower, the larger.

    Args:
        rng: Source of randomness.
        num_frames: Number of frames T.
        strength: Unevenness from frame to frame; 1 is that of the measured clip, of which only some frames were stored, so that
            video at 24 frames per second has less.

    Returns:
        Shifts right, down and forward T x 3 as shares of the distance to what is looked at, and yaw, pitch and roll T x 3 in radians.
    """
    omega = 2 * np.pi / (_HELD_PERIODS[:, None] * rng.uniform(0.75, 1.35, (len(_HELD_PERIODS), 6)))
    size = omega**-_HELD_GROWTH
    # A sine of frequency w and size a is off the middle of its neighbours by a (1 - cos w) / sqrt(2) on average.
    size /= np.sqrt(((size * (1 - np.cos(omega))) ** 2).sum(0) / 2)
    wave = np.sin(omega * np.arange(num_frames)[:, None, None] + rng.uniform(0, 2 * np.pi, omega.shape))
    path = strength * (size * wave).sum(1) * np.concatenate([_HELD_SHIFT, _HELD_TURN])
    path -= path[num_frames // 2]
    return path[:, :3], path[:, 3:]


def aim(position: Array, target: Array, shake: Array | None = None) -> Array:
    """Camera poses T x 3 x 4 that look from ``position`` at ``target`` (T x 3 each), with angular shake (T x 3)."""
    pose = geo.look_at(position, target)
    if shake is None:
        return pose
    turn = geo.rotation("y", shake[:, 0]) @ geo.rotation("x", shake[:, 1]) @ geo.rotation("z", shake[:, 2])
    return turn @ pose
