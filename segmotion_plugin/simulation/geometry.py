"""Small pieces of 3D geometry for simulated worlds.

The world's z axis points up. Cameras follow COLMAP: x right, y down, z forward. Affine maps are ``3 x 4`` matrices
``[A | b]`` that act on column vectors; leading axes are batch axes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.floating]


def affine(linear: ArrayLike, offset: ArrayLike) -> FloatArray:
    """Joins linear parts (... x 3 x 3) and offsets (... x 3) into affine maps (... x 3 x 4)."""
    linear, offset = np.asarray(linear, float), np.asarray(offset, float)
    shape = np.broadcast_shapes(linear.shape[:-2], offset.shape[:-1])
    out = np.empty((*shape, 3, 4))
    out[..., :3] = linear
    out[..., 3] = offset
    return out


def compose(outer: FloatArray, inner: FloatArray) -> FloatArray:
    """The affine map that applies ``inner`` first and then ``outer`` (both ... x 3 x 4)."""
    linear = outer[..., :3] @ inner[..., :3]
    offset = (outer[..., :3] @ inner[..., 3:])[..., 0] + outer[..., 3]
    return affine(linear, offset)


def invert(maps: FloatArray) -> FloatArray:
    """The inverses of affine maps (... x 3 x 4)."""
    inverse = np.linalg.inv(maps[..., :3])
    return affine(inverse, -(inverse @ maps[..., 3:])[..., 0])


def apply(maps: FloatArray, points: FloatArray) -> FloatArray:
    """Maps points (... x 3) by affine maps (... x 3 x 4)."""
    return (maps[..., :3] @ points[..., None])[..., 0] + maps[..., 3]


def rotation(axis: str, angle: ArrayLike) -> FloatArray:
    """Rotations (... x 3 x 3) about a coordinate axis.

    Args:
        axis: ``"x"``, ``"y"`` or ``"z"``.
        angle: Angles in radians, any shape.
    """
    angle = np.asarray(angle, float)
    cosine, sine = np.cos(angle), np.sin(angle)
    out = np.zeros((*angle.shape, 3, 3))
    i = "xyz".index(axis)
    j, k = (i + 1) % 3, (i + 2) % 3
    out[..., i, i] = 1
    out[..., j, j] = out[..., k, k] = cosine
    out[..., k, j] = sine
    out[..., j, k] = -sine
    return out


def unit(vectors: FloatArray) -> FloatArray:
    """Vectors (... x n) scaled to length one."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def frame_from_axes(third: FloatArray, hint: ArrayLike) -> FloatArray:
    """Rotations (... x 3 x 3) whose third column is ``third`` and whose first lies near ``hint``.

    Args:
        third: Directions (... x 3).
        hint: Direction (... x 3), not parallel to ``third``.
    """
    third = unit(np.asarray(third, float))
    second = unit(np.cross(third, np.broadcast_to(np.asarray(hint, float), third.shape)))
    return np.stack([np.cross(second, third), second, third], axis=-1)


def look_at(position: ArrayLike, target: ArrayLike, roll: ArrayLike = 0.0) -> FloatArray:
    """Camera poses that look from ``position`` at ``target`` with the world's z axis up in the picture.

    Args:
        position: Camera centres (T x 3).
        target: Points on the optical axes (T x 3).
        roll: Rotation about the optical axes in radians, a number or T of them.

    Returns:
        ``cam_from_world``, T x 3 x 4, COLMAP axes.
    """
    position, target = np.broadcast_arrays(np.asarray(position, float), np.asarray(target, float))
    forward = unit(target - position)
    right = unit(np.cross(forward, np.array([0.0, 0.0, 1.0])))
    down = np.cross(forward, right)
    turn = rotation("z", np.broadcast_to(np.asarray(roll, float), forward.shape[:-1]))
    world_to_cam = turn @ np.stack([right, down, forward], axis=-2)
    return affine(world_to_cam, -(world_to_cam @ position[..., None])[..., 0])


def camera_centers(cam_from_world: FloatArray) -> FloatArray:
    """Camera centres (... x 3) of rigid poses (... x 3 x 4)."""
    return -(np.swapaxes(cam_from_world[..., :3], -1, -2) @ cam_from_world[..., 3:])[..., 0]


def interpolate_rigid(first: FloatArray, second: FloatArray, fraction: float) -> FloatArray:
    """Rigid pose between two camera poses (3 x 4 each): rotation along the geodesic, centre along the line."""
    relative = second[:, :3] @ first[:, :3].T
    angle = np.arccos(np.clip((np.trace(relative) - 1) / 2, -1, 1))
    skew = (relative - relative.T) / 2
    norm = np.sin(angle)
    if norm > 1e-9:
        generator = skew / norm
        step = fraction * angle
        # Rodrigues' formula.
        turn = np.eye(3) + np.sin(step) * generator + (1 - np.cos(step)) * generator @ generator
    else:
        turn = np.eye(3)
    linear = turn @ first[:, :3]
    center = (1 - fraction) * camera_centers(first) + fraction * camera_centers(second)
    return affine(linear, -linear @ center)


def smooth_noise(rng: np.random.Generator, num: int, dims: int, period: float) -> FloatArray:
    """Smooth random curves of zero mean and about unit deviation, as hands shake.

    Args:
        rng: Source of randomness.
        num: Number of samples.
        dims: Number of independent curves.
        period: Longest period in samples; three octaves are added.

    Returns:
        num x dims array.
    """
    time = np.arange(num)[:, None]
    out = np.zeros((num, dims))
    for octave in range(3):
        wave = 2 * np.pi * 2**octave / period * rng.uniform(0.7, 1.3, dims)
        out += 0.5**octave * np.sin(wave * time + rng.uniform(0, 2 * np.pi, dims))
    return out * 1.23


def ease(values: FloatArray) -> FloatArray:
    """Smooth step from 0 to 1 over the unit interval."""
    clipped = np.clip(values, 0, 1)
    return clipped * clipped * (3 - 2 * clipped)
