"""Bodies that move, or that stand still and look as if they could.

Every function takes a :class:`~segmotion_plugin.simulation.paths.Path` and a style seed. Two calls with one seed give
twins: same shape, same colours, same class. Body axes: x forward, y to the left, z up, origin on the ground.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from segmotion_plugin.simulation import geometry as geo
from segmotion_plugin.simulation.paths import Path
from segmotion_plugin.simulation.primitives import CLASS_ID, Primitive
from segmotion_plugin.simulation.shapes import Shape
from segmotion_plugin.simulation.surfaces import surface
from segmotion_plugin.simulation.textures import Texture

Array = NDArray[np.floating]
_EYE = np.eye(3)


def _part(
    path: Path,
    shape: Shape,
    size: Sequence[float],
    pose: Array,
    texture: Texture,
    name: str,
    object_id: int,
    stretch: Array | None = None,
) -> Primitive:
    return Primitive(
        shape,
        (float(size[0]), float(size[1]), float(size[2])),
        geo.compose(path.pose, pose),
        texture,
        CLASS_ID[name],
        object_id,
        stretch,
    )


def _fixed(x: float, y: float, z: float, turn: Array = _EYE) -> Array:
    return geo.affine(turn, (x, y, z))


def _limb(start: Array, end: Array, thickness: float) -> tuple[tuple[float, float, float], Array]:
    """Size and pose (body axes) of a limb between two joints (T x 3 each); its length is that of the first frame."""
    length = float(np.linalg.norm(end[0] - start[0]))
    return (thickness, thickness, length / 2 + 0.6 * thickness), geo.affine(
        geo.frame_from_axes(end - start, (1.0, 0.05, 0.02)), (start + end) / 2
    )


def _bend(root: Array, tip: Array, upper: float, lower: float, forward: float) -> tuple[Array, Array]:
    """Two-bone inverse kinematics: middle joint and reached tip (T x 3), bent towards +x or -x."""
    reach = tip - root
    length = np.linalg.norm(reach, axis=1, keepdims=True)
    direction = reach / np.maximum(length, 1e-9)
    length = np.clip(length, abs(upper - lower) + 1e-3, 0.999 * (upper + lower))
    along = (upper**2 - lower**2 + length**2) / (2 * length)
    side = np.sqrt(np.maximum(upper**2 - along**2, 0))
    ahead = np.array([forward, 0.0, 0.0])
    ahead = geo.unit(ahead - (direction @ ahead)[:, None] * direction)
    return root + along * direction + side * ahead, root + length * direction


def _foot(travelled: Array, stride: float, phase: float, lift: float) -> tuple[Array, Array]:
    """Foot ahead of the hip and above the ground (T each): at rest on the ground for half of each stride."""
    cycle = (travelled / stride + phase) % 1
    swing = np.clip(2 * cycle - 1, 0, 1)
    ahead = np.where(cycle < 0.5, 0.25 - cycle, -0.25 + 0.5 * geo.ease(swing)) * stride
    return ahead, lift * np.sin(np.pi * swing)


def walker(path: Path, seed: int, object_id: int = 0, height: float = 1.75) -> list[Primitive]:
    """A person who walks: legs with inverse kinematics (feet rest on the ground), arms that swing, a head."""
    rng = np.random.default_rng([seed, 1])
    shirt, trousers, skin, hair = (surface(rng, kind) for kind in ("cloth", "cloth_dark", "skin", "hair"))
    count, stride = path.num_frames, height * rng.uniform(0.75, 0.85)
    build = rng.uniform(0.9, 1.2)
    hip_height, upper, lower = 0.5 * height, 0.255 * height, 0.255 * height
    phase = path.travelled / stride
    bob = 0.012 * height * np.cos(4 * np.pi * phase)
    out = []

    def add(shape: Shape, size: Sequence[float], pose: Array, texture: Texture) -> None:
        out.append(_part(path, shape, size, pose, texture, "person", object_id))

    def at(x: Array | float, y: float, z: Array | float) -> Array:
        return np.stack([np.broadcast_to(v, count) for v in (x, y, z)], axis=1).astype(float)

    for side, offset in ((1, 0.0), (-1, 0.5)):
        hip = at(0.0, side * 0.055 * height, hip_height + bob)
        ahead, up = _foot(path.travelled, stride, offset, 0.06 * height)
        ankle = at(ahead, side * 0.055 * height, 0.045 * height + up)
        knee, ankle = _bend(hip, ankle, upper, lower, 1.0)
        add(Shape.ELLIPSOID, *_limb(hip, knee, 0.052 * height * build), trousers)
        add(Shape.ELLIPSOID, *_limb(knee, ankle, 0.036 * height * build), trousers)
        pitch = geo.rotation("y", -0.5 * up / (0.06 * height))
        add(
            Shape.ELLIPSOID,
            (0.07 * height, 0.026 * height, 0.024 * height),
            geo.affine(pitch, ankle + (0.035 * height, 0, -0.02 * height)),
            hair,
        )
        shoulder = at(0.0, side * 0.115 * height * build, 0.8 * height + bob)
        swing = -side * 0.55 * np.sin(2 * np.pi * phase + 0.25 * np.pi)
        elbow = shoulder + 0.17 * height * np.stack([np.sin(swing), np.full(count, 0.12 * side), -np.cos(swing)], 1)
        bent = swing + 0.35
        wrist = elbow + 0.16 * height * np.stack([np.sin(bent), np.zeros(count), -np.cos(bent)], 1)
        add(Shape.ELLIPSOID, *_limb(shoulder, elbow, 0.033 * height * build), shirt)
        add(Shape.ELLIPSOID, *_limb(elbow, wrist, 0.026 * height), skin)
    twist = geo.rotation("z", 0.12 * np.sin(2 * np.pi * phase))
    add(
        Shape.ELLIPSOID,
        (0.075 * height * build, 0.12 * height * build, 0.19 * height),
        geo.affine(twist, at(0.0, 0.0, 0.66 * height + bob)),
        shirt,
    )
    add(
        Shape.ELLIPSOID,
        (0.07 * height, 0.1 * height * build, 0.08 * height),
        geo.affine(_EYE, at(0.0, 0.0, 0.51 * height + bob)),
        trousers,
    )
    head = at(0.02 * height, 0.0, 0.925 * height + bob)
    add(Shape.ELLIPSOID, (0.056 * height, 0.047 * height, 0.07 * height), geo.affine(_EYE, head), skin)
    add(
        Shape.ELLIPSOID,
        (0.058 * height, 0.052 * height, 0.055 * height),
        geo.affine(_EYE, head + (-0.012 * height, 0, 0.025 * height)),
        hair,
    )
    return out


def quadruped(path: Path, seed: int, object_id: int = 0, height: float = 0.9) -> list[Primitive]:
    """A four-legged animal that trots; ``height`` is that of its back in metres."""
    rng = np.random.default_rng([seed, 2])
    fur = surface(rng, "fur")
    dark = surface(rng, "hair")
    count, stride = path.num_frames, height * rng.uniform(1.1, 1.5)
    length, girth = height * rng.uniform(0.55, 0.75), height * rng.uniform(0.17, 0.24)
    phase = path.travelled / stride
    bob = 0.02 * height * np.cos(4 * np.pi * phase)
    out = []

    def add(size: Sequence[float], pose: Array, texture: Texture) -> None:
        out.append(_part(path, Shape.ELLIPSOID, size, pose, texture, "quadruped", object_id))

    def at(x: Array | float, y: Array | float, z: Array | float) -> Array:
        return np.stack([np.broadcast_to(v, count) for v in (x, y, z)], axis=1).astype(float)

    add((length, girth, girth * 1.1), geo.affine(_EYE, at(0.0, 0.0, 0.8 * height + bob)), fur)
    for front, side, offset in ((1, 1, 0.0), (1, -1, 0.5), (-1, 1, 0.5), (-1, -1, 0.0)):
        root = at(front * 0.75 * length, side * 0.6 * girth, 0.72 * height + bob)
        ahead, up = _foot(path.travelled, stride, offset, 0.1 * height)
        paw = at(front * 0.75 * length + ahead, side * 0.6 * girth, 0.03 * height + up)
        knee, paw = _bend(root, paw, 0.38 * height, 0.38 * height, -1.0 if front > 0 else 1.0)
        add(*_limb(root, knee, 0.08 * height), fur)
        add(*_limb(knee, paw, 0.05 * height), dark)
    nod = 0.06 * np.sin(2 * np.pi * phase)
    neck, head = at(0.9 * length, 0.0, 0.92 * height + bob), at(1.25 * length, 0.0, (1.2 + nod) * height)
    add(*_limb(neck, head, 0.11 * height), fur)
    add((0.2 * height, 0.1 * height, 0.1 * height), geo.affine(_EYE, head + (0.08 * height, 0, 0)), fur)
    wag = 0.15 * height * np.sin(2 * np.pi * 1.7 * phase)
    add(*_limb(at(-length, 0.0, 0.9 * height), at(-length - 0.3 * height, wag, height), 0.04 * height), dark)
    return out


def car(path: Path, seed: int, object_id: int = 0, length: float = 4.3) -> list[Primitive]:
    """A car: body, cabin, wheels that turn, lamps."""
    rng = np.random.default_rng([seed, 3])
    paint, glass, tyre, lamp = (surface(rng, kind) for kind in ("paint", "glass", "tyre", "lamp"))
    width, high = length * rng.uniform(0.4, 0.45), length * rng.uniform(0.31, 0.38)
    radius = 0.075 * length
    out = []

    def add(shape: Shape, size: Sequence[float], pose: Array, texture: Texture) -> None:
        out.append(_part(path, shape, size, pose, texture, "car", object_id))

    floor, sill = 0.9 * radius, 0.56 * high
    add(Shape.BOX, (length / 2, width / 2, (sill - floor) / 2 + 0.02), _fixed(0, 0, (sill + floor) / 2), paint)
    add(Shape.ELLIPSOID, (length * 0.5, width * 0.47, high * 0.22), _fixed(0, 0, sill), paint)
    cabin = rng.uniform(0.25, 0.31) * length
    back = -rng.uniform(0.02, 0.1) * length
    add(Shape.ELLIPSOID, (cabin * 1.2, width * 0.46, high - sill + 0.05), _fixed(back, 0, sill), glass)
    add(Shape.BOX, (cabin * 0.62, width * 0.37, 0.06 * high), _fixed(back, 0, 0.93 * high), paint)
    spin = geo.rotation("y", path.travelled / radius) @ geo.rotation("x", np.pi / 2)
    for front in (0.31, -0.31):
        for side in (1, -1):
            place = np.tile([front * length, side * (width / 2 - 0.04 * length), radius], (path.num_frames, 1))
            add(Shape.CYLINDER, (radius, radius, 0.05 * length), geo.affine(spin, place), tyre)
    for side in (1, -1):
        for end in (1, -1):
            add(
                Shape.ELLIPSOID,
                (0.02 * length, 0.04 * length, 0.02 * length),
                _fixed(end * length / 2, side * width * 0.36, sill * 0.8),
                lamp,
            )
    return out


def truck(path: Path, seed: int, object_id: int = 0, length: float = 7.0, cover: str = "print") -> list[Primitive]:
    """A lorry or bus: a long box covered with a material, a cab, wheels."""
    rng = np.random.default_rng([seed, 4])
    side_print, paint, glass, tyre = (surface(rng, kind) for kind in (cover, "paint", "glass", "tyre"))
    width, high, radius = 0.34 * length, rng.uniform(0.4, 0.5) * length, 0.07 * length
    out = []

    def add(shape: Shape, size: Sequence[float], pose: Array, texture: Texture) -> None:
        out.append(_part(path, shape, size, pose, texture, "truck", object_id))

    add(
        Shape.BOX,
        (0.38 * length, width / 2, (high - radius) / 2),
        _fixed(-0.12 * length, 0, (high + radius) / 2),
        side_print,
    )
    add(Shape.BOX, (0.12 * length, width * 0.48, 0.3 * high), _fixed(0.38 * length, 0, 0.3 * high + radius), paint)
    add(Shape.BOX, (0.122 * length, width * 0.42, 0.1 * high), _fixed(0.385 * length, 0, 0.45 * high + radius), glass)
    spin = geo.rotation("y", path.travelled / radius) @ geo.rotation("x", np.pi / 2)
    for along in (0.36, -0.18, -0.36):
        for side in (1, -1):
            place = np.tile([along * length, side * (width / 2 - 0.03 * length), radius], (path.num_frames, 1))
            add(Shape.CYLINDER, (radius, radius, 0.035 * length), geo.affine(spin, place), tyre)
    return out


def ball(path: Path, seed: int, object_id: int = 0, radius: float = 0.3) -> list[Primitive]:
    """A ball that rolls; the path's position is on the ground."""
    rng = np.random.default_rng([seed, 5])
    roll = geo.rotation("y", path.travelled / radius)
    pose = geo.affine(roll, np.tile([0.0, 0.0, radius], (path.num_frames, 1)))
    return [_part(path, Shape.ELLIPSOID, (radius,) * 3, pose, surface(rng, "print"), "ball", object_id)]


