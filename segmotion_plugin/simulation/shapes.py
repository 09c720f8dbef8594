"""The canonical shapes that simulated worlds are made of, and how rays meet them.

Every primitive is one of five canonical shapes under an affine map ``world_from_local`` that may differ from frame to
frame. The ray parameter does not change under an affine map, so hits found in local coordinates are depths at once,
and local coordinates are the *material* coordinates that tracks follow and textures are glued to.

==========  =========================================
shape       canonical surface (local coordinates)
==========  =========================================
PLANE       z = 0, without bounds
RECTANGLE   z = 0, abs(x) <= 1, abs(y) <= 1
BOX         the cube [-1, 1]^3
ELLIPSOID   the unit sphere
CYLINDER    x^2 + y^2 <= 1, abs(z) <= 1, with caps
==========  =========================================
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
_TINY = np.float32(1e-12)


class Shape(IntEnum):
    """Canonical shapes; see the module's table."""

    PLANE = 0
    RECTANGLE = 1
    BOX = 2
    ELLIPSOID = 3
    CYLINDER = 4


def _keep_hits(parameter: Array, hit: NDArray[np.bool_]) -> Array:
    return np.where(hit & (parameter > 1e-6), parameter, np.float32(np.inf))


def _slab(origin: Array, direction: Array) -> tuple[Array, Array]:
    inverse = 1 / (direction + _TINY)
    middle, half = -origin * inverse, np.abs(inverse)
    return middle - half, middle + half


def _disc(radial: tuple[Array, ...], direction: tuple[Array, ...]) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Entry and exit through ``sum(r^2) = 1``.

    The closest approach is found first: the textbook discriminant cancels badly in float32 when the camera is
    hundreds of radii away.
    """
    square = sum(d * d for d in direction) + _TINY
    closest = -sum(o * d for o, d in zip(radial, direction, strict=True)) / square
    rest = 1 - sum((o + closest * d) ** 2 for o, d in zip(radial, direction, strict=True))
    half = np.sqrt(np.maximum(rest, 0) / square)
    return closest - half, closest + half, np.asarray(rest >= 0)


def intersect(shape: Shape, origin: tuple[Array, Array, Array], direction: tuple[Array, Array, Array]) -> Array:
    """Ray parameters of the first hits in front of the origin.

    Rays that start inside a body do not see it.

    Args:
        shape: The canonical shape.
        origin: Local x, y, z of the ray origins, broadcastable to the directions.
        direction: Local x, y, z of the ray directions, any length.

    Returns:
        ``s`` with ``hit = origin + s * direction``; inf where there is none.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if shape in (Shape.PLANE, Shape.RECTANGLE):
            parameter = -origin[2] / (direction[2] + _TINY)
            if shape == Shape.PLANE:
                return _keep_hits(parameter, parameter < 1e7)
            x, y = origin[0] + parameter * direction[0], origin[1] + parameter * direction[1]
            return _keep_hits(parameter, np.maximum(np.abs(x), np.abs(y)) <= 1)
        if shape == Shape.BOX:
            near, far = _slab(origin[0], direction[0])
            for axis in (1, 2):
                low, high = _slab(origin[axis], direction[axis])
                near, far = np.maximum(near, low), np.minimum(far, high)
            return _keep_hits(near, near <= far)
        if shape == Shape.ELLIPSOID:
            near, _, hit = _disc(origin, direction)
            return _keep_hits(near, hit)
        near, far, hit = _disc(origin[:2], direction[:2])
        low, high = _slab(origin[2], direction[2])
        near, far = np.maximum(near, low), np.minimum(far, high)
        return _keep_hits(near, hit & (near <= far))


def local_normals(shape: Shape, local: Array) -> Array:
    """Outward normals (n x 3, not normalised) at surface points (n x 3), in local coordinates."""
    if shape == Shape.ELLIPSOID:
        return local
    normals = np.zeros_like(local)
    if shape in (Shape.PLANE, Shape.RECTANGLE):
        normals[:, 2] = 1
    elif shape == Shape.BOX:
        axis = _box_axis(local)
        rows = np.arange(len(local))
        normals[rows, axis] = np.sign(local[rows, axis])
    else:
        cap = _on_cap(local)
        normals[:, :2] = np.where(cap[:, None], 0, local[:, :2])
        normals[:, 2] = np.where(cap, np.sign(local[:, 2]), 0)
    return normals


def faces(shape: Shape, local: Array) -> NDArray[np.int8]:
    """Number of the smooth face that surface points (n x 3) lie on; an edge runs where it changes."""
    if shape == Shape.BOX:
        axis = _box_axis(local)
        return (2 * axis + (local[np.arange(len(local)), axis] > 0)).astype(np.int8)
    if shape == Shape.CYLINDER:
        return _on_cap(local).astype(np.int8)
    return np.zeros(len(local), np.int8)


def _box_axis(local: Array) -> NDArray[np.intp]:
    x, y, z = np.abs(local.T)
    return np.where((x >= y) & (x >= z), 0, np.where(y >= z, 1, 2))


def _on_cap(local: Array) -> NDArray[np.bool_]:
    return np.abs(local[:, 2]) >= 1 - 1e-4


def texture_coordinates(shape: Shape, local: Array, size: Array, period: float) -> tuple[Array, Array]:
    """Texture coordinates in tiles (1 = one period), without seams around ellipsoids and cylinders.

    Args:
        shape: The canonical shape.
        local: Surface points, n x 3.
        size: Half sizes of the primitive at rest, 3 values in metres (1 for an unbounded plane).
        period: Length in metres that one texture tile covers.

    Returns:
        u and v, n each.
    """
    scaled = local * (size / period).astype(local.dtype)
    if shape in (Shape.PLANE, Shape.RECTANGLE):
        return scaled[:, 0], scaled[:, 1]
    if shape == Shape.BOX:
        axis = _box_axis(local)
        # Side faces keep the vertical axis as v, so bricks and windows stand upright.
        u = np.where(axis == 0, scaled[:, 1], scaled[:, 0])
        v = np.where(axis == 2, scaled[:, 1], -scaled[:, 2])
        offset = axis * np.float32(0.37) + np.float32(0.19) * (local[np.arange(len(local)), axis] > 0)
        return u + offset, v + offset
    around = float(np.hypot(size[0], size[1])) / np.sqrt(2) * 2 * np.pi / period
    turns = max(1.0, round(around))
    u = np.arctan2(local[:, 1], local[:, 0]) * np.float32(turns / (2 * np.pi))
    if shape == Shape.ELLIPSOID:
        return u, np.arcsin(np.clip(local[:, 2], -1, 1)) * np.float32(size[2] / period)
    cap = _on_cap(local)
    return np.where(cap, scaled[:, 0], u), np.where(cap, scaled[:, 1], scaled[:, 2])
