"""Colours of surfaces: prefiltered textures, sun and soft shadows, haze, sky."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from segmotion_plugin.simulation import geometry as geo
from segmotion_plugin.simulation.primitives import material
from segmotion_plugin.simulation.shapes import Shape, faces, local_normals, texture_coordinates
from segmotion_plugin.simulation.textures import MipMap, Texture, draw
from segmotion_plugin.simulation.world import World

Array = NDArray[np.floating]
_FLAT = (Shape.PLANE, Shape.RECTANGLE)
_TAPS = 3  # texture look-ups along the stretched direction of surfaces seen at a slant
_LARGEST_CASTER = 30.0  # metres; larger bodies are scenery whose shadow would only dim the world
_MACRO = Texture("noise", 11, ((0.2, 0.2, 0.2), (0.8, 0.8, 0.8)), size=256)


@dataclass(frozen=True)
class _Casters:
    """Bodies that throw shadows: numbers, centres, centres across the sun's direction, and reaches."""

    number: NDArray[np.intp]
    center: NDArray[np.float32]
    middle: NDArray[np.float32]
    reach: NDArray[np.float32]


def _dot(first: Array, second: Array) -> Array:
    """Row-wise inner products; sums along a short axis are slow in NumPy."""
    return np.einsum("ni,ni->n", first, second)


def _unit(vectors: Array) -> Array:
    return vectors / np.sqrt(_dot(vectors, vectors) + np.float32(1e-20))[:, None]


