"""Simulated worlds: what stands and what moves in them, the camera's path, and ray casting with exact answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.simulation import geometry as geo
from segmotion_plugin.simulation.primitives import CLASS_ID, STUFF, Primitive, material
from segmotion_plugin.simulation.shapes import intersect

if TYPE_CHECKING:
    from segmotion_plugin.simulation.tracks import SimulatedTracks


@dataclass(frozen=True)
class Look:
    """Light and air.

    Attributes:
        sun: Direction towards the sun.
        ambient: Share of the light that comes from everywhere.
        zenith: Sky colour overhead, RGB in 0..1.
        horizon: Sky and haze colour at the horizon.
        clouds: Cloud cover, 0 to 1.
        haze: Distance in metres at which haze takes two thirds of the contrast.
        seed: Seed of the clouds.
    """

    sun: tuple[float, float, float] = (0.4, -0.5, 0.75)
    ambient: float = 0.5
    zenith: tuple[float, float, float] = (0.32, 0.52, 0.82)
    horizon: tuple[float, float, float] = (0.78, 0.84, 0.9)
    clouds: float = 0.5
    haze: float = 400.0
    seed: int = 0


@dataclass(frozen=True)
class Effects:
    """What a real camera adds to the ideal picture.

    Attributes:
        blur_samples: Pictures averaged within the open shutter; 1 means no motion blur.
        shutter: Share of the frame interval that the shutter stays open.
        rolling: Share of the frame interval from the first to the last row's exposure; 0 is a global shutter.
        exposure: Deviation of the slowly changing gain.
        noise: Deviation of the sensor noise in grey values (of 255).
        jpeg_quality: Compression as JPEG, 0 for none.
        blur_movers: Only what moving objects cover within the open shutter is blurred: cheap, for cameras that hardly move.
        seed: Seed of gain and noise.
    """

    blur_samples: int = 1
    shutter: float = 0.4
    rolling: float = 0.0
    exposure: float = 0.0
    noise: float = 1.5
    jpeg_quality: int = 0
    blur_movers: bool = False
    seed: int = 0


@dataclass(frozen=True)
class RayHits:
    """What rays through pixels meet first.

    Attributes:
        depth: n float32 z-depths in metres, inf for the sky.
        primitive: n int32, -1 for the sky.
        object_id: n int32, 0 for the static world.
        class_id: n int32, index into :data:`CLASSES`.
        local: n x 3 float32 material coordinates on the primitive (for the sky: world direction).
    """

    depth: NDArray[np.float32]
    primitive: NDArray[np.int32]
    object_id: NDArray[np.int32]
    class_id: NDArray[np.int32]
    local: NDArray[np.float32]


@dataclass
class World:
    """Static primitives and movers under a moving camera.

    Objects that never move in the clip are taken into the static world (id 0), and the others are numbered 1..K in
    the order of their ids.

    Attributes:
        primitives: Everything that can be seen.
        cam_from_world: T x 3 x 4 camera poses, COLMAP axes.
        width: Picture width in pixels.
        height: Picture height in pixels.
        focal: Focal length in pixels, the same in x and y; the principal point is the middle of the picture.
        fps: Frames per second.
        look: Light and air.
        effects: What the camera adds to the rendered pictures.
        zoom: T factors of the focal length while it changes; none where it stays. ``focals`` holds the T products in pixels.

    Raises:
        SegmotionError: without primitives or frames, or when poses have another number of frames.
    """

    primitives: Sequence[Primitive]
    cam_from_world: NDArray[np.floating]
    width: int
    height: int
    focal: float
    fps: float = 24.0
    look: Look = field(default_factory=Look)
    effects: Effects = field(default_factory=Effects)
    zoom: NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        self.cam_from_world = np.asarray(self.cam_from_world, float)
        if self.zoom is not None and np.shape(self.zoom) != (self.num_frames,):
            raise SegmotionError(f"{np.size(self.zoom)} zoom factors for the {self.num_frames} frames of the camera path")
        self.focals = self.focal * (np.ones(self.num_frames) if self.zoom is None else np.asarray(self.zoom, float))
        if not self.primitives or not len(self.cam_from_world):
            raise SegmotionError("a simulated world needs at least one primitive and one frame")
        for primitive in self.primitives:
            if primitive.pose.ndim == 3 and len(primitive.pose) != self.num_frames:
                raise SegmotionError(
                    f"a primitive has poses for {len(primitive.pose)} frames; the camera path has {self.num_frames}"
                )
        self.world_from_local = np.stack([p.maps(self.num_frames) for p in self.primitives], axis=1)  # T x P x 3 x 4
        self.moving = self._settle_objects()
        self.object_ids = np.array([p.object_id for p in self.primitives], np.int32)
        self.class_ids = np.array([p.class_id for p in self.primitives], np.int32)
        self.stuff = np.array([p.stuff for p in self.primitives])
        self.label_ids = np.where(self.stuff, STUFF, self.object_ids)
        self.incoherent = np.array([p.incoherent or p.ripple is not None for p in self.primitives])

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return len(self.cam_from_world)

    @property
    def num_objects(self) -> int:
        """Number of objects K that move at some time."""
        return self.moving.shape[1] - 1

    def _settle_objects(self) -> NDArray[np.bool_]:
        """Renumbers the objects that do move to 1..K and returns when each moves, T x (K+1)."""
        step = np.abs(np.diff(self.world_from_local, axis=0)).max(axis=(2, 3), initial=0) > 1e-5  # T-1 x P
        columns = [np.zeros(self.num_frames, bool)]
        number: dict[int, int] = {0: 0}
        ids = np.array([p.object_id for p in self.primitives])
        for object_id in np.unique(ids[ids > 0]):
            changes = step[:, ids == object_id].any(axis=1)
            number[int(object_id)] = len(columns) if changes.any() else 0
            if changes.any():
                # A frame belongs to the motion when the step before or after it does.
                columns.append(np.append(changes, False) | np.insert(changes, 0, False))
        self.primitives = tuple(
            p if number[p.object_id] == p.object_id else replace(p, object_id=number[p.object_id])
            for p in self.primitives
        )
        return np.stack(columns, axis=1)

    @cached_property
    def cameras(self) -> Cameras:
        """The exact cameras, one for every frame; under a zoom with the focal length of the middle frame."""
        names = [f"frame_{index + 1:05d}.png" for index in range(self.num_frames)]
        focal = self.focals[self.num_frames // 2]
        params = np.array([focal, focal, self.width / 2, self.height / 2])
        return Cameras(
            names, np.arange(self.num_frames), self.width, self.height, "PINHOLE", params, self.cam_from_world
        )

    @cached_property
    def local_from_camera(self) -> NDArray[np.float32]:
        """Maps from camera axes to the canonical coordinates of every primitive, T x P x 3 x 4."""
        return self._local_from_camera(self.world_from_local, self.cam_from_world[:, None])

    @staticmethod
    def _local_from_camera(maps: NDArray[np.floating], cam_from_world: NDArray[np.floating]) -> NDArray[np.float32]:
        # Composed in float64: the camera may be far from the world's origin, seen from a small primitive.
        world_from_camera = geo.invert(cam_from_world)
        inverse = np.linalg.inv(maps[..., :3])
        linear = inverse @ world_from_camera[..., :3]
        offset = (inverse @ (world_from_camera[..., 3:] - maps[..., 3:]))[..., 0]
        return geo.affine(linear, offset).astype(np.float32)

    def focal_at(self, time: float) -> float:
        """Focal length in pixels between frames; ``time`` is clipped to the clip."""
        return float(np.interp(time, np.arange(self.num_frames), self.focals))

    def at_time(self, time: float) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.float32]]:
        """Maps between frames, for motion blur and rolling shutters.

        Args:
            time: Frame number with a fraction; clipped to the clip.

        Returns:
            ``world_from_local`` P x 3 x 4, ``cam_from_world`` 3 x 4 and ``local_from_camera`` P x 3 x 4.
        """
        time = float(np.clip(time, 0, self.num_frames - 1))
        frame = min(int(time), max(self.num_frames - 2, 0))
        part = time - frame
        if part < 1e-9:
            return self.world_from_local[frame], self.cam_from_world[frame], self.local_from_camera[frame]
        if part > 1 - 1e-9:
            return self.world_from_local[frame + 1], self.cam_from_world[frame + 1], self.local_from_camera[frame + 1]
        maps = (1 - part) * self.world_from_local[frame] + part * self.world_from_local[frame + 1]
        camera = geo.interpolate_rigid(self.cam_from_world[frame], self.cam_from_world[frame + 1], part)
        return maps, camera, self._local_from_camera(maps, camera)

    def rays(self, xy: NDArray[np.floating], frame: int) -> NDArray[np.float32]:
        """Directions (n x 3, camera axes, z = 1) of rays through pixels (n x 2) of a frame."""
        out = np.ones((len(xy), 3), np.float32)
        out[:, 0] = (xy[:, 0] - self.width / 2) / self.focals[frame]
        out[:, 1] = (xy[:, 1] - self.height / 2) / self.focals[frame]
        return out

    def raycast(self, frame: int, xy: NDArray[np.floating]) -> RayHits:
        """First surfaces behind pixels of a frame.

        Args:
            frame: Frame number.
            xy: n x 2 pixel positions; the centre of the top-left pixel is (0.5, 0.5).

        Returns:
            The hits. Local coordinates name the material at that frame: ripples are taken out.
        """
        rays = self.rays(np.asarray(xy, float).reshape(-1, 2), frame)
        depth = np.full(len(rays), np.inf, np.float32)
        found = np.full(len(rays), -1, np.int32)
        maps = self.local_from_camera[frame]
        for number, primitive in enumerate(self.primitives):
            direction = rays @ maps[number, :, :3].T
            origin = maps[number, :, 3]
            parameter = intersect(primitive.shape, tuple(origin), tuple(direction.T))  # type: ignore[arg-type]
            closer = parameter < depth
            depth[closer], found[closer] = parameter[closer], number
        sky = found < 0
        points = rays * np.where(sky, 0, depth)[:, None]
        local = (maps[found, :, :3] @ points[..., None])[..., 0] + maps[found, :, 3]
        local[sky] = geo.unit(rays[sky] @ self.cam_from_world[frame, :, :3].astype(np.float32))
        for number, primitive in enumerate(self.primitives):
            if primitive.ripple is not None:
                rows = found == number
                local[rows] = material(primitive, local[rows], frame)
        objects = np.where(sky, 0, self.object_ids[found]).astype(np.int32)
        classes = np.where(sky, CLASS_ID["sky"], self.class_ids[found]).astype(np.int32)
        return RayHits(depth, found, objects, classes, local)

    def sample_tracks(self, rng: np.random.Generator, num_tracks: int, query_frames: Sequence[int]) -> SimulatedTracks:
        """See :func:`segmotion_plugin.simulation.tracks.sample_tracks`."""
        from segmotion_plugin.simulation.tracks import sample_tracks

        return sample_tracks(self, rng, num_tracks, query_frames)
