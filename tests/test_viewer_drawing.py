"""Nodes of the shared drawing: which are sent, which are shown, and where they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support_viewer import FRAMES, RecordingScene, processed

from segmotion_plugin.tracks import load_tracks
from segmotion_plugin.viewer.drawing import TrackDrawing
from segmotion_plugin.viewer.geometry import Similarity, quaternion, ribbons
from segmotion_plugin.viewer.scene import Scene, load_scene


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return load_scene(processed(tmp_path_factory.mktemp("viewer") / "out"))


def test_tails_follow_the_timeline_and_nodes_are_sent_once(scene: Scene) -> None:
    canvas = RecordingScene()
    drawing = TrackDrawing(canvas, scene)
    drawing.set_tail(3)
    drawing.set_frame(6)
    assert canvas.shown("object_1/tail") == [f"/segmotion/object_1/tail_{k:05d}" for k in (4, 5, 6)]
    assert canvas.shown("object_1/now") == ["/segmotion/object_1/now_00006"]
    for k in (7, 2, 6, 7, 6):
        drawing.set_frame(k)
    assert canvas.shown("object_1/tail") == [f"/segmotion/object_1/tail_{k:05d}" for k in (4, 5, 6)]
    tracks = {name: count for name, count in canvas.sent.items() if "/object_" in name}
    assert set(tracks.values()) == {1}
    drawing.set_tail(0)
    assert canvas.shown("/tail_") == []
    drawing.set_frame(0)
    assert scene.tracks is not None
    there = [k for k in (1, 2) if scene.tracks.visible[scene.tracks.object_id == k, 0].any()]
    assert canvas.shown("/now_") == [f"/segmotion/object_{k}/now_00000" for k in there]


def test_a_jump_sends_few_nodes_at_once_newest_first_and_the_rest_later(scene: Scene) -> None:
    canvas, whole = RecordingScene(), RecordingScene()
    drawing = TrackDrawing(canvas, scene)
    drawing.set_tail(8)
    drawing.set_frame(10, most_new=4)
    assert canvas.shown("/now_") and canvas.shown("object_1/tail") == ["/segmotion/object_1/tail_00010"]
    assert not drawing.whole and sum("/tail_" in n or "/now_" in n for n in canvas.nodes) == 4
    drawing.set_frame(4, most_new=0)  # what was left out is forgotten when the time moves on
    assert canvas.shown("/tail_") == []
    drawing.set_frame(10, most_new=4)
    calls = 0
    while not drawing.fill(most_new=4):
        calls += 1
        assert calls < 20
    complete = TrackDrawing(whole, scene)
    complete.set_tail(8)
    complete.set_frame(10)
    assert complete.whole and calls >= 1
    assert canvas.shown("/object_") == whole.shown("/object_") and max(canvas.sent.values()) == 1


def test_switches_hide_what_they_name(scene: Scene) -> None:
    canvas = RecordingScene()
    drawing = TrackDrawing(canvas, scene)
    drawing.set_frame(5)
    drawing.show_object(1, False)
    assert not canvas.nodes["/segmotion/object_1"].visible and canvas.nodes["/segmotion/object_2"].visible
    drawing.show_object(1, True)
    drawing.show_points(False)
    drawing.show_cameras(False)
    assert canvas.nodes["/segmotion/object_1"].visible
    assert not canvas.nodes["/segmotion/points"].visible and not canvas.nodes["/segmotion/cameras"].visible
    drawing.show_current(False)
    assert not canvas.nodes["/segmotion/current"].visible
    drawing.show(False)
    assert not canvas.nodes["/segmotion"].visible


@pytest.mark.parametrize("settable", [True, False], ids=["1.x", "0.2.7"])
def test_sizes_reach_shown_nodes_in_either_version(scene: Scene, settable: bool) -> None:
    canvas = RecordingScene(lines=settable, settable=settable)
    drawing = TrackDrawing(canvas, scene)
    drawing.set_frame(5)
    before = canvas.nodes["/segmotion/object_1/tail_00005"]
    now = "/segmotion/object_1/now_00005"
    assert before.kind == ("lines" if settable else "mesh")
    drawing.set_line_width(5.0)
    drawing.set_point_size(0.5)
    after = canvas.nodes["/segmotion/object_1/tail_00005"]
    if settable:
        assert after is before and after.line_width == 5.0 and canvas.nodes[now].point_size == pytest.approx(0.8)
    else:
        assert canvas.sent["/segmotion/object_1/tail_00005"] == 2
        assert np.ptp(after.vertices, axis=0).sum() > np.ptp(before.vertices, axis=0).sum()
        assert canvas.nodes[now].data["point_size"] == pytest.approx(0.8)
    assert canvas.nodes["/segmotion/points"].data["point_size"] == 0.5


def test_the_current_picture_carries_the_masks_until_they_are_switched_off(scene: Scene) -> None:
    canvas = RecordingScene()
    drawing = TrackDrawing(canvas, scene)
    drawing.set_frame(5)
    with_masks = canvas.nodes["/segmotion/current"].image
    drawing.show_masks(False)
    plain = canvas.nodes["/segmotion/current"].image
    labels = scene.labels(5)
    assert np.abs(with_masks.astype(int) - plain)[labels == 1].mean() > 20
    assert np.array_equal(plain, scene.image(5))
    drawing.add_thumbnail(drawing.frustums[0])
    assert canvas.nodes["/segmotion/cameras/00000"].image.shape[1] == 96


@pytest.mark.parametrize("moved", [False, True])
def test_positions_project_onto_the_2d_tracks(scene: Scene, moved: bool) -> None:
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    similarity = Similarity(3.0, turn, np.array([1.0, -2.0, 5.0])) if moved else Similarity.identity()
    canvas = RecordingScene()
    drawing = TrackDrawing(canvas, scene, similarity=similarity)
    tracks, motion, _ = load_tracks(scene.out / "motion" / "tracks.npz")
    cameras = scene.cameras
    assert cameras is not None and scene.tracks is not None
    for k in (0, 4, FRAMES - 1):
        back = (drawing.positions(k).astype(np.float64) - similarity.translation) @ similarity.rotation / similarity.scale
        xy, depth = cameras.project(back, k)
        rows = np.concatenate([np.flatnonzero((scene.tracks.object_id == o.id) & scene.tracks.visible[:, k]) for o in scene.objects])
        expected = tracks.xy[scene.tracks.track_index[rows], k]
        assert len(xy) == len(expected) > 20 and (depth > 0).all()
        assert np.median(np.linalg.norm(xy - expected, axis=1)) < 0.05
        wxyz, position = drawing.camera_pose(k)
        assert np.allclose(position, similarity(cameras.centers()[k]))
        assert np.linalg.norm(wxyz) == pytest.approx(1)


def test_ribbons_have_the_asked_width_and_length() -> None:
    segments = np.array([[[0, 0, 0], [2, 0, 0]], [[1, 1, 1], [1, 1, 1]]], np.float32)
    vertices, faces = ribbons(segments, 0.2)
    assert vertices.shape == (16, 3) and faces.shape == (8, 3) and faces.max() == 15
    assert np.ptp(vertices[:8], axis=0).tolist() == pytest.approx([2, 0.2, 0.2])
    assert np.isfinite(vertices).all()


def test_quaternions_turn_as_their_matrices() -> None:
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    assert np.allclose(np.abs(quaternion(turn)), [np.sqrt(0.5), 0, 0, np.sqrt(0.5)])


def test_a_scene_without_cameras_is_not_drawn_in_3d(tmp_path: Path) -> None:
    flat = load_scene(processed(tmp_path / "out", poses=False))
    with pytest.raises(ValueError, match="cameras"):
        TrackDrawing(RecordingScene(), flat)
