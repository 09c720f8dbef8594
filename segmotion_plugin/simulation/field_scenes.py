"""Scenes of the field: what hand-held video of the outdoors has and staged worlds lack.

Near clutter before far slopes, crowds before walls, zooms, movers that pass close and fast, and water that moves without being an
object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from segmotion_plugin.simulation import bodies, surroundings
from segmotion_plugin.simulation import geometry as geo
from segmotion_plugin.simulation.paths import aim, at_rest, drive, hand_walk, speed_profile
from segmotion_plugin.simulation.primitives import Primitive, Ripple
from segmotion_plugin.simulation.shapes import Shape
from segmotion_plugin.simulation.stage import Stage, corridor
from segmotion_plugin.simulation.surfaces import surface
from segmotion_plugin.simulation.world import World

Array = NDArray[np.floating]
_UNEVEN = (0.05, 0.4)  # strength of the hands' motion at 24 frames per second, of that measured between stored frames
_PASSING = (0.07, 0.14)  # widths of the picture that what passes close goes per frame: 60 to 120 pixels of 854
_PASS_EVERY = 22  # frames from one passing mover to the next


def _held(stage: Stage, position: Array, target: Array, distance: float) -> Array:
    """Poses of a camera held in two hands while it goes along positions (T x 3); `distance` is that of what is looked at."""
    rng = stage.rng
    strength = float(np.exp(rng.uniform(*np.log(_UNEVEN))))
    shift, turn = hand_walk(rng, stage.num_frames, strength)
    right, down, forward = (distance * shift).T
    wander = np.stack([right, forward, -down], axis=1)
    # Hands move the more the slower; what is looked at stays in the picture.
    wander *= min(1.0, 0.2 * distance / max(np.abs(wander).max(), 1e-9))
    turn *= min(1.0, 0.12 / max(np.abs(turn).max(), 1e-9))
    position = position + wander
    position[:, 2] = np.maximum(position[:, 2], 0.4)
    return aim(position, np.broadcast_to(target, (stage.num_frames, 3)), turn)


def _slopes(rng: np.random.Generator, distance: float) -> list[Primitive]:
    """Far hillsides that fill the picture behind the action, one behind the other."""
    out = surroundings.hills(rng, distance, 4)
    tilt = rng.uniform(0.25, 0.8)
    far = surroundings.wall(
        (0.0, 1.6 * distance, 0.2 * distance),
        (rng.normal(0, 0.2), -1.0, tilt),
        5 * distance,
        rng.uniform(0.5, 1.0) * distance,
        surface(rng, "hills"),
    )
    return [*out, far]


def _near_clutter(rng: np.random.Generator, stage: Stage, camera: float, nearest: float, middle: float) -> list[Primitive]:
    """Rocks, poles and bushes from close to the camera up to the action; places are kept free of the camera."""
    out: list[Primitive] = []
    for _ in range(int(rng.integers(14, 26))):
        depth = nearest + (1.7 * middle - nearest) * rng.uniform(0, 1) ** 1.5
        place = np.array([rng.uniform(-0.6, 0.6) * stage.view_width(depth), depth + camera])
        choice = rng.random()
        if choice < 0.62:
            out += surroundings.rock(rng, place, depth * rng.uniform(0.08, 0.4))
        elif choice < 0.76:
            out += surroundings.pole(rng, place, rng.uniform(0.8, 3.0), depth * rng.uniform(0.004, 0.015))
        else:
            out += surroundings.bush(rng, place, depth * rng.uniform(0.12, 0.35), 4)
    return out


def _near_rocks(stage: Stage) -> World:
    rng = stage.rng
    middle = rng.uniform(4.0, 8.0)  # metres from the camera to the animal
    eye = rng.uniform(0.7, 1.7)
    height = middle * rng.uniform(0.1, 0.24)
    step = stage.step(rng.uniform(0.5, 1.4) * height, 0.45 * stage.view_width(middle))
    heading = float(rng.choice([0.0, np.pi])) + rng.normal(0, 0.5)
    intervals = None if rng.random() < 0.7 else [(0.0, 0.45), (0.65, 1.0)]
    path = drive((rng.uniform(-1, 1) * 0.2 * middle, 0, rng.uniform(0, 0.15) * height), heading,
                 speed_profile(stage.num_frames, step, intervals), rng.normal(0, 0.1))  # fmt: skip
    animal = bodies.quadruped(path, stage.seed, 1, height)
    scenery = [surroundings.ground(rng, str(rng.choice(["soil", "lawn"])))]
    scenery += _slopes(rng, rng.uniform(40, 120))
    reach = (path.position[:, 0].min() - height, path.position[:, 0].max() + height)
    clear = corridor((reach[0], -1.2 * height, reach[1], 1.2 * height))
    clutter = _near_clutter(rng, stage, -middle, 0.3 * middle, middle)
    scenery += [item for item in clutter if not clear(item.pose[:2, 3])]
    travel = stage.side() * rng.uniform(0.1, 0.6) * middle
    position = stage.dolly(middle, travel, eye, rng.uniform(-0.3, 0.5))
    target = np.array([0.0, 0.0, 0.5 * height]) + 0.5 * (path.position if rng.random() < 0.5 else 0 * path.position)
    scenery = _clear_of(scenery, position)
    return stage.world(scenery + animal, _held(stage, position, target, middle))


def _clear_of(primitives: list[Primitive], position: Array, margin: float = 0.5) -> list[Primitive]:
    """Leaves out the bodies that the camera's path (T x 3) comes closer to than a margin in metres."""
    return [
        item
        for item in primitives
        if item.shape in (Shape.PLANE, Shape.RECTANGLE)
        or np.linalg.norm(position[:, :2] - item.pose[:2, 3], axis=1).min() > max(item.size[:2]) + margin
    ]


