"""Writing exports: a destination that appears whole or not at all, hard links, and arrays streamed into npz files."""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.ownership import contains, staged_folder

RECORD = "segmotion_export.json"


@contextlib.contextmanager
def destination(dest: Path, out: Path, overwrite: bool) -> Iterator[Path]:
    """Give an empty folder beside `dest` that takes its place when the block ends without an error.

    Args:
        dest: where the export shall lie.
        out: the processed folder that is exported.
        overwrite: replace an earlier export.

    Raises:
        SegmotionError: `dest` has content, or lies in `out` or around it.
    """
    if contains(out, dest) or contains(dest, out):
        raise SegmotionError(f"{dest}: an export cannot lie in the processed folder or around it; give another destination")
    with staged_folder(dest, overwrite) as folder:
        yield folder


def link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it where the file system cannot."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def unique(names: Iterable[tuple[str, str]], what: str) -> None:
    """Raise SegmotionError where two files would get one name.

    Args:
        names: pairs of the name before and the name after renaming.
        what: what is renamed, for the message.
    """
    first: dict[str, str] = {}
    for before, after in names:
        # File systems that ignore case would let one file replace another.
        key = after.lower()
        if key in first:
            raise SegmotionError(f"{what}: {first[key]} and {before} would both be called {after}; rename one of the sources")
        first[key] = before


def array_bytes(values: np.ndarray) -> bytes:
    """An array as the bytes of an npy file; much faster than `np.save` for many small ones."""
    values = np.ascontiguousarray(values)
    shape = f"({', '.join(map(str, values.shape))}{',' if values.ndim == 1 else ''})"
    header = f"{{'descr': {values.dtype.str!r}, 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode("latin1") + values.tobytes()


def save_array(path: Path, values: np.ndarray) -> None:
    """Write an npy file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(array_bytes(values))


class NpzStream:
    """An npz file that is written array by array, and large arrays slice by slice, so that nothing is held in memory at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True)

    def __enter__(self) -> NpzStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._zip.close()

    def add(self, key: str, values: np.ndarray) -> None:
        """Write one array."""
        self._zip.writestr(f"{key}.npy", array_bytes(values))

    def add_slices(self, key: str, slices: Iterable[np.ndarray], shape: tuple[int, ...], dtype: np.dtype | type) -> None:
        """Write an array of this shape from its slices along the first axis."""
        dtype = np.dtype(dtype)
        written = 0
        with self._zip.open(f"{key}.npy", "w", force_zip64=True) as handle:
            header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(handle, header)
            for part in slices:
                if part.shape != shape[1:]:
                    raise ValueError(f"{key}: slice {written} has shape {part.shape}, expected {shape[1:]}")
                handle.write(np.ascontiguousarray(part, dtype).tobytes())
                written += 1
        if written != shape[0]:
            raise ValueError(f"{key}: {written} slices were given, {shape[0]} are needed")
