"""Colours of surfaces: prefiltered textures, sun and soft shadows, haze, sky."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segmotion_plugin.simulation import geometry as geo
from segmotion_plugin.simulation.shapes import Shape, faces, local_normals, texture_coordinates
from segmotion_plugin.simulation.textures import MipMap, Texture, draw
from segmotion_plugin.simulation.world import World, material

Array = NDArray[np.floating]
_FLAT = (Shape.PLANE, Shape.RECTANGLE)
_TAPS = 3  # texture look-ups along the stretched direction of surfaces seen at a slant
_LARGEST_CASTER = 30.0  # metres; larger bodies are scenery whose shadow would only dim the world
_MACRO = Texture("noise", 11, ((0.2, 0.2, 0.2), (0.8, 0.8, 0.8)), size=256)


class Painter:
    """Shades the hits of rays in one world; holds its drawn textures.

    Args:
        world: The world.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        tiles = {primitive.texture for primitive in world.primitives}
        self._tiles = {texture: MipMap(draw(texture)) for texture in tiles}
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
            maps = local_from_camera[number]
            points = rays[rows] * depth[rows, None]
            local = points @ maps[:, :3].T + maps[:, 3]
            direction = rays[rows] @ maps[:, :3].T
            linear = world_from_local[number][:, :3].astype(np.float32)
            normal = geo.unit(local_normals(self._world.primitives[number].shape, local) @ np.linalg.inv(linear))
            ray_world = rays[rows] @ turn
            length = np.sqrt((rays[rows] ** 2).sum(1))
            slant = (normal * ray_world).sum(1) / length
            normal *= -np.sign(slant)[:, None]
            distance = depth[rows] * length
            albedo = self._albedo(int(number), local, direction, distance, np.abs(slant), time)
            light = np.maximum(normal @ self._sun, 0)
            if self._world.primitives[number].shape in (*_FLAT, Shape.BOX):
                light *= self._lit(points @ turn + center, int(number), world_from_local, casters)
            ambient = np.float32(self._world.look.ambient) * (0.85 + 0.15 * normal[:, 2])
            shaded = albedo * (ambient + (1.25 - self._world.look.ambient) * light)[:, None]
            clear = np.exp(-distance / np.float32(self._world.look.haze))[:, None]
            haze = 255 * np.asarray(self._world.look.horizon, np.float32)
            colors[rows] = shaded * clear + haze * (1 - clear)
            face[rows] = faces(self._world.primitives[number].shape, local)
        return np.clip(colors, 0, 255), face

    def _albedo(
        self, number: int, local: Array, direction: Array, distance: Array, slant: Array, time: float
    ) -> Array:
        primitive = self._world.primitives[number]
        texture = primitive.texture
        tile = self._tiles[texture]
        size = np.asarray(primitive.size, np.float32)
        if primitive.ripple is not None:
            local = material(primitive, local, time)
        u, v = texture_coordinates(primitive.shape, local, size, texture.period)
        minor = distance / np.float32(self._world.focal * texture.period)  # footprint of a pixel, in tiles
        if primitive.shape in _FLAT:
            major = minor / np.maximum(slant, 0.02)
            along = geo.unit(direction[:, :2] * size[:2])
            level = np.log2(np.maximum(minor, major / _TAPS) * tile.size)
            color = np.zeros((len(u), 3), np.float32)
            for tap in range(_TAPS):
                shift = ((tap + 0.5) / _TAPS - 0.5) * major
                color += tile.sample(u + shift * along[:, 0], v + shift * along[:, 1], level) / _TAPS
        else:
            footprint = minor / np.sqrt(np.maximum(slant, 0.1))
            level = np.log2(footprint * tile.size)
            color = tile.sample(u, v, level)
        if max(size[:2].max(), 1) > texture.period or primitive.shape == Shape.PLANE:
            # A slow second pattern at another angle and scale, so that repeated tiles do not look alike.
            macro = self._macro.sample(
                0.211 * u - 0.093 * v + 0.3, 0.093 * u + 0.211 * v, level - np.float32(np.log2(8.7))
            )
            color *= 0.55 + macro * np.float32(0.9 / 255)
        return color

    def _casters(self, world_from_local: Array) -> list[tuple[int, NDArray[np.float32], float]]:
        """Bodies that throw shadows: number, centre and reach."""
        out = []
        for number, primitive in enumerate(self._world.primitives):
            linear = world_from_local[number][:, :3]
            reach = float(np.linalg.norm(linear, axis=0).max()) * 1.5
            if primitive.shape not in _FLAT and reach < _LARGEST_CASTER:
                out.append((number, world_from_local[number][:, 3].astype(np.float32), reach))
        return out

    def _lit(self, points: Array, own: int, world_from_local: Array, casters: list) -> NDArray[np.float32]:
        """Share of the sun's light that reaches world points (n x 3); bodies shade like soft ellipsoids."""
        lit = np.ones(len(points), np.float32)
        plane = points @ self._sun_plane
        low, high = plane.min(0), plane.max(0)
        for number, center, reach in casters:
            middle = center @ self._sun_plane
            if number == own or (middle + reach < low).any() or (middle - reach > high).any():
                continue
            near = np.abs(plane[:, 0] - middle[0]) < reach
            near &= np.abs(plane[:, 1] - middle[1]) < reach
            rows = np.flatnonzero(near)
            if not len(rows):
                continue
            inverse = np.linalg.inv(world_from_local[number][:, :3]).astype(np.float32)
            if self._world.primitives[number].shape == Shape.BOX:
                inverse = inverse / np.float32(1.2)
            origin = (points[rows] - center) @ inverse.T
            toward = inverse @ self._sun
            closest = -(origin @ toward) / (toward @ toward)
            miss = np.sqrt(((origin + closest[:, None] * toward) ** 2).sum(1))
            shadow = geo.ease((1.15 - miss) / 0.35).astype(np.float32) * (closest > 0)
            lit[rows] *= 1 - shadow
        return lit

    def _sky(self, directions: Array) -> NDArray[np.float32]:
        look = self._world.look
        directions = geo.unit(directions)
        height = np.clip(directions[:, 2], 0, 1)
        zenith, horizon = np.asarray(look.zenith, np.float32), np.asarray(look.horizon, np.float32)
        blend = (1 - np.exp(-3 * height))[:, None].astype(np.float32)
        color = horizon + (zenith - horizon) * blend
        spread = 0.22 / (height + 0.12)
        level = np.log2(512 * spread / self._world.focal) + np.float32(0.5)
        cover = self._clouds.sample(directions[:, 0] * spread, directions[:, 1] * spread, level)[:, :1] / 255
        opacity = np.clip((cover - 0.75 + 0.45 * look.clouds) * 3, 0, 0.9) * np.clip(height * 12, 0, 1)[:, None]
        return (255 * (color * (1 - opacity) + np.float32(0.97) * opacity)).astype(np.float32)
