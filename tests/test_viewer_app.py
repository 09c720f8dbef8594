"""The viser app without a browser: controls, port, clients that come and go, and the command around it."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from support_viewer import FRAMES, processed
from support_waiting import until

from segmotion_plugin.viewer import command
from segmotion_plugin.viewer.app import ViewerApp
from segmotion_plugin.viewer.benchmark import Benchmark
from segmotion_plugin.viewer.scene import load_scene


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return processed(tmp_path_factory.mktemp("viewer") / "out")


@pytest.fixture(scope="module")
def app(out: Path) -> Iterator[ViewerApp]:
    viewer = ViewerApp(load_scene(out), port=18200)
    yield viewer
    viewer.stop()


def test_controls_move_what_is_drawn(app: ViewerApp) -> None:
    drawing = app.drawing
    assert drawing is not None
    app._slider.value = 7
    assert until(lambda: drawing.frame == 7 and app._name.value == "frame_00008.png")
    app._tail.value = 3
    assert until(lambda: drawing.tail == 3)
    app._switches[1].value = False
    assert until(lambda: not drawing._groups[1].visible) and drawing._groups[2].visible
    app._switches[1].value = True
    assert until(lambda: drawing._groups[1].visible)
    app._background.value = False
    assert until(lambda: not drawing._cloud.visible)
    app._masks.value = False
    assert until(lambda: not drawing.masks)


def test_play_goes_round_and_stops(app: ViewerApp) -> None:
    app.goto(FRAMES - 2)
    app._speed.value = 30
    seen = set()
    app._playing.value = True
    assert until(lambda: seen.add(app.frame) or {FRAMES - 1, 0, 1} <= seen)
    app._playing.value = False
    time.sleep(0.2)
    frame = app.frame
    time.sleep(0.3)
    assert app.frame == frame and int(app._slider.value) == frame


def test_a_port_in_use_gives_the_next_free_one(app: ViewerApp, out: Path) -> None:
    second = ViewerApp(load_scene(out), port=app.port, thumbnails=False)
    try:
        assert second.port > app.port and second.url == f"http://127.0.0.1:{second.port}"
        with socket.create_connection(("127.0.0.1", second.port), timeout=5):
            pass
    finally:
        second.stop()


def test_clients_that_break_off_do_no_harm(app: ViewerApp) -> None:
    for text in (b"", b"GET / HTTP/1.1\r\n", b"GET /x HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81"):
        with socket.create_connection(("127.0.0.1", app.port), timeout=5) as connection:
            connection.sendall(text)
    app.goto(3)
    app.goto(4)
    assert app.frame == 4
    with socket.create_connection(("127.0.0.1", app.port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" in connection.recv(64)


def test_only_this_machine_can_connect_unless_asked(app: ViewerApp) -> None:
    assert app.host == "127.0.0.1"
    assert all(command._is_local(host) for host in ("127.0.0.1", "::1", "localhost"))
    assert not any(command._is_local(host) for host in ("0.0.0.0", "192.168.1.5", "::", "box"))


def test_a_still_image_is_drawn_for_a_client_that_cannot_render(app: ViewerApp) -> None:
    class Camera:
        """A client's camera in viser 0.2.7, whose rendering may never come back."""

        wxyz, position, fov, aspect = (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, -1.0), 0.9, 1.5

        def get_render(self, height: int, width: int, transport_format: str = "jpeg") -> np.ndarray:
            raise AssertionError("not asked")

    class Client:
        camera = Camera()

    picture = cv2.imdecode(np.frombuffer(app.still(Client(), 120), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (120, 180, 3) and picture.std() > 1


def test_worlds_of_any_scale_are_shown_at_the_browsers(out: Path) -> None:
    scene = load_scene(out)
    assert scene.cameras is not None and scene.tracks is not None
    factor, shift = 500.0, np.array([3e3, -2e3, 5e3])
    scene.points = (factor * scene.points + shift).astype(np.float32)
    scene.tracks.xyz[:] = factor * scene.tracks.xyz + shift
    rotation = scene.cameras.cam_from_world[:, :, :3]
    scene.cameras.cam_from_world[:, :, 3] = factor * scene.cameras.cam_from_world[:, :, 3] - rotation @ shift
    viewer = ViewerApp(scene, port=18250, thumbnails=False)
    try:
        drawing = viewer.drawing
        assert drawing is not None and drawing.extent == pytest.approx(10)
        assert np.abs(drawing.positions(5)).max() < 30 and np.abs(drawing.camera_pose(5)[1]).max() < 10
        # A client at a camera sees, off screen, what that camera sees.
        wxyz, position = drawing.camera_pose(5)
        view = viewer._view_of(SimpleNamespace(wxyz=wxyz, position=position, fov=0.9), 160, 96)
        assert np.allclose(view.pose[:, :3], rotation[5], atol=1e-6)
        xy, depth = view.project(scene.tracks.xyz[scene.tracks.visible[:, 5], 5])
        _, true_depth = scene.cameras.project(scene.tracks.xyz[scene.tracks.visible[:, 5], 5], 5)
        assert np.allclose(depth, true_depth, rtol=1e-3) and len(depth) > 20
    finally:
        viewer.stop()


def test_following_a_camera_clears_the_view_and_gives_it_back(app: ViewerApp) -> None:
    drawing = app.drawing
    assert drawing is not None
    app._cameras.value = True
    app._follow.value = True
    assert until(lambda: not drawing._cameras_group.visible and not drawing._current.visible)
    app.goto((app.frame + 1) % FRAMES)
    assert until(lambda: not app._picture_due.is_set()) and not drawing._current.visible
    app._follow.value = False
    assert until(lambda: drawing._cameras_group.visible and drawing._current.visible)


def test_the_app_without_poses_shows_pictures(tmp_path: Path) -> None:
    viewer = ViewerApp(load_scene(processed(tmp_path / "flat", poses=False)), port=18300)
    try:
        shown: list[np.ndarray] = []
        viewer.server.scene.set_background_image = lambda image, *a, **k: shown.append(image)
        viewer.goto(5)
        assert until(lambda: len(shown) > 0)
        before = shown[-1]
        viewer._switches[1].value = False
        assert until(lambda: (shown[-1] != before).any())
        assert viewer.drawing is None
    finally:
        viewer.stop()


def test_the_command_tells_its_address_and_ends_on_interrupt(out: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("0.0.0.0", 18400))
        taken.listen()
        with viewing(out, "--port", "18400", "--host", "0.0.0.0") as process:
            assert process.stdout is not None
            said = ""
            for line in process.stdout:
                said += line
                if "in a browser" in line:
                    break
            process.send_signal(signal.SIGINT)
            said += process.stdout.read()
            status = process.wait()
    assert "port 18400 is in use: port 18401 was taken" in said
    assert "no password" in said and "http://0.0.0.0:18401" in said
    assert status == 130, said


def test_interrupts_at_any_time_end_the_command_in_order(out: Path) -> None:
    with viewing(out, "--port", "18450") as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "18450" in line:  # viser's own announcement on 1.x: the app is still being built then
                break
        # Impatience: some arrive while the server starts, is announced or stops.
        for _ in range(60):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
            if process.poll() is not None:
                break
        said += process.stdout.read()
        status = process.wait()
    assert status in (130, -signal.SIGINT), said
    assert "Fatal" not in said


@contextlib.contextmanager
def viewing(out: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, killed should it not end."""
    code = f"import sys; from segmotion_plugin.cli import main; sys.exit(main({['view', str(out), *options]!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    try:
        yield process
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()


def test_the_benchmark_measures_first_picture_and_steps() -> None:
    result = Benchmark(tracks=200, frames=20, objects=2, points=500).measure()
    assert set(result) >= {"first_picture_s", "new_ms", "again_ms", "jump_ms"}
    assert all(value > 0 for value in result.values()) and result["first_picture_s"] < 60
