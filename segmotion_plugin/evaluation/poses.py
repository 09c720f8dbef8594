"""Errors of an estimated camera trajectory against the true one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.errors import SegmotionError

# Weight of the camera rotations beside the (normalised) camera centres when the world rotation is fitted. Where the
# path spreads over more than a tenth of its extent the centres decide; across a straighter path the rotations do.
ROTATION_WEIGHT = 0.01


@dataclass
class Similarity:
    """x_target = scale · rotation · x_source + translation."""

    scale: float
    rotation: np.ndarray
    translation: np.ndarray

    def apply(self, xyz: np.ndarray) -> np.ndarray:
        """Transform N×3 points of the source world to N×3 points of the target world."""
        return self.scale * np.asarray(xyz, dtype=np.float64) @ self.rotation.T + self.translation


@dataclass
class PoseErrors:
    """How far an estimated trajectory is from the truth after similarity alignment.

    Attributes:
        num_compared: images that both trajectories hold.
        num_truth: images of the true trajectory.
        trajectory_rmse: root mean square distance of aligned camera centres, in the units of the truth.
        trajectory_max: largest such distance.
        path_length: length of the true path through the compared images, in the units of the truth.
        trajectory_fraction: `trajectory_rmse / path_length`.
        rotation_deg: median angle between aligned and true camera rotations, degrees.
        rotation_max_deg: largest such angle.
        relative_rotation_deg: median angle between estimated and true motion of neighbouring compared images, degrees.
        relative_translation: median error of the translation between neighbouring compared images (in camera axes,
            after the scale of the alignment), as a fraction of the mean true step.
        focal_ratio: estimated over true focal length (geometric mean of x and y).
        alignment: the similarity from the estimated to the true world.
    """

    num_compared: int
    num_truth: int
    trajectory_rmse: float
    trajectory_max: float
    path_length: float
    trajectory_fraction: float
    rotation_deg: float
    rotation_max_deg: float
    relative_rotation_deg: float
    relative_translation: float
    focal_ratio: float
    alignment: Similarity

    @property
    def registered(self) -> float:
        """Share of the true trajectory's images that were estimated."""
        return self.num_compared / self.num_truth


def rotation_angle_deg(rotations: np.ndarray) -> np.ndarray:
    """Angles in degrees of N×3×3 rotation matrices; exact also near zero, where the arc cosine of the trace is not."""
    skew = rotations - np.swapaxes(rotations, -1, -2)
    sine = 0.5 * np.sqrt(skew[..., 2, 1] ** 2 + skew[..., 0, 2] ** 2 + skew[..., 1, 0] ** 2)
    cosine = 0.5 * (np.trace(rotations, axis1=-2, axis2=-1) - 1.0)
    return np.degrees(np.arctan2(sine, cosine))


