"""Static surroundings: streets, parks, rooms and the clutter in them.

The action takes place around the origin. Cameras of the named scenes stand at negative y and look towards positive y.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from segmotion_plugin.simulation import geometry as geo
from segmotion_plugin.simulation.primitives import CLASS_ID, Primitive, Ripple
from segmotion_plugin.simulation.shapes import Shape
from segmotion_plugin.simulation.surfaces import surface
from segmotion_plugin.simulation.textures import Texture

Array = NDArray[np.floating]
Clear = Callable[[Array], bool]  # says of a place (x, y) whether it must stay free


def still(
    shape: Shape,
    size: ArrayLike,
    center: ArrayLike,
    texture: Texture,
    name: str,
    yaw: float = 0.0,
    turn: Array | None = None,
    ripple: Ripple | None = None,
) -> Primitive:
    """One static primitive."""
    sizes = np.broadcast_to(np.asarray(size, float), 3)
    pose = geo.affine(geo.rotation("z", yaw) if turn is None else turn, np.asarray(center, float))
    return Primitive(
        shape, (float(sizes[0]), float(sizes[1]), float(sizes[2])), pose, texture, CLASS_ID[name], ripple=ripple
    )


def ground(rng: np.random.Generator, material: str, height: float = 0.0) -> Primitive:
    """An unbounded floor of a material."""
    return still(Shape.PLANE, 1, (0, 0, height), surface(rng, material), "ground", yaw=float(rng.uniform(0, 2 * np.pi)))


def wall(center: ArrayLike, normal: ArrayLike, half_width: float, half_height: float, texture: Texture) -> Primitive:
    """An upright rectangle (or level, when the normal is vertical) that faces along ``normal``."""
    normal = np.asarray(normal, float)
    hint = (0.0, 1.0, 0.0) if abs(normal[2]) > 0.9 else tuple(np.cross((0.0, 0.0, 1.0), normal))
    return still(
        Shape.RECTANGLE, (half_width, half_height, 1), center, texture, "wall", turn=geo.frame_from_axes(normal, hint)
    )


def buildings(rng: np.random.Generator, distance: float, reach: float, depth: float = 4.0) -> list[Primitive]:
    """A row of houses behind the action, from -reach to reach along x."""
    out: list[Primitive] = []
    x = -reach
    while x < reach:
        half = rng.uniform(2.5, 6.0)
        high = rng.uniform(3.0, 8.0)
        back = distance + rng.uniform(0, depth)
        out.append(
            still(
                Shape.BOX,
                (half, 3.0, high),
                (x + half, back + 3.0, high),
                surface(rng, "facade"),
                "building",
                yaw=rng.normal(0, 0.04),
            )
        )
        x += 2 * half + (rng.uniform(0.5, 3.0) if rng.random() < 0.4 else 0.02)
    return out


def hills(rng: np.random.Generator, distance: float, count: int = 5) -> list[Primitive]:
    """Far wooded hills."""
    out = []
    for x in np.linspace(-1.6, 1.6, count) * distance:
        size = distance * rng.uniform((0.35, 0.25, 0.12), (0.6, 0.4, 0.3))
        out.append(
            still(Shape.ELLIPSOID, size, (x, distance * rng.uniform(1.1, 1.5), 0), surface(rng, "hills"), "ground")
        )
    return out


def tree(rng: np.random.Generator, place: ArrayLike, height: float, blobs: int = 6) -> list[Primitive]:
    """A trunk with a crown of leafy blobs."""
    x, y = np.asarray(place, float)
    trunk = 0.035 * height * rng.uniform(0.7, 1.4)
    out = [still(Shape.CYLINDER, (trunk, trunk, 0.3 * height), (x, y, 0.3 * height), surface(rng, "bark"), "foliage")]
    leaves = surface(rng, "leaves")
    for _ in range(blobs):
        size = height * rng.uniform((0.1, 0.1, 0.08), (0.2, 0.2, 0.16))
        offset = height * rng.normal(0, (0.13, 0.13, 0.1))
        out.append(
            still(Shape.ELLIPSOID, size, offset + (x, y, 0.72 * height), leaves, "foliage", yaw=rng.uniform(0, 6.3))
        )
    return out


def bush(rng: np.random.Generator, place: ArrayLike, size: float, blobs: int = 5) -> list[Primitive]:
    """Many small leafy blobs near the ground."""
    x, y = np.asarray(place, float)
    leaves = surface(rng, "leaves")
    out = []
    for _ in range(blobs):
        half = size * rng.uniform(0.12, 0.4, 3)
        offset = size * rng.normal(0, (0.3, 0.3, 0.0))
        out.append(
            still(
                Shape.ELLIPSOID,
                half,
                offset + (x, y, half[2] * 0.8 + size * rng.uniform(0, 0.4)),
                leaves,
                "foliage",
                yaw=rng.uniform(0, 6.3),
            )
        )
    return out


def pole(rng: np.random.Generator, place: ArrayLike, height: float, radius: float) -> list[Primitive]:
    """A lamp post or pillar."""
    x, y = np.asarray(place, float)
    return [still(Shape.CYLINDER, (radius, radius, height / 2), (x, y, height / 2), surface(rng, "metal"), "pole")]


def rock(rng: np.random.Generator, place: ArrayLike, size: float) -> list[Primitive]:
    """A boulder."""
    x, y = np.asarray(place, float)
    half = size * rng.uniform(0.4, 0.8, 3)
    return [still(Shape.ELLIPSOID, half, (x, y, 0.4 * half[2]), surface(rng, "stone"), "rock", yaw=rng.uniform(0, 6))]


def furniture(rng: np.random.Generator, place: ArrayLike, size: float) -> list[Primitive]:
    """A cupboard, bench or kiosk: one or two boxes."""
    x, y = np.asarray(place, float)
    yaw = rng.uniform(0, 6.3)
    half = size * rng.uniform(0.3, 0.6, 3)
    out = [still(Shape.BOX, half, (x, y, half[2]), surface(rng, "floor"), "furniture", yaw)]
    if rng.random() < 0.5:
        top = half * rng.uniform(0.4, 0.8, 3)
        out.append(still(Shape.BOX, top, (x, y, 2 * half[2] + top[2]), surface(rng, "print"), "furniture", yaw + 0.3))
    return out


def sign(rng: np.random.Generator, place: ArrayLike, size: float, height: float) -> list[Primitive]:
    """A printed board on a post."""
    x, y = np.asarray(place, float)
    return [
        still(
            Shape.BOX,
            (size / 2, 0.04, size * 0.35),
            (x, y, height),
            surface(rng, "poster"),
            "sign",
            yaw=rng.normal(0, 0.4),
        ),
        still(Shape.CYLINDER, (0.04, 0.04, height / 2), (x, y, height / 2), surface(rng, "metal"), "pole"),
    ]


def scatter(
    rng: np.random.Generator,
    count: int,
    low: Sequence[float],
    high: Sequence[float],
    clear: Clear,
    indoor: bool = False,
) -> list[Primitive]:
    """Random clutter in a range of places (x, y), away from where the action is.

    Args:
        rng: Source of randomness.
        count: Number of things.
        low: Smallest x and y.
        high: Largest x and y.
        clear: Says whether a place must stay free.
        indoor: Furniture and pillars instead of trees and rocks.
    """
    out: list[Primitive] = []
    for _ in range(count):
        place = rng.uniform(low, high)
        if clear(place):
            continue
        choice = rng.random()
        if indoor:
            if choice < 0.7:
                out += furniture(rng, place, rng.uniform(0.6, 1.6))
            else:
                out += pole(rng, place, 3.2, rng.uniform(0.06, 0.2))
        elif choice < 0.3:
            out += tree(rng, place, rng.uniform(3.0, 8.0))
        elif choice < 0.5:
            out += bush(rng, place, rng.uniform(0.6, 1.8))
        elif choice < 0.65:
            out += pole(rng, place, rng.uniform(2.5, 6.0), rng.uniform(0.05, 0.14))
        elif choice < 0.75:
            out += rock(rng, place, rng.uniform(0.5, 1.8))
        elif choice < 0.87:
            out += sign(rng, place, rng.uniform(0.8, 1.8), rng.uniform(1.4, 2.6))
        else:
            out += furniture(rng, place, rng.uniform(0.8, 2.0))
    return out


def outdoors(
    rng: np.random.Generator, clear: Clear, distance: float = 14.0, clutter: int = 12, floor: str | None = None
) -> list[Primitive]:
    """A street, square or park.

    Args:
        rng: Source of randomness.
        clear: Says whether a place must stay free.
        distance: Distance of the houses or the wood behind the action, in metres.
        clutter: Number of things to scatter.
        floor: Material of the ground; a random one when none.
    """
    material = floor or str(rng.choice(["lawn", "road", "paving", "soil"]))
    out = [ground(rng, material)]
    if rng.random() < 0.7:
        out += buildings(rng, distance, 2.2 * distance)
    else:
        out += hills(rng, 4 * distance)
        for x in np.arange(-1.5 * distance, 1.5 * distance, 4.5):
            out += tree(rng, (x + rng.uniform(-1.5, 1.5), distance + rng.uniform(0, 5)), rng.uniform(5, 9), 5)
    out += scatter(rng, clutter, (-distance, -0.2 * distance), (distance, distance), clear)
    return out


def room(
    rng: np.random.Generator,
    half_width: float,
    front: float,
    back: float,
    height: float,
    clear: Clear,
    clutter: int = 8,
) -> list[Primitive]:
    """A closed room with posters and furniture; x from -half_width to half_width, y from front to back."""
    middle, half_depth = (front + back) / 2, (back - front) / 2
    papers = [surface(rng, "wallpaper") for _ in range(4)]
    half = height / 2
    out = [
        still(Shape.RECTANGLE, (half_width, half_depth, 1), (0, middle, 0), surface(rng, "floor"), "ground"),
        wall((0, middle, height), (0, 0, -1), half_depth, half_width, surface(rng, "wallpaper")),
        wall((0, back, half), (0, -1, 0), half_width, half, papers[0]),
        wall((0, front, half), (0, 1, 0), half_width, half, papers[1]),
        wall((-half_width, middle, half), (1, 0, 0), half_depth, half, papers[2]),
        wall((half_width, middle, half), (-1, 0, 0), half_depth, half, papers[3]),
    ]
    for _ in range(int(rng.integers(3, 7))):
        size = rng.uniform(0.3, 0.8)
        x, z = rng.uniform(-0.8, 0.8) * half_width, rng.uniform(0.35, 0.8) * height
        out.append(still(Shape.BOX, (size, 0.04, size * 0.7), (x, back - 0.05, z), surface(rng, "poster"), "sign"))
    out += scatter(rng, clutter, (-half_width + 0.6, front + 0.6), (half_width - 0.6, back - 0.6), clear, indoor=True)
    return out