def _crowd(stage: Stage) -> World:
    rng = stage.rng
    far = rng.uniform(16, 24)  # metres from the camera to the wall behind the square
    eye = rng.uniform(1.5, 3.5)
    people: list[Primitive] = []
    looks = [int(seed) for seed in rng.integers(2**31, size=6)]
    for number in range(1, int(rng.integers(6, 11)) + 1):
        depth = rng.uniform(0.4, 0.9) * far
        place = (rng.uniform(-0.4, 0.4) * stage.view_width(depth), depth - far, 0.0)
        heading = float(rng.choice([0.0, np.pi])) + rng.normal(0, 0.6)
        intervals = None if rng.random() < 0.75 else [(0.0, 0.4), (0.6, 1.0)]
        step = stage.step(rng.uniform(0.8, 1.6), 0.6 * stage.view_width(depth))
        path = drive(place, heading, speed_profile(stage.num_frames, step, intervals))
        people += bodies.walker(path, looks[number % len(looks)], number, rng.uniform(1.55, 1.9))
    for number in range(int(rng.integers(3, 7))):
        depth = rng.uniform(0.35, 0.95) * far
        place = (rng.uniform(-0.45, 0.45) * stage.view_width(depth), depth - far, 0.0)
        rest = at_rest(stage.num_frames, place, rng.uniform(0, 2 * np.pi))
        people += bodies.walker(rest, looks[number % len(looks)], 0, rng.uniform(1.55, 1.9))
    scenery = [surroundings.ground(rng, "paving"), *surroundings.buildings(rng, 0.0, 1.2 * far, 1.5)]
    side = stage.side()
    # A wall beside the camera: the near part of a square that parallax moves most.
    near = side * rng.uniform(1.5, 4.0)
    scenery.append(
        surroundings.wall((near, -0.75 * far, 4.0), (-side, rng.normal(0, 0.05), 0), 0.3 * far, 4.0, surface(rng, "facade"))
    )
    scenery += surroundings.scatter(rng, 8, (-0.4 * far, -0.6 * far), (0.4 * far, -0.1 * far), lambda place: False)
    travel = -side * rng.uniform(0.4, 1.2)
    position = stage.dolly(far, travel, eye, rng.uniform(0.0, 1.0))
    return stage.world(scenery + people, _held(stage, position, np.array([0, -0.3 * far, 1.0]), 0.4 * far))


