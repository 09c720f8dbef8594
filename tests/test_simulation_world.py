"""Ray casting, tracks and truth of simulated worlds."""

from __future__ import annotations

import numpy as np
import pytest

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.simulation import CLASS_ID, Effects, Primitive, Ripple, World, follow
from segmotion_plugin.simulation import geometry as geo
from segmotion_plugin.simulation.shapes import Shape, intersect, local_normals, texture_coordinates
from segmotion_plugin.simulation.textures import Texture

T, WIDTH, HEIGHT, FOCAL = 8, 160, 90, 140.0
GREY = Texture("noise", 0, ((0.2, 0.2, 0.2), (0.8, 0.8, 0.8)), size=64)
ALL_BODIES = [Shape.BOX, Shape.ELLIPSOID, Shape.CYLINDER]


def facing(distance: float) -> np.ndarray:
    """Pose of a rectangle at x = 0, y = distance that faces the camera."""
    return geo.affine(geo.frame_from_axes(np.array([0.0, -1.0, 0.0]), (1.0, 0.0, 0.0)), (0.0, distance, 0.0))


def level_camera(positions: np.ndarray) -> np.ndarray:
    return geo.look_at(positions, positions + (0.0, 1.0, 0.0))


def sideways(amount: float) -> np.ndarray:
    positions = np.zeros((T, 3))
    positions[:, 0] = np.linspace(-amount / 2, amount / 2, T)
    return positions


