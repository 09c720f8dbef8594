"""Cameras, static points and moving tracks as nodes of a viser scene; shared by our app and nerfstudio's panel.

Works with viser 0.2.7, which nerfstudio 1.1.5 pins, and with 1.x: what a version offers is asked for by presence. Nodes of a time
step are made when the step is first shown and from then on only switched, so that a step of the timeline costs a few messages.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from segmotion_plugin.viewer.geometry import Similarity, quaternion, ribbons
from segmotion_plugin.viewer.scene import ObjectInfo, Scene

# More frustums than these hide the scene.
_MOST_FRUSTUMS = 80
# ("now" or "tail", object id, time step)
_Key = tuple[str, int, int]
# Longer side of the pictures on frustums, in pixels: on all of them, and on that of the current image.
THUMBNAIL, CURRENT = 96, 360


@dataclass
class _Node:
    """A node that was sent, and the size it was sent with."""

    handle: Any
    size: float


class TrackDrawing:
    """A processed clip in a viser scene.

    Args:
        scene: `server.scene`.
        content: what to draw; needs cameras.
        similarity: from the reconstruction's world to the viewer's.
        root: name of the node above all of ours.
        atomic: `server.atomic`, so that a step appears at once.
        frustums: whether to draw all cameras; that of the current image is drawn in any case.
    """

    def __init__(
        self,
        scene: Any,
        content: Scene,
        *,
        similarity: Similarity | None = None,
        root: str = "/segmotion",
        atomic: Callable[[], contextlib.AbstractContextManager[Any]] | None = None,
        frustums: bool = True,
    ) -> None:
        if content.cameras is None:
            raise ValueError("a scene without cameras has nothing to draw in 3D")
        self._scene, self._content, self._root = scene, content, root
        self._similarity = similarity or Similarity.identity()
        # What this version of viser calls the width of lines ("" where it has no lines), and how exact clouds are asked for.
        add_lines = getattr(scene, "add_line_segments", None)
        self._width_name = "" if add_lines is None else "thickness" if _takes(add_lines, "thickness") else "line_width"
        # In 0.2.7 each message of an atomic block waits in a thread of its own, and later ones overtake it: better none there.
        self._atomic = atomic if atomic is not None and self._width_name else contextlib.nullcontext
        self._exact = {"precision": "float32"} if _takes(scene.add_point_cloud, "precision") else {}
        self.extent = content.extent * self._similarity.scale
        self.frame = -1
        self.tail = min(16, len(content))
        self.point_size = 0.0035 * self.extent
        self.line_width = 2.0
        self.masks = True
        self._infos = {o.id: o for o in content.objects}
        self._nodes: dict[_Key, _Node] = {}
        self._shown: set[_Key] = set()
        self._sent = 0
        self._lacking = False
        self._off: set[int] = set()
        self._current: Any = None
        self._current_on = True
        self._cloud: Any = None
        self._frustums: dict[int, Any] = {}
        self._top = scene.add_frame(root, show_axes=False)
        self._groups = {o.id: scene.add_frame(f"{root}/object_{o.id}", show_axes=False) for o in content.objects}
        self._prepare_tracks()
        self._add_points()
        self._cameras_group = scene.add_frame(f"{root}/cameras", show_axes=False)
        if frustums:
            self._add_frustums()

    # -- what is asked for ----------------------------------------------------------------------------------------

    def set_frame(self, k: int, picture: bool = True, most_new: int | None = None) -> None:
        """Show time step k: tails that end there, current positions, the current camera.

        Args:
            k: the step; clipped to the clip.
            picture: also read and show the picture of the current camera; otherwise `show_picture` does so later.
            most_new: send at most about so many new nodes, the newest pieces of the tails first; `fill` sends the others. A jump of
                the timeline over long tails then returns at once. No limit when absent.
        """
        with self._atomic():
            self.frame = int(np.clip(k, 0, len(self._content) - 1))
            self._refresh(most_new)
            self._move_current()
        if picture:
            self.show_picture()

    def fill(self, most_new: int | None = None) -> bool:
        """Send pieces of the current tails that were left out, at most about `most_new`; True when nothing more is lacking."""
        if not self.whole:
            self._update(most_new)
        return self.whole

    def set_tail(self, length: int, most_new: int | None = None) -> None:
        """Length of the tails in time steps; 0 shows none. `most_new` as `set_frame` has it."""
        self.tail = max(0, int(length))
        self._update(most_new)

    def set_point_size(self, size: float) -> None:
        """Size of the points in units of the viewer's world."""
        self.point_size = float(size)
        if self._cloud is not None:
            self._add_points()
        self._update()

    def set_line_width(self, width: float) -> None:
        """Width of the tails in pixels (a share of the scene where the version has no lines)."""
        self.line_width = float(width)
        self._update()

    def show_object(self, object_id: int, visible: bool) -> None:
        """Switch an object on or off."""
        (self._off.discard if visible else self._off.add)(object_id)
        self._groups[object_id].visible = visible

    def show_points(self, visible: bool) -> None:
        """Switch the static points."""
        if self._cloud is not None:
            self._cloud.visible = visible

    def show_cameras(self, visible: bool) -> None:
        """Switch the frustums; that of the current image stays."""
        self._cameras_group.visible = visible

    def show_current(self, visible: bool) -> None:
        """Switch the frustum and the picture of the current image."""
        self._current_on = visible
        if self._current is not None:
            self._current.visible = visible

    def show_masks(self, visible: bool) -> None:
        """Lay the masks over the picture of the current image, or not."""
        self.masks = visible
        if self.frame >= 0:
            self.show_picture()

    def show(self, visible: bool) -> None:
        """Switch everything of ours."""
        self._top.visible = visible

    @property
    def whole(self) -> bool:
        """Whether nothing was left out of the tails, see `set_frame`."""
        return not self._lacking

    @property
    def frustums(self) -> list[int]:
        """Time steps whose cameras are drawn."""
        return sorted(self._frustums)

    def add_thumbnail(self, k: int) -> None:
        """Put its picture on a frustum; apart from the start because it reads a file."""
        picture = self._content.picture(k, THUMBNAIL, False)
        self._frustums[k].remove()
        self._frustums[k] = self._frustum(k, f"{self._root}/cameras/{k:05d}", 0.035, (90, 90, 90), picture)

    def positions(self, k: int) -> np.ndarray:
        """n×3 float32 current positions of all moving tracks visible at a step, in the viewer's world."""
        shown = [self._visible_of(o.id, k) for o in self._content.objects]
        return np.concatenate(shown) if shown else np.zeros((0, 3), np.float32)

    def camera_pose(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Quaternion (wxyz) and position of camera k in the viewer's world, OpenCV axes."""
        cameras = self._content.cameras
        assert cameras is not None
        rotation = self._similarity.rotation @ cameras.cam_from_world[k, :, :3].T
        return quaternion(rotation), self._similarity(cameras.centers()[k])

    # -- tracks ---------------------------------------------------------------------------------------------------

    def _prepare_tracks(self) -> None:
        """Positions per object, time first, so that a step is a contiguous slice."""
        self._xyz: dict[int, np.ndarray] = {}
        self._seen: dict[int, np.ndarray] = {}
        tracks = self._content.tracks
        for info in self._content.objects:
            rows = np.flatnonzero(tracks.object_id == info.id) if tracks is not None else np.zeros(0, int)
            if tracks is None or not len(rows):
                self._xyz[info.id] = np.zeros((len(self._content), 0, 3), np.float32)
                self._seen[info.id] = np.zeros((len(self._content), 0), bool)
                continue
            self._xyz[info.id] = np.ascontiguousarray(self._similarity(tracks.xyz[rows]).transpose(1, 0, 2))
            self._seen[info.id] = np.ascontiguousarray((tracks.visible[rows] & np.isfinite(tracks.xyz[rows, :, 0])).T)

    def _visible_of(self, object_id: int, k: int) -> np.ndarray:
        return self._xyz[object_id][k][self._seen[object_id][k]]

    def _segments_of(self, object_id: int, k: int) -> np.ndarray:
        """n×2×3 pieces of tracks from step k-1 to k; hidden pieces are left out."""
        both = self._seen[object_id][k - 1] & self._seen[object_id][k]
        return np.stack([self._xyz[object_id][k - 1][both], self._xyz[object_id][k][both]], axis=1)

    def _update(self, most_new: int | None = None) -> None:
        if self.frame >= 0:
            with self._atomic():
                self._refresh(most_new)

    def _refresh(self, most_new: int | None = None) -> None:
        """Switch nodes so that those of the current step, and no others, are visible."""
        ids = [info.id for info in self._content.objects]
        # What matters most comes first: where the objects are, then the newest pieces of the tails.
        wanted: list[_Key] = [("now", k, self.frame) for k in ids]
        wanted += [("tail", k, step) for step in range(self.frame, max(0, self.frame - self.tail), -1) for k in ids]
        for key in self._shown.difference(wanted):
            self._nodes[key].handle.visible = False
        sent_before, shown = self._sent, set()
        self._lacking = False
        for key in wanted:
            if key not in self._nodes and most_new is not None and self._sent - sent_before >= most_new:
                self._lacking = True
            elif self._ensure(key):
                shown.add(key)
        self._shown = shown

    def _ensure(self, key: _Key) -> bool:
        """Make a node visible, sending it where it has not been; False where there is nothing in it."""
        kind, object_id, k = key
        size = self.line_width if kind == "tail" else 1.6 * self.point_size
        node = self._nodes.get(key)
        if node is not None and node.size != size:
            node = _resized(node, size)
        if node is None:
            handle = self._send_tail(self._infos[object_id], k) if kind == "tail" else self._send_positions(self._infos[object_id], k)
            if handle is None:
                return False
            self._sent += 1
            node = _Node(handle, size)
        self._nodes[key] = node
        if not node.handle.visible:
            node.handle.visible = True
        return True

    def _send_positions(self, info: ObjectInfo, k: int) -> Any:
        points = self._visible_of(info.id, k)
        if not len(points):
            return None
        name = f"{self._root}/object_{info.id}/now_{k:05d}"
        return self._point_cloud(name, points, np.array(info.colour, np.uint8), 1.6 * self.point_size)

    def _send_tail(self, info: ObjectInfo, k: int) -> Any:
        segments = self._segments_of(info.id, k)
        if not len(segments):
            return None
        name = f"{self._root}/object_{info.id}/tail_{k:05d}"
        if not self._width_name:
            vertices, faces = ribbons(segments, 0.0006 * self.extent * self.line_width)
            return self._scene.add_mesh_simple(name, vertices, faces, color=info.colour, side="double")
        options: dict[str, Any] = {self._width_name: self.line_width}
        if self._width_name == "thickness":
            options["thickness_units"] = "screen"
        return self._scene.add_line_segments(name, segments, info.colour, **options)

    # -- the static world -----------------------------------------------------------------------------------------

    def _point_cloud(self, name: str, points: np.ndarray, colours: np.ndarray, size: float) -> Any:
        # Half precision, the default of 1.x, is too coarse for large scenes.
        return self._scene.add_point_cloud(name, points, colours, point_size=size, point_shape="circle", **self._exact)

    def _add_points(self) -> None:
        points = self._similarity(self._content.points)
        if not len(points):
            return
        visible = True if self._cloud is None else self._cloud.visible
        self._cloud = self._point_cloud(f"{self._root}/points", points, self._content.point_colours, self.point_size)
        self._cloud.visible = visible

    def _add_frustums(self) -> None:
        count = len(self._content)
        for k in np.unique(np.linspace(0, count - 1, min(count, _MOST_FRUSTUMS)).round().astype(int)).tolist():
            self._frustums[k] = self._frustum(k, f"{self._root}/cameras/{k:05d}", 0.035, (90, 90, 90), None)

    def _frustum(self, k: int, name: str, scale: float, colour: tuple[int, int, int], image: np.ndarray | None) -> Any:
        cameras = self._content.cameras
        assert cameras is not None
        wxyz, position = self.camera_pose(k)
        fov = float(2 * np.arctan2(cameras.height / 2, cameras.focal[1]))
        return self._scene.add_camera_frustum(
            name,
            fov,
            cameras.width / cameras.height,
            scale=scale * self.extent,
            color=colour,
            image=image,
            wxyz=wxyz,
            position=position,
        )

    def _move_current(self) -> None:
        if self._current is not None:
            self._current.wxyz, self._current.position = self.camera_pose(self.frame)

    def show_picture(self) -> None:
        """Put the picture of the current image, with its masks where they are on, on the current frustum."""
        frame = self.frame
        picture = self._content.picture(frame, CURRENT, self.masks)
        if self._current is None or not hasattr(self._current, "image"):
            self._current = self._frustum(frame, f"{self._root}/current", 0.055, (230, 60, 40), picture)
            self._current.visible = self._current_on
        else:
            self._current.image = picture


def _takes(call: Callable[..., Any], name: str) -> bool:
    """Whether a function has a parameter of this name."""
    return name in inspect.signature(call).parameters


def _resized(node: _Node, size: float) -> _Node | None:
    """The node with another size; None where this version cannot change it, so that it is sent anew."""
    for name in ("thickness", "line_width", "point_size"):
        if hasattr(node.handle, name):
            setattr(node.handle, name, size)
            return _Node(node.handle, size)
    return None
