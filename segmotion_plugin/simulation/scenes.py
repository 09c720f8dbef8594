"""Named scenes: the situations in which reconstruction needs motion masks, randomised by a seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.simulation import bodies, field_scenes, surroundings
from segmotion_plugin.simulation.paths import Path, aim, at_rest, drive, hand_shake, speed_profile
from segmotion_plugin.simulation.primitives import Primitive
from segmotion_plugin.simulation.stage import Stage, calibrated, corridor, recipe, share_of
from segmotion_plugin.simulation.world import World


def _walker(stage: Stage) -> World:
    def make(stage: Stage, distance: float) -> World:
        rng = stage.rng
        back = 3.5
        heading = 0.0 if rng.random() < 0.5 else np.pi
        step = stage.step(rng.uniform(1.1, 1.5), 7.0)
        path = drive((0, -back + distance, 0), heading + rng.normal(0, 0.06), np.full(stage.num_frames, step))
        lag = min(0.3, 0.3 * stage.view_width(distance) / max(step * stage.num_frames, 1e-6))
        x = path.position[:, 0] * (1 - lag)
        position = np.stack([x, np.full_like(x, -back), np.full_like(x, rng.uniform(1.2, 1.45))], axis=1)
        height = rng.uniform(1.65, 1.9)
        target = position + (0, 4, -0.25)
        body = bodies.walker(path, stage.seed, 1, height)
        scenery = surroundings.outdoors(rng, corridor((-9, -6, 9, 0.8)), rng.uniform(7, 11), 22)
        return stage.world(scenery + body, stage.hand_held(position, target, 0.02))

    return calibrated(recipe(stage, make), 0.8, 6.0, stage.rng.uniform(0.27, 0.33))


def _two_cars(stage: Stage) -> World:
    rng = stage.rng
    distance, travel = rng.uniform(7.5, 9.0), rng.uniform(2.5, 4.0)
    first, second = int(rng.integers(2**31)), int(rng.integers(2**31))
    lane = rng.uniform(0.0, 1.0)
    direction = rng.choice([0.0, np.pi])
    across = stage.view_width(distance)
    steps = [np.full(stage.num_frames, stage.step(rng.uniform(4, 7), across * rng.uniform(0.5, 0.8))) for _ in range(2)]
    near = drive((rng.uniform(-2, 2), lane, 0), direction, steps[0])
    far = drive((rng.uniform(-2, 2), lane + 3.2, 0), np.pi - direction, steps[1])
    parked = at_rest(stage.num_frames, (stage.side() * rng.uniform(2.0, 3.5), lane + 6.2, 0), rng.normal(0, 0.15))
    movers = bodies.car(near, first, 1) + bodies.car(far, second, 2) + bodies.car(parked, first)
    scenery = surroundings.outdoors(rng, corridor((-40, -20, 40, lane + 7.5)), rng.uniform(10, 13), 30, "road")
    position = stage.dolly(distance, stage.side() * travel)
    return stage.world(scenery + movers, stage.hand_held(position, np.array([0, lane + 3, 1.2])))


def _large_mover(stage: Stage) -> World:
    def make(stage: Stage, distance: float) -> World:
        rng = stage.rng
        back, side = 9.0, stage.side()
        builder, size = ((bodies.truck, 6.0), (bodies.quadruped, 2.6))[int(rng.random() < 0.35)]
        # It goes the camera's way, faster or slower, and fills the picture for the whole clip.
        step = stage.step(rng.uniform(0.8, 2.2), 0.35 * stage.view_width(distance))
        ahead = 0.0 if side > 0 else np.pi
        path = drive((0, distance - back, 0), ahead + rng.normal(0, 0.04), np.full(stage.num_frames, step))
        position = stage.dolly(back, side * rng.uniform(2.0, 3.0), 1.7)
        scenery = surroundings.outdoors(rng, corridor((-14, -14, 14, 2.0)), rng.uniform(7, 10), 24)
        body = builder(path, stage.seed, 1, size)
        return stage.world(scenery + body, stage.hand_held(position, np.array([0, 0, 1.6])))

    return calibrated(recipe(stage, make), 2.0, 14.0, stage.rng.uniform(0.45, 0.5))


def _followed_mover(stage: Stage) -> World:
    def make(stage: Stage, distance: float) -> World:
        rng = stage.rng
        name = str(rng.choice(["car", "person", "quadruped", "crate"]))
        builder, size, _ = bodies.KINDS[name]
        step = stage.step({"car": 4.0, "person": 1.6, "quadruped": 2.5, "crate": 1.8}[name], 14.0)
        path = drive((0, 0, 0), rng.choice([0.0, np.pi]), np.full(stage.num_frames, step), rng.uniform(-0.05, 0.05))
        sway, _ = hand_shake(rng, stage.num_frames, 0.12, 0.0, stage.fps)
        offset = np.array([rng.uniform(-0.5, 0.5) * distance, -distance, rng.uniform(1.3, 2.0)])
        drift = stage.progress[:, None] * rng.normal(0, 0.08, 3) * distance
        position = path.position + offset + sway + drift * (1, 1, 0)
        target = path.position + (0, 0, 0.45 * size[1] if name != "car" else 0.7) + 0.3 * sway
        scenery = surroundings.outdoors(rng, corridor((-14, -1.6 * distance, 14, 2.5)), rng.uniform(7, 10), 26)
        return stage.world(
            scenery + builder(path, stage.seed, 1, float(np.mean(size))), stage.hand_held(position, target, 0.0)
        )

    return calibrated(recipe(stage, make), 1.2, 12.0, stage.rng.uniform(0.1, 0.2))


def _stop_and_go(stage: Stage) -> World:
    rng = stage.rng
    distance = rng.uniform(6.0, 7.5)
    across, count = stage.view_width(distance), stage.num_frames
    stop, restart, late = rng.uniform(0.3, 0.42), rng.uniform(0.6, 0.75), rng.uniform(0.5, 0.65)
    go_stop = speed_profile(count, stage.step(rng.uniform(2.5, 4), 0.7 * across), [(0, stop), (restart, 1)])
    starts_late = speed_profile(count, stage.step(rng.uniform(1.2, 1.8), 0.8 * across), [(late, 1)])
    direction = rng.choice([0.0, np.pi])
    first = drive((rng.uniform(-0.5, 0.5), 3.0, 0), direction, go_stop)
    second = drive((stage.side() * rng.uniform(0.8, 1.8), -0.5, 0), np.pi - direction, starts_late, anchor=count - 1)
    movers = bodies.car(first, stage.seed, 1) + bodies.walker(second, stage.seed + 1, 2)
    scenery = surroundings.outdoors(rng, corridor((-30, -20, 30, 5.0)), rng.uniform(8, 11), 26)
    position = stage.dolly(distance, stage.side() * rng.uniform(1.5, 2.5))
    return stage.world(scenery + movers, stage.hand_held(position, np.array([0, 2, 1.2])))


def _tiny_movers(stage: Stage) -> World:
    rng = stage.rng
    movers: list[Primitive] = []
    distance = 9.0
    for number, x in enumerate(rng.permutation([-0.3, 0.0, 0.3]), start=1):
        name = str(rng.choice(["person", "quadruped", "ball", "crate", "drone"]))
        builder, size, flies = bodies.KINDS[name]
        # Each covers about .1 to .6 % of the picture.
        share = float(np.exp(rng.uniform(np.log(0.0015), np.log(0.008))))
        depth = bodies.depth_for_share(name, float(np.mean(size)), share, stage.focal, stage.width * stage.height)
        depth = float(np.clip(depth, 13.0, 28.0))
        across = stage.view_width(depth)
        speed = stage.step(rng.uniform(1.5, 3.0), 0.3 * across)
        place = (x * across, depth - distance, rng.uniform(1, 3) if flies else 0.0)
        path = drive(place, rng.uniform(0, 2 * np.pi), np.full(stage.num_frames, speed), rng.uniform(-0.1, 0.1))
        movers += builder(path, int(rng.integers(2**31)), number, float(np.mean(size)))
    scenery = surroundings.outdoors(rng, corridor((-20, -20, 20, 5), (-30, 5, 30, 24)), rng.uniform(24, 30), 30)
    scenery += surroundings.scatter(rng, 14, (-9, -5), (9, 3), corridor((-2.5, -20, 2.5, 10)))
    position = stage.dolly(distance, stage.side() * rng.uniform(3.0, 4.5), 2.2)
    return stage.world(scenery + movers, stage.hand_held(position, np.array([0, 10, 1.2])))


def _rotation_only(stage: Stage) -> World:
    rng = stage.rng
    distance = rng.uniform(6, 8)
    name = str(rng.choice(["person", "quadruped", "crate", "car"]))
    builder, size, _ = bodies.KINDS[name]
    step = stage.step(rng.uniform(1.3, 2.2), 0.6 * stage.view_width(distance))
    path = drive((rng.uniform(-1, 1), 0, 0), rng.choice([0.0, np.pi]), np.full(stage.num_frames, step))
    scenery = surroundings.outdoors(rng, corridor((-20, -20, 20, 1.5)), rng.uniform(8, 12), 24)
    position = np.tile([0.0, -distance, 1.6], (stage.num_frames, 1))
    pan = stage.side() * rng.uniform(0.25, 0.45) * stage.progress
    target = position + np.stack([np.sin(pan), np.cos(pan), -0.06 + 0.05 * stage.progress], axis=1) * 6
    movers = builder(path, stage.seed, 1, float(np.mean(size)))
    return stage.world(scenery + movers, stage.hand_held(position, target, 0.0))


def _static_room(stage: Stage) -> World:
    rng = stage.rng
    travel = rng.uniform(1.2, 2.0)
    scenery = surroundings.room(rng, 4.5, -4.0, 5.0, 3.2, corridor((-2.5, -4, 2.5, -0.5)), 12)
    for x in np.linspace(-1.6, 1.6, int(rng.integers(3, 6))) + rng.normal(0, 0.15):
        scenery += surroundings.pole(rng, (x, rng.uniform(-1.9, -1.0)), 3.2, rng.uniform(0.025, 0.08))
    position = stage.dolly(3.0, stage.side() * travel, 1.5, rng.uniform(0.1, 0.4))
    return stage.world(scenery, stage.hand_held(position, np.array([0, 2.5, 1.3])))


def _multi_movers(stage: Stage) -> World:
    rng = stage.rng
    distance = rng.uniform(6.5, 8.5)
    movers: list[Primitive] = []
    count = int(rng.integers(2, 5))
    for number in range(1, count + 1):
        name = str(rng.choice(["person", "quadruped", "car", "ball", "crate", "creature", "drone"]))
        builder, size, flies = bodies.KINDS[name]
        # Lanes at different depths; the paths cross the middle at about the same time and hide one another there.
        depth = (number - 1) * rng.uniform(1.5, 2.2) - 1.5
        across = stage.view_width(distance + depth)
        step = stage.step(rng.uniform(1.2, 3.0), rng.uniform(0.3, 0.7) * across)
        heading = (0.0 if (number + stage.seed) % 2 else np.pi) + rng.normal(0, 0.25)
        place = (rng.uniform(-0.22, 0.22) * across, depth, rng.uniform(0.8, 2.0) if flies else 0.0)
        path = drive(place, heading, np.full(stage.num_frames, step), rng.uniform(-0.06, 0.06))
        movers += builder(path, int(rng.integers(2**31)), number, float(rng.uniform(*size)))
    scenery = surroundings.outdoors(rng, corridor((-30, -20, 30, 8.5)), rng.uniform(11, 14), 26)
    position = stage.dolly(distance, stage.side() * rng.uniform(2.0, 3.5), rng.uniform(1.5, 2.2))
    return stage.world(scenery + movers, stage.hand_held(position, np.array([0, 2, 1.1])))


def _static_camera(stage: Stage) -> World:
    rng = stage.rng
    distance = rng.uniform(5, 8)
    name = str(rng.choice(["person", "quadruped", "car", "creature", "ball"]))
    builder, size, _ = bodies.KINDS[name]
    step = stage.step(rng.uniform(1.2, 2.5), 0.6 * stage.view_width(distance))
    path = drive((rng.uniform(-1, 1), 0, 0), rng.choice([0.0, np.pi]), np.full(stage.num_frames, step))
    scenery = surroundings.outdoors(rng, corridor((-20, -20, 20, 1.5)), rng.uniform(8, 12), 22)
    position = np.tile([0.0, -distance, 1.5], (stage.num_frames, 1))
    return stage.world(
        scenery + builder(path, stage.seed, 1, float(np.mean(size))), aim(position, position + (0, 6, -0.4))
    )


def _demo(stage: Stage) -> World:
    travel, share = stage.rng.uniform(2.6, 3.4), stage.rng.uniform(0.38, 0.44)

    def make(stage: Stage, distance: float) -> World:
        rng = stage.rng
        back, side = 7.0, stage.side()
        # The lorry goes the camera's way and stays in the picture for the whole clip.
        step = stage.step(2.0, 0.4 * stage.view_width(distance))
        ahead = 0.0 if side > 0 else np.pi
        large = drive((rng.uniform(-0.2, 0.2), distance - back, 0), ahead, np.full(stage.num_frames, step))
        far = stage.view_width(back + 5.5)
        quick = drive((0.0, 5.5, 0), np.pi - ahead, np.full(stage.num_frames, stage.step(5.0, 0.9 * far)))
        parked: Path = at_rest(stage.num_frames, (-side * rng.uniform(4.0, 5.0), 8.8, 0), rng.normal(0, 0.2))
        twin = stage.seed + 1
        # Its print has more corners than the rest of the picture: without masks the lorry is taken for the world.
        movers = bodies.truck(large, stage.seed, 1, 4.4, "banner")
        movers += bodies.car(quick, twin, 2) + bodies.car(parked, twin)
        scenery = surroundings.outdoors(rng, corridor((-30, -20, 30, 10)), 12.5, 18, "soil")
        position = stage.dolly(back, side * travel, 3.4)
        return stage.world(scenery + movers, stage.hand_held(position, np.array([0, 2.5, 0.6])))

    return calibrated(recipe(stage, make), 3.6, 9.0, share)


_BUILDERS: dict[str, Callable[[Stage], World]] = {
    "demo": _demo,
    "walker": _walker,
    "two_cars_parked_twin": _two_cars,
    "large_mover": _large_mover,
    "followed_mover": _followed_mover,
    "stop_and_go": _stop_and_go,
    "tiny_movers": _tiny_movers,
    "rotation_only": _rotation_only,
    "static_room": _static_room,
    "multi_movers": _multi_movers,
    "static_camera": _static_camera,
    **field_scenes.BUILDERS,  # new types last: a type's place is part of its seed
}
NAMES = tuple(_BUILDERS)
# Least number of objects, and least and greatest mean share of the picture that each of them covers.
_PROMISES: dict[str, tuple[int, float, float]] = {
    "demo": (2, 0.012, 0.5),
    "walker": (1, 0.25, 0.36),
    "two_cars_parked_twin": (2, 0.015, 0.3),
    "large_mover": (1, 0.42, 0.52),
    "followed_mover": (1, 0.08, 0.24),
    "stop_and_go": (2, 0.01, 0.3),
    "tiny_movers": (3, 0.0006, 0.01),
    "rotation_only": (1, 0.012, 0.25),
    "static_room": (0, 0.0, 0.0),
    "multi_movers": (2, 0.006, 0.4),
    "static_camera": (1, 0.012, 0.3),
    **field_scenes.PROMISES,
}
_ATTEMPTS = 20


def build(name: str, seed: int = 0, num_frames: int = 48, width: int = 480, height: int = 270) -> World:
    """Builds a named scene.

    Args:
        name: One of :data:`NAMES`.
        seed: Chooses layout, textures, colours, speeds and the camera's path.
        num_frames: Number of frames.
        width: Picture width in pixels.
        height: Picture height in pixels.

    Raises:
        SegmotionError: for an unknown name or a size that makes no picture.
    """
    if name not in _BUILDERS:
        raise SegmotionError(f"there is no scene {name!r}; the scenes are {', '.join(NAMES)}")
    if num_frames < 1 or width < 8 or height < 8:
        raise SegmotionError(f"a scene needs at least one frame of 8x8 pixels; got {num_frames} of {width}x{height}")
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([seed, NAMES.index(name), attempt])
        focal = width * float(rng.uniform(0.8, 1.05))
        style = int(rng.integers(2**31))
        world = _BUILDERS[name](Stage(rng, style, num_frames, width, height, focal))
        if _as_promised(name, world):
            break
    return world


def _as_promised(name: str, world: World) -> bool:
    """Whether the movers are there and cover what the scene's name promises (in clips where they have time to)."""
    count, low, high = _PROMISES[name]
    if world.num_frames < 2 or count == 0:
        return True
    if world.num_objects < count:
        return False
    shares = share_of(world, 96, 54, 4)
    return bool((shares >= low).all() and (shares <= high).all())
