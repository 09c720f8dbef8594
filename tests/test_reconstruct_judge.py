"""What a model is judged by: errors under shared matches, parallax, agreement, and what the matches show before."""

from __future__ import annotations

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.reconstruct import judge
from segmotion_plugin.reconstruct.mapping import cameras_from_reconstruction, change_camera_model

SIZE = (400, 300)
NAMES = [f"{k}.png" for k in range(8)]


def scene(
    centers: np.ndarray, turns_deg: np.ndarray, depth: tuple[float, float], noise: float = 0.2
) -> tuple[Cameras, list[judge.PairMatches]]:
    """Cameras and noisy matches of 150 random points between neighbours one and four apart."""
    rng = np.random.default_rng(0)
    rotations = Rotation.from_rotvec(np.radians(turns_deg)[:, None] * np.array([0.0, 1.0, 0.0])).as_matrix()
    poses = np.concatenate([rotations, -np.einsum("kij,kj->ki", rotations, centers)[..., None]], axis=2)
    params = np.array([350.0, 200.0, 150.0, 0.03])
    cameras = Cameras(NAMES, np.arange(len(NAMES)), *SIZE, "SIMPLE_RADIAL", params, poses)
    z = rng.uniform(*depth, 150)
    points = np.stack([rng.uniform(-0.5, 0.5, 150) * z, rng.uniform(-0.4, 0.4, 150) * z, z], axis=1)
    seen = [cameras.project(points, k)[0] + noise * rng.standard_normal((150, 2)) for k in range(len(NAMES))]
    pairs = [(i, i + step) for step in (1, 4) for i in range(len(NAMES) - step)]
    return cameras, [judge.PairMatches(NAMES[i], NAMES[j], seen[i], seen[j]) for i, j in pairs]


SIDEWAYS = np.linspace(-0.6, 0.6, 8)[:, None] * np.array([1.0, 0.2, 0.0])
STILL = np.zeros((8, 3))


@pytest.mark.parametrize(
    ("centers", "turns", "depth", "expected"),
    [
        (SIDEWAYS, np.linspace(-3, 3, 8), (3.0, 9.0), "parallax"),
        (SIDEWAYS, np.linspace(-3, 3, 8), (6.0, 6.0), "flat"),
        (STILL, np.linspace(-8, 8, 8), (3.0, 9.0), "turn"),
        (STILL, np.zeros(8), (3.0, 9.0), "still"),
    ],
)
def test_the_cameras_motion_is_read_from_the_matches(
    centers: np.ndarray, turns: np.ndarray, depth: tuple[float, float], expected: str
) -> None:
    _, matches = scene(centers, turns, depth)
    assert judge.view_of(matches, len(NAMES), SIZE, 1.6) == expected
    assert judge.view_of(matches[:1], 40, SIZE, 1.6) == "scattered"
    assert {"scattered", "still", "turn", "flat", "parallax", "collapsed"} == set(judge.NO_MODEL)


def test_epipolar_error_is_that_of_the_noise_and_grows_with_wrong_poses() -> None:
    cameras, matches = scene(SIDEWAYS, np.linspace(-3, 3, 8), (3.0, 9.0))
    right = judge.epipolar_error(matches, cameras, 2.0)
    # The Sampson distance has one degree of freedom per match, and both images carry the noise.
    assert right == pytest.approx(0.2, rel=0.15)
    wrong = cameras.cam_from_world.copy()
    wrong[3, 1, 3] += 0.1
    assert judge.epipolar_error(matches, with_poses(cameras, wrong), 2.0) > 1.3 * right
    longer = Cameras(NAMES, np.arange(8), *SIZE, cameras.model, cameras.params * [1.6, 1, 1, 1], cameras.cam_from_world)
    assert judge.epipolar_error(matches, longer, 2.0) > 1.3 * right


