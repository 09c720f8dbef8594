"""Exact point tracks in simulated worlds: points move with their surface and are visible where nothing hides them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.simulation import geometry as geo
from segmotion_plugin.simulation.primitives import rippled
from segmotion_plugin.simulation.shapes import Shape, intersect, local_normals

if TYPE_CHECKING:
    from segmotion_plugin.simulation.world import World

_FAR = 1e4  # metres; where tracked points of the sky are put
_NEAR = 0.02  # metres in front of the camera that a visible point needs at least
_SKY_CONTRAST = 0.1
_SLACK = 1e-3  # a surface hides a point only when it is closer by this share of the distance


@dataclass(frozen=True)
class SimulatedTracks:
    """Exact tracks of N points over T frames.

    Under a rolling shutter ``xy`` is where the point's row sees it; the other values are those of the frame's middle.

    Attributes:
        xy: N x T x 2 float32 pixel positions, also where hidden or outside the picture; NaN behind the camera.
        visible: N x T bool, inside the picture and not hidden.
        depth: N x T float32 z-depths in metres; inf for the sky.
        xyz: N x T x 3 float32 world positions in metres.
        object_id: N int32, 0 for the static world.
        class_id: N int32 kinds of things (``primitives.CLASSES``); movers and their parked twins share them.
        moving: N x T bool, the point's object moves at that frame, or it lies on stuff.
        incoherent: N bool, on water, smoke, a screen or leaves: moves a little, without being an object.
        stuff: N bool, on flowing water or spray: always moving, though of no object.
        query_frame: N int32 frames in which the points were chosen.
        primitive: N int32 primitives that carry the points, -1 for the sky.
        contrast: N float32 in 0..1, how much texture the surface has; trackers drift where there is little.
    """

    xy: NDArray[np.float32]
    visible: NDArray[np.bool_]
    depth: NDArray[np.float32]
    xyz: NDArray[np.float32]
    object_id: NDArray[np.int32]
    class_id: NDArray[np.int32]
    moving: NDArray[np.bool_]
    incoherent: NDArray[np.bool_]
    stuff: NDArray[np.bool_]
    query_frame: NDArray[np.int32]
    primitive: NDArray[np.int32]
    contrast: NDArray[np.float32]


def jittered_grid(rng: np.random.Generator, count: int, width: int, height: int) -> NDArray[np.float64]:
    """Query pixels (count x 2), one in each of as many nearly square cells of the picture, at a random place in it."""
    columns = max(1, round(np.sqrt(count * width / height)))
    rows = -(-count // columns)
    cells = np.sort(rng.permutation(columns * rows)[:count])
    corner = np.stack([cells % columns, cells // columns], axis=1)
    return (corner + rng.random((count, 2))) * (width / columns, height / rows)


def sample_tracks(
    world: World, rng: np.random.Generator, num_tracks: int, query_frames: Sequence[int]
) -> SimulatedTracks:
    """Exact tracks of points that a jittered image grid hits first.

    Args:
        world: The world.
        rng: Source of randomness for the grid.
        num_tracks: Number of tracks N, shared evenly among the query frames.
        query_frames: Frames in which points are chosen.

    Raises:
        SegmotionError: when a query frame lies outside the clip, or there are fewer tracks than query frames.
    """
    frames = [int(frame) for frame in query_frames]
    if not frames or min(frames) < 0 or max(frames) >= world.num_frames:
        raise SegmotionError(f"query frames {frames} must lie in 0..{world.num_frames - 1}")
    if num_tracks < len(frames):
        raise SegmotionError(f"{num_tracks} tracks cannot be shared among {len(frames)} query frames")
    shares = np.diff(np.linspace(0, num_tracks, len(frames) + 1).round().astype(int))
    grids = [jittered_grid(rng, int(share), world.width, world.height) for share in shares]
    return follow(world, np.repeat(frames, shares), np.concatenate(grids))


def follow(world: World, query_frame: NDArray[np.integer], xy: NDArray[np.floating]) -> SimulatedTracks:
    """Exact tracks of the surface points behind given pixels.

    Args:
        world: The world.
        query_frame: N frame numbers.
        xy: N x 2 pixels in these frames.
    """
    queried: NDArray[np.int32] = np.asarray(query_frame, np.int32)
    hits = [
        (rows, world.raycast(int(frame), xy[rows]))
        for frame in np.unique(queried)
        for rows in [np.flatnonzero(queried == frame)]
    ]
    primitive = np.empty(len(xy), np.int32)
    class_id = np.empty(len(xy), np.int32)
    local = np.empty((len(xy), 3), np.float32)
    for rows, hit in hits:
        primitive[rows], class_id[rows], local[rows] = hit.primitive, hit.class_id, hit.local
    sky = primitive < 0
    xyz, facing = _positions(world, primitive, local)
    if sky.any():
        centers = geo.camera_centers(world.cam_from_world)[queried[sky]]
        xyz[:, sky] = centers + _FAR * local[sky]
    xyz = xyz.astype(np.float64)
    rotation, offset = world.cam_from_world[:, :, :3], world.cam_from_world[:, :, 3]
    camera = (xyz @ np.swapaxes(rotation, 1, 2) + offset[:, None]).astype(np.float32)  # T x N x 3
    pixels, inside = _project(world, camera)
    if world.effects.rolling:
        pixels, inside = _project(world, _rolled(world, camera, pixels[..., 1]))
    depth = camera[..., 2]
    toward = np.einsum("tni,tni->tn", facing, (geo.camera_centers(world.cam_from_world)[:, None] - xyz))
    visible = inside & (sky | (toward > 0)) & ~_hidden(world, camera, primitive)
    visible[queried, np.arange(len(xy))] |= inside[queried, np.arange(len(xy))]
    contrast = np.array([0.05 if p.texture.kind == "plain" else p.texture.contrast for p in world.primitives])
    objects = np.where(sky, 0, world.object_ids[primitive]).astype(np.int32)
    stuff = ~sky & world.stuff[primitive]
    return SimulatedTracks(
        xy=np.ascontiguousarray(pixels.transpose(1, 0, 2)),
        visible=np.ascontiguousarray(visible.T),
        depth=np.where(sky[:, None], np.float32(np.inf), depth.T),
        xyz=np.ascontiguousarray(xyz.transpose(1, 0, 2)).astype(np.float32),
        object_id=objects,
        class_id=class_id,
        moving=np.ascontiguousarray(world.moving[:, objects].T) | stuff[:, None],
        incoherent=np.where(sky, False, world.incoherent[primitive]),
        stuff=stuff,
        query_frame=queried,
        primitive=primitive,
        contrast=np.where(sky, _SKY_CONTRAST, contrast[primitive]).astype(np.float32),
    )


def _project(world: World, camera: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Pixels (T x N x 2, NaN behind the camera) of points in camera axes, and whether they lie in the picture."""
    depth = camera[..., 2]
    front = depth > _NEAR
    focal: NDArray[np.float32] = world.focals.astype(np.float32)[:, None, None]
    pixels: NDArray[np.float32] = (camera[..., :2] / np.where(front, depth, np.nan)[..., None] * focal).astype(np.float32)
    pixels += np.array([world.width / 2, world.height / 2], np.float32)
    return pixels, front & (pixels >= 0).all(-1) & (pixels < (world.width, world.height)).all(-1)


