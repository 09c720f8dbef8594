"""Pictures of a scene without a browser: points, lines and frustums drawn with NumPy and OpenCV."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.files import write_png
from segmotion_plugin.viewer.scene import Scene

_BACKGROUND = (250, 250, 248)
_NEAR = 1e-3


@dataclass(frozen=True)
class View:
    """Where a picture is taken from: camera_from_world 3×4 (OpenCV axes), focal length and size in pixels."""

    pose: np.ndarray
    focal: float
    width: int
    height: int

    def project(self, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """n×2 pixels and n depths of n×3 world points; pixels are meaningless behind the camera."""
        camera = np.asarray(xyz, np.float64) @ self.pose[:, :3].T + self.pose[:, 3]
        depth = camera[:, 2]
        scaled = camera[:, :2] / np.where(np.abs(depth) < 1e-12, 1e-12, depth)[:, None]
        return self.focal * scaled + (self.width / 2, self.height / 2), depth


def overlook(scene: Scene, width: int = 1280, height: int = 720) -> View:
    """A view from behind and above the cameras, so near that cameras, tracks and most of the points just fit."""
    assert scene.cameras is not None
    up, centers = scene.up, scene.cameras.centers()
    forward = scene.cameras.cam_from_world[:, 2, :3].mean(axis=0)
    forward = forward - (forward @ up) * up
    forward /= max(float(np.linalg.norm(forward)), 1e-9)
    direction = forward - 0.75 * up - 0.35 * np.cross(forward, up)
    view = look_at(np.zeros(3), direction, up, width, height)
    clouds = [(centers, 1.0), (scene.points, 0.55)]
    if scene.tracks is not None:
        clouds.append((scene.tracks.xyz[scene.tracks.visible & np.isfinite(scene.tracks.xyz[..., 0])], 0.97))
    clouds = [(np.asarray(xyz, np.float64) @ view.pose[:, :3].T, share) for xyz, share in clouds if len(xyz)]
    middle = np.mean([np.median(xyz, axis=0) for xyz, _ in clouds], axis=0)
    reach = 0.0
    limit = 0.92 * np.array([width, height]) / (2 * view.focal)
    for xyz, share in clouds:
        # A point fits when |x| / (distance + z) is within the limit.
        needed = (np.abs(xyz[:, :2] - middle[:2]) / limit).max(axis=1) - (xyz[:, 2] - middle[2])
        reach = max(reach, float(np.quantile(needed, share)))
    offset = np.array([0.0, 0.0, max(reach, 1e-3 * scene.extent)]) - middle
    return View(np.concatenate([view.pose[:, :3], offset[:, None]], axis=1), view.focal, width, height)


def look_at(eye: np.ndarray, target: np.ndarray, up: np.ndarray, width: int, height: int, fov: float = 55.0) -> View:
    """A view from a point to another. `fov` is the vertical angle in degrees."""
    forward = (target - eye) / max(float(np.linalg.norm(target - eye)), 1e-12)
    right = np.cross(forward, up)
    right /= max(float(np.linalg.norm(right)), 1e-12)
    rotation = np.stack([right, np.cross(forward, right), forward])
    focal = 0.5 * height / np.tan(np.radians(fov) / 2)
    return View(np.concatenate([rotation, -(rotation @ eye)[:, None]], axis=1), float(focal), width, height)


def from_camera(cameras: Cameras, k: int) -> View:
    """The view of camera k itself; distortion is left out and the principal point is the middle."""
    return View(cameras.cam_from_world[k], float(np.mean(cameras.focal)), cameras.width, cameras.height)


def render(
    scene: Scene,
    frame: int,
    view: View | None = None,
    *,
    tail: int = 16,
    masks: bool = True,
    objects: set[int] | None = None,
    points: bool = True,
    frustums: bool = True,
    caption: bool = True,
) -> np.ndarray:
    """Draw a scene at a time step, H×W×3 uint8 RGB.

    Args:
        scene: what to draw; without cameras the picture of the image with its masks and 2D tails is drawn.
        frame: time step (index into `scene.names`).
        view: where from; `overlook` when absent.
        tail: length of the tails in time steps.
        masks: lay the masks over the picture on the current frustum.
        objects: ids of the objects to draw; all when absent.
        points: draw the static points.
        frustums: draw the cameras.
        caption: name the frame and the objects, and show the picture of the frame in a corner.
    """
    shown = [o for o in scene.objects if objects is None or o.id in objects]
    if scene.cameras is None:
        canvas = _flat(scene, frame, tail, masks, {o.id for o in shown})
    else:
        view = view or overlook(scene)
        canvas = np.full((view.height, view.width, 3), _BACKGROUND, np.uint8)
        if points and len(scene.points):
            _splat(canvas, view, scene.points, scene.point_colours)
        if frustums:
            _cameras(canvas, view, scene, frame, masks)
        for info in shown:
            _tracks(canvas, view, scene, info.id, info.colour, frame, tail)
    if caption and scene.cameras is not None:
        _inset(canvas, scene.picture(frame, round(0.3 * canvas.shape[1]), masks))
    if caption:
        _caption(canvas, scene, frame, [(o.title, o.colour) for o in shown])
    return canvas


def write_snapshot(scene: Scene, path: Path, frame: int | None = None, *, tail: int = 16, width: int = 1280, height: int = 720) -> int:
    """Render to a PNG; the middle of the clip when no frame is given. Returns the time step that was drawn."""
    k = len(scene) // 2 if frame is None else frame
    view = overlook(scene, width, height) if scene.cameras is not None else None
    write_png(Path(path), render(scene, k, view, tail=tail))
    return k


def _splat(canvas: np.ndarray, view: View, xyz: np.ndarray, rgb: np.ndarray) -> None:
    """Draw points as squares that shrink with the distance, nearer ones over farther ones."""
    xy, depth = view.project(xyz)
    inside = (depth > _NEAR) & (xy >= 0).all(axis=1) & (xy < (view.width, view.height)).all(axis=1)
    if not inside.any():
        return
    xy, depth, rgb = xy[inside], depth[inside], rgb[inside]
    order = np.argsort(-depth, kind="stable")
    cell = np.floor(xy[order]).astype(np.int64)
    base = max(1.0, view.height / 240)
    half = np.clip(np.round(base * np.median(depth) / depth[order]), 1, 3 * base).astype(np.int64) // 2
    for dy in range(-int(half.max()), int(half.max()) + 1):
        for dx in range(-int(half.max()), int(half.max()) + 1):
            part = max(abs(dx), abs(dy)) <= half
            row = np.clip(cell[part, 1] + dy, 0, view.height - 1)
            column = np.clip(cell[part, 0] + dx, 0, view.width - 1)
            # Later rows are nearer and overwrite; a border of a nearer point may lose to a farther one drawn in a later pass.
            canvas[row, column] = rgb[order][part]


def _line(canvas: np.ndarray, view: View, a: np.ndarray, b: np.ndarray, colour: tuple[int, int, int], width: int) -> None:
    """A straight line between two world points, cut at the near plane."""
    camera = np.stack([a, b]) @ view.pose[:, :3].T + view.pose[:, 3]
    near = max(_NEAR, 1e-3 * float(np.abs(camera[:, 2]).max()))
    if (camera[:, 2] < near).all():
        return
    for end in (0, 1):
        if camera[end, 2] < near:
            part = (near - camera[end, 2]) / (camera[1 - end, 2] - camera[end, 2])
            camera[end] += part * (camera[1 - end] - camera[end])
    xy = view.focal * camera[:, :2] / camera[:, 2:] + (view.width / 2, view.height / 2)
    _strokes(canvas, xy[None], colour, width)


def _strokes(canvas: np.ndarray, segments: np.ndarray, colour: tuple[int, int, int], width: int) -> None:
    """Anti-aliased lines between n×2×2 pixel positions."""
    limit = 4 * max(canvas.shape)
    segments = segments[(np.abs(segments) < limit).all(axis=(1, 2))]
    # OpenCV puts the centre of the top-left pixel at (0, 0) and takes 4 fractional bits here.
    lines = np.round((segments - 0.5) * 16).astype(np.int32)
    cv2.polylines(canvas, list(lines), False, colour, width, cv2.LINE_AA, 4)


def _cameras(canvas: np.ndarray, view: View, scene: Scene, frame: int, masks: bool) -> None:
    cameras = scene.cameras
    assert cameras is not None
    step = max(1, len(cameras) // 40)
    for k in range(0, len(cameras), step):
        if k != frame:
            _frustum(canvas, view, cameras, k, 0.04 * scene.extent, (150, 150, 150), 1)
    corners = _frustum(canvas, view, cameras, frame, 0.08 * scene.extent, (200, 50, 30), 2)
    xy, depth = view.project(corners)
    if (depth < _NEAR).any() or float(np.abs(xy).max()) > 4 * max(canvas.shape):
        return
    picture = scene.picture(frame, 480, masks)
    height, width = picture.shape[:2]
    source = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32) - 0.5
    matrix = cv2.getPerspectiveTransform(source, (xy - 0.5).astype(np.float32))
    size = (view.width, view.height)
    warped = cv2.warpPerspective(picture, matrix, size, flags=cv2.INTER_AREA)
    cover = cv2.warpPerspective(np.full((height, width), 255, np.uint8), matrix, size)
    canvas[cover > 127] = warped[cover > 127]
    _strokes(canvas, np.stack([xy, np.roll(xy, -1, axis=0)], axis=1), (200, 50, 30), 2)


def _frustum(
    canvas: np.ndarray, view: View, cameras: Cameras, k: int, size: float, colour: tuple[int, int, int], width: int
) -> np.ndarray:
    """Draw a camera; returns the four world corners of its picture plane (top-left, then clockwise)."""
    pixels = np.array([[0, 0], [cameras.width, 0], [cameras.width, cameras.height], [0, cameras.height]], float)
    rays = np.concatenate([(pixels - cameras.intrinsics()[:2, 2]) / cameras.focal, np.ones((4, 1))], axis=1)
    corners = (size * rays - cameras.cam_from_world[k, :, 3]) @ cameras.cam_from_world[k, :, :3]
    center = cameras.centers()[k]
    for i in range(4):
        _line(canvas, view, center, corners[i], colour, width)
        _line(canvas, view, corners[i], corners[(i + 1) % 4], colour, width)
    return corners


def _tracks(canvas: np.ndarray, view: View, scene: Scene, object_id: int, colour: tuple[int, int, int], frame: int, tail: int) -> None:
    if scene.tracks is None:
        return
    rows = np.flatnonzero(scene.tracks.object_id == object_id)
    if not len(rows):
        return
    begin = max(0, frame - tail)
    xyz = scene.tracks.xyz[rows, begin : frame + 1]
    seen = scene.tracks.visible[rows, begin : frame + 1] & np.isfinite(xyz[..., 0])
    xy, depth = view.project(np.where(seen[..., None], xyz, 0).reshape(-1, 3))
    xy, seen = xy.reshape(*seen.shape, 2), seen & (depth.reshape(seen.shape) > _NEAR)
    _tails(canvas, xy, seen, colour)


def _tails(canvas: np.ndarray, xy: np.ndarray, seen: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Tails that grow pale with age (n×t×2 pixels, n×t seen), and dots where they end."""
    steps = xy.shape[1]
    width = max(1, round(canvas.shape[0] / 720))
    for k in range(1, steps):
        both = seen[:, k - 1] & seen[:, k]
        strength = 0.35 + 0.65 * k / max(steps - 1, 1)
        faded = tuple(round(strength * c + (1 - strength) * 255) for c in colour)
        _strokes(canvas, np.stack([xy[both, k - 1], xy[both, k]], axis=1), (faded[0], faded[1], faded[2]), width)
    radius = max(2, round(canvas.shape[0] / 300))
    dark = tuple(round(0.7 * c) for c in colour)
    for x, y in xy[seen[:, -1], -1]:
        if abs(x) < 1e5 and abs(y) < 1e5:
            cv2.circle(canvas, (round((x - 0.5) * 16), round((y - 0.5) * 16)), radius * 16, dark, -1, cv2.LINE_AA, 4)


