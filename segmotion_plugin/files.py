"""Atomic writing of files: a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


def umask() -> int:
    """The process's mask of permissions, which can only be asked for by setting it; for files that `tempfile` made for us alone."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place when the block ends without an error.

    The temporary name keeps the suffix, so writers that choose a format by suffix work.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())  # without it a power cut can leave an empty file under the new name


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NumPy scalars and arrays become numbers and lists."""

    def plain(item: Any) -> Any:
        if isinstance(item, np.generic):
            return item.item()
        if isinstance(item, np.ndarray):
            return item.tolist()
        if isinstance(item, Path):
            return str(item)
        raise TypeError(f"cannot write {type(item).__name__} as JSON")

    write_text(path, json.dumps(value, indent=2, default=plain) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: it is none, not UTF-8, or nested too deep.
        OSError: it cannot be read.
    """
    try:
        return json.loads(Path(path).read_bytes().decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deep") from None


def write_png(path: Path | str, image: np.ndarray, *copies: Path | str, compression: int = 3) -> None:
    """Write an H×W (grey), H×W×3 (RGB) or H×W×4 (RGBA) uint8 or uint16 array as PNG, atomically, encoded once for all the files."""
    import cv2

    if image.ndim == 3:
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]
    ok, data = cv2.imencode(".png", np.ascontiguousarray(image), [cv2.IMWRITE_PNG_COMPRESSION, compression])
    if not ok:
        raise OSError(f"{path}: the image could not be encoded as PNG")
    for target in (path, *copies):
        with atomic_path(target) as temporary:
            temporary.write_bytes(data.tobytes())


def write_npz(path: Path | str, **arrays: np.ndarray) -> None:
    """Write compressed arrays atomically."""
    with atomic_path(Path(path).with_suffix(".npz")) as temporary:
        with open(temporary, "wb") as handle:
            np.savez_compressed(handle, **arrays)  # type: ignore[arg-type]