def _rolled(world: World, camera: NDArray[np.float32], row: NDArray[np.float32]) -> NDArray[np.float32]:
    """Points as a rolling shutter sees them: at the time when their row is exposed, between the frames."""
    if world.num_frames < 2:
        return camera
    delay = world.effects.rolling * (np.clip(np.nan_to_num(row), 0, world.height) / world.height - 0.5)
    time = np.clip(np.arange(world.num_frames)[:, None] + delay, 0, world.num_frames - 1)
    first = np.minimum(time.astype(int), world.num_frames - 2)
    part = (time - first)[..., None].astype(np.float32)
    columns = np.arange(camera.shape[1])
    return (1 - part) * camera[first, columns] + part * camera[first + 1, columns]


def _positions(
    world: World, primitive: NDArray[np.int32], local: NDArray[np.float32]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """World positions (T x N x 3) of material points, and world normals where the surface is one-sided."""
    frames = np.arange(world.num_frames, dtype=np.float64)
    xyz = np.zeros((world.num_frames, len(local), 3))
    facing = np.zeros_like(xyz)
    for number in np.unique(primitive[primitive >= 0]):
        rows = np.flatnonzero(primitive == number)
        maps = world.world_from_local[:, number]
        item = world.primitives[number]
        points: NDArray[np.floating] = local[rows]
        if item.ripple is not None:
            points = rippled(item, points[None], frames[:, None])
        xyz[:, rows] = points @ np.swapaxes(maps[:, :, :3], 1, 2) + maps[:, None, :, 3]
        if item.shape in (Shape.PLANE, Shape.RECTANGLE):
            # Seen from both sides: the normal is turned to the camera.
            normal = maps[:, :, 2]
            center = geo.camera_centers(world.cam_from_world)
            side = np.sign(np.einsum("ti,ti->t", normal, center - maps[:, :, 3]))
            facing[:, rows] = (normal * side[:, None])[:, None]
        else:
            normals = local_normals(item.shape, local[rows])
            facing[:, rows] = normals @ np.linalg.inv(maps[:, :, :3])
    return xyz, facing


def _hidden(world: World, camera: NDArray[np.float32], primitive: NDArray[np.int32]) -> NDArray[np.bool_]:
    """T x N: another primitive stands between the camera and the point (camera axes, T x N x 3)."""
    hidden = np.zeros(camera.shape[:2], bool)
    points = np.ascontiguousarray(camera.transpose(0, 2, 1))  # T x 3 x N
    for number, item in enumerate(world.primitives):
        maps = world.local_from_camera[:, number]
        direction = maps[:, :, :3] @ points
        origin = maps[:, :, 3]
        parameter = intersect(
            item.shape,
            (origin[:, 0, None], origin[:, 1, None], origin[:, 2, None]),
            (direction[:, 0], direction[:, 1], direction[:, 2]),
        )
        hides = parameter < 1 - _SLACK
        # Bodies are convex: the own one hides a point exactly when the surface faces away, which is tested apart.
        hides[:, primitive == number] = False
        hidden |= hides
    return hidden