class Painter:
    """Shades the hits of rays in one world; holds its drawn textures.

    Args:
        world: The world.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._tiles: dict[Texture, MipMap] = {}  # drawn when first seen
        self._macro = MipMap(draw(_MACRO))
        look = world.look
        cover = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        self._clouds = MipMap(draw(Texture("noise", look.seed, cover, size=512)))
        self._sun = geo.unit(np.asarray(look.sun, float)).astype(np.float32)
        self._sun_plane = geo.frame_from_axes(self._sun.astype(float), (0.3, 0.9, 0.1))[:, :2].astype(np.float32)

    def shade(
        self,
        rays: Array,
        depth: Array,
        primitive: NDArray[np.integer],
        local_from_camera: Array,
        world_from_local: Array,
        cam_from_world: Array,
        time: float,
    ) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        """Colours of n ray hits.

        Args:
            rays: n x 3 directions in camera axes with z = 1.
            depth: n ray parameters, inf for the sky.
            primitive: n primitive numbers, -1 for the sky.
            local_from_camera: P x 3 x 4.
            world_from_local: P x 3 x 4.
            cam_from_world: 3 x 4.
            time: Frame number with fraction.

        Returns:
            Colours n x 3 in 0..255 and numbers of the smooth faces that were hit.
        """
        colors = np.empty((len(rays), 3), np.float32)
        face = np.zeros(len(rays), np.int8)
        order = np.argsort(primitive, kind="stable")
        numbers, starts = np.unique(primitive[order], return_index=True)
        turn = cam_from_world[:, :3].astype(np.float32)
        center = geo.camera_centers(cam_from_world).astype(np.float32)
        casters = self._casters(world_from_local)
        for number, start, stop in zip(numbers, starts, [*starts[1:], len(order)], strict=True):
            rows = order[start:stop]
            if number < 0:
                colors[rows] = self._sky(rays[rows] @ turn)
                continue
            maps, shape = local_from_camera[number], self._world.primitives[number].shape
            ray = rays[rows]
            points = ray * depth[rows, None]
            local = points @ maps[:, :3].T + maps[:, 3]
            # Normals turn by the inverse transpose, here at once into camera axes.
            normal = _unit(local_normals(shape, local) @ maps[:, :3])
            length = np.sqrt(_dot(ray, ray))
            slant = _dot(normal, ray) / length
            normal *= -np.sign(slant)[:, None]
            direction = ray @ maps[:, :3].T
            distance = depth[rows] * length
            albedo = self._albedo(int(number), local, direction, distance, np.abs(slant), time)
            light = np.maximum(normal @ (turn @ self._sun), 0)
            if shape in (*_FLAT, Shape.BOX):
                light *= self._lit(points @ turn + center, int(number), world_from_local, casters)
            ambient = np.float32(self._world.look.ambient) * (0.85 + 0.15 * (normal @ turn[:, 2]))
            shaded = albedo * (ambient + (1.5 - self._world.look.ambient) * light)[:, None]
            clear = np.exp(-distance / np.float32(self._world.look.haze))[:, None]
            haze = 255 * np.asarray(self._world.look.horizon, np.float32)
            colors[rows] = shaded * clear + haze * (1 - clear)
            face[rows] = faces(shape, local)
        return np.clip(colors, 0, 255), face

    def _albedo(self, number: int, local: Array, direction: Array, distance: Array, slant: Array, time: float) -> Array:
        primitive = self._world.primitives[number]
        texture = primitive.texture
        tile = self._tile(texture)
        size = np.asarray(primitive.size, np.float32)
        if primitive.ripple is not None:
            local = material(primitive, local, time)
        u, v = texture_coordinates(primitive.shape, local, size, texture.period)
        distance = distance.astype(np.float32, copy=False)
        minor = distance / np.float32(self._world.focal_at(time) * texture.period)  # footprint of a pixel, in tiles
        if primitive.shape in _FLAT:
            major = minor / np.maximum(slant, 0.02)
            along = _unit(direction[:, :2] * size[:2])
            level = np.log2(np.maximum(minor, major / _TAPS) * tile.size).astype(np.float32)
            color = np.zeros((len(u), 3), np.float32)
            for tap in range(_TAPS):
                shift = np.float32((tap + 0.5) / _TAPS - 0.5) * major.astype(np.float32)
                color += tile.sample(u + shift * along[:, 0], v + shift * along[:, 1], level) / _TAPS
        else:
            footprint = minor / np.sqrt(np.maximum(slant, 0.1))
            level = np.log2(footprint * tile.size).astype(np.float32)
            color = tile.sample(u, v, level)
        if max(size[:2].max(), 1) > texture.period or primitive.shape == Shape.PLANE:
            # A slow second pattern at another angle and scale, so that repeated tiles do not look alike.
            macro = self._macro.sample(0.211 * u - 0.093 * v + 0.3, 0.093 * u + 0.211 * v, level - np.float32(3.1))
            color *= 0.55 + macro * np.float32(0.9 / 255)
        return color

    def _tile(self, texture: Texture) -> MipMap:
        if texture not in self._tiles:
            # Small pictures never show the finest level of the pyramid.
            halvings = int(self._world.width < 400) + int(self._world.width < 200)
            self._tiles[texture] = MipMap(draw(replace(texture, size=texture.size >> halvings)))
        return self._tiles[texture]

    def _casters(self, world_from_local: Array) -> _Casters:
        linear = world_from_local[:, :, :3]
        reach = np.sqrt((linear**2).sum(1).max(1)) * 1.5
        throws = np.array([primitive.shape not in _FLAT for primitive in self._world.primitives])
        number = np.flatnonzero(throws & (reach < _LARGEST_CASTER))
        center = world_from_local[number, :, 3].astype(np.float32)
        return _Casters(number, center, center @ self._sun_plane, reach[number].astype(np.float32))

    def _lit(self, points: Array, own: int, world_from_local: Array, casters: _Casters) -> NDArray[np.float32]:
        """Share of the sun's light that reaches world points (n x 3); bodies shade like soft ellipsoids."""
        lit = np.ones(len(points), np.float32)
        across, along = points @ self._sun_plane[:, 0], points @ self._sun_plane[:, 1]
        middle, reach = casters.middle, casters.reach
        close = (middle[:, 0] + reach > across.min()) & (middle[:, 0] - reach < across.max())
        close &= (middle[:, 1] + reach > along.min()) & (middle[:, 1] - reach < along.max())
        for index in np.flatnonzero(close & (casters.number != own)):
            number = casters.number[index]
            near = np.abs(across - middle[index, 0]) < reach[index]
            near &= np.abs(along - middle[index, 1]) < reach[index]
            rows = np.flatnonzero(near)
            if not len(rows):
                continue
            inverse = np.linalg.inv(world_from_local[number][:, :3]).astype(np.float32)
            if self._world.primitives[number].shape == Shape.BOX:
                inverse = inverse / np.float32(1.2)
            origin = (points[rows] - casters.center[index]) @ inverse.T
            toward = inverse @ self._sun
            closest = -(origin @ toward) / (toward @ toward)
            miss = np.sqrt(np.maximum(_dot(origin, origin) + closest * (origin @ toward), 0))
            shadow = geo.ease((1.15 - miss) / 0.35).astype(np.float32) * (closest > 0)
            lit[rows] *= 1 - shadow
        return lit

    def _sky(self, directions: Array) -> NDArray[np.float32]:
        look = self._world.look
        directions = _unit(directions)
        height = np.clip(directions[:, 2], 0, 1)
        zenith, horizon = np.asarray(look.zenith, np.float32), np.asarray(look.horizon, np.float32)
        blend = (1 - np.exp(-3 * height))[:, None].astype(np.float32)
        color = horizon + (zenith - horizon) * blend
        spread = 0.22 / (height + 0.12)
        level = np.log2(512 * spread / self._world.focal) + np.float32(0.5)
        cover = self._clouds.sample(directions[:, 0] * spread, directions[:, 1] * spread, level)[:, :1] / 255
        opacity = np.clip((cover - 0.75 + 0.45 * look.clouds) * 3, 0, 0.9) * np.clip(height * 12, 0, 1)[:, None]
        return (255 * (color * (1 - opacity) + np.float32(0.97) * opacity)).astype(np.float32)