def bird(path: Path, seed: int, object_id: int = 0, span: float = 1.0) -> list[Primitive]:
    """A bird that flaps its wings; the path's position is its middle."""
    rng = np.random.default_rng([seed, 6])
    feathers, dark = surface(rng, "fur"), surface(rng, "hair")
    beat = np.where(np.ptp(path.travelled) > 0, 0.7, 0.0) * np.sin(
        path.travelled / max(span, 1e-6) * rng.uniform(3.0, 5.0)
    )
    out = [
        _part(
            path, Shape.ELLIPSOID, (0.25 * span, 0.09 * span, 0.09 * span), _fixed(0, 0, 0), feathers, "bird", object_id
        ),
        _part(
            path,
            Shape.ELLIPSOID,
            (0.08 * span, 0.06 * span, 0.06 * span),
            _fixed(0.26 * span, 0, 0.05 * span),
            dark,
            "bird",
            object_id,
        ),
    ]
    for side in (1, -1):
        turn = geo.rotation("x", side * beat)
        hinge = turn @ np.array([0, side * 0.25 * span, 0])
        out.append(
            _part(
                path,
                Shape.ELLIPSOID,
                (0.12 * span, 0.27 * span, 0.015 * span),
                geo.affine(turn, hinge),
                feathers,
                "bird",
                object_id,
            )
        )
    return out