def small_world(cameras: np.ndarray, moving_from: int = 0, **changes: object) -> World:
    """A wall at 10 m, a still ball at 6 m on the left and a box that moves at 5 m in the middle."""
    centre = np.tile([0.0, 5.0, 0.0], (T, 1))
    centre[moving_from:, 0] += 0.1 * np.arange(T - moving_from)
    turn = geo.rotation("z", 0.05 * np.maximum(np.arange(T) - moving_from, 0))
    things = [
        Primitive(Shape.RECTANGLE, (20.0, 20.0, 1.0), facing(10.0), GREY, CLASS_ID["wall"]),
        Primitive(Shape.ELLIPSOID, (0.8, 0.8, 0.8), geo.affine(np.eye(3), (-1.8, 6.0, 0.0)), GREY, CLASS_ID["ball"]),
        Primitive(Shape.BOX, (0.6, 0.4, 0.5), geo.affine(turn, centre), GREY, CLASS_ID["crate"], object_id=5),
    ]
    return World(things, cameras, WIDTH, HEIGHT, FOCAL, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", list(Shape))
def test_rays_meet_the_surface_they_are_said_to_meet(shape: Shape) -> None:
    rng = np.random.default_rng(int(shape))
    origin = geo.unit(rng.normal(size=(400, 3))) * rng.uniform(2, 6, (400, 1))
    inside = rng.uniform(-0.5, 0.5, (400, 3)) * (1, 1, 0 if shape in (Shape.PLANE, Shape.RECTANGLE) else 1)
    direction = inside - origin
    parameter = intersect(shape, tuple(origin.T), tuple(direction.T))
    assert np.isfinite(parameter).all()
    hit = origin + parameter[:, None] * direction
    x, y, z = np.abs(hit.T)
    surface = {
        Shape.PLANE: z,
        Shape.RECTANGLE: z,
        Shape.BOX: np.maximum(np.maximum(x, y), z) - 1,
        Shape.ELLIPSOID: np.sqrt(x**2 + y**2 + z**2) - 1,
        Shape.CYLINDER: np.maximum(np.hypot(x, y), z) - 1,
    }[shape]
    np.testing.assert_allclose(surface, 0, atol=1e-5)
    if shape in ALL_BODIES:
        assert (np.einsum("ni,ni->n", local_normals(shape, hit), direction) < 1e-6).all(), "entries face the origin"
    assert np.isinf(intersect(shape, tuple(origin.T), tuple(-direction.T))).all(), "nothing lies behind"


def test_thin_far_bodies_are_hit_in_single_precision() -> None:
    # 1,500 radii away, as a pole of 3 cm at 45 m.
    origin = tuple(np.float32(v) for v in (0.3, -1500.0, 0.2))
    offset = np.linspace(-1.2, 1.2, 241, dtype=np.float32)
    direction = (offset - np.float32(0.3), np.full(241, 1500, np.float32), np.zeros(241, np.float32))
    hit = np.isfinite(intersect(Shape.CYLINDER, origin, direction))  # type: ignore[arg-type]
    clear = np.abs(np.abs(offset) - 1) > 0.01
    np.testing.assert_array_equal(hit[clear], np.abs(offset[clear]) < 1)


@pytest.mark.parametrize("shape", [Shape.ELLIPSOID, Shape.CYLINDER])
def test_textures_close_around_round_bodies(shape: Shape) -> None:
    local = np.array([[-1.0, 1e-6, 0.3], [-1.0, -1e-6, 0.3]])
    u, v = texture_coordinates(shape, local, np.array([0.7, 0.7, 1.0]), 0.9)
    step = abs(u[0] - u[1])
    assert step > 0.5
    assert abs(step - round(step)) < 1e-4
    assert v[0] == v[1]


def test_objects_that_never_move_belong_to_the_static_world() -> None:
    world = small_world(level_camera(sideways(1.0)), moving_from=T - 1)
    assert world.num_objects == 0
    assert not world.moving.any()
    assert (world.object_ids == 0).all()


def test_moving_frames_are_those_next_to_a_step() -> None:
    world = small_world(level_camera(sideways(1.0)), moving_from=4)
    assert world.num_objects == 1
    np.testing.assert_array_equal(world.moving[:, 1], np.arange(T) >= 4)
    assert not world.moving[:, 0].any()


def test_labels_of_tracks_and_rays_agree_and_ids_are_compact() -> None:
    world = small_world(level_camera(sideways(1.0)))
    tracks = world.sample_tracks(np.random.default_rng(0), 400, [0, 4])
    assert set(tracks.object_id) == {0, 1}
    for frame in range(T):
        seen = np.flatnonzero(tracks.visible[:, frame])
        hit = world.raycast(frame, tracks.xy[seen, frame])
        # A point at a silhouette may fall to the other side of it by rounding; nowhere else may they differ.
        assert (hit.primitive == tracks.primitive[seen]).mean() > 0.99
        same = hit.primitive == tracks.primitive[seen]
        np.testing.assert_array_equal(hit.object_id[same], tracks.object_id[seen][same])
        np.testing.assert_allclose(hit.depth[same], tracks.depth[seen, frame][same], rtol=2e-3)


def test_hidden_points_are_hidden_by_something_nearer() -> None:
    world = small_world(level_camera(sideways(3.0)))
    tracks = world.sample_tracks(np.random.default_rng(1), 600, [0, 3, 7])
    checked = 0
    for frame in range(T):
        xy = tracks.xy[:, frame]
        inside = (xy >= 0).all(1) & (xy < (WIDTH, HEIGHT)).all(1)
        hidden = np.flatnonzero(inside & ~tracks.visible[:, frame])
        hit = world.raycast(frame, xy[hidden])
        assert (hit.depth < tracks.depth[hidden, frame] - 1e-4).mean() > 0.98
        checked += len(hidden)
    assert checked > 50


def test_points_start_where_they_were_queried_and_project_by_the_cameras() -> None:
    world = small_world(level_camera(sideways(1.0)))
    rng = np.random.default_rng(2)
    xy = rng.uniform((0, 0), (WIDTH, HEIGHT), (200, 2))
    tracks = follow(world, np.full(200, 3), xy)
    np.testing.assert_allclose(tracks.xy[:, 3], xy, atol=2e-3)
    assert tracks.visible[:, 3].all()
    for frame in (0, 7):
        pixels, depth = world.cameras.project(tracks.xyz[:, frame], frame)
        np.testing.assert_allclose(tracks.xy[:, frame], pixels, atol=2e-3)
        np.testing.assert_allclose(tracks.depth[:, frame], depth, rtol=1e-4)


def test_static_points_stay_in_the_world_and_movers_move_with_their_body() -> None:
    world = small_world(level_camera(sideways(1.0)))
    tracks = world.sample_tracks(np.random.default_rng(3), 500, [2])
    travel = np.linalg.norm(tracks.xyz - tracks.xyz[:, :1], axis=2)
    assert travel[tracks.object_id == 0].max() < 1e-4
    assert travel[tracks.object_id == 1, -1].min() > 0.3
    body = world.world_from_local[:, 2]
    local = geo.apply(geo.invert(body)[None], tracks.xyz[tracks.object_id == 1].astype(float))
    np.testing.assert_allclose(local, np.broadcast_to(local[:, :1], local.shape), atol=1e-4)


def test_a_turning_camera_moves_all_static_points_by_one_homography() -> None:
    angles = np.linspace(-0.2, 0.2, T)
    target = np.stack([np.sin(angles), np.cos(angles), 0.1 * angles], axis=1)
    world = small_world(geo.look_at(np.zeros((T, 3)), target))
    tracks = world.sample_tracks(np.random.default_rng(4), 300, [3])
    still = tracks.object_id == 0
    calibration = world.cameras.intrinsics()
    first, last = world.cam_from_world[0, :, :3], world.cam_from_world[-1, :, :3]
    homography = calibration @ last @ first.T @ np.linalg.inv(calibration)
    mapped = np.concatenate([tracks.xy[:, 0], np.ones((len(still), 1))], axis=1) @ homography.T
    error = np.linalg.norm(mapped[:, :2] / mapped[:, 2:] - tracks.xy[:, -1], axis=1)
    assert error[still].max() < 0.02
    assert error[~still].min() > 1.0


def test_deforming_bodies_carry_their_points() -> None:
    stretch = 1 + 0.3 * np.sin(np.arange(T))[:, None] * np.array([1.0, 0.5, -0.5])
    pose = geo.affine(np.eye(3), (0.0, 4.0, 0.0))
    soft = Primitive(Shape.ELLIPSOID, (0.8, 0.8, 0.8), pose, GREY, CLASS_ID["creature"], 1, stretch)
    world = World([soft], level_camera(np.zeros((T, 3))), WIDTH, HEIGHT, FOCAL)
    tracks = world.sample_tracks(np.random.default_rng(5), 300, [0])
    on_body = tracks.object_id == 1
    assert world.moving[:, 1].all()
    radii = 0.8 * stretch
    unit = (tracks.xyz[on_body] - (0.0, 4.0, 0.0)) / radii
    np.testing.assert_allclose(np.linalg.norm(unit, axis=2), 1, atol=1e-4)
    np.testing.assert_allclose(unit, np.broadcast_to(unit[:, :1], unit.shape), atol=1e-4)


def test_ripples_are_incoherent_but_no_objects() -> None:
    ripple = Ripple(amplitude=0.05, wavelength=1.5, speed=0.7, seed=3)
    water = Primitive(Shape.RECTANGLE, (20.0, 20.0, 1.0), facing(6.0), GREY, CLASS_ID["water"], ripple=ripple)
    world = World([water], level_camera(np.zeros((T, 3))), WIDTH, HEIGHT, FOCAL)
    xy = np.random.default_rng(6).uniform((20, 20), (140, 70), (100, 2))
    tracks = follow(world, np.full(100, 4), xy)
    assert tracks.incoherent.all()
    assert not tracks.moving.any() and not tracks.object_id.any()
    np.testing.assert_allclose(tracks.xy[:, 4], xy, atol=0.02)
    steps = np.diff(tracks.xy, axis=1)
    assert np.linalg.norm(steps, axis=2).mean() > 0.2
    assert np.linalg.norm(steps.mean(axis=0), axis=1).max() < 0.6 * np.linalg.norm(steps, axis=2).max()


def test_sky_points_are_infinitely_far_and_move_with_the_rotation_only() -> None:
    floor = Primitive(Shape.PLANE, (1.0, 1.0, 1.0), geo.affine(np.eye(3), (0, 0, -1.5)), GREY, CLASS_ID["ground"])
    world = World([floor], level_camera(sideways(2.0)), WIDTH, HEIGHT, FOCAL)
    tracks = world.sample_tracks(np.random.default_rng(7), 200, [0])
    sky = tracks.primitive < 0
    assert 0.3 < sky.mean() < 0.7
    assert np.isinf(tracks.depth[sky]).all()
    assert (tracks.class_id[sky] == CLASS_ID["sky"]).all()
    assert np.abs(tracks.xy[sky] - tracks.xy[sky, :1]).max() < 0.1
    assert (tracks.class_id[~sky] == CLASS_ID["ground"]).all()


def test_points_behind_the_camera_have_no_pixel() -> None:
    positions = np.zeros((T, 3))
    positions[:, 1] = np.linspace(0, 8, T)
    world = small_world(level_camera(positions))
    tracks = world.sample_tracks(np.random.default_rng(8), 300, [0])
    passed = tracks.depth < 0
    assert passed.any()
    assert np.isnan(tracks.xy[passed]).all()
    assert not tracks.visible[passed].any()


def test_a_rolling_shutter_sees_lower_rows_later() -> None:
    cameras = level_camera(sideways(2.0))
    xy = np.array([[80.0, 2.0], [80.0, 45.0], [80.0, 88.0]])
    plain = follow(small_world(cameras), np.full(3, 4), xy)
    rolled = follow(small_world(cameras, effects=Effects(rolling=0.8)), np.full(3, 4), xy)
    shift = (rolled.xy - plain.xy)[:, 3, 0]
    speed = (plain.xy[:, 4, 0] - plain.xy[:, 2, 0]) / 2
    np.testing.assert_allclose(shift, 0.8 * (xy[:, 1] / HEIGHT - 0.5) * speed, atol=0.03)


def test_query_points_cover_the_picture_and_repeat_by_seed() -> None:
    world = small_world(level_camera(sideways(1.0)))
    first = world.sample_tracks(np.random.default_rng(9), 101, [0, 7])
    again = world.sample_tracks(np.random.default_rng(9), 101, [0, 7])
    other = world.sample_tracks(np.random.default_rng(10), 101, [0, 7])
    np.testing.assert_array_equal(first.xy, again.xy)
    assert not np.array_equal(first.xy, other.xy)
    assert np.bincount(first.query_frame, minlength=T)[[0, 7]].tolist() in ([50, 51], [51, 50])
    start = first.xy[first.query_frame == 0, 0]
    quarters = np.bincount(2 * (start[:, 1] > HEIGHT / 2) + (start[:, 0] > WIDTH / 2), minlength=4)
    assert quarters.min() >= 9


def test_wrong_worlds_and_queries_are_refused() -> None:
    cameras = level_camera(np.zeros((T, 3)))
    with pytest.raises(SegmotionError, match="at least one primitive"):
        World([], cameras, WIDTH, HEIGHT, FOCAL)
    pose = np.tile(facing(3.0), (T + 1, 1, 1))
    with pytest.raises(SegmotionError, match="9 frames; the camera path has 8"):
        World([Primitive(Shape.BOX, (1.0, 1.0, 1.0), pose, GREY, 1)], cameras, WIDTH, HEIGHT, FOCAL)
    world = small_world(cameras)
    with pytest.raises(SegmotionError, match=r"must lie in 0\.\.7"):
        world.sample_tracks(np.random.default_rng(0), 10, [8])
    with pytest.raises(SegmotionError, match="cannot be shared"):
        world.sample_tracks(np.random.default_rng(0), 1, [0, 1])


def test_a_still_life_is_static_and_repeats() -> None:
    from segmotion_plugin.simulation.still_life import still_life

    for seed in range(4):
        world = still_life(np.random.default_rng(seed), 6, 96, 54)
        again = still_life(np.random.default_rng(seed), 6, 96, 54)
        assert world.num_objects == 0 and not world.moving.any()
        assert np.array_equal(world.cam_from_world, again.cam_from_world)
        assert np.ptp(world.cam_from_world[:, 0, 3]) + np.ptp(world.cam_from_world[:, 0, 2]) > 0.01


def test_parked_worlds_keep_their_things_and_lose_their_motion() -> None:
    from segmotion_plugin.simulation import scenes
    from segmotion_plugin.training.clips import hurried, parked

    world = scenes.build("two_cars_parked_twin", 5, 12, 96, 54)
    still, empty = parked(world, 4, 2), hurried(world, 2)
    assert world.num_objects > 0 and still.num_objects == 0 and empty.num_objects == 0
    assert still.num_frames == empty.num_frames == 6
    assert len(empty.primitives) < len(still.primitives) <= len(world.primitives)


def test_a_sped_up_world_shows_every_so_many_frames_of_the_same_motion() -> None:
    from segmotion_plugin.simulation import scenes
    from segmotion_plugin.training.clips import sped_up

    world = scenes.build("two_cars_parked_twin", 5, 12, 96, 54)
    fast = sped_up(world, 3)
    assert fast.num_frames == 4 and fast.num_objects == world.num_objects
    np.testing.assert_array_equal(fast.raycast(2, np.array([[40.0, 30.0]])).depth, world.raycast(6, np.array([[40.0, 30.0]])).depth)
    np.testing.assert_array_equal(fast.world_from_local, world.world_from_local[::3])
