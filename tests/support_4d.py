"""Truth for the tests of exports: a small clip whose pictures tell, at every pixel, where in the original picture it came from.

Red is 2 x and green is 2 y of the original pixel position (centre of the top-left pixel at 0.5). Both are linear, so that undistorting
a picture keeps them right, and an exported pixel can be held against the true camera to a quarter of a pixel.
"""

from __future__ import annotations

import functools
import pickletools
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.simulation import SimulatedClip, SimulatedTracks, render, scenes

WIDTH, HEIGHT, FRAMES = 96, 64, 10
KINDS = ("plain", "distorted")


@functools.cache
def textured() -> tuple[SimulatedClip, SimulatedTracks]:
    """The clip with its own pictures, and 120 exact tracks."""
    world = scenes.build("demo", 0, FRAMES, WIDTH, HEIGHT)
    return render(world), world.sample_tracks(np.random.default_rng(0), 120, [0, 4, 9])


@functools.cache
def truth(kind: str) -> tuple[SimulatedClip, SimulatedTracks]:
    """Clip and tracks with coordinates for pictures: `plain` (a centred pinhole) or `distorted` (OPENCV, off centre, fx ≠ fy)."""
    clip, tracks = textured()
    clip = replace(clip, frames=np.tile(coordinates(), (FRAMES, 1, 1, 1)))
    return (clip, tracks) if kind == "plain" else _distorted(clip, tracks)


def coordinates() -> np.ndarray:
    """H×W×3 uint8 picture of pixel positions."""
    picture = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    picture[..., 0] = 2 * np.arange(WIDTH) + 1
    picture[..., 1] = (2 * np.arange(HEIGHT) + 1)[:, None]
    return picture


def positions(image: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Original pixel positions n×2 that a picture shows at n×2 places (centre of the top-left pixel at 0.5)."""
    at = (np.asarray(xy, np.float32) - 0.5)[None]
    colors = cv2.remap(image.astype(np.float32), np.ascontiguousarray(at[..., 0]), np.ascontiguousarray(at[..., 1]), cv2.INTER_LINEAR)[
        0
    ]
    return colors[:, :2] / 2


def _distorted(clip: SimulatedClip, tracks: SimulatedTracks) -> tuple[SimulatedClip, SimulatedTracks]:
    fx = clip.cameras.params[0]
    params = np.array([0.9 * fx, 0.93 * fx, 46.0, 33.5, -0.08, 0.01, 0.002, -0.001])
    lens = Cameras(clip.cameras.names, clip.cameras.frame_index, WIDTH, HEIGHT, "OPENCV", params, clip.cameras.cam_from_world)
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    rays = lens.rays(np.stack([x.ravel(), y.ravel()], axis=1))
    matrix = clip.cameras.intrinsics()
    column = np.clip(np.floor(rays @ matrix[0]), 0, WIDTH - 1).astype(int).reshape(HEIGHT, WIDTH)
    row = np.clip(np.floor(rays @ matrix[1]), 0, HEIGHT - 1).astype(int).reshape(HEIGHT, WIDTH)
    bent = replace(clip, labels=clip.labels[:, row, column], depth=clip.depth[:, row, column], cameras=lens)
    xy = np.stack([lens.project(tracks.xyz[:, t], t)[0] for t in range(FRAMES)], axis=1).astype(np.float32)
    inside = (xy >= 0).all(axis=2) & (xy < (WIDTH, HEIGHT)).all(axis=2)
    return bent, replace(tracks, xy=xy, visible=tracks.visible & inside)


def dynamic_truth(labels: np.ndarray, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What must hold at original positions n×2: (n bool: surely moving, n bool: surely static); within a pixel of a border neither."""
    moving = (labels > 0).astype(np.uint8)
    sure = cv2.erode(moving, np.ones((3, 3), np.uint8)), cv2.erode(1 - moving, np.ones((3, 3), np.uint8))
    column, row = np.clip(shown[:, 0].astype(int), 0, WIDTH - 1), np.clip(shown[:, 1].astype(int), 0, HEIGHT - 1)
    return sure[0][row, column] > 0, sure[1][row, column] > 0


def check_dynamic(labels: np.ndarray, image: np.ndarray, dynamic: np.ndarray) -> None:
    """Every pixel of an exported mask (H×W bool, True = moves) must say what the truth says at the place that its picture shows."""
    row, column = np.indices(dynamic.shape).reshape(2, -1)
    moving, static = dynamic_truth(labels, image[row, column, :2].astype(np.float32) / 2)
    assert moving.sum() > 50 and static.sum() > 500
    assert dynamic[row, column][moving].all()
    assert not dynamic[row, column][static].any()


def check_camera(clip: SimulatedClip, frame: int, image: np.ndarray, matrix: np.ndarray, cam_from_world: np.ndarray) -> None:
    """Points of the truth, projected by an exported camera, must fall where the picture shows their true pixel.

    To 0.3 of a pixel: a matrix for another pixel centre is 0.5 off.
    `matrix` takes the centre of the top-left pixel to be at (0.5, 0.5).
    """
    xyz = _points(clip, frame)
    camera = xyz @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]
    xy = (camera @ matrix.T)[:, :2] / camera[:, 2:]
    height, width = image.shape[:2]
    inside = ((xy > 1) & (xy < (width - 1, height - 1))).all(axis=1)
    expected, _ = clip.cameras.project(xyz, frame)
    assert inside.sum() > 100
    assert np.abs(positions(image, xy[inside]) - expected[inside]).max() < 0.3


