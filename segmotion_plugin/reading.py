"""What comes from files is checked where it is read: shapes of JSON, names that become paths, sizes before memory is taken."""

from __future__ import annotations

import os
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path, PureWindowsPath
from typing import Any, TypeVar

import msgspec
import numpy as np
from typing_extensions import NotRequired, TypedDict

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import read_json

_Shape = TypeVar("_Shape")

MOST_PIXELS = 400_000_000
"""Of one picture; a larger one is refused before memory is taken for it (20,000 × 20,000; three bytes each, and copies)."""
MOST_OBSERVATIONS = 200_000_000
"""Tracks times frames of a track file; some 10 GB are taken while it is read."""

UNREADABLE = (
    *(OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, SyntaxError, RuntimeError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error, struct.error),
)
"""What numpy and the parts below it raise for npy and npz files that are damaged."""


class ImageEntry(TypedDict):
    """One image in `motion/frames.json`."""

    name: str
    source: str
    number: int
    frame: int
    time: float | None


class FramesFile(TypedDict):
    """`motion/frames.json`."""

    fps: float | None
    frame_count: int
    shots: list[tuple[int, int]]
    images: list[ImageEntry]
    pixel_aspect: NotRequired[float]


def checked(value: Any, shape: type[_Shape], where: Path | str, advice: str) -> _Shape:
    """A plain value as a type says that it should be.

    Raises:
        SegmotionError: names the place in the value that is otherwise.
    """
    try:
        return msgspec.convert(value, shape, strict=True)
    except msgspec.ValidationError as error:
        raise SegmotionError(f"{where}: {error}; {advice}") from None


def read_checked(path: Path | str, shape: type[_Shape], advice: str) -> _Shape:
    """Read a JSON file of a known shape.

    Args:
        path: the file.
        shape: what it should hold (a `TypedDict`, `dict[str, Any]` …); further keys are allowed.
        advice: what to do about a file that is otherwise.

    Raises:
        SegmotionError: no such file, no JSON, or of another shape.
    """
    try:
        value = read_json(path)
    except FileNotFoundError:
        raise SegmotionError(f"{path}: no such file; {advice}") from None
    except ValueError as error:
        raise SegmotionError(f"{path}: not a readable JSON file ({error}); {advice}") from None
    return checked(value, shape, path, advice)


def inside(folder: Path | str, name: Any, where: Path | str) -> Path:
    """`folder`/`name` for a name that comes from a file and must not lead out of the folder.

    Links within the folder are the user's own affair: only the name is looked at, as any system would read it.

    Args:
        folder: where the name belongs.
        name: of a file or folder, with sub-folders.
        where: the file it was read from, for the message.

    Raises:
        SegmotionError: no text, empty, absolute, or with `..` that leads out.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise SegmotionError(f"{where}: {name!r} is no name of a file")
    windows = PureWindowsPath(name)
    outside = os.path.normpath(name.replace("\\", "/")).split("/")[0] == ".."
    if Path(name).is_absolute() or windows.is_absolute() or windows.drive or windows.root or outside:
        raise SegmotionError(f"{where}: the name {name!r} leads out of its folder, so nothing is read or written there")
    return Path(folder) / name


def read_arrays(path: Path | str, what: str, advice: str) -> dict[str, np.ndarray]:
    """All arrays of an npz file; nothing is unpickled.

    Raises:
        SegmotionError: no npz file, or a damaged one.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            return {key: data[key] for key in data.files}
    except UNREADABLE as error:
        raise SegmotionError(f"{path}: not a readable {what} ({error}); {advice}") from None


def npz_shapes(path: Path | str) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of an npz file, from their headers alone.

    Raises:
        ValueError, OSError, zipfile.BadZipFile: no such file.
    """
    shapes = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as handle:
                version = np.lib.format.read_magic(handle)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shapes[name.removesuffix(".npy")] = tuple(int(length) for length in read(handle)[0])
    return shapes


def check_pixels(width: int, height: int, where: Path | str) -> None:
    """Stop where a picture is too large to be read.

    Raises:
        SegmotionError: tells how large it is.
    """
    if width * height > MOST_PIXELS:
        raise SegmotionError(f"{where}: {width}×{height} pixels are more than can be read ({MOST_PIXELS:.0e}); make it smaller")
