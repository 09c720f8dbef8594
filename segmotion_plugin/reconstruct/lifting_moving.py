"""Depth of the tracks of moving objects: from a model's depth maps, or from the static world around each object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.reconstruct.lifting_contact import Ground, Placement, Static, find_ground
from segmotion_plugin.reconstruct.lifting_depth import Alignment, Kind, align, sample_nearest
from segmotion_plugin.reconstruct.lifting_smooth import smooth
from segmotion_plugin.reconstruct.lifting_triangulate import Observations
from segmotion_plugin.reconstruct.tracks_3d import SOURCES, Tracks3D

DepthMap = Callable[[int], "np.ndarray | None"]
OnAlignment = Callable[[int, np.ndarray, Alignment], None]

# Share of the frames of an object in which a source must speak before it is believed for all of them.
_LEAST_SHARE = 0.25
# Share of the frames in which an object must border another's top before it is taken to be carried, not just to pass behind.
_LEAST_CARRIED = 0.5
# Static points per image that the fits look at.
_MOST_POINTS = 6000
# Stiffness of the smoothing in units of a unit variance; it takes the noise of about seven frames together.
_STIFFNESS = 60.0


class LabelMaps(Protocol):
    """Object ids H×W uint8 of every image, by number."""

    def __getitem__(self, index: int, /) -> Any: ...


class Sights:
    """Static points, and which image is known to see which of them.

    Args:
        cameras: the poses.
        points: M×3 static points of the reconstruction (may be empty).
        seen: observations of all tracks.
        xyz: N×3 triangulated positions of the tracks, NaN where there is none.
    """

    def __init__(self, cameras: Cameras, points: np.ndarray, seen: Observations, xyz: np.ndarray) -> None:
        self._cameras, self._xyz = cameras, xyz
        rows = np.flatnonzero(seen.visible & np.isfinite(xyz[seen.track, 0]))
        rows = rows[np.argsort(seen.camera[rows], kind="stable")]
        self._tracks = seen.track[rows]
        self._bounds = np.searchsorted(seen.camera[rows], np.arange(len(cameras) + 1))
        every = np.concatenate([points, xyz[np.isfinite(xyz[:, 0])]])
        step = -(-len(every) // _MOST_POINTS) if len(every) else 1
        self.cloud = every[::step]

    def visible(self, k: int) -> np.ndarray:
        """n×3 triangulated points that image k sees."""
        return self._xyz[self._tracks[self._bounds[k] : self._bounds[k + 1]]]

    def at(self, k: int) -> Static:
        """The static world as image k has it."""
        shown = self.visible(k)
        points = np.concatenate([self.cloud, shown])
        xy, depth = self._cameras.project(points, k)
        visible = np.zeros(len(points), bool)
        visible[len(self.cloud) :] = True
        return Static(points, xy, depth, visible)


def place_moving(
    cameras: Cameras,
    seen: Observations,
    result: Tracks3D,
    labels: LabelMaps,
    sights: Sights,
    depth_map: DepthMap | None,
    depth_kind: Kind,
    rng: np.random.Generator,
    on_alignment: OnAlignment | None,
) -> None:
    """Fill in the moving tracks of `result`; arguments as `lifting.lift` has them."""
    row_of = np.full(int(max(seen.track.max(initial=0), result.track_index.max(initial=0))) + 1, -1, np.int64)
    row_of[result.track_index] = np.where(result.object_id > 0, np.arange(len(result)), -1)
    mine = seen.take(np.flatnonzero(row_of[seen.track] >= 0))
    row = row_of[mine.track]
    owner = result.object_id[row]
    rays = cameras.rays(mine.xy)
    pending = [int(k) for k in np.unique(owner)]
    if depth_map is not None:
        log_depth, fits = _model_depth(cameras, mine, owner, labels, sights, depth_map, depth_kind, rng, on_alignment)
        for k in list(pending):
            own = np.flatnonzero(owner == k)
            if _place_by_model(cameras, mine.take(own), row[own], rays[own], log_depth[own], fits, result):
                pending.remove(k)
    if not pending or not len(sights.cloud):
        return
    contact, guess = _placements(cameras, mine, owner, labels, sights, pending, rng)
    frames = {k: np.unique(mine.camera[(owner == k) & mine.visible]) for k in pending}
    placed = {k: contact[k] for k in pending if _known(contact[k], frames[k]) >= _LEAST_SHARE}
    touching = set(placed)
    _add_carried(cameras, contact, frames, placed)
    for k in pending:
        own = np.flatnonzero(owner == k)
        source = SOURCES.index("contact" if k in touching else "guess")
        _place_by_world(cameras, mine.take(own), row[own], rays[own], placed.get(k, guess[k]), source, result)


def _known(placement: Placement, frames: np.ndarray) -> float:
    """Share of these frames in which a distance is known."""
    return float(np.isfinite(placement.log_distance[frames]).mean()) if len(frames) else 0.0


def _add_carried(
    cameras: Cameras, contact: dict[int, Placement], frames: dict[int, np.ndarray], placed: dict[int, Placement]
) -> None:
    """Place objects that others carry (a rider, a load, a part taken for an object of its own) where these are, and so on upwards."""
    waiting = set(contact) - set(placed)
    while waiting:
        carried = {k: contact[k].carried(cameras, placed) for k in sorted(waiting)}
        found = {k: placement for k, placement in carried.items() if _known(placement, frames[k]) >= _LEAST_CARRIED}
        if not found:
            return
        placed.update(found)
        waiting -= set(found)


def _model_depth(
    cameras: Cameras,
    mine: Observations,
    owner: np.ndarray,
    labels: LabelMaps,
    sights: Sights,
    depth_map: DepthMap,
    kind: Kind,
    rng: np.random.Generator,
    on_alignment: OnAlignment | None,
) -> tuple[np.ndarray, list[Alignment | None]]:
    """Logarithm of the depth at every observation (M, NaN where unknown), and the fit of every image (K)."""
    log_depth = np.full(len(mine.track), np.nan)
    fits: list[Alignment | None] = [None] * len(cameras)
    size = (cameras.width, cameras.height)
    order = np.argsort(mine.camera, kind="stable")
    bounds = np.searchsorted(mine.camera[order], np.arange(len(cameras) + 1))
    for k in range(len(cameras)):
        values = depth_map(k)
        if values is None:
            continue
        xy, depth = cameras.project(sights.visible(k), k)
        inside = (xy >= 0).all(axis=1) & (xy < size).all(axis=1)
        fit = align(sample_nearest(values, xy[inside], size), depth[inside], kind, rng)
        if fit is None:
            continue
        if on_alignment is not None:
            on_alignment(k, values, fit)
        fits[k] = fit
        rows = order[bounds[k] : bounds[k + 1]]
        rows = rows[mine.visible[rows]]
        # Beyond what the fit has seen, a disparity near zero would throw points to infinity.
        found = np.log(fit.depth(sample_nearest(values, mine.xy[rows], size), 3.0 * float(depth[inside].max())))
        # A track at the rim of its object may look past it: only samples on the object count.
        on_object = sample_nearest(np.asarray(labels[k]), mine.xy[rows], size) == owner[rows]
        log_depth[rows] = np.where(on_object, found, np.nan)
        for object_id in np.unique(owner[rows]).tolist():
            part = rows[owner[rows] == object_id]
            middle = np.nanmedian(log_depth[part]) if np.isfinite(log_depth[part]).any() else np.nan
            allowed = max(0.15, 4 * 1.4826 * float(np.nanmedian(np.abs(log_depth[part] - middle)))) if np.isfinite(middle) else 0.0
            log_depth[part[np.abs(log_depth[part] - middle) > allowed]] = np.nan
    return log_depth, fits


def _place_by_model(
    cameras: Cameras,
    mine: Observations,
    row: np.ndarray,
    rays: np.ndarray,
    log_depth: np.ndarray,
    fits: list[Alignment | None],
    result: Tracks3D,
) -> bool:
    """Place the tracks of one object by a model's depth, smoothed along every track; False where too little of it is known."""
    known = np.isfinite(log_depth)
    frames, informed = np.unique(mine.camera[mine.visible]), np.unique(mine.camera[known])
    if len(informed) < max(1.0, _LEAST_SHARE * len(frames)):
        return False
    ids, local = np.unique(row, return_inverse=True)
    values = np.full((len(ids), len(cameras)), np.nan)
    values[local[known], mine.camera[known]] = log_depth[known]
    # The scale of a frame's fit errs for the whole object alike: smooth the object's common depth first, then each track's own.
    common = _common(values)
    error = np.array([np.nan if fit is None else 0.02 + fit.error for fit in fits])
    distance = float(np.exp(np.nanmedian(log_depth)))
    doubt = np.array([np.nan if fit is None else fit.uncertainty(distance) for fit in fits])
    sigma = np.hypot(error, doubt)
    sigma[~np.isfinite(sigma)] = np.nanmax(sigma)
    # How an object moves does not depend on how well it is seen: the more a frame is in doubt, the more its neighbours say.
    weight = np.where(np.isfinite(common), 1.0 / sigma**2, 0.0)
    steady = smooth(common[None], weight[None], _STIFFNESS / np.nanmedian(error) ** 2)[0]
    own = values - np.where(np.isfinite(common), common, 0.0)
    weight = np.where(np.isfinite(own), 1.0 / 0.02**2, 0.0)
    shape = smooth(own, weight, _STIFFNESS / 0.02**2)
    # Tracks that were never on their mask take the object's depth.
    shape[np.isnan(shape).any(axis=1)] = 0.0
    full = np.exp(steady[None] + shape)
    residual = np.sqrt(np.nanmean((own - shape) ** 2)) if np.isfinite(own).any() else 0.0
    _write(cameras, mine, row, rays, full[local, mine.camera], result, SOURCES.index("depth-model"))
    result.sigma[row, mine.camera] = full[local, mine.camera] * np.hypot(sigma, residual)[mine.camera]
    return True