def align_poses(source: np.ndarray, target: np.ndarray, rotation_weight: float = ROTATION_WEIGHT) -> Similarity:
    """Similarity that maps the world of `source` to the world of `target`.

    The rotation maximises tr(Rᵀ (C + w A)): C is the normalised covariance of the camera centres as in Umeyama,
    "Least-squares estimation of transformation parameters between two point patterns" (PAMI 1991), A the mean of the
    rotations between the two worlds as each camera alone gives them. Centres alone leave the rotation about a straight
    path open. Scale and translation are then the least-squares ones of the centres.

    Args:
        source: K×3×4 cam_from_world.
        target: K×3×4 cam_from_world of the same images in the same order.
        rotation_weight: w above.

    Raises:
        SegmotionError: fewer than two cameras, or arrays of different lengths.
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if source.shape != target.shape or len(source) < 2:
        raise SegmotionError(
            f"trajectories of {len(source)} and {len(target)} cameras cannot be aligned\n"
            "two or more common images are needed"
        )
    from_centers, to_centers = _centers(source), _centers(target)
    from_mean, to_mean = from_centers.mean(0), to_centers.mean(0)
    x, y = from_centers - from_mean, to_centers - to_mean
    x_norm, y_norm = float(np.linalg.norm(x)), float(np.linalg.norm(y))
    covariance = y.T @ x / max(x_norm * y_norm, 1e-300)
    between = np.einsum("kji,kjl->il", target[:, :, :3], source[:, :, :3]) / len(source)
    u, _, vt = np.linalg.svd(covariance + rotation_weight * between)
    rotation = u @ np.diag([1.0, 1.0, float(np.sign(np.linalg.det(u @ vt)))]) @ vt
    scale = float(np.sum(y * (x @ rotation.T)) / max(x_norm**2, 1e-300))
    return Similarity(scale, rotation, to_mean - scale * rotation @ from_mean)


def trajectory_error(estimated: Cameras, truth: Cameras) -> PoseErrors:
    """Compare trajectories by image name, after aligning the estimated world to the true one.

    Args:
        estimated: cameras found; images that are missing here count in `PoseErrors.registered` only.
        truth: true cameras.

    Raises:
        SegmotionError: fewer than two common images, or a true camera that stands still (the scale is open then).
    """
    position = {name: k for k, name in enumerate(estimated.names)}
    common = [name for name in truth.names if name in position]
    if len(common) < 2:
        raise SegmotionError(
            f"only {len(common)} of the {len(truth)} images of the true trajectory were estimated\n"
            "compare trajectories that share two or more image names"
        )
    found = estimated.cam_from_world[[position[name] for name in common]]
    index = {name: k for k, name in enumerate(truth.names)}
    true = truth.cam_from_world[[index[name] for name in common]]
    true_centers = _centers(true)
    steps = np.linalg.norm(np.diff(true_centers, axis=0), axis=1)
    path_length = float(steps.sum())
    if path_length <= 1e-9 * max(1.0, float(np.abs(true_centers).max())):
        raise SegmotionError("the true camera stands still: a trajectory error is not defined without a path")

    alignment = align_poses(found, true)
    distance = np.linalg.norm(alignment.apply(_centers(found)) - true_centers, axis=1)
    aligned_rotation = np.einsum("kij,lj->kil", found[:, :, :3], alignment.rotation)  # cam from true world
    rotation = rotation_angle_deg(np.einsum("kij,klj->kil", aligned_rotation, true[:, :, :3]))

    found_step_r, found_step_t = _relative(found)
    true_step_r, true_step_t = _relative(true)
    step_rotation = rotation_angle_deg(np.einsum("kij,klj->kil", found_step_r, true_step_r))
    step_translation = np.linalg.norm(alignment.scale * found_step_t - true_step_t, axis=1)
    rmse = float(np.sqrt(np.mean(distance**2)))
    return PoseErrors(
        num_compared=len(common),
        num_truth=len(truth),
        trajectory_rmse=rmse,
        trajectory_max=float(distance.max()),
        path_length=path_length,
        trajectory_fraction=rmse / path_length,
        rotation_deg=float(np.median(rotation)),
        rotation_max_deg=float(rotation.max()),
        relative_rotation_deg=float(np.median(step_rotation)),
        relative_translation=float(np.median(step_translation) / steps.mean()),
        focal_ratio=float(np.sqrt(np.prod(estimated.focal) / np.prod(truth.focal))),
        alignment=alignment,
    )


def _centers(cam_from_world: np.ndarray) -> np.ndarray:
    return -np.einsum("kji,kj->ki", cam_from_world[:, :, :3], cam_from_world[:, :, 3])


def _relative(cam_from_world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and translation of camera k+1 from camera k."""
    rotation, translation = cam_from_world[:, :, :3], cam_from_world[:, :, 3]
    step_rotation = np.einsum("kij,klj->kil", rotation[1:], rotation[:-1])
    return step_rotation, translation[1:] - np.einsum("kij,kj->ki", step_rotation, translation[:-1])
