"""Trajectory errors: exact under any similarity, sound on straight paths, and equal to evo's where that is defined."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation.poses import align_poses, rotation_angle_deg, trajectory_error


def cameras(centers: np.ndarray, rotations: np.ndarray, focal: float = 300.0) -> Cameras:
    """Cameras at K×3 centres with K×3×3 cam_from_world rotations."""
    poses = np.concatenate([rotations, -np.einsum("kij,kj->ki", rotations, centers)[..., None]], axis=2)
    names = [f"{k:03d}.png" for k in range(len(centers))]
    return Cameras(names, np.arange(len(names)), 320, 240, "SIMPLE_PINHOLE", np.array([focal, 160.0, 120.0]), poses)


def moved(source: Cameras, scale: float, turn: np.ndarray, shift: np.ndarray) -> Cameras:
    """The same cameras in a world that was scaled, turned and shifted."""
    centers = scale * source.centers() @ turn.T + shift
    return cameras(centers, source.cam_from_world[:, :, :3] @ turn.T, source.focal[0])


@pytest.fixture
def path() -> Cameras:
    rng = np.random.default_rng(3)
    t = np.linspace(0.0, 1.0, 20)
    centers = np.stack([np.sin(3 * t), 0.3 * np.cos(5 * t), 2.0 * t], axis=1)
    return cameras(centers, Rotation.from_rotvec(0.2 * rng.standard_normal((20, 3))).as_matrix())


@pytest.fixture
def straight() -> Cameras:
    rng = np.random.default_rng(4)
    centers = np.linspace(0.0, 3.0, 12)[:, None] * np.array([1.0, 0.0, 0.0])
    return cameras(centers, Rotation.from_rotvec(0.1 * rng.standard_normal((12, 3))).as_matrix())


TURN = Rotation.from_euler("xyz", [40.0, -110.0, 75.0], degrees=True).as_matrix()


@pytest.mark.parametrize("name", ["path", "straight"])
def test_a_similar_trajectory_has_no_error(name: str, request: pytest.FixtureRequest) -> None:
    truth: Cameras = request.getfixturevalue(name)
    errors = trajectory_error(moved(truth, 0.2, TURN, np.array([5.0, -3.0, 9.0])), truth)
    assert errors.trajectory_fraction < 1e-9
    assert errors.rotation_max_deg < 1e-5
    assert errors.relative_rotation_deg < 1e-5
    assert errors.relative_translation < 1e-9
    assert errors.registered == 1.0
    assert errors.focal_ratio == pytest.approx(1.0)
    assert errors.alignment.scale == pytest.approx(5.0)


def test_rotations_fix_the_roll_that_a_straight_path_leaves_open(straight: Cameras) -> None:
    rng = np.random.default_rng(0)
    noisy = moved(straight, 1.0, TURN, np.zeros(3))
    noisy = cameras(noisy.centers() + 1e-4 * rng.standard_normal((12, 3)), noisy.cam_from_world[:, :, :3])
    assert trajectory_error(noisy, straight).rotation_deg < 0.1
    by_centers = align_poses(noisy.cam_from_world, straight.cam_from_world, rotation_weight=0.0)
    assert rotation_angle_deg(by_centers.rotation @ TURN) > 1.0


def test_the_error_is_the_displacement_over_the_path(path: Cameras) -> None:
    centers = path.centers().copy()
    centers[7] += np.array([0.0, 0.05, 0.0])
    errors = trajectory_error(cameras(centers, path.cam_from_world[:, :, :3]), path)
    length = np.linalg.norm(np.diff(path.centers(), axis=0), axis=1).sum()
    assert errors.path_length == pytest.approx(length)
    assert errors.trajectory_max == pytest.approx(0.05, rel=0.1)
    assert errors.trajectory_fraction == pytest.approx(0.05 / np.sqrt(20) / length, rel=0.1)


def test_one_turned_camera_shows_in_the_largest_rotation_error(path: Cameras) -> None:
    rotations = path.cam_from_world[:, :, :3].copy()
    rotations[5] = Rotation.from_rotvec([0.0, np.radians(8.0), 0.0]).as_matrix() @ rotations[5]
    errors = trajectory_error(cameras(path.centers(), rotations), path)
    assert errors.rotation_max_deg == pytest.approx(8.0, abs=0.1)
    assert errors.rotation_deg < 0.1


def test_images_are_joined_by_name_and_missing_ones_counted(path: Cameras) -> None:
    order = [11, 3, 4, 17, 0, 9]
    part = Cameras(
        [path.names[k] for k in order], np.array(order), 320, 240, path.model, path.params, path.cam_from_world[order]
    )
    errors = trajectory_error(part, path)
    assert errors.trajectory_fraction < 1e-9
    assert (errors.num_compared, errors.num_truth) == (6, 20)
    assert errors.registered == pytest.approx(0.3)


def test_undefined_comparisons_are_refused(path: Cameras) -> None:
    still = cameras(np.tile(np.array([1.0, 2.0, 3.0]), (20, 1)), path.cam_from_world[:, :, :3])
    with pytest.raises(SegmotionError, match="stands still"):
        trajectory_error(path, still)
    other = Cameras(["x.png"], np.zeros(1), 320, 240, path.model, path.params, path.cam_from_world[:1])
    with pytest.raises(SegmotionError, match="only 0 of the 20"):
        trajectory_error(other, path)


def test_angles_are_exact_near_zero_and_near_half_a_turn() -> None:
    degrees = np.array([0.0, 1e-7, 1e-3, 90.0, 179.999])
    matrices = Rotation.from_rotvec(np.radians(degrees)[:, None] * np.array([0.6, 0.0, 0.8])).as_matrix()
    np.testing.assert_allclose(rotation_angle_deg(matrices), degrees, rtol=1e-6, atol=1e-12)


def test_alignment_by_centres_alone_equals_umeyama_as_evo_has_it(path: Cameras) -> None:
    from evo.core.geometry import umeyama_alignment

    rng = np.random.default_rng(1)
    noisy = moved(path, 3.0, TURN, np.ones(3))
    noisy = cameras(noisy.centers() + 0.1 * rng.standard_normal((20, 3)), noisy.cam_from_world[:, :, :3])
    rotation, shift, scale = umeyama_alignment(noisy.centers().T, path.centers().T, with_scale=True)
    ours = align_poses(noisy.cam_from_world, path.cam_from_world, rotation_weight=0.0)
    np.testing.assert_allclose(ours.rotation, rotation, atol=1e-9)
    np.testing.assert_allclose(ours.translation, shift, atol=1e-9)
    assert ours.scale == pytest.approx(scale)
