"""The command `segmotion view`."""

from __future__ import annotations

import contextlib
import ipaddress
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro

from segmotion_plugin.errors import SegmotionError


@dataclass
class View:
    """Show cameras, points and moving tracks in the browser, or render them to a picture."""

    out: tyro.conf.Positional[Path]
    """Folder made by 'segmotion run' or 'segmotion masks'."""
    host: str = "127.0.0.1"
    """Address to listen on. Anything but 127.0.0.1 lets others on the network look at the clip; there is no password."""
    port: int = 8080
    """Port to listen on; the next free one is taken where it is in use."""
    snapshot: Path | None = None
    """Render this PNG off screen instead of opening the viewer."""
    cloud: Path | None = None
    """Write this PLY instead: the static points, cleaned and thinned, and the moving points of the frame (needs Open3D)."""
    frame: int | None = None
    """Image, counted from 1, for --snapshot and --cloud; the middle of the clip when absent."""
    tail: int = 16
    """Length of the tails in frames, for --snapshot."""
    width: int = 1280
    """Width of the snapshot in pixels."""
    height: int = 720
    """Height of the snapshot in pixels."""

    def main(self) -> int:
        """Run it."""
        from segmotion_plugin.ownership import check_free
        from segmotion_plugin.viewer.scene import load_scene

        if min(self.width, self.height) < 64 or max(self.width, self.height) > 16384:
            raise SegmotionError(f"{self.width}×{self.height}: a snapshot has between 64 and 16384 pixels on a side")
        if not 0 < self.port < 65536:
            raise SegmotionError(f"--port {self.port}: must lie between 1 and 65535")
        for written in (self.snapshot, self.cloud):
            if written is not None:
                check_free(written)
        scene = load_scene(self.out)
        for note in scene.notes:
            print(f"note: {note}")
        frame = None if self.frame is None else self.frame - 1
        if frame is not None and not 0 <= frame < len(scene):
            raise SegmotionError(f"--frame {self.frame}: the clip has {len(scene)} images to show, counted from 1")
        if self.snapshot is not None:
            from segmotion_plugin.viewer.snapshot import write_snapshot

            step = write_snapshot(scene, self.snapshot, frame, tail=self.tail, width=self.width, height=self.height)
            print(f"{self.snapshot}: {scene.names[step]}")
        if self.cloud is not None:
            from segmotion_plugin.viewer.clouds import write_cloud

            count = write_cloud(scene, self.cloud, len(scene) // 2 if frame is None else frame)
            print(f"{self.cloud}: {count} points")
        if self.snapshot is None and self.cloud is None:
            self._serve(scene)
        return 0

    def _serve(self, scene) -> None:  # noqa: ANN001
        from segmotion_plugin.viewer.app import ViewerApp

        with _interrupts_kept() as interrupts:
            try:
                app = ViewerApp(scene, self.host, self.port)
            except OSError as error:
                reason = error.strerror or error
                raise SegmotionError(f"--host {self.host} --port {self.port}: cannot listen there ({reason})") from None
            try:
                if app.port != self.port:
                    print(f"port {self.port} is in use: port {app.port} was taken")
                if not _is_local(self.host):
                    print(
                        f"warning: listening on {self.host}: everybody who can reach this machine on port {app.port} can look at "
                        "the clip and use the controls; there is no password. Leave --host away to keep it to this machine."
                    )
                print(f"open {app.url} in a browser; Ctrl-C ends it", flush=True)
                app.run(lambda: bool(interrupts))
            finally:
                app.stop()
        if interrupts:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _interrupts_kept() -> Iterator[list[int]]:
    """Collect interrupts (Ctrl-C) instead of raising them wherever the program happens to be.

    One that arrives while the server starts or stops would leave its threads running, and the interpreter aborts where such a thread
    holds the standard output as it ends. Signals belong to the main thread: elsewhere nothing is changed.
    """
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield arrived
        return
    before = signal.signal(signal.SIGINT, lambda number, _: arrived.append(number))
    try:
        yield arrived
    finally:
        signal.signal(signal.SIGINT, before)


def _is_local(host: str) -> bool:
    """Whether only this machine can connect to an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
