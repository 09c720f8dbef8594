"""A processed folder for the viewer's tests, with lifted tracks, and a scene that records what is drawn into it."""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from support_processed import write_processed

from segmotion_plugin.reconstruct.lifting import lift_folder
from segmotion_plugin.simulation import render, scenes

FRAMES, WIDTH, HEIGHT = 12, 160, 96


@functools.cache
def _template() -> tuple[Path, Any]:
    folder = Path(tempfile.mkdtemp(prefix="segmotion-viewer-"))
    world = scenes.build("two_cars_parked_twin", 1, FRAMES, WIDTH, HEIGHT)
    clip, tracks = render(world), world.sample_tracks(np.random.default_rng(0), 400, [0, 4, 8, 11])
    write_processed(folder / "posed", clip, tracks)
    write_processed(folder / "unposed", clip, tracks, poses=False)
    lift_folder(folder / "posed")
    return folder, tracks


def processed(target: Path, poses: bool = True) -> Path:
    """Copy a processed clip with two moving cars to `target`."""
    folder, _ = _template()
    shutil.copytree(folder / ("posed" if poses else "unposed"), target)
    return target


class RecordingScene:
    """Stands in for `server.scene` and keeps the nodes by name; `sent` counts how often each was sent.

    Args:
        lines: whether this version has `add_line_segments` (viser 0.2.7 has not).
        settable: whether sizes and pictures of nodes can be set later (viser 0.2.7 cannot).
    """

    def __init__(self, lines: bool = True, settable: bool = True) -> None:
        self.nodes: dict[str, Any] = {}
        self.sent: dict[str, int] = {}
        self._settable = settable
        if lines:
            self.add_line_segments = self._add_line_segments

    def _add(self, name: str, kind: str, changeable: dict[str, Any], **fixed: Any) -> Any:
        node = SimpleNamespace(kind=kind, visible=True, **fixed)
        node.data = changeable
        if self._settable:
            for key, value in changeable.items():
                setattr(node, key, value)
        node.remove = lambda: self.nodes.pop(name)
        self.nodes[name], self.sent[name] = node, self.sent.get(name, 0) + 1
        return node

    def add_frame(self, name: str, show_axes: bool = True) -> Any:
        return self._add(name, "frame", {}, show_axes=show_axes)

    def add_point_cloud(self, name: str, points: Any, colors: Any, point_size: float = 0.1, point_shape: str = "square") -> Any:
        return self._add(name, "points", {"point_size": point_size}, points=points, colors=colors)

    def _add_line_segments(self, name: str, points: Any, colors: Any, line_width: float = 1) -> Any:
        return self._add(name, "lines", {"line_width": line_width}, points=points, colors=colors)

    def add_mesh_simple(self, name: str, vertices: Any, faces: Any, color: Any = None, side: str = "front") -> Any:
        return self._add(name, "mesh", {}, vertices=vertices, faces=faces, color=color)

    def add_camera_frustum(self, name: str, fov: float, aspect: float, image: Any = None, **options: Any) -> Any:
        return self._add(name, "frustum", {"image": image}, fov=fov, aspect=aspect, **options)

    def shown(self, part: str) -> list[str]:
        """Names of visible nodes that contain `part`."""
        return sorted(name for name, node in self.nodes.items() if part in name and node.visible)


@contextlib.contextmanager
def nothing():
    """Stands in for `server.atomic()`."""
    yield
