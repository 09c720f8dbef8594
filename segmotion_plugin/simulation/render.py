"""Renders simulated worlds to textured video with exact truth for masks, depth and cameras."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.simulation import geometry as geo
from segmotion_plugin.simulation.effects import develop
from segmotion_plugin.simulation.shading import Painter
from segmotion_plugin.simulation.shapes import Shape, intersect
from segmotion_plugin.simulation.world import World

_NEAR = 0.02
_ROLLING_BLOCK = 16  # rows that share a pose under a rolling shutter
# Rotated grid: every sub-sample has its own row and column.
_SUBSAMPLES = np.array([[-0.125, -0.375], [0.375, -0.125], [0.125, 0.375], [-0.375, 0.125]], np.float32)
_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)


@dataclass(frozen=True)
class SimulatedClip:
    """A rendered clip and its exact truth.

    Attributes:
        frames: T x H x W x 3 uint8, RGB.
        labels: T x H x W uint8; 0 = static, k = object k, 255 = stuff (flowing water, spray). Objects that move at any time in
            the clip, at rest too.
        moving: T x (K+1) bool; ``moving[t, k]``: object k moves at frame t. Column 0 is False.
        depth: T x H x W float32 z-depth in metres, inf for the sky.
        cameras: Exact cameras, one for every frame.
        fps: Frames per second.
    """

    frames: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    moving: NDArray[np.bool_]
    depth: NDArray[np.float32]
    cameras: Cameras
    fps: float


def render(world: World, progress: Callable[[int], None] | None = None) -> SimulatedClip:
    """Renders all frames of a world.

    Args:
        world: The world; its ``effects`` are applied.
        progress: Called with the number of finished frames.

    Returns:
        The clip. The same world gives the same bytes.
    """
    shape = (world.num_frames, world.height, world.width)
    clip = SimulatedClip(
        frames=np.empty((*shape, 3), np.uint8),
        labels=np.empty(shape, np.uint8),
        moving=world.moving.copy(),
        depth=np.empty(shape, np.float32),
        cameras=world.cameras,
        fps=world.fps,
    )
    for frame, (image, labels, depth) in enumerate(render_frames(world)):
        clip.frames[frame], clip.labels[frame], clip.depth[frame] = image, labels, depth
        if progress is not None:
            progress(frame + 1)
    return clip


def render_frames(
    world: World, frames: Iterable[int] | None = None
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]]:
    """Renders one frame after the other, in flat memory.

    Args:
        world: The world; its ``effects`` are applied.
        frames: Which frames; all when none.

    Yields:
        Image (H x W x 3 uint8), labels (H x W uint8) and depth (H x W float32), as in :class:`SimulatedClip`.
    """
    painter = Painter(world)
    for frame in range(world.num_frames) if frames is None else frames:
        image, labels, depth = _expose(world, painter, frame)
        yield develop(image, world.effects, frame), labels, depth


def _expose(world: World, painter: Painter, frame: int) -> tuple[NDArray, NDArray[np.uint8], NDArray[np.float32]]:
    effects = world.effects
    samples = max(1, effects.blur_samples)
    # Odd numbers of samples have one in the middle, whose labels and depth are the truth.
    offsets = (np.arange(samples) - samples // 2) / samples * effects.shutter
    image = np.zeros((world.height, world.width, 3), np.float32)
    labels = np.zeros((world.height, world.width), np.uint8)
    depth = np.full((world.height, world.width), np.inf, np.float32)
    height = _ROLLING_BLOCK if effects.rolling else world.height
    for start in range(0, world.height, height):
        rows = slice(start, min(start + height, world.height))
        delay = effects.rolling * ((rows.start + rows.stop) / 2 / world.height - 0.5)
        for offset in offsets:
            if offset and effects.blur_movers:
                continue
            view = _View(world, painter, frame + delay + offset, rows)
            image[rows] += view.colors() / (1 if effects.blur_movers else samples)
            if offset == 0:
                labels[rows] = np.append(world.label_ids, 0)[view.primitive]
                depth[rows] = view.depth
        if effects.blur_movers and samples > 1:
            times = frame + delay + offsets
            ends = [_View(world, painter, time, rows, cast=False).movers() for time in times[[0, -1]]]
            boxes = [box for box in ends if box is not None]
            if boxes:
                top, left, bottom, right = (
                    pick(box[side] for box in boxes) for pick, side in ((min, 0), (min, 1), (max, 2), (max, 3))
                )
                part = slice(rows.start + top, rows.start + bottom)
                views = (_View(world, painter, time, part, slice(left, right)) for time in times)
                image[part, left:right] = sum(view.colors() for view in views) / samples
    return image, labels, depth


class _View:
    """A block of rows (and columns; all when none) seen at one moment."""

    def __init__(
        self, world: World, painter: Painter, time: float, rows: slice, columns: slice | None = None, cast: bool = True
    ) -> None:
        self._world, self._painter, self._time = world, painter, time
        self._world_from_local, self._camera, self._maps = world.at_time(time)
        columns = columns or slice(0, world.width)
        self._top, self._left, self._focal = rows.start, columns.start, world.focal_at(time)
        self.depth = np.full((rows.stop - rows.start, columns.stop - columns.start), np.inf, np.float32)
        self.primitive = np.full(self.depth.shape, -1, np.int16)
        self._x = ((np.arange(columns.start, columns.stop) + 0.5 - world.width / 2) / self._focal).astype(np.float32)
        self._y = ((np.arange(rows.start, rows.stop) + 0.5 - world.height / 2) / self._focal).astype(np.float32)
        if cast:
            self._cast()

    def movers(self) -> tuple[int, int, int, int] | None:
        """Top, left, bottom and right of what moving objects' bounding boxes cover of the block; None where there is none."""
        windows = [self._window(int(number)) for number in np.flatnonzero(self._world.object_ids)]
        seen = [window for window in windows if window is not None]
        if not seen:
            return None
        return (
            min(rows.start for rows, _ in seen),
            min(columns.start for _, columns in seen),
            max(rows.stop for rows, _ in seen),
            max(columns.stop for _, columns in seen),
        )

    def _window(self, number: int) -> tuple[slice, slice] | None:
        """Rows and columns of the block that a primitive's bounding box covers."""
        rows, columns = self.depth.shape
        full = slice(0, rows), slice(0, columns)
        if self._world.primitives[number].shape == Shape.PLANE:
            return full
        corners = geo.apply(self._camera, geo.apply(self._world_from_local[number], _CORNERS))
        if (corners[:, 2] < _NEAR).all():
            return None
        if (corners[:, 2] < _NEAR).any():
            return full
        pixels = corners[:, :2] / corners[:, 2:] * self._focal
        middle = (self._world.width / 2 - self._left, self._world.height / 2 - self._top)
        low = np.floor(pixels.min(0) + middle) - 1
        high = np.ceil(pixels.max(0) + middle) + 1
        left, top = np.clip(low, 0, (columns, rows)).astype(int)
        right, bottom = np.clip(high, 0, (columns, rows)).astype(int)
        return None if left >= right or top >= bottom else (slice(top, bottom), slice(left, right))

    def _cast(self) -> None:
        for number, primitive in enumerate(self._world.primitives):
            window = self._window(number)
            if window is None:
                continue
            maps = self._maps[number]
            # Directions are affine in the pixel position: one sum per component.
            rows, columns = self._y[window[0], None], self._x[None, window[1]]
            direction = tuple((maps[i, 1] * rows + maps[i, 2]) + maps[i, 0] * columns for i in range(3))
            parameter = intersect(primitive.shape, tuple(maps[:, 3]), direction)  # type: ignore[arg-type]
            depth = self.depth[window]
            closer = (parameter < depth) & (parameter > _NEAR)
            np.copyto(depth, parameter, where=closer)
            np.copyto(self.primitive[window], np.int16(number), where=closer)

    def _shade(self, rays: NDArray[np.float32], depth: NDArray, primitive: NDArray) -> tuple[NDArray, NDArray]:
        return self._painter.shade(rays, depth, primitive, self._maps, self._world_from_local, self._camera, self._time)

    def colors(self) -> NDArray[np.float32]:
        """Anti-aliased colours of the block, rows x columns x 3, 0..255."""
        shape = self.depth.shape
        rays = np.ones((*shape, 3), np.float32)
        rays[..., 0], rays[..., 1] = self._x, self._y[:, None]
        image, face = self._shade(rays.reshape(-1, 3), self.depth.ravel(), self.primitive.ravel())
        image = image.reshape(*shape, 3)
        surface = self.primitive.astype(np.int32) * 8 + face.reshape(shape)
        edge = np.zeros(shape, bool)
        across, along = surface[1:] != surface[:-1], surface[:, 1:] != surface[:, :-1]
        edge[1:] |= across
        edge[:-1] |= across
        edge[:, 1:] |= along
        edge[:, :-1] |= along
        row, column = np.nonzero(edge)
        if len(row):
            image[row, column] = self._refined(row, column)
        return image

    def _refined(self, row: NDArray[np.intp], column: NDArray[np.intp]) -> NDArray[np.float32]:
        """Colours of edge pixels as means of sub-samples; only surfaces next to the pixel are asked."""
        padded = np.pad(self.primitive, 1, mode="edge")
        near = np.stack([padded[row + i, column + j] for i in range(3) for j in range(3)])
        steps = _SUBSAMPLES / np.float32(self._focal)
        rays = np.ones((len(row), len(steps), 3), np.float32)
        rays[..., 0] = self._x[column][:, None] + steps[:, 0]
        rays[..., 1] = self._y[row][:, None] + steps[:, 1]
        depth = np.full(rays.shape[:2], np.inf, np.float32)
        primitive = np.full(rays.shape[:2], -1, np.int16)
        for number in np.unique(near[near >= 0]):
            rows = np.flatnonzero((near == number).any(axis=0))
            maps = self._maps[number]
            direction = rays[rows] @ maps[:, :3].T
            parameter = intersect(
                self._world.primitives[number].shape, tuple(maps[:, 3]), tuple(np.moveaxis(direction, -1, 0))
            )  # type: ignore[arg-type]
            closer = (parameter < depth[rows]) & (parameter > _NEAR)
            depth[rows] = np.where(closer, parameter, depth[rows])
            primitive[rows] = np.where(closer, number, primitive[rows])
        colors, _ = self._shade(rays.reshape(-1, 3), depth.ravel(), primitive.ravel())
        return colors.reshape(len(row), len(steps), 3).mean(axis=1)
