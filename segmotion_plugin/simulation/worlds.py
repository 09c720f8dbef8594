"""Random worlds for training: any camera, none to six movers, and much that looks like motion but is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from segmotion_plugin.simulation import bodies, surroundings
from segmotion_plugin.simulation import geometry as geo
from segmotion_plugin.simulation.paths import Path, aim, at_rest, drive, hand_shake, speed_profile
from segmotion_plugin.simulation.primitives import CLASS_ID, Primitive, Ripple
from segmotion_plugin.simulation.shapes import Shape
from segmotion_plugin.simulation.surfaces import surface
from segmotion_plugin.simulation.world import Effects, Look, World

Array = NDArray[np.floating]
CAMERAS = ("static", "pan", "hand_held", "sideways", "forward", "orbit", "drastic", "follow")
_CAMERA_SHARES = (0.1, 0.12, 0.18, 0.16, 0.1, 0.08, 0.06, 0.2)
_COUNT_SHARES = (0.12, 0.44, 0.2, 0.1, 0.06, 0.04, 0.04)  # of 0 to 6 movers: real videos have one or two
_ALL_FAR = 0.25  # worlds in which all movers are tiny: the only motion is a handful of tracks
_NEAR = 0.3  # of the salient movers fill a good part of the picture


@dataclass
class _Draft:
    """Choices that the parts of a random world share; the camera looks from (0, -distance) at the origin."""

    rng: np.random.Generator
    num_frames: int
    width: int
    height: int
    focal: float
    distance: float
    eye: float
    fps: float = 24.0
    deepest: float = 0.0  # largest y that a mover reaches; backdrops mostly stand behind it

    def log_uniform(self, low: float, high: float) -> float:
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def view_width(self, depth: float) -> float:
        return depth * self.width / self.focal

    def place(self, depth: float, spread: float = 0.4) -> tuple[float, float]:
        """A place on the ground at a depth, within the middle ``2 * spread`` of the picture."""
        return float(self.rng.uniform(-spread, spread) * self.view_width(depth)), depth - self.distance


def random_world(rng: np.random.Generator, num_frames: int = 24, width: int = 480, height: int = 270) -> World:
    """A random world whose statistics are wide around those of hand-held video.

    Args:
        rng: Source of randomness; the same state gives the same world.
        num_frames: Number of frames T.
        width: Picture width in pixels.
        height: Picture height in pixels.
    """
    draft = _Draft(rng, num_frames, width, height, width * float(rng.uniform(0.7, 1.6)), 0.0, 0.0)
    draft.distance = draft.log_uniform(2.5, 14.0)
    draft.eye = float(rng.uniform(1.0, 2.2)) if rng.random() < 0.85 else float(rng.uniform(2.2, 6.0))
    movers, paths = _movers(draft)
    cameras = _camera(draft, paths)
    scenery = _surroundings(draft) + _incoherent(draft)
    scenery = _sway(draft, scenery)
    primitives = uncrowded(scenery + movers, geo.camera_centers(cameras))
    look = Look(
        sun=(rng.uniform(-0.9, 0.9), rng.uniform(-0.9, 0.5), rng.uniform(0.4, 1.0)),
        ambient=float(rng.uniform(0.4, 0.75)),
        clouds=float(rng.uniform(0, 1)),
        haze=draft.log_uniform(80, 1000),
        seed=int(rng.integers(2**31)),
    )
    return World(primitives, cameras, width, height, draft.focal, draft.fps, look, _effects(draft))


def _effects(draft: _Draft) -> Effects:
    rng = draft.rng
    return Effects(
        blur_samples=int(rng.choice([1, 3], p=[0.7, 0.3])),
        rolling=float(rng.uniform(0.2, 0.8)) if rng.random() < 0.3 else 0.0,
        exposure=float(rng.uniform(0.01, 0.08)) if rng.random() < 0.5 else 0.0,
        noise=float(rng.uniform(0.5, 4.0)),
        jpeg_quality=int(rng.integers(40, 95)) if rng.random() < 0.5 else 0,
        seed=int(rng.integers(2**31)),
    )


def _intervals(rng: np.random.Generator) -> list[tuple[float, float]] | None:
    """When a mover moves: mostly always; some start, some stop, some do both."""
    choice = rng.random()
    if choice < 0.62:
        return None
    if choice < 0.74:
        return [(float(rng.uniform(0.2, 0.75)), 1.0)]
    if choice < 0.86:
        return [(0.0, float(rng.uniform(0.25, 0.8)))]
    return [(0.0, float(rng.uniform(0.2, 0.45))), (float(rng.uniform(0.55, 0.8)), 1.0)]


def _movers(draft: _Draft) -> tuple[list[Primitive], list[Path]]:
    rng = draft.rng
    primitives: list[Primitive] = []
    paths: list[Path] = []
    names = tuple(bodies.KINDS)
    far = rng.random() < _ALL_FAR
    for number in range(1, int(rng.choice(len(_COUNT_SHARES), p=_COUNT_SHARES)) + 1):
        name = names[int(rng.integers(len(names)))]
        builder, sizes, flies = bodies.KINDS[name]
        size = float(rng.uniform(*sizes))
        # The first is the salient one of most videos.
        salient = number == 1 and not far and rng.random() < 0.8
        if salient:
            share = draft.log_uniform(0.15 if rng.random() < _NEAR else 0.03, 0.6)
        else:
            share = draft.log_uniform(0.001, 0.01 if far else 0.12)
        depth = bodies.depth_for_share(name, size, share, draft.focal, draft.width * draft.height)
        depth = float(np.clip(depth, 0.9 * size + 0.4, 45.0))
        height = draft.eye + depth * rng.uniform(-0.15, 0.2) if flies else 0.0
        path = _mover_path(draft, depth, max(height, 0.5) if flies else 0.0)
        if number > 1 and rng.random() < 0.25:
            # Companions move alike: people who walk together, a herd, a convoy.
            other = paths[-1]
            shift = np.array([*rng.normal(0, 0.8 * size + 0.4, 2), 0.0])
            path = replace(other, position=other.position + shift * (1, 1, 0))
        seed = int(rng.integers(2**31))
        primitives += builder(path, seed, number, size)
        paths.append(path)
        if rng.random() < 0.95:
            draft.deepest = max(draft.deepest, float(path.position[:, 1].max()) + size)
        if rng.random() < 0.4:
            for _ in range(int(rng.integers(1, 3))):
                beside = depth * float(rng.uniform(0.6, 1.8))
                x, y = draft.place(max(beside, 1.2 * size + 0.5), 0.5)
                rest = at_rest(draft.num_frames, (x, y, height if flies else 0.0), float(rng.uniform(0, 2 * np.pi)))
                primitives += builder(rest, seed, 0, size)
    return primitives, paths


def _mover_path(draft: _Draft, depth: float, height: float) -> Path:
    rng = draft.rng
    x, y = draft.place(depth, 0.3)
    total = draft.log_uniform(0.03, 0.9) * draft.view_width(depth)
    speed = speed_profile(draft.num_frames, total / draft.num_frames, _intervals(rng))
    if rng.random() < 0.2:
        heading = float(rng.choice([np.pi / 2, -np.pi / 2])) + rng.normal(0, 0.15)  # along the optical axis
        speed = np.minimum(speed, 0.5 * depth / draft.num_frames)
    else:
        heading = float(rng.choice([0.0, np.pi])) + rng.normal(0, 0.5)
    turn = rng.normal(0, 0.5) / max(total, 1e-6) if rng.random() < 0.4 else 0.0
    path = drive((x, y, height), heading, speed, turn)
    if height > 0:
        climb = rng.normal(0, 0.3) * (path.travelled - path.travelled[draft.num_frames // 2])
        bounce = 0.1 * rng.random() * total * np.sin(path.travelled / max(total, 1e-6) * rng.uniform(2, 12))
        path = replace(path, position=path.position + np.stack([0 * climb, 0 * climb, climb + bounce], axis=1))
    elif rng.random() < 0.08:
        # In place: dancers, treadmills, machines. The limbs move, the body stays.
        path = replace(path, position=np.broadcast_to(path.position[:1], path.position.shape).copy())
    return path


def _camera(draft: _Draft, paths: Sequence[Path]) -> Array:
    rng, count, distance = draft.rng, draft.num_frames, draft.distance
    shares = np.array(_CAMERA_SHARES)
    if not paths:
        shares[CAMERAS.index("follow")] = 0
    kind = str(rng.choice(CAMERAS, p=shares / shares.sum()))
    t = np.linspace(-0.5, 0.5, count) if count > 1 else np.zeros(1)
    position = np.tile([0.0, -distance, draft.eye], (count, 1))
    aimed = (0.0, rng.uniform(-0.3, 1.0) * distance, draft.eye - rng.uniform(-0.02, 0.2) * distance)
    target = np.tile(aimed, (count, 1))
    side = float(rng.choice([-1, 1]))
    if paths and rng.random() < 0.7:
        # People film what moves: it is in the picture, though not kept in its middle.
        target[:] = paths[0].position[count // 2] + (0, 0, rng.uniform(0.2, 1.0))
        target += draft.view_width(max(paths[0].position[count // 2, 1] + distance, 1.0)) * rng.normal(0, 0.15, 3)
    shake, turn = hand_shake(
        rng, count, draft.log_uniform(0.002, 0.03) * distance, draft.log_uniform(0.002, 0.02), draft.fps
    )
    amount = draft.log_uniform(0.03, 0.6) * distance
    pan = side * draft.log_uniform(0.02, 0.5) * t
    if kind == "static":
        return aim(position, target)
    if kind == "pan":
        arm = target - position
        target = position + np.stack([np.sin(pan) * arm[:, 1], np.cos(pan) * arm[:, 1], arm[:, 2]], axis=1)
        return aim(position, target, turn * float(rng.random() < 0.6) * 0.5)
    if kind == "follow":
        return _following(draft, paths[0], position, shake, turn)
    if kind == "sideways":
        position += np.stack([side * amount * t, 0.3 * rng.normal() * amount * t, 0.1 * rng.normal() * amount * t], 1)
        if rng.random() < 0.4:
            target += (position - position[count // 2]) * (1, 1, 0)
    elif kind == "forward":
        position[:, 1] += side * min(amount, 0.7 * distance) * t
        position[:, 0] += 0.1 * rng.normal() * amount * t
        target[:, 1] += max(0.0, distance - target[0, 1])
    elif kind == "orbit":
        angle = pan * draft.log_uniform(1.0, 4.0)
        position = np.stack([distance * np.sin(angle), -distance * np.cos(angle), position[:, 2]], axis=1)
        target[:] = (0, 0, 0.8)
        if paths:
            target[:] = paths[0].position[count // 2] * (0.5, 0.5, 1) + (0, 0, 0.5)
    elif kind == "drastic":
        position += distance * 0.25 * geo.smooth_noise(rng, count, 3, max(8.0, count / 1.5)) * (1, 1, 0.2)
        position[:, 2] = np.maximum(position[:, 2], 0.4)
        turn = turn + 0.12 * geo.smooth_noise(rng, count, 3, max(8.0, count / 1.5))
    else:
        shake = shake * 2
        position += side * 0.3 * amount * t[:, None] * (1, 0.5, 0)
    return aim(position + shake, target, turn)


def _following(draft: _Draft, path: Path, position: Array, shake: Array, turn: Array) -> Array:
    """The mover stays in the middle: the camera pans after it, travels with it, or both."""
    rng, middle = draft.rng, draft.num_frames // 2
    share = float(rng.choice([0.0, rng.uniform(0.3, 1.0), 1.0], p=[0.35, 0.3, 0.35]))
    position = position + share * (path.position - path.position[middle]) * (1, 1, 0)
    centre = path.position + (0, 0, rng.uniform(0.2, 0.8))
    lag = rng.uniform(0.0, 0.25) * (path.position - path.position[middle])
    return aim(position + shake, centre - lag * (1 - share), turn)


def _surroundings(draft: _Draft) -> list[Primitive]:
    rng, distance = draft.rng, draft.distance
    choice = rng.random()
    wide = draft.view_width(distance)
    if rng.random() < 0.12:
        # A wall close behind the things in front of it: what is near the camera parts from one dominant plane.
        far = max(distance * draft.log_uniform(0.03, 0.5), draft.deepest + 0.3)
        texture = surface(rng, str(rng.choice(["facade", "wallpaper", "leaves"])))
        below = surroundings.ground(rng, "smooth" if rng.random() < 0.5 else "paving")
        slope = (rng.normal(0, 0.3), -1, 0)
        return [below, surroundings.wall((0.0, far, 0.0), slope, 4 * (far + distance), 3 * distance, texture)]

    def clear(place: Array) -> bool:
        return bool(abs(place[0]) < 0.25 * wide and place[1] < -0.4 * distance)

    if choice < 0.22 and max(distance, draft.deepest) < 8:
        half = max(2.5, 0.9 * wide)
        back = max(distance * rng.uniform(0.3, 1.5) + 1, draft.deepest + 0.5)
        out = surroundings.room(
            rng, half, -distance - 2.0, back, max(3.0, draft.eye + 0.8), clear, int(rng.integers(2, 10))
        )
    elif choice < 0.4:
        # Ground and a far backdrop, the commonest background of hand-held video.
        material = "smooth" if rng.random() < 0.4 else str(rng.choice(("lawn", "road", "soil", "paving")))
        far = max(distance * draft.log_uniform(1.0, 6.0) + 2, draft.deepest + 1)
        out = [
            surroundings.ground(rng, material),
            surroundings.wall(
                (0.0, far, 0.3 * far),
                (rng.normal(0, 0.2), -1, 0),
                3 * (far + distance),
                0.6 * far,
                surface(rng, str(rng.choice(["facade", "leaves", "hills", "wallpaper"]))),
            ),
        ]
    else:
        floor = "smooth" if rng.random() < 0.2 else None
        far = max(6.0, distance * draft.log_uniform(0.6, 3.0), draft.deepest + 1)
        out = surroundings.outdoors(rng, clear, far, int(rng.integers(0, 10)), floor)
    if rng.random() < 0.35:
        out += _near_clutter(draft)
    return out


def _near_clutter(draft: _Draft) -> list[Primitive]:
    """Poles and leaves close to the camera: strong parallax that is no motion."""
    rng = draft.rng
    out: list[Primitive] = []
    for _ in range(int(rng.integers(1, 5))):
        depth = draft.distance * rng.uniform(0.2, 0.8)
        x, y = draft.place(depth, 0.5)
        if rng.random() < 0.5:
            out += surroundings.pole(rng, (x, y), draft.eye + depth, depth * draft.log_uniform(0.006, 0.04))
        else:
            leaves = surface(rng, "leaves")
            for _ in range(int(rng.integers(3, 9))):
                half = depth * rng.uniform(0.01, 0.07, 3)
                place = np.array([x, y, draft.eye]) + depth * rng.normal(0, (0.08, 0.08, 0.15))
                out.append(surroundings.still(Shape.ELLIPSOID, half, place, leaves, "foliage"))
    return out


def _incoherent(draft: _Draft) -> list[Primitive]:
    """Water, smoke or a playing screen, which move a little everywhere without being an object."""
    rng = draft.rng
    if rng.random() > 0.25:
        return []
    depth = draft.distance * rng.uniform(0.6, 2.0)
    x, y = draft.place(depth)
    view = draft.view_width(depth)
    kind = str(rng.choice(["water", "smoke", "screen"]))
    reach = view * rng.uniform(0.1, 0.6)
    pixel = depth / draft.focal
    ripple = Ripple(
        pixel * draft.log_uniform(0.5, 6.0),
        reach * rng.uniform(0.2, 0.7),
        float(rng.uniform(0.2, 1.2)),
        int(rng.integers(2**31)),
    )
    texture = surface(rng, "poster" if kind == "screen" else kind)
    if kind == "water":
        return [surroundings.still(Shape.RECTANGLE, (reach, reach, 1), (x, y, 0.03), texture, "water", ripple=ripple)]
    if kind == "screen":
        turn = geo.frame_from_axes(np.array([rng.normal(0, 0.2), -1.0, 0.0]), (1.0, 0, 0))
        center = (x, y, draft.eye + rng.uniform(-0.1, 0.1) * depth)
        size = (0.4 * reach, 0.25 * reach, 1)
        return [surroundings.still(Shape.RECTANGLE, size, center, texture, "screen", turn=turn, ripple=ripple)]
    return [
        surroundings.still(
            Shape.ELLIPSOID,
            0.4 * reach * rng.uniform(0.5, 1, 3),
            np.array([x, y, draft.eye]) + 0.3 * reach * rng.normal(size=3),
            texture,
            "smoke",
            ripple=replace(ripple, wavelength=reach * 0.3),
        )
        for _ in range(int(rng.integers(2, 6)))
    ]


def _sway(draft: _Draft, primitives: list[Primitive]) -> list[Primitive]:
    """Wind in the leaves of some worlds."""
    rng = draft.rng
    if rng.random() > 0.2:
        return primitives
    strength = draft.log_uniform(0.5, 4.0) / draft.focal
    frames = np.arange(draft.num_frames)[:, None]
    out = []
    for primitive in primitives:
        if primitive.class_id == CLASS_ID["foliage"] and primitive.shape == Shape.ELLIPSOID:
            depth = max(primitive.pose[1, 3] + draft.distance, 1.0)
            wave = np.sin(rng.uniform(0.15, 0.5) * frames + rng.uniform(0, 2 * np.pi, 3)) * (1, 0.5, 0.3)
            pose = geo.affine(primitive.pose[:, :3], primitive.pose[:, 3] + strength * depth * wave)
            primitive = replace(primitive, pose=pose, incoherent=True)
        out.append(primitive)
    return out


def uncrowded(primitives: list[Primitive], centers: Array, margin: float = 0.25) -> list[Primitive]:
    """Leaves out what the camera would run into: static primitives one by one, movers as a whole."""
    bad: set[int] = set()
    out = []
    for primitive in primitives:
        if primitive.shape in (Shape.PLANE, Shape.RECTANGLE):
            out.append(primitive)
            continue
        offset = centers - primitive.pose[..., 3]
        local = (np.swapaxes(primitive.pose[..., :3], -1, -2) @ offset[..., None])[..., 0]
        ratio = np.abs(local) / (np.asarray(primitive.size) + margin)
        reach = ratio.max(axis=1) if primitive.shape == Shape.BOX else np.linalg.norm(ratio, axis=1)
        if (reach < 1).any():
            bad.add(primitive.object_id)
            if primitive.object_id == 0:
                continue
        out.append(primitive)
    return [primitive for primitive in out if primitive.object_id == 0 or primitive.object_id not in bad]