def creature(path: Path, seed: int, object_id: int = 0, size: float = 0.8) -> list[Primitive]:
    """A soft body that breathes and squirms while it moves: ellipsoids whose radii oscillate."""
    rng = np.random.default_rng([seed, 7])
    skin = surface(rng, "fur" if rng.random() < 0.5 else "print")
    frames = np.arange(path.num_frames)
    speed = rng.uniform(0.15, 0.35)
    active = float(np.ptp(path.travelled) > 0)
    out = []
    for _ in range(int(rng.integers(2, 5))):
        radii = size * rng.uniform(0.35, 0.6, 3)
        wave = 0.16 * active * np.sin(speed * frames[:, None] + rng.uniform(0, 6.3, 3))
        place = size * rng.uniform(-0.35, 0.35, 3) + (0, 0, size * 0.75)
        out.append(_part(path, Shape.ELLIPSOID, tuple(radii), _fixed(*place), skin, "creature", object_id, 1 + wave))
    return out


def crate(path: Path, seed: int, object_id: int = 0, size: float = 0.8) -> list[Primitive]:
    """A printed box on the ground: a parcel, a robot, a suitcase."""
    rng = np.random.default_rng([seed, 8])
    half = size * rng.uniform(0.6, 1.0, 3) / 2
    return [_part(path, Shape.BOX, tuple(half), _fixed(0, 0, half[2]), surface(rng, "print"), "crate", object_id)]


