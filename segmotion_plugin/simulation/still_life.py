"""Worlds in which nothing moves though a near thing parts strongly from what is behind it: a camera goes round an exhibit."""

from __future__ import annotations

import numpy as np

from segmotion_plugin.simulation import bodies, surroundings
from segmotion_plugin.simulation import geometry as geo
from segmotion_plugin.simulation.paths import aim, at_rest, hand_shake
from segmotion_plugin.simulation.primitives import Primitive
from segmotion_plugin.simulation.shapes import Shape
from segmotion_plugin.simulation.surfaces import surface
from segmotion_plugin.simulation.world import Effects, Look, World
from segmotion_plugin.simulation.worlds import uncrowded

_MATERIALS = ("facade", "leaves", "wallpaper", "poster", "hills")


def still_life(rng: np.random.Generator, num_frames: int = 24, width: int = 480, height: int = 270) -> World:
    """One to three still things near the camera before a wall, a room or the open, under a camera that circles and nears them.

    Args:
        rng: source of randomness; the same state gives the same world.
        num_frames: number of frames T.
        width: picture width in pixels.
        height: picture height in pixels.
    """
    focal = width * float(rng.uniform(0.7, 1.4))
    distance = float(np.exp(rng.uniform(np.log(1.0), np.log(6.0))))
    middle = np.array([0.0, 0.0, rng.uniform(0.8, 1.6)])
    things: list[Primitive] = []
    for number in range(int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))):
        reach = distance * _width_share(rng) * width / focal
        place = middle + number * distance * np.append(rng.normal(0, 0.5, 2), 0.0)
        things += _thing(rng, place, reach, num_frames)
    back = distance * float(np.exp(rng.uniform(np.log(0.05), np.log(2.0))))
    scenery = _behind(rng, back, distance)
    t = np.linspace(-0.5, 0.5, num_frames) if num_frames > 1 else np.zeros(1)
    sweep = rng.choice([-1, 1]) * float(np.exp(rng.uniform(np.log(0.15), np.log(1.6))))
    angle = sweep * t + rng.uniform(-0.3, 0.3) + 0.1 * geo.smooth_noise(rng, num_frames, 1, 10.0)[:, 0]
    radius = distance * (1 + rng.uniform(-0.5, 0.5) * t + 0.05 * geo.smooth_noise(rng, num_frames, 1, 12.0)[:, 0])
    rise = distance * (rng.uniform(-0.1, 0.4) + rng.uniform(-0.4, 0.4) * t)
    position = middle + np.stack([radius * np.sin(angle), -radius * np.cos(angle), rise], axis=1)
    position[:, 2] = np.maximum(position[:, 2], 0.2)
    target = middle + distance * 0.15 * (rng.normal(size=3) + geo.smooth_noise(rng, num_frames, 3, 12.0))
    shake, turn = hand_shake(rng, num_frames, 0.01 * distance, float(rng.uniform(0.002, 0.03)), 24.0)
    cameras = aim(position + shake, target, turn)
    look = Look(
        sun=(rng.uniform(-0.9, 0.9), rng.uniform(-0.9, 0.0), rng.uniform(0.4, 1.0)),
        ambient=float(rng.uniform(0.5, 0.8)),
        clouds=float(rng.uniform(0, 1)),
        haze=500.0,
        seed=int(rng.integers(2**31)),
    )
    effects = Effects(
        blur_samples=int(rng.choice([1, 3], p=[0.8, 0.2])),
        exposure=float(rng.uniform(0.01, 0.06)) if rng.random() < 0.5 else 0.0,
        noise=float(rng.uniform(0.5, 4.0)),
        jpeg_quality=int(rng.integers(50, 95)) if rng.random() < 0.5 else 0,
        seed=int(rng.integers(2**31)),
    )
    primitives = uncrowded(things + scenery, geo.camera_centers(cameras), margin=0.1)
    return World(primitives or scenery, cameras, width, height, focal, 24.0, look, effects)


def _width_share(rng: np.random.Generator) -> float:
    """Share of the picture's width that a thing takes up: mostly much of it."""
    return float(np.exp(rng.uniform(np.log(0.08), np.log(0.6))))


def _thing(rng: np.random.Generator, place: np.ndarray, reach: float, num_frames: int) -> list[Primitive]:
    """A body of a mover at rest, or a heap of ellipsoids and boxes, about `reach` metres wide."""
    if rng.random() < 0.4:
        name = tuple(bodies.KINDS)[int(rng.integers(len(bodies.KINDS)))]
        path = at_rest(num_frames, (place[0], place[1], max(0.0, place[2] - reach / 2)), float(rng.uniform(0, 2 * np.pi)))
        return list(bodies.KINDS[name][0](path, int(rng.integers(2**31)), 0, reach))
    heap: list[Primitive] = []
    texture = surface(rng, str(rng.choice(_MATERIALS)))
    for _ in range(int(rng.integers(2, 9))):
        if rng.random() < 0.3:
            texture = surface(rng, str(rng.choice(_MATERIALS)))
        half = 0.5 * reach * rng.uniform(0.15, 0.7, 3)
        center = place + reach * rng.uniform(-0.35, 0.35, 3)
        shape = Shape.BOX if rng.random() < 0.3 else Shape.ELLIPSOID
        turn = geo.rotation("z", float(rng.uniform(0, np.pi))) @ geo.rotation("x", float(rng.uniform(-0.6, 0.6)))
        heap.append(surroundings.still(shape, tuple(half), center, texture, "furniture", turn=turn))
    return heap


def _behind(rng: np.random.Generator, back: float, distance: float) -> list[Primitive]:
    """What is behind the things: a wall right there, or the open with a ground that they stand on."""
    if rng.random() < 0.6:
        texture = surface(rng, str(rng.choice(_MATERIALS)))
        wall = surroundings.wall((0.0, back, 0.0), (rng.normal(0, 0.3), -1, 0), 30 * distance, 20 * distance, texture)
        return [wall, surroundings.ground(rng, "paving")] if rng.random() < 0.5 else [wall]

    def clear(place: np.ndarray) -> bool:
        return bool(np.linalg.norm(place) < 1.3 * distance)

    return surroundings.outdoors(rng, clear, max(6.0, back + 2 * distance), int(rng.integers(0, 10)), None)
