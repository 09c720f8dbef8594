"""Robust triangulation of many tracks at once, with parallax and reprojection checks.

The start is the point nearest to all rays in the least-squares sense; then Gauss-Newton steps on the reprojection error with
Cauchy weights (Hartley and Zisserman, Multiple View Geometry, 2nd ed., sections 12.2 and A6.8).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.tracks import Tracks

# Observations used per track; more of them hardly add accuracy.
_MOST_VIEWS = 32
_BLOCK = 8192


@dataclass
class Observations:
    """Track observations in the registered images, sorted by track.

    Attributes:
        track: M int64, track of each observation.
        camera: M int64, index into the cameras.
        xy: M×2 float32 pixels.
        visible: M bool.
    """

    track: np.ndarray
    camera: np.ndarray
    xy: np.ndarray
    visible: np.ndarray

    def take(self, rows: np.ndarray) -> Observations:
        """Some of the observations."""
        return Observations(self.track[rows], self.camera[rows], self.xy[rows], self.visible[rows])


@dataclass
class Triangulation:
    """Triangulated points of N tracks.

    Attributes:
        xyz: N×3 float64 world positions, NaN where a check failed.
        sigma: N float64, standard deviation of the position in world units (root of the trace of the covariance).
        error: N float64, median reprojection error in pixels.
        parallax: N float64, largest angle between the rays of a track and their mean direction, doubled, in degrees.
        distance: N float64, to the nearest camera that sees the point.
    """

    xyz: np.ndarray
    sigma: np.ndarray
    error: np.ndarray
    parallax: np.ndarray
    distance: np.ndarray


def observations(tracks: Tracks, cameras: Cameras) -> Observations:
    """What the registered images see of the tracks; observations at other frames are left out."""
    camera_of = np.full(tracks.num_frames, -1, np.int64)
    known = cameras.frame_index < tracks.num_frames
    camera_of[cameras.frame_index[known]] = np.flatnonzero(known)
    camera = camera_of[tracks.frame_flat]
    rows = np.flatnonzero((camera >= 0) & np.isfinite(tracks.xy_flat[:, 0]))
    return Observations(
        tracks.track_flat[rows].astype(np.int64), camera[rows], tracks.xy_flat[rows], tracks.visible_flat[rows]
    )


def triangulate(
    cameras: Cameras,
    seen: Observations,
    count: int,
    *,
    max_error: float | None = None,
    min_parallax: float = 0.5,
    max_relative_sigma: float = 0.1,
) -> Triangulation:
    """Triangulate static tracks.

    Args:
        cameras: the poses.
        seen: observations sorted by track; hidden ones are not used.
        count: number of tracks N.
        max_error: greatest median reprojection error in pixels; 0.15 % of the longer image side, at least 1, when absent.
        min_parallax: least angle between rays in degrees.
        max_relative_sigma: greatest standard deviation as a share of the distance to the nearest camera that sees the point.
    """
    limit = max(1.0, 0.0015 * max(cameras.width, cameras.height)) if max_error is None else max_error
    unknown = np.full(count, np.inf)
    result = Triangulation(np.full((count, 3), np.nan), unknown.copy(), unknown.copy(), np.zeros(count), unknown.copy())
    seen = seen.take(_thinned(seen))
    starts = np.searchsorted(seen.track, np.arange(0, count + _BLOCK, _BLOCK))
    for begin, end in zip(starts[:-1], starts[1:], strict=True):
        if end > begin:
            _block(cameras, seen.take(np.arange(begin, end)), result)
    bad = (
        (result.error > limit)
        | (result.parallax < min_parallax)
        | ~(result.sigma < max_relative_sigma * result.distance)
    )
    result.xyz[bad] = np.nan
    return result


def _thinned(seen: Observations) -> np.ndarray:
    """Rows of visible observations of tracks seen at least thrice, at most `_MOST_VIEWS` per track, evenly spread."""
    rows = np.flatnonzero(seen.visible)
    _, inverse, counts = np.unique(seen.track[rows], return_inverse=True, return_counts=True)
    number = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    total = counts[inverse]
    step = np.maximum(total, _MOST_VIEWS) / _MOST_VIEWS
    picked = np.floor(number / step) != np.floor((number - 1) / step)
    return rows[picked & (total >= 3)]


def _block(cameras: Cameras, seen: Observations, result: Triangulation) -> None:
    """Fill `result` for the tracks of `seen`."""
    ids, begin, counts = np.unique(seen.track, return_index=True, return_counts=True)
    member = np.repeat(np.arange(len(ids)), counts)
    focal = float(np.mean(cameras.focal))
    rays = cameras.rays(seen.xy)
    rotation, offset = cameras.cam_from_world[seen.camera, :, :3], cameras.cam_from_world[seen.camera, :, 3]
    direction = np.einsum("mji,mj->mi", rotation, rays)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    centers = cameras.centers()[seen.camera]
    xyz = _nearest_to_rays(direction, centers, member, begin, focal)

    def sums(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, begin, axis=0)

    hessian = np.zeros((len(ids), 3, 3))
    for _ in range(6):
        camera = np.einsum("mij,mj->mi", rotation, xyz[member]) + offset
        z = np.where(np.abs(camera[:, 2]) < 1e-9, 1e-9, camera[:, 2])
        plane = camera[:, :2] / z[:, None]
        residual = focal * (plane - rays[:, :2])
        jacobian = focal * (rotation[:, :2] - plane[:, :, None] * rotation[:, 2:]) / z[:, None, None]
        weight = _cauchy(np.linalg.norm(residual, axis=1))
        hessian = sums(weight[:, None, None] * np.einsum("mki,mkj->mij", jacobian, jacobian))
        gradient = sums(weight[:, None] * np.einsum("mki,mk->mi", jacobian, residual))
        damping = 1e-6 * np.trace(hessian, axis1=1, axis2=2)[:, None, None] * np.eye(3) + 1e-30 * np.eye(3)
        step = np.linalg.solve(hessian + damping, gradient[..., None])[..., 0]
        reach = np.linalg.norm(xyz - centers[begin], axis=1, keepdims=True)
        step *= np.minimum(1.0, 0.5 * reach / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-30))
        xyz = xyz - step
    camera = np.einsum("mij,mj->mi", rotation, xyz[member]) + offset
    z = np.where(np.abs(camera[:, 2]) < 1e-9, 1e-9, camera[:, 2])
    error = np.linalg.norm(focal * (camera[:, :2] / z[:, None] - rays[:, :2]), axis=1)
    error[camera[:, 2] <= 0] = np.inf
    order = np.lexsort((error, member))
    median = error[order][begin + counts // 2]
    noise = np.maximum(0.5, 1.5 * np.where(np.isfinite(median), median, 1e3))
    covariance = np.linalg.pinv(hessian, hermitian=True) * (noise**2)[:, None, None]
    distance = np.minimum.reduceat(np.linalg.norm(xyz[member] - centers, axis=1), begin)
    mean = sums(direction)
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    cosine = np.minimum.reduceat(np.einsum("mi,mi->m", direction, mean[member]), begin)
    result.xyz[ids], result.error[ids] = xyz, median
    result.sigma[ids] = np.sqrt(np.maximum(np.trace(covariance, axis1=1, axis2=2), 0))
    result.distance[ids] = distance
    result.parallax[ids] = 2 * np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def _nearest_to_rays(
    direction: np.ndarray, centers: np.ndarray, member: np.ndarray, begin: np.ndarray, focal: float
) -> np.ndarray:
    """The point of every track with the least weighted distance to its rays; rays that miss it by far lose their weight."""
    weight = np.ones(len(member))
    across = np.eye(3) - direction[:, :, None] * direction[:, None, :]
    xyz = np.zeros((len(begin), 3))
    for _ in range(4):
        matrix = np.add.reduceat(weight[:, None, None] * across, begin, axis=0)
        right = np.add.reduceat(weight[:, None] * np.einsum("mij,mj->mi", across, centers), begin, axis=0)
        ridge = 1e-9 * np.trace(matrix, axis1=1, axis2=2)[:, None, None] * np.eye(3) + 1e-30 * np.eye(3)
        anchor = ridge @ centers[begin][..., None]
        xyz = np.linalg.solve(matrix + ridge, right[..., None] + anchor)[..., 0]
        toward = xyz[member] - centers
        miss = np.linalg.norm(np.einsum("mij,mj->mi", across, toward), axis=1)
        reach = np.maximum(np.linalg.norm(toward, axis=1), 1e-9)
        # Weights by the angle, as reprojection errors have it, and by the distance, so that far views do not dominate.
        weight = _cauchy(focal * miss / reach) / reach**2
        weight /= np.maximum(np.maximum.reduceat(weight, begin)[member], 1e-300)
    return xyz


def _cauchy(pixels: np.ndarray, scale: float = 1.5) -> np.ndarray:
    return 1.0 / (1.0 + (pixels / scale) ** 2)