def drone(path: Path, seed: int, object_id: int = 0, size: float = 0.6) -> list[Primitive]:
    """A thing that flies and tumbles: a box with arms; the path's position is its middle."""
    rng = np.random.default_rng([seed, 9])
    shell, dark = surface(rng, "print"), surface(rng, "tyre")
    tumble = geo.rotation("x", rng.uniform(0, 0.8) * path.travelled) @ geo.rotation(
        "y", rng.uniform(0, 0.8) * path.travelled
    )
    out = []
    body = (0.3 * size, 0.25 * size, 0.15 * size)
    for shape, extent, place, texture in (
        (Shape.BOX, body, (0, 0, 0), shell),
        (Shape.BOX, (0.05 * size, 0.5 * size, 0.04 * size), (0.15 * size, 0, 0.1 * size), dark),
        (Shape.BOX, (0.05 * size, 0.5 * size, 0.04 * size), (-0.15 * size, 0, 0.1 * size), dark),
    ):
        offset = tumble @ np.asarray(place, float)
        out.append(_part(path, shape, extent, geo.affine(tumble, offset), texture, "drone", object_id))
    return out


# Builders with the size that their last argument takes in nature (metres, low and high) and whether they fly.
KINDS: dict[str, tuple[Callable[..., list[Primitive]], tuple[float, float], bool]] = {
    "person": (walker, (1.5, 1.95), False),
    "quadruped": (quadruped, (0.5, 1.6), False),
    "car": (car, (3.8, 4.8), False),
    "truck": (truck, (5.5, 9.0), False),
    "ball": (ball, (0.15, 0.6), False),
    "bird": (bird, (0.5, 1.6), True),
    "creature": (creature, (0.5, 1.5), False),
    "crate": (crate, (0.5, 1.6), False),
    "drone": (drone, (0.4, 1.0), True),
}
# Share of the square of its size that a body covers, seen from the side.
_FILL = {
    "person": 0.22,
    "quadruped": 0.9,
    "car": 0.25,
    "truck": 0.4,
    "ball": 3.1,
    "bird": 0.15,
    "creature": 0.9,
    "crate": 0.6,
    "drone": 0.35,
}


def depth_for_share(name: str, size: float, share: float, focal: float, pixels: int) -> float:
    """Depth in metres at which a body of a kind covers about a share of a picture of so many pixels."""
    return float(size * focal * np.sqrt(_FILL[name] / (share * pixels)))