def _zoom(stage: Stage) -> World:
    rng = stage.rng
    distance = rng.uniform(7, 12)
    name = str(rng.choice(["person", "quadruped", "car", "crate"]))
    builder, size, _ = bodies.KINDS[name]
    step = stage.step(rng.uniform(0.8, 2.0), 0.35 * stage.view_width(distance))
    path = drive((rng.uniform(-0.5, 0.5), 0, 0), rng.choice([0.0, np.pi]), np.full(stage.num_frames, step))
    twin_place = (stage.side() * rng.uniform(2.0, 3.0), rng.uniform(2.0, 4.0), 0)
    twin = at_rest(stage.num_frames, twin_place, rng.uniform(0, 6))
    movers = builder(path, stage.seed, 1, float(np.mean(size))) + builder(twin, stage.seed, 0, float(np.mean(size)))
    scenery = surroundings.outdoors(rng, corridor((-20, -20, 20, 1.5)), rng.uniform(9, 14), 22)
    position = np.tile([0.0, -distance, rng.uniform(1.4, 2.0)], (stage.num_frames, 1))
    if rng.random() < 0.5:
        position = stage.dolly(distance, stage.side() * rng.uniform(0.5, 1.5))
    largest, first = rng.uniform(1.5, 2.6), rng.uniform(0.0, 0.35)
    growth = geo.ease((np.linspace(0, 1, stage.num_frames) - first) / rng.uniform(0.4, 0.65))
    zoom = largest ** (growth if rng.random() < 0.6 else 1 - growth)
    target = np.array([0, 0, 0.8]) + rng.uniform(0, 1) * path.position
    return replace(stage.world(scenery + movers, _held(stage, position, target, distance)), zoom=zoom)


def _lorry(stage: Stage) -> World:
    rng = stage.rng
    distance = rng.uniform(5.5, 9.0)
    eye = rng.uniform(1.3, 2.2)
    movers: list[Primitive] = []
    passes = max(1, round(stage.num_frames / _PASS_EVERY))
    for number in range(1, passes + 1):
        name = "truck" if number == 1 or rng.random() < 0.4 else "car"
        builder, size, _ = bodies.KINDS[name]
        lane = float(number % 2) * 2.8
        width = stage.view_width(distance + lane)
        speed = rng.uniform(*_PASSING) * width
        anchor = int((number - 0.5) / passes * stage.num_frames)
        heading = 0.0 if number % 2 else np.pi
        path = drive((rng.normal(0, 0.1) * width, lane, 0), heading, np.full(stage.num_frames, speed), 0.0, anchor)
        movers += builder(path, int(rng.integers(2**31)), number, float(rng.uniform(size[0], np.mean(size))))
    free = corridor((-200, -0.8 * distance, 200, 5.0))
    scenery = surroundings.outdoors(rng, free, rng.uniform(9, 14), 22, "road")
    twin = at_rest(stage.num_frames, (stage.side() * rng.uniform(2.5, 5.0), 6.6, 0), rng.normal(0, 0.1))
    scenery += bodies.car(twin, stage.seed)
    position = stage.dolly(distance, stage.side() * rng.uniform(0.1, 0.6), eye)
    world = stage.world(scenery + movers, _held(stage, position, np.array([0, 2.0, 1.2]), distance))
    # The shutter's smear of 120 pixels a frame at 854 wide, in steps of about five pixels.
    effects = replace(world.effects, blur_samples=9, shutter=float(rng.uniform(0.25, 0.5)), blur_movers=True)
    return replace(world, effects=effects)