def test_images_that_were_not_registered_count_in_full() -> None:
    cameras, matches = scene(SIDEWAYS, np.linspace(-3, 3, 8), (3.0, 9.0), noise=0.0)
    part = Cameras(NAMES[:4], np.arange(4), *SIZE, cameras.model, cameras.params, cameras.cam_from_world[:4])
    inside = sum(m.first in NAMES[:4] and m.second in NAMES[:4] for m in matches)
    expected = 2.0 * np.sqrt(1.0 - inside / len(matches))
    assert judge.epipolar_error(matches, part, 2.0) == pytest.approx(expected, abs=1e-3)


def test_disagreement_is_free_of_the_world_frame() -> None:
    cameras, _ = scene(SIDEWAYS, np.linspace(-3, 3, 8), (3.0, 9.0))
    turn = Rotation.from_euler("xyz", [10, 50, 30], degrees=True).as_matrix()
    poses = cameras.cam_from_world
    other = np.concatenate([poses[:, :, :3] @ turn, 2.0 * poses[:, :, 3:]], axis=2)
    assert judge.disagreement(with_poses(cameras, other), cameras) < 1e-9
    bent = poses.copy()
    bent[4, 0, 3] += 0.2
    assert judge.disagreement(with_poses(cameras, bent), cameras) > 0.01
    assert judge.disagreement(cameras, with_poses(cameras, poses[:, :, :] * [1, 1, 1, 0])) == float("inf")


def with_poses(cameras: Cameras, poses: np.ndarray) -> Cameras:
    return Cameras(NAMES, np.arange(8), *SIZE, cameras.model, cameras.params, poses)


@pytest.fixture
def model() -> pycolmap.Reconstruction:
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, 6
    options.num_points3D = 60
    options.camera_model_id = pycolmap.CameraModelId.SIMPLE_RADIAL
    pycolmap.set_random_seed(0)
    return pycolmap.synthesize_dataset(options)


def every_match(model: pycolmap.Reconstruction) -> list[judge.PairMatches]:
    """Matches of all observations that images share."""
    images = sorted(model.images.values(), key=lambda image: image.image_id)
    seen = [{p.point3D_id: p.xy for p in image.points2D if p.has_point3D()} for image in images]
    found = []
    for i in range(len(images)):
        for j in range(i + 1, len(images)):
            common = sorted(set(seen[i]) & set(seen[j]))
            first, second = (np.array([seen[k][point] for point in common]) for k in (i, j))
            found.append(judge.PairMatches(images[i].name, images[j].name, first, second))
    return found


def test_a_sound_model_has_no_weakness_and_a_poor_one_is_described(model: pycolmap.Reconstruction) -> None:
    matches = every_match(model)
    assert judge.explained_share(model, matches) == pytest.approx(1.0)
    assert judge.triangulation_angle_deg(model) > 20.0
    assert judge.weakness(model, matches, 6) is None
    assert "only 6 of 100 images" in str(judge.weakness(model, matches, 100))
    for point_id in sorted(model.point3D_ids())[5:]:
        model.delete_point3D(point_id)
    assert "not reliable (5 points" in str(judge.weakness(model, matches, 6))


def test_changing_the_camera_model_keeps_the_projection(model: pycolmap.Reconstruction) -> None:
    names = sorted(image.name for image in model.images.values())
    before = cameras_from_reconstruction(model, names)
    points = np.array([point.xyz for point in model.points3D.values()])
    change_camera_model(model, "OPENCV")
    after = cameras_from_reconstruction(model, names)
    assert after.model == "OPENCV" and len(after.params) == 8
    np.testing.assert_allclose(after.project(points, 2)[0], before.project(points, 2)[0], atol=1e-9)


def test_cameras_come_in_the_clips_order_with_their_frames(model: pycolmap.Reconstruction) -> None:
    names = sorted((image.name for image in model.images.values()), reverse=True)
    cameras = cameras_from_reconstruction(model, ["absent.png", *names], [0, 2, 4, 6, 8, 10, 12])
    assert cameras.names == names
    assert cameras.frame_index.tolist() == [2, 4, 6, 8, 10, 12]
    image = model.find_image_with_name(names[3])
    assert image is not None
    np.testing.assert_allclose(cameras.cam_from_world[3], image.cam_from_world().matrix())
