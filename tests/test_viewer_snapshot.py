"""Pictures without a browser, and the command that makes them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
from support_viewer import FRAMES, HEIGHT, WIDTH, processed

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import read_json, write_json, write_npz
from segmotion_plugin.pictures import colour
from segmotion_plugin.reconstruct.lifting import lift_folder
from segmotion_plugin.tracks import load_tracks
from segmotion_plugin.viewer.command import View as ViewCommand
from segmotion_plugin.viewer.scene import Scene, load_scene
from segmotion_plugin.viewer.snapshot import View, from_camera, look_at, overlook, render


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return processed(tmp_path_factory.mktemp("viewer") / "out")


@pytest.fixture(scope="module")
def scene(out: Path) -> Scene:
    return load_scene(out)


def near(picture: np.ndarray, rgb: np.ndarray, tolerance: int = 60) -> np.ndarray:
    return np.abs(picture.astype(int) - rgb.astype(int)).sum(axis=2) < tolerance


def test_tracks_seen_from_their_camera_lie_on_their_pixels(scene: Scene) -> None:
    tracks, motion, _ = load_tracks(scene.out / "motion" / "tracks.npz")
    assert scene.cameras is not None
    k, factor = 6, 4
    own = from_camera(scene.cameras, k)
    view = View(own.pose, own.focal * factor, WIDTH * factor, HEIGHT * factor)
    picture = render(scene, k, view, tail=0, points=False, frustums=False, caption=False)
    ids, xy = tracks.observations_at(k)
    for object_id in (1, 2):
        dots = near(picture, (0.7 * colour(object_id)).astype(int))
        spread = cv2.dilate(dots.astype(np.uint8), np.ones((9, 9)))
        here = np.clip(np.floor(factor * xy[motion.object_id[ids] == object_id]).astype(int), 0, np.array(dots.shape[::-1]) - 1)
        assert len(here) >= (10 if object_id == 1 else 3) and spread[here[:, 1], here[:, 0]].mean() > 0.95
        assert dots[scene.labels(k).repeat(factor, 0).repeat(factor, 1) == 0].mean() < 0.01


def test_time_and_switches_change_the_picture_as_they_must(scene: Scene) -> None:
    view = overlook(scene, 480, 270)
    first, later = render(scene, 2, view), render(scene, 9, view)
    assert (first != later).any(axis=2).mean() > 0.01
    plain = {"caption": False, "frustums": False, "points": False}
    one = render(scene, 9, view, objects={1}, **plain)
    both = render(scene, 9, view, **plain)
    changed = (one != both).any(axis=2)
    assert changed.any() and near(both, colour(2), 250)[changed].mean() > 0.5
    assert not near(one, colour(2), 100).any() and near(one, colour(1), 100).any()
    nothing = render(scene, 9, view, objects=set(), **plain)
    assert (nothing.reshape(-1, 3) == nothing[0, 0]).all()
    short = render(scene, 9, view, tail=2, **plain)
    assert 0 < (short != nothing).any(axis=2).sum() < (both != nothing).any(axis=2).sum()


def test_the_overlook_holds_cameras_and_tracks(scene: Scene) -> None:
    view = overlook(scene)
    assert scene.cameras is not None and scene.tracks is not None
    seen = scene.tracks.xyz[scene.tracks.visible]
    for xyz, share in ((scene.cameras.centers(), 1.0), (seen, 0.9), (scene.points, 0.5)):
        xy, depth = view.project(xyz)
        inside = (depth > 0) & (xy >= 0).all(axis=1) & (xy < (view.width, view.height)).all(axis=1)
        assert inside.mean() >= share
    assert view.pose[1, :3] @ scene.up < 0  # up in the world is up in the picture


def test_nearer_points_hide_farther_ones() -> None:
    view = look_at(np.zeros(3), np.array([0, 0, 1.0]), np.array([0, -1.0, 0]), 64, 64)
    from segmotion_plugin.viewer import snapshot

    canvas = np.zeros((64, 64, 3), np.uint8)
    snapshot._splat(canvas, view, np.array([[0, 0, 2.0], [0, 0, 9.0]]), np.array([[255, 0, 0], [0, 255, 0]], np.uint8))
    assert canvas[32, 32].tolist() == [255, 0, 0]


def test_without_poses_the_image_with_its_2d_tracks_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = processed(tmp_path / "flat", poses=False)
    flat = load_scene(folder)
    assert flat.cameras is None and flat.tracks_2d is not None and len(flat) == FRAMES
    assert ViewCommand(folder, snapshot=tmp_path / "flat.png", frame=7).main() == 0
    said = capsys.readouterr().out
    assert "no camera poses" in said and "segmotion reconstruct" in said and "frame_00007.png" in said
    picture = cv2.imread(str(tmp_path / "flat.png"))[..., ::-1]
    assert picture.shape[1] == 8 * WIDTH
    assert near(picture, colour(1), 90).any() and near(picture, colour(2), 90).any()
    masked = render(flat, 6, caption=False, tail=0)
    assert (masked != render(flat, 6, caption=False, tail=0, masks=False)).any()


def test_the_command_renders_what_the_library_renders(out: Path, scene: Scene, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "shot.png"
    assert ViewCommand(out, snapshot=target, frame=3, width=400, height=300).main() == 0
    picture = cv2.imread(str(target))[..., ::-1]
    assert np.array_equal(picture, render(scene, 2, overlook(scene, 400, 300)))


def test_bad_input_is_refused_in_words(out: Path, tmp_path: Path) -> None:
    with pytest.raises(SegmotionError, match="no such folder"):
        load_scene(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SegmotionError, match="segmotion masks"):
        load_scene(tmp_path / "empty")
    with pytest.raises(SegmotionError, match="12 images"):
        ViewCommand(out, snapshot=tmp_path / "a.png", frame=13).main()
    with pytest.raises(SegmotionError, match="pixels on a side"):
        ViewCommand(out, snapshot=tmp_path / "a.png", width=3).main()
    with pytest.raises(SegmotionError, match="--port"):
        ViewCommand(out, port=70000).main()
    old = processed(tmp_path / "old")
    write_json(old / "motion" / "frames.json", {"images": [{"file": "a"}], "fps": 24})
    with pytest.raises(SegmotionError, match="missing required field `name`"):
        load_scene(old)
    other = processed(tmp_path / "other")
    with np.load(other / "motion" / "tracks_3d.npz") as data:
        arrays = dict(data)
    write_npz(other / "motion" / "tracks_3d.npz", **{**arrays, "frame_index": arrays["frame_index"] + 1})
    with pytest.raises(SegmotionError, match="another reconstruction"):
        load_scene(other)


def test_missing_parts_are_told_and_the_rest_is_shown(tmp_path: Path) -> None:
    folder = processed(tmp_path / "out")
    (folder / "motion" / "tracks_3d.npz").unlink()
    no_tracks = load_scene(folder)
    assert no_tracks.cameras is not None and no_tracks.tracks is None and "3D tracks" in " ".join(no_tracks.notes)
    assert render(no_tracks, 3, overlook(no_tracks, 200, 150)).shape == (150, 200, 3)
    report = read_json(folder / "motion" / "report.json")
    report["masks"].pop("objects")
    write_json(folder / "motion" / "report.json", report)
    (folder / "motion" / "tracks.npz").unlink()
    assert load_scene(folder).objects == []


def test_images_without_a_pose_are_left_out_and_told(tmp_path: Path) -> None:
    import pycolmap

    folder = processed(tmp_path / "out")
    path = folder / "colmap" / "sparse" / "0"
    model = pycolmap.Reconstruction(path)
    model.deregister_frame(next(i for i in model.images.values() if i.name == "frame_00004.png").frame_id)
    model.write_binary(path)
    with pytest.raises(SegmotionError, match="another reconstruction"):
        load_scene(folder)
    lift_folder(folder)
    shown = load_scene(folder)
    assert len(shown) == FRAMES - 1 and "frame_00004.png" not in shown.names
    assert "1 of 12 images have no pose" in " ".join(shown.notes)


def test_objects_are_described(scene: Scene) -> None:
    assert [o.id for o in scene.objects] == [1, 2]
    for info in scene.objects:
        assert scene.tracks is not None and info.tracks == (scene.tracks.object_id == info.id).sum()
        share = np.mean([(scene.labels(k) == info.id).mean() for k in range(len(scene))])
        assert info.share == pytest.approx(share, rel=0.2) and info.source == "contact"
        assert f"object {info.id}" in info.title and "contact" in info.title


if importlib.util.find_spec("open3d"):

    def test_clouds_are_cleaned_thinned_and_written(out: Path, scene: Scene, tmp_path: Path) -> None:
        import open3d

        from segmotion_plugin.viewer.clouds import cleaned

        rng = np.random.default_rng(0)
        xyz = np.concatenate([rng.uniform(0, 1, (3000, 3)), [[60.0, 0, 0]]])
        points, colours = cleaned(xyz, np.full((3001, 3), 200, np.uint8), 0.1)
        assert len(points) < 1400 and points.max() < 1.1 and (colours == 200).all()
        assert ViewCommand(out, cloud=tmp_path / "cloud.ply", frame=5).main() == 0
        cloud = open3d.io.read_point_cloud(str(tmp_path / "cloud.ply"))
        assert scene.tracks is not None
        now = scene.tracks.xyz[scene.tracks.visible[:, 4], 4]
        apart = np.linalg.norm(np.asarray(cloud.points)[None] - now[:, None], axis=2).min(axis=1)
        assert apart.max() < 1e-4
        with pytest.raises(SegmotionError, match=r"\.ply"):
            ViewCommand(out, cloud=tmp_path / "cloud.docx").main()

else:

    def test_clouds_without_open3d_say_what_to_install(out: Path, tmp_path: Path) -> None:
        with pytest.raises(SegmotionError, match="Open3D"):
            ViewCommand(out, cloud=tmp_path / "cloud.ply").main()
        assert not (tmp_path / "cloud.ply").exists()