def _spray(stage: Stage) -> World:
    rng = stage.rng
    distance = rng.uniform(6.0, 10.0)
    across = stage.view_width(distance)
    height = distance * rng.uniform(0.09, 0.16)
    step = stage.step(rng.uniform(0.6, 1.6), 0.45 * across)
    heading = float(rng.choice([0.0, np.pi])) + rng.normal(0, 0.2)
    path = drive((rng.uniform(-0.1, 0.1) * across, 0, -0.25 * height), heading, np.full(stage.num_frames, step))
    animal = bodies.quadruped(path, stage.seed, 1, height)
    water = _river(stage, distance)
    boulders: list[Primitive] = []
    spray = _splashes(stage, path.position + (0, 0, 0.3 * height), height, 14)
    for _ in range(int(rng.integers(2, 5))):
        place = np.array([rng.uniform(-0.45, 0.45) * across, rng.uniform(-0.4, 0.5) * distance])
        size = distance * rng.uniform(0.04, 0.12)
        if abs(place[1]) > 1.5 * height + size:
            boulders += surroundings.rock(rng, place, size)
            spray += _splashes(stage, np.tile([*place, 0.1 * size], (stage.num_frames, 1)), size, 10)
    bank = rng.uniform(0.6, 1.0) * distance
    scenery = [surroundings.still(Shape.BOX, (60, 30, 0.6), (0, bank + 30, -0.1), surface(rng, "soil"), "ground")]
    if rng.random() < 0.6:  # the near bank, so that water is a strip
        near = -rng.uniform(0.3, 0.6) * distance
        scenery.append(surroundings.still(Shape.BOX, (60, 30, 0.3), (0, near - 30, -0.1), surface(rng, "lawn"), "ground"))
    scenery += surroundings.scatter(rng, 10, (-across, bank + 1), (across, bank + 8), lambda place: False)
    scenery += _slopes(rng, rng.uniform(30, 80)) + boulders
    position = stage.dolly(distance, stage.side() * rng.uniform(0.5, 2.0), rng.uniform(1.2, 2.5))
    return stage.world([*scenery, water, *spray, *animal], _held(stage, position, np.array([0, 0, 0.4]), distance))


def _river(stage: Stage, distance: float) -> Primitive:
    """A plane of water whose print flows along and ripples."""
    rng = stage.rng
    pixel = distance / stage.focal  # metres
    # A plane that only flowed would be a rigid world of its own; water ripples more than it flows.
    flow = rng.uniform(0.0, 1.2) * pixel * np.array([float(rng.choice([-1, 1])), rng.normal(0, 0.3), 0.0])
    pose = geo.affine(np.eye(3), np.arange(stage.num_frames)[:, None] * flow)
    wavelength = distance * rng.uniform(0.08, 0.25)
    # Steeper waves would fold the surface, and a pixel would show several places of it.
    amplitude = min(pixel * rng.uniform(1.5, 5.0), wavelength / 20)
    ripple = Ripple(amplitude, wavelength, rng.uniform(0.3, 1.0), int(rng.integers(2**31)))
    still = surroundings.still(Shape.PLANE, 1, (0, 0, 0), surface(rng, "water"), "water", ripple=ripple)
    return replace(still, pose=pose, stuff=True)


def _splashes(stage: Stage, source: Array, size: float, count: int) -> list[Primitive]:
    """Drops that fly up from a source (T x 3) and fall back, again and again."""
    rng = stage.rng
    out = []
    foam = surface(rng, "smoke")
    for _ in range(count):
        period = int(rng.integers(6, 14))
        time = (np.arange(stage.num_frames) + rng.integers(period)) % period / period
        born = np.maximum(np.arange(stage.num_frames) - (time * period).round().astype(int), 0)
        away = size * rng.normal(0, (0.6, 0.6, 0.0))
        rise = size * rng.uniform(0.4, 1.2) * 4 * time * (1 - time)
        place = source[born] + away * time[:, None]
        place[:, 2] += rise
        radius = size * rng.uniform(0.03, 0.11)
        drop = surroundings.still(Shape.ELLIPSOID, radius * rng.uniform(0.6, 1.4, 3), (0, 0, 0), foam, "water")
        out.append(replace(drop, pose=geo.affine(np.eye(3), place), stuff=True))
    return out


BUILDERS: dict[str, Callable[[Stage], World]] = {
    "near_rocks": _near_rocks,
    "crowd": _crowd,
    "zoom": _zoom,
    "lorry": _lorry,
    "spray": _spray,
}
FIELD_NAMES = tuple(BUILDERS)
PROMISES: dict[str, tuple[int, float, float]] = {
    "near_rocks": (1, 0.004, 0.15),
    "crowd": (4, 0.0, 0.05),
    "zoom": (1, 0.004, 0.4),
    "lorry": (1, 0.0, 0.6),
    "spray": (1, 0.002, 0.15),
}
"""Least number of objects, and least and greatest mean share of the picture that each of them covers."""