def _flat(scene: Scene, frame: int, tail: int, masks: bool, shown: set[int]) -> np.ndarray:
    """The image with masks and 2D tails, for clips without poses."""
    from segmotion_plugin.pictures import colour, overlay

    image, labels = scene.image(frame), scene.labels(frame)
    # Small pictures are enlarged, so that tails stay thin beside what they belong to.
    factor = max(1, round(1280 / image.shape[1]))
    image, labels = (cv2.resize(a, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST) for a in (image, labels))
    canvas = np.ascontiguousarray(overlay(image, labels) if masks else image)
    if scene.tracks_2d is not None:
        tracks, motion = scene.tracks_2d
        now = int(scene.frame_index[frame])
        window = tracks.window(max(0, now - tail), now + 1)
        for k in sorted(shown):
            rows = np.flatnonzero(motion.object_id[window.ids] == k)
            red, green, blue = (int(v) for v in colour(k))
            _tails(canvas, factor * np.nan_to_num(window.xy[rows]), window.visible[rows], (red, green, blue))
    return canvas


def _inset(canvas: np.ndarray, picture: np.ndarray) -> None:
    """Put a picture into the lower right corner."""
    height, width = picture.shape[:2]
    if height + 8 < canvas.shape[0] and width + 8 < canvas.shape[1]:
        canvas[-height - 10 : -6, -width - 10 : -6] = (200, 50, 30)
        canvas[-height - 8 : -8, -width - 8 : -8] = picture


def _caption(canvas: np.ndarray, scene: Scene, frame: int, objects: list[tuple[str, tuple[int, int, int]]]) -> None:
    size = max(0.35, canvas.shape[0] / 1400)
    line = round(30 * size) + 4
    rows = [(f"{scene.names[frame]}  ({frame + 1} of {len(scene)})", (20, 20, 20)), *objects]
    rows += [(note.split(":")[0].replace(str(scene.out), scene.out.name), (150, 40, 20)) for note in scene.notes]
    plain = [text.encode("ascii", "replace").decode() for text, _ in rows]
    thickness = max(1, round(1.6 * size))
    wide = max(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, thickness)[0][0] for text in plain)
    panel = canvas[: len(rows) * line + 10, : wide + round(40 * size) + 16]
    panel[:] = (0.2 * panel + 0.8 * 255).astype(np.uint8)
    for number, (text, (_, colour)) in enumerate(zip(plain, rows, strict=True), start=1):
        low = (8, number * line - round(18 * size))
        cv2.rectangle(canvas, low, (low[0] + round(16 * size), low[1] + round(16 * size)), colour, -1)
        place = (8 + round(26 * size), number * line)
        cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, (20, 20, 20), thickness, cv2.LINE_AA)
