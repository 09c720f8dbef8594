"""Named scenes, random worlds and rendered clips."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.simulation import CLASS_ID, Effects, World, follow, render, render_frames, scenes, worlds
from segmotion_plugin.simulation import geometry as geo
from segmotion_plugin.simulation.field_scenes import FIELD_NAMES
from segmotion_plugin.simulation.textures import KINDS, MipMap, Texture, draw

WIDTH, HEIGHT = 160, 90


@pytest.fixture(scope="module")
def cars() -> World:
    return scenes.build("two_cars_parked_twin", 3, 8, WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def cars_clip(cars: World):  # type: ignore[no-untyped-def]
    return render(cars)


def test_rendered_truth_is_complete(cars: World, cars_clip) -> None:  # type: ignore[no-untyped-def]
    clip = cars_clip
    assert clip.frames.shape == (8, HEIGHT, WIDTH, 3) and clip.frames.dtype == np.uint8
    assert clip.labels.shape == (8, HEIGHT, WIDTH) and clip.labels.dtype == np.uint8
    assert set(np.unique(clip.labels)) == {0, 1, 2}
    assert clip.moving.shape == (8, 3) and clip.moving[:, 1:].all() and not clip.moving[:, 0].any()
    assert clip.depth.dtype == np.float32 and (clip.depth > 0).all()
    assert len(clip.cameras) == 8 and (clip.cameras.width, clip.cameras.height) == (WIDTH, HEIGHT)
    assert clip.frames.std() > 25, "pictures have contrast"


def test_rendered_labels_and_depth_are_those_of_single_rays(cars: World, cars_clip) -> None:  # type: ignore[no-untyped-def]
    rows, columns = np.mgrid[1:HEIGHT:5, 1:WIDTH:5]
    xy = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    for frame in (0, 5):
        hits = cars.raycast(frame, xy)
        np.testing.assert_array_equal(cars_clip.labels[frame, rows, columns].ravel(), hits.object_id)
        np.testing.assert_allclose(cars_clip.depth[frame, rows, columns].ravel(), hits.depth, rtol=1e-3)


def test_depth_and_cameras_carry_static_pixels_to_the_same_surface(cars: World, cars_clip) -> None:  # type: ignore[no-untyped-def]
    clip = cars_clip
    rows, columns = np.nonzero((clip.labels[2] == 0) & np.isfinite(clip.depth[2]))
    xy = np.stack([columns + 0.5, rows + 0.5], axis=1)
    camera = clip.cameras.rays(xy) * clip.depth[2][rows, columns, None]
    pose = clip.cameras.cam_from_world[2]
    xyz = (camera - pose[:, 3]) @ pose[:, :3]
    pixels, depth = clip.cameras.project(xyz, 5)
    inside = (pixels >= 1).all(1) & (pixels < (WIDTH - 1, HEIGHT - 1)).all(1)
    hit = cars.raycast(5, pixels[inside])
    same = np.abs(hit.depth - depth[inside]) < 2e-3 * depth[inside]
    assert same.mean() > 0.8
    assert (same | (hit.depth < depth[inside])).mean() > 0.995, "what is not met again is hidden by something nearer"
    assert (hit.object_id[same] > 0).mean() < 0.002, "where a tyre touches the road, say"
    column, row = np.floor(pixels[inside]).astype(int).T
    color = np.abs(clip.frames[5][row, column].astype(float) - clip.frames[2][rows, columns][inside]).mean(1)
    assert np.median(color[same]) < 14, "the same material looks the same"


def test_rendering_repeats_and_streams(cars: World, cars_clip) -> None:  # type: ignore[no-untyped-def]
    image, labels, depth = next(render_frames(scenes.build("two_cars_parked_twin", 3, 8, WIDTH, HEIGHT)))
    np.testing.assert_array_equal(image, cars_clip.frames[0])
    np.testing.assert_array_equal(labels, cars_clip.labels[0])
    np.testing.assert_array_equal(depth, cars_clip.depth[0])
    other = scenes.build("two_cars_parked_twin", 4, 8, WIDTH, HEIGHT)
    assert not np.array_equal(other.cam_from_world, cars.cam_from_world)


def test_parked_twins_share_the_class_of_movers_but_stay(cars: World) -> None:
    is_car = cars.class_ids == CLASS_ID["car"]
    parked = is_car & (cars.object_ids == 0)
    first = is_car & (cars.object_ids == 1)
    assert parked.sum() == first.sum() > 5
    twin_textures = {cars.primitives[i].texture for i in np.flatnonzero(parked)}
    assert twin_textures == {cars.primitives[i].texture for i in np.flatnonzero(first)}
    assert (np.ptp(cars.world_from_local[:, parked], axis=0) == 0).all()
    tracks = cars.sample_tracks(np.random.default_rng(0), 2000, [0])
    of_cars = tracks.class_id == CLASS_ID["car"]
    assert (tracks.object_id[of_cars] == 0).any() and (tracks.object_id[of_cars] == 1).any()


def test_optical_flow_of_rendered_video_follows_the_truth() -> None:
    world = scenes.build("demo", 1, 24, 320, 180)
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image, _, _ in render_frames(world, (5, 6))]
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(grey[0], grey[1], None)
    rows, columns = np.mgrid[2:180:6, 2:320:6]
    xy = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    tracks = follow(world, np.full(len(xy), 5), xy)
    error = np.linalg.norm(tracks.xy[:, 6] - tracks.xy[:, 5] - flow[rows.ravel(), columns.ravel()], axis=1)
    solid = tracks.visible[:, 6] & np.isfinite(tracks.depth[:, 5])
    assert np.median(error[solid & (tracks.object_id == 0)]) < 0.3
    assert np.median(error[solid & (tracks.object_id > 0)]) < 0.5
    keypoints = cv2.SIFT_create().detect(grey[0], None)
    assert len(keypoints) > 400


def _share(world: World) -> np.ndarray:
    return scenes.share_of(world, 96, 54, 4)


@pytest.mark.parametrize("name", scenes.NAMES)
def test_scenes_hold_what_their_names_promise(name: str) -> None:
    world = scenes.build(name, 11, 24, WIDTH, HEIGHT)
    share, moving = _share(world), world.moving[:, 1:]
    centres = world.cameras.centers()
    travel = np.linalg.norm(centres[-1] - centres[0])
    if name == "static_room":
        assert world.num_objects == 0 and not world.moving.any() and travel > 0.8
    else:
        assert world.num_objects >= 1 and moving.any(axis=0).all()
    if name in ("rotation_only", "static_camera"):
        assert np.ptp(centres, axis=0).max() < 1e-9
        assert (np.ptp(world.cam_from_world, axis=0).max() > 0.1) == (name == "rotation_only")
    elif name not in ("walker", "followed_mover", *FIELD_NAMES):
        assert travel > 0.8
    if name == "walker":
        assert 0.24 < share[0] < 0.37
    if name == "large_mover":
        assert 0.41 < share[0] < 0.53
    if name == "tiny_movers":
        assert world.num_objects == 3 and (share < 0.01).all()
    if name == "stop_and_go":
        assert not moving.all(axis=0).any(), "each rests at some time"
        assert not moving[: 24 // 3, 1].any() and moving[-1, 1], "one starts late"
    if name == "multi_movers":
        assert 2 <= world.num_objects <= 4
    if name == "demo":
        assert world.num_objects == 2 and share.max() > 0.15
        parked = (world.class_ids == CLASS_ID["car"]) & (world.object_ids == 0)
        assert parked.any()
    if name == "followed_mover":
        tracks = world.sample_tracks(np.random.default_rng(0), 400, [12])
        on_mover = tracks.object_id == 1
        drift = np.nanmedian(np.ptp(tracks.xy[on_mover, :, 0], axis=1))
        ground = np.nanmedian(np.ptp(tracks.xy[~on_mover, :, 0], axis=1))
        assert drift < 0.5 * ground, "the mover stays, the world passes by"


def test_feet_rest_on_the_ground_while_the_body_walks() -> None:
    world = scenes.build("stop_and_go", 5, 48, WIDTH, HEIGHT)
    people = np.flatnonzero((world.class_ids == CLASS_ID["person"]) & (world.object_ids > 0))
    last = world.world_from_local[-14:, people][..., 3]  # the walker is at full speed by then
    steps = np.linalg.norm(np.diff(last, axis=0), axis=2)
    lowest = np.argsort(last[:, :, 2].mean(axis=0))[:2]
    body = np.median(steps, axis=1)
    assert (body > 1e-3).all()
    assert (steps[:, lowest].min(axis=1) < 0.5 * body).mean() > 0.7


def test_unknown_scenes_are_refused_with_the_list_of_names() -> None:
    with pytest.raises(SegmotionError, match="no scene 'moon'.*static_room"):
        scenes.build("moon")
    with pytest.raises(SegmotionError, match="at least one frame"):
        scenes.build("demo", 0, 0)


def test_random_worlds_repeat_by_seed_and_cover_the_cases() -> None:
    counts, incoherent, twins, resting, classes = [], 0, 0, 0, set()
    for seed in range(40):
        world = worlds.random_world(np.random.default_rng(seed), 12, WIDTH, HEIGHT)
        assert np.isfinite(world.world_from_local).all() and np.isfinite(world.cam_from_world).all()
        rotations = world.cam_from_world[:, :, :3]
        np.testing.assert_allclose(rotations @ np.swapaxes(rotations, 1, 2), np.tile(np.eye(3), (12, 1, 1)), atol=1e-9)
        counts.append(world.num_objects)
        incoherent += bool(world.incoherent.any())
        moving_classes = set(world.class_ids[world.object_ids > 0])
        twins += bool(moving_classes & set(world.class_ids[world.object_ids == 0]))
        resting += bool(world.num_objects and not world.moving[:, 1:].all())
        classes |= moving_classes
    assert min(counts) == 0 and max(counts) >= 3 and 1 <= np.median(counts) <= 2
    assert incoherent >= 5 and twins >= 5 and resting >= 5 and len(classes) >= 6
    first, again = (worlds.random_world(np.random.default_rng(7), 12, WIDTH, HEIGHT) for _ in range(2))
    np.testing.assert_array_equal(first.world_from_local, again.world_from_local)
    np.testing.assert_array_equal(first.cam_from_world, again.cam_from_world)


def test_random_worlds_and_their_tracks_are_fast() -> None:
    seconds = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        start = time.process_time()
        worlds.random_world(rng, 24).sample_tracks(rng, 512, [0, 12])
        seconds.append(time.process_time() - start)
    assert np.median(seconds) < 0.25  # five times what one idle core takes


def test_camera_effects_change_the_pictures_but_not_the_truth(cars: World, cars_clip) -> None:  # type: ignore[no-untyped-def]
    def with_effects(**settings: float) -> World:
        return World(cars.primitives, cars.cam_from_world, WIDTH, HEIGHT, cars.focal, effects=Effects(**settings))  # type: ignore[arg-type]

    plain = next(render_frames(with_effects(noise=0)))
    bright = [frame[0] for frame in render_frames(with_effects(noise=0, exposure=0.1))]
    assert np.ptp([frame.mean() for frame in bright]) > 1.0
    for settings in ({"noise": 4.0}, {"noise": 0, "jpeg_quality": 30}):
        image, labels, depth = next(render_frames(with_effects(**settings)))
        assert 0.5 < np.abs(image.astype(float) - plain[0]).mean() < 12
        np.testing.assert_array_equal(labels, plain[1])
        np.testing.assert_array_equal(depth, plain[2])


def test_motion_blur_smears_what_moves() -> None:
    cameras = scenes.build("static_camera", 2, 4, WIDTH, HEIGHT)

    def images(samples: int) -> tuple[np.ndarray, np.ndarray]:
        world = World(
            cameras.primitives, cameras.cam_from_world, WIDTH, HEIGHT, cameras.focal,
            effects=Effects(blur_samples=samples, shutter=1.0, noise=0),
        )  # fmt: skip
        frames = list(render_frames(world))
        return frames[2][0].astype(float), frames[2][1]

    (sharp, labels), (blurred, _) = images(1), images(5)
    change = np.abs(sharp - blurred).mean(axis=2)
    grown = cv2.dilate((labels > 0).astype(np.uint8), np.ones((5, 5))) > 0
    assert change[grown].mean() > 5 * change[~grown].mean()


def test_a_rolling_shutter_slants_what_stands_upright_and_keeps_labels_true() -> None:
    base = scenes.build("followed_mover", 4, 6, WIDTH, HEIGHT)
    rolled = World(
        base.primitives, base.cam_from_world, WIDTH, HEIGHT, base.focal, effects=Effects(rolling=0.9, noise=0)
    )
    _, labels, _ = list(render_frames(rolled))[3]
    tracks = rolled.sample_tracks(np.random.default_rng(1), 900, [2, 3])
    seen = tracks.visible[:, 3]
    column, row = np.floor(tracks.xy[seen, 3]).astype(int).T
    assert (labels[row, column] == tracks.object_id[seen]).mean() > 0.985


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_have_no_seams_and_far_surfaces_fade_to_their_mean(kind: str) -> None:
    tile = draw(Texture(kind, 5, ((0.2, 0.3, 0.2), (0.5, 0.4, 0.3), (0.9, 0.8, 0.7)), size=128))
    assert tile.shape == (128, 128, 3)
    values = tile.astype(float)
    inner = np.abs(np.diff(values, axis=0)).mean(axis=(1, 2))
    seam = np.abs(values[0] - values[-1]).mean()
    assert seam <= 1.5 * inner.max() + 1
    pyramid = MipMap(tile)
    u, v = np.random.default_rng(0).random((2, 50)).astype(np.float32)
    far = pyramid.sample(u, v, np.full(50, 20, np.float32))
    assert np.abs(far - values.mean(axis=(0, 1))).max() < 40
    centre = (np.array([3, 64, 120], np.float32) + 0.5) / 128
    exact = pyramid.sample(centre, centre, np.zeros(3, np.float32))
    np.testing.assert_allclose(exact, values[[3, 64, 120], [3, 64, 120]], atol=1.5)


def test_poses_between_frames_are_rigid() -> None:
    world = scenes.build("rotation_only", 0, 4, WIDTH, HEIGHT)
    _, camera, _ = world.at_time(1.4)
    np.testing.assert_allclose(camera[:, :3] @ camera[:, :3].T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(geo.camera_centers(camera), world.cameras.centers()[1], atol=1e-9)
