"""The viewer: a processed clip in the browser, through viser."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.viewer.drawing import CURRENT, THUMBNAIL, TrackDrawing
from segmotion_plugin.viewer.geometry import Similarity
from segmotion_plugin.viewer.scene import Scene
from segmotion_plugin.viewer.snapshot import View, overlook, render

# Median distance from the cameras to the scene as the browser has it. Reconstructions have any scale; viser cuts off what lies beyond
# 1000 units, and controls and axes are made for scenes of a few.
_EXTENT = 10.0
# New nodes per message batch: each takes viser up to a millisecond, and a step of the timeline must not wait for a long tail.
_MOST_NEW = 10


class ViewerApp:
    """A viser server that shows a scene; it runs in threads of its own until `stop`.

    Args:
        scene: what to show; without cameras its pictures, masks and 2D tracks are shown.
        host: address to listen on; only this machine can connect to 127.0.0.1.
        port: port to listen on; the next free one is taken where it is in use.
        thumbnails: put pictures on the frustums, in the background.

    Attributes:
        server: the viser server.
        port: the port that was taken.
        drawing: the nodes in 3D; None without cameras.
    """

    def __init__(self, scene: Scene, host: str = "127.0.0.1", port: int = 8080, thumbnails: bool = True) -> None:
        try:
            import viser
        except ImportError:
            raise SegmotionError("the viewer needs the package viser: pip install viser") from None
        self.scene, self.host = scene, host
        self.server: Any = viser.ViserServer(host=host, port=port, verbose=False)
        self.port = int(self.server.get_port())
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._picture_due = threading.Event()
        self.frame = -1
        self.drawing: TrackDrawing | None = None
        self._similarity = _comfortable(scene)
        self._threads: list[threading.Thread] = []
        try:
            self._start(thumbnails)
        except BaseException:
            self.stop()  # nobody else could: the caller never gets the app
            raise

    def _start(self, thumbnails: bool) -> None:
        scene = self.scene
        if scene.cameras is not None:
            self.server.scene.set_up_direction(np.asarray(scene.up, np.float64))
            self.drawing = TrackDrawing(self.server.scene, scene, similarity=self._similarity, atomic=self.server.atomic)
        self._add_controls()
        self.server.on_client_connect(self._welcome)
        self.goto(0)
        work = [self._play, self._draw_pictures]
        if thumbnails and self.drawing is not None:
            work.append(self._load_thumbnails)
        for target in work:
            thread = threading.Thread(target=target, daemon=True)
            thread.start()
            self._threads.append(thread)

    @property
    def url(self) -> str:
        """Address for a browser."""
        return f"http://{self.host}:{self.port}"

    def goto(self, frame: int) -> None:
        """Show a time step."""
        with self._lock:
            frame = int(np.clip(frame, 0, len(self.scene) - 1))
            if frame == self.frame:
                return
            self.frame = frame
            if self.drawing is not None:
                self.drawing.set_frame(frame, picture=False, most_new=_MOST_NEW)
            if int(self._slider.value) != frame:
                self._slider.value = frame
            self._name.value = self.scene.names[frame]
            if self._follow.value:
                for client in self.server.get_clients().values():
                    self._put_camera(client)
        self._picture_due.set()

    def still(self, client: Any, height: int = 720) -> bytes:
        """What a client sees, as PNG: taken by the browser where it answers in time, else drawn here."""
        camera = client.camera
        width = max(16, round(height * float(camera.aspect)))
        picture = None
        # Versions that cannot give up waiting are not asked: a client that leaves would hold the thread for ever.
        if "timeout" in inspect.signature(camera.get_render).parameters:
            with contextlib.suppress(TimeoutError):
                picture = np.asarray(camera.get_render(height=height, width=width, timeout=10.0))[..., :3]
        if picture is None:
            view = self._view_of(camera, width, height)
            picture = render(self.scene, self.frame, view, objects=self._on(), **self._render_options())
        ok, data = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
        if not ok:
            raise OSError("the picture could not be encoded as PNG")
        return data.tobytes()

    def run(self, ended: Callable[[], bool] = lambda: False) -> None:
        """Wait until `stop` is called, the program is interrupted, or `ended` (asked a few times per second) says so."""
        while not ended() and not self._stopped.wait(0.2):
            pass

    def stop(self) -> None:
        """End the server and its threads."""
        self._stopped.set()
        self._picture_due.set()
        try:
            for thread in self._threads:
                thread.join(timeout=5)
        finally:
            self.server.stop()

    # -- controls -------------------------------------------------------------------------------------------------

    def _add_controls(self) -> None:
        gui, scene, drawing = self.server.gui, self.scene, self.drawing
        for note in scene.notes:
            gui.add_markdown(f"**Note:** {note}")
        last = max(len(scene) - 1, 1)
        with gui.add_folder("Time"):
            self._slider = gui.add_slider("Frame", min=0, max=last, step=1, initial_value=0)
            self._name = gui.add_text("Image", initial_value=scene.names[0], disabled=True)
            self._playing = gui.add_checkbox("Play", initial_value=False)
            rate = int(np.clip(round(scene.fps), 1, 60))
            self._speed = gui.add_slider("Frames per second", min=1, max=60, step=1, initial_value=rate)
            step = gui.add_button_group("Step", ("back", "next"))
        with gui.add_folder("Tracks"):
            longest = max(len(scene) - 1, 1)
            self._tail = gui.add_slider("Tail (frames)", min=0, max=longest, step=1, initial_value=min(16, longest))
            if drawing is not None:
                size = gui.add_slider("Point size", min=0.1, max=4.0, step=0.1, initial_value=1.0)
                width = gui.add_slider("Line width", min=0.5, max=8.0, step=0.5, initial_value=drawing.line_width)
                base = drawing.point_size
                size.on_update(lambda _: self._locked(drawing.set_point_size, base * float(size.value)))
                width.on_update(lambda _: self._locked(drawing.set_line_width, float(width.value)))
        with gui.add_folder("Objects"):
            self._switches = {o.id: gui.add_checkbox(o.title, initial_value=True) for o in scene.objects}
            if not scene.objects:
                gui.add_markdown("Nothing moves.")
        with gui.add_folder("World"):
            self._masks = gui.add_checkbox("Masks on the images", initial_value=True)
            self._background = gui.add_checkbox("Static points", initial_value=True, visible=drawing is not None)
            self._cameras = gui.add_checkbox("Cameras", initial_value=True, visible=drawing is not None)
            self._follow = gui.add_checkbox("Follow the camera", initial_value=False, visible=drawing is not None)
        with gui.add_folder("Picture"):
            first = scene.picture(0, CURRENT, True)
            self._panel = gui.add_image(first) if hasattr(gui, "add_image") and drawing is not None else None
            still = gui.add_button("Save a still image")
        self._slider.on_update(lambda _: self.goto(int(self._slider.value)))
        self._tail.on_update(lambda _: self._set_tail(int(self._tail.value)))
        step.on_click(lambda _: self.goto((self.frame + (1 if step.value == "next" else -1)) % len(scene)))
        for object_id, switch in self._switches.items():
            switch.on_update(functools.partial(self._switched, object_id))
        self._masks.on_update(lambda _: self._show_masks(bool(self._masks.value)))
        self._follow.on_update(lambda _: self._start_following())
        if drawing is not None:
            self._background.on_update(lambda _: self._locked(drawing.show_points, bool(self._background.value)))
            self._cameras.on_update(lambda _: self._show_cameras())
        still.on_click(self._send_still)

    def _locked(self, call: Any, *arguments: Any) -> None:
        with self._lock:
            call(*arguments)

    def _set_tail(self, length: int) -> None:
        if self.drawing is not None:
            self._locked(self.drawing.set_tail, length, _MOST_NEW)
        self._picture_due.set()

    def _switched(self, object_id: int, _: Any) -> None:
        if self.drawing is not None:
            self._locked(self.drawing.show_object, object_id, bool(self._switches[object_id].value))
        self._picture_due.set()

    def _show_masks(self, visible: bool) -> None:
        if self.drawing is not None:
            self.drawing.masks = visible
        self._picture_due.set()

    def _start_following(self) -> None:
        if self._follow.value:
            for client in self.server.get_clients().values():
                self._put_camera(client)
        self._show_cameras()

    def _show_cameras(self) -> None:
        """Cameras as switched; none while following one: its own and its neighbours' pictures would stand in the way."""
        following = bool(self._follow.value)
        if self.drawing is not None:
            self._locked(self.drawing.show_cameras, bool(self._cameras.value) and not following)
            self._locked(self.drawing.show_current, not following)

    def _on(self) -> set[int]:
        """Ids of the objects that are switched on."""
        return {k for k, switch in self._switches.items() if switch.value}

    def _render_options(self) -> dict[str, Any]:
        return {
            "tail": int(self._tail.value),
            "masks": bool(self._masks.value),
            "points": bool(self._background.value),
            "frustums": bool(self._cameras.value),
        }

    # -- clients --------------------------------------------------------------------------------------------------

    def _welcome(self, client: Any) -> None:
        """Put a new client behind the cameras."""
        if self.scene.cameras is None:
            return
        # The controls cover the right part of the window.
        view = overlook(self.scene, max(64, round(720 * min(float(client.camera.aspect), 2.0) * 0.75)), 720)
        rotation, offset = view.pose[:, :3], view.pose[:, 3]
        eye = -rotation.T @ offset
        with client.atomic():
            client.camera.up_direction = tuple(float(v) for v in self.scene.up)
            client.camera.position = self._similarity(eye)
            client.camera.look_at = self._similarity(eye + self.scene.extent * rotation[2])
            client.camera.fov = 2 * np.arctan2(view.height / 2, view.focal)

    def _put_camera(self, client: Any) -> None:
        """Let a client look through the camera of the current image."""
        if self.drawing is None or self.scene.cameras is None:
            return
        cameras = self.scene.cameras
        wxyz, position = self.drawing.camera_pose(self.frame)
        with client.atomic():
            client.camera.wxyz, client.camera.position = wxyz, position
            client.camera.fov = 2 * np.arctan2(cameras.height / 2, cameras.focal[1])

    def _view_of(self, camera: Any, width: int, height: int) -> View:
        from scipy.spatial.transform import Rotation

        w, x, y, z = (float(v) for v in camera.wxyz)
        rotation = Rotation.from_quat([x, y, z, w]).as_matrix().T
        position = self._similarity.inverse()(np.asarray(camera.position)).astype(np.float64)
        pose = np.concatenate([rotation, -(rotation @ position)[:, None]], axis=1)
        return View(pose, 0.5 * height / np.tan(float(camera.fov) / 2), width, height)

    def _send_still(self, event: Any) -> None:
        try:
            data = self.still(event.client)
        except (ConnectionError, RuntimeError):
            return  # The client left: there is nobody to give the picture to.
        send = event.client.send_file_download
        # Later versions would ask the user first whether to save.
        options = {"save_immediately": True} if "save_immediately" in inspect.signature(send).parameters else {}
        send(f"segmotion_{self.scene.names[self.frame].rsplit('.', 1)[0]}.png", data, **options)

    # -- threads --------------------------------------------------------------------------------------------------

    def _play(self) -> None:
        due = time.monotonic()
        while not self._stopped.is_set():
            if not self._playing.value:
                due = time.monotonic()
                self._stopped.wait(0.05)
                continue
            due = max(due + 1.0 / float(self._speed.value), time.monotonic() - 0.2)
            self.goto((self.frame + 1) % len(self.scene))
            self._stopped.wait(max(0.0, due - time.monotonic()))

    def _draw_pictures(self) -> None:
        """Show the newest picture; those that were overtaken are left out, so that reading files never holds up the timeline."""
        while True:
            self._picture_due.wait()
            self._picture_due.clear()
            if self._stopped.is_set():
                return
            while not self._fill_tails() and not self._stopped.is_set():
                time.sleep(0.001)  # lets the timeline have the lock
            masks = bool(self._masks.value)
            if self.drawing is None:
                picture = render(self.scene, self.frame, tail=int(self._tail.value), masks=masks, objects=self._on())
                self.server.scene.set_background_image(picture)
                continue
            # Read outside of the lock, send within: files never hold up the timeline, and viser 0.2.7 sends from one thread only.
            self.scene.picture(self.frame, CURRENT, masks)
            with self._lock:
                self.drawing.show_picture()
                if self._panel is not None:
                    self._panel.image = self.scene.picture(self.frame, CURRENT, masks)

    def _fill_tails(self) -> bool:
        """Send some of the pieces of the tails that the last step left out; True when nothing more is lacking."""
        with self._lock:
            return self.drawing is None or self.drawing.fill(_MOST_NEW)

    def _load_thumbnails(self) -> None:
        if self.drawing is not None:
            for k in self.drawing.frustums:
                self.scene.picture(k, THUMBNAIL, False)
                if self._stopped.is_set():
                    return
                with self._lock:
                    self.drawing.add_thumbnail(k)


def _comfortable(scene: Scene) -> Similarity:
    """To a world of `_EXTENT` around the cameras."""
    if scene.cameras is None:
        return Similarity.identity()
    scale = _EXTENT / max(scene.extent, 1e-9)
    return Similarity(scale, np.eye(3), -scale * np.median(scene.cameras.centers(), axis=0))