def _common(values: np.ndarray) -> np.ndarray:
    """Per frame the level of all tracks of an object (N×K, NaN where unknown), however they come and go: a two-way median fit."""
    offset = np.zeros(len(values))
    level = np.full(values.shape[1], np.nan)
    known_frames = np.isfinite(values).any(axis=0)
    known_tracks = np.isfinite(values).any(axis=1)
    for _ in range(5):
        level[known_frames] = np.nanmedian(values[:, known_frames] - offset[:, None], axis=0)
        offset[known_tracks] = np.nanmedian(values[known_tracks] - level[None], axis=1)
    return level


def _placements(
    cameras: Cameras,
    mine: Observations,
    owner: np.ndarray,
    labels: LabelMaps,
    sights: Sights,
    objects: list[int],
    rng: np.random.Generator,
) -> tuple[dict[int, Placement], dict[int, Placement]]:
    """Contacts and ranges of objects in all images, one image after the other."""
    contact = {k: Placement(cameras) for k in objects}
    guess = {k: Placement(cameras) for k in objects}
    ground: Ground | None = find_ground(cameras, sights.cloud, rng)
    for image in range(len(cameras)):
        label = np.asarray(labels[image])
        static = sights.at(image)
        for k in objects:
            mask = label == k
            if not mask.any():
                continue
            contact[k].touch(cameras, image, mask, np.where(mask, 0, label), ground, static, rng)
            hidden = (owner == k) & (mine.camera == image) & ~mine.visible
            guess[k].squeeze(cameras, image, mask, ground, static, mine.xy[hidden])
    return contact, guess