def check_depth(
    clip: SimulatedClip, frame: int, image: np.ndarray, depth: np.ndarray, matrix: np.ndarray, cam_from_world: np.ndarray
) -> None:
    """Exported pixels, lifted by exported depth and camera, must land on the pixel that they show, at its depth."""
    row, column = np.nonzero(depth > 0)
    assert len(row) > 1000
    camera = np.linalg.inv(matrix) @ np.stack([column + 0.5, row + 0.5, np.ones(len(row))]) * depth[row, column]
    xyz = (camera.T - cam_from_world[:3, 3]) @ cam_from_world[:3, :3]
    xy, z = clip.cameras.project(xyz, frame)
    shown = image[row, column, :2].astype(np.float32) / 2
    assert np.abs(xy - shown).max() < 0.3
    true = clip.depth[frame, np.clip(shown[:, 1].astype(int), 0, HEIGHT - 1), np.clip(shown[:, 0].astype(int), 0, WIDTH - 1)]
    solid = np.isfinite(true)
    assert solid.mean() > 0.9
    assert np.median(np.abs(z - true)[solid] / true[solid]) < 0.01


def _points(clip: SimulatedClip, frame: int) -> np.ndarray:
    """World points under every fifth pixel, static and moving."""
    row, column = (a.ravel() for a in np.mgrid[2:HEIGHT:5, 2:WIDTH:5])
    depth = clip.depth[frame, row, column]
    row, column, depth = (a[np.isfinite(depth)] for a in (row, column, depth))
    rays = clip.cameras.rays(np.stack([column + 0.5, row + 0.5], axis=1)) * depth[:, None]
    pose = clip.cameras.cam_from_world[frame]
    return (rays - pose[:, 3]) @ pose[:, :3]


def read_png(path: Path) -> np.ndarray:
    """A picture as stored (palette indices as such)."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image)


def object_in_npy(path: Path) -> Any:
    """The one Python object in an .npy file, read without unpickling: nothing that the file names is looked up or called.

    Knows numpy arrays of plain numbers, and dicts, lists and tuples of them and of plain values; fails on whatever else there is.
    """
    with open(path, "rb") as handle:
        assert np.lib.format.read_magic(handle) == (1, 0)
        assert np.lib.format.read_array_header_1_0(handle) == ((), False, np.dtype(object))
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[int, Any] = {}
        for operation, value, _ in pickletools.genops(handle):
            name = operation.name
            if name in ("PROTO", "FRAME", "STOP"):
                continue
            if name in ("BININT", "BININT1", "BININT2", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "GLOBAL"):
                stack.append(value)
            elif name in ("NONE", "NEWTRUE", "NEWFALSE", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT"):
                made = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "EMPTY_LIST": [], "EMPTY_DICT": {}}
                stack.append(made[name])
            elif name in ("MEMOIZE", "BINPUT"):
                memo[len(memo) if value is None else value] = stack[-1]
            elif name == "BINGET":
                stack.append(memo[value])
            elif name == "MARK":
                marks.append(len(stack))
            else:
                known = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "STACK_GLOBAL": 2, "REDUCE": 2, "BUILD": 1, "APPEND": 1}
                begin = len(stack) - known[name] if name in known else marks.pop()
                taken = stack[begin:]
                del stack[begin:]
                if name.startswith("TUPLE"):
                    stack.append(tuple(taken))
                elif name == "STACK_GLOBAL":
                    stack.append(" ".join(taken))
                elif name == "SETITEMS":
                    stack[-1].update(zip(taken[::2], taken[1::2], strict=True))
                elif name == "APPEND":
                    stack[-1].append(taken[0])
                elif name == "REDUCE":
                    stack.append(_numpy_thing(*taken))
                else:
                    assert name == "BUILD", name
                    if isinstance(stack[-1], np.ndarray):
                        stack[-1].__setstate__(taken[0])
    (array,) = stack
    return array.item()


def _numpy_thing(what: str, arguments: tuple[Any, ...]) -> np.ndarray | np.dtype:
    """What numpy pickles an array or its type as, before its state is set."""
    if what == "numpy dtype":
        return np.dtype(arguments[0])
    assert what in ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"), what
    assert arguments == ("numpy ndarray", (0,), b"b")
    return np.empty(0, np.int8)
