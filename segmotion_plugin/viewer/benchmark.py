"""How long the viewer takes on the server: `python -m segmotion_plugin.viewer.benchmark`.

Prints the time until everything of the first picture has been sent; of steps of the timeline, shown for the first time and again; and
until the tails are whole after a jump, which send their older pieces in the background.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.files import write_png
from segmotion_plugin.reconstruct.tracks_3d import Tracks3D
from segmotion_plugin.viewer.app import ViewerApp
from segmotion_plugin.viewer.scene import ObjectInfo, Scene


@dataclass
class Benchmark:
    """Time the viewer on tracks of made-up objects."""

    tracks: int = 5000
    """Number of moving tracks."""
    frames: int = 300
    """Number of time steps."""
    objects: int = 5
    """Number of objects that share the tracks."""
    points: int = 100_000
    """Number of static points."""

    def measure(self) -> dict[str, float]:
        """Seconds to the first picture, and milliseconds per step (medians and worst).

        `new` are steps shown for the first time, `again` steps seen before, `jump` steps to anywhere, `tails` those until whole tails.
        """
        with tempfile.TemporaryDirectory() as folder:
            scene = self._scene(Path(folder))
            start = time.perf_counter()
            app = ViewerApp(scene, port=18080)
            app.server.flush()
            first = time.perf_counter() - start
            rng = np.random.default_rng(0)
            try:
                new, _ = self._steps(app, range(1, min(self.frames, 120)))
                again, _ = self._steps(app, range(min(self.frames, 120) - 1, 0, -1))
                jumps, tails = self._steps(app, rng.integers(0, self.frames, 40).tolist())
            finally:
                app.stop()
        result = {"first_picture_s": first}
        for name, values in (("new", new), ("again", again), ("jump", jumps), ("tails", tails)):
            result[f"{name}_ms"], result[f"{name}_worst_ms"] = 1e3 * float(np.median(values)), 1e3 * max(values)
        return result

    def main(self) -> int:
        """Print the measures."""
        print(f"{self.tracks} tracks × {self.frames} frames, {self.objects} objects, {self.points} static points")
        for name, value in self.measure().items():
            print(f"  {name:<20} {value:8.2f}")
        return 0

    @staticmethod
    def _steps(app: ViewerApp, steps: Iterable[int]) -> tuple[list[float], list[float]]:
        """Seconds of every step, and until its tails were whole."""
        steps_s, tails_s = [], []
        for k in steps:
            start = time.perf_counter()
            app.goto(int(k))
            app.server.flush()
            steps_s.append(time.perf_counter() - start)
            while app.drawing is not None and not app.drawing.whole:
                time.sleep(0.001)
            tails_s.append(time.perf_counter() - start)
        return steps_s, tails_s

    def _scene(self, folder: Path) -> Scene:
        rng = np.random.default_rng(0)
        poses = np.tile(np.eye(4)[:3], (self.frames, 1, 1))
        poses[:, 0, 3] = -np.linspace(-2, 2, self.frames)
        names = [f"frame_{k + 1:05d}.png" for k in range(self.frames)]
        cameras = Cameras(names, np.arange(self.frames), 854, 480, "SIMPLE_PINHOLE", np.array([700.0, 427.0, 240.0]), poses)
        picture = np.repeat(rng.integers(0, 255, (48, 854, 3)).astype(np.uint8), 10, axis=0)
        write_png(folder / "images" / names[0], picture, compression=1)
        for name in names[1:]:
            (folder / "images" / name).symlink_to(folder / "images" / names[0])
        start = rng.uniform((-4, -2, 6), (4, 2, 10), (self.tracks, 3))
        travel = np.cumsum(rng.normal(0, 0.02, (self.objects, self.frames, 3)), axis=1)
        owner = np.arange(self.tracks) % self.objects + 1
        xyz = (start[:, None] + travel[owner - 1]).astype(np.float32)
        seen = rng.random((self.tracks, self.frames)) > 0.2
        tracks = Tracks3D(
            xyz,
            seen,
            owner.astype(np.int32),
            np.ones(self.tracks, np.uint8),
            np.zeros(seen.shape, np.float32),
            np.arange(self.tracks, dtype=np.int32),
            names,
            np.arange(self.frames),
            poses,
            cameras.intrinsics(),
        )
        points = rng.uniform((-10, -3, 8), (10, 3, 20), (self.points, 3)).astype(np.float32)
        colours = rng.integers(0, 255, points.shape).astype(np.uint8)
        infos = [ObjectInfo(k, (230, 159, 0), int((owner == k).sum()), "depth-model", 0.02) for k in range(1, self.objects + 1)]
        return Scene(folder, names, np.arange(self.frames), 24.0, cameras, points, colours, tracks, None, infos)


if __name__ == "__main__":
    raise SystemExit(tyro.cli(Benchmark).main())