def _place_by_world(
    cameras: Cameras, mine: Observations, row: np.ndarray, rays: np.ndarray, placement: Placement, source: int, result: Tracks3D
) -> None:
    """Place the tracks of one object in the upright plane of every frame, its distance smoothed over time."""
    known = np.isfinite(placement.log_distance)
    if not known.any():
        return
    weight = np.where(known, 1.0 / np.where(known, placement.sigma, 1.0) ** 2, 0.0)
    typical = float(np.median(placement.sigma[known]))
    steady = smooth(placement.log_distance[None], weight[None], _STIFFNESS / typical**2)[0]
    direction = np.einsum("mi,mij->mj", rays, cameras.cam_from_world[mine.camera, :, :3])
    slope = np.einsum("mi,mi->m", direction, placement.facing[mine.camera])
    depth = np.exp(steady[mine.camera]) / np.maximum(slope, 0.2)
    _write(cameras, mine, row, rays, depth, result, source)
    sigma = np.where(known, placement.sigma, 2 * typical)
    result.sigma[row, mine.camera] = depth * sigma[mine.camera]


def _write(
    cameras: Cameras, mine: Observations, row: np.ndarray, rays: np.ndarray, depth: np.ndarray, result: Tracks3D, source: int
) -> None:
    """Set positions from depths along the optical axis."""
    pose = cameras.cam_from_world[mine.camera]
    camera = rays * depth[:, None] - pose[:, :, 3]
    result.xyz[row, mine.camera] = np.einsum("mji,mj->mi", pose[:, :, :3], camera)
    result.source[row] = source
