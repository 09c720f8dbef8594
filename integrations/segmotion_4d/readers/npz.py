"""Arrays in an npz file, or in the one npz file of a folder that holds them; nothing is unpickled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.reading import UNREADABLE


def read_npz(path: Path, keys: Sequence[str]) -> tuple[Path, dict[str, np.ndarray]]:
    """Read some arrays.

    Args:
        path: the file, or a folder in which exactly one npz file holds all the keys.
        keys: names of the arrays.

    Returns:
        The file, and its arrays by name.

    Raises:
        SegmotionError: no such file, several, or arrays that are missing.
    """
    path = Path(path)
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    fitting = [file for file in files if set(keys) <= _names(file)]
    if len(fitting) != 1:
        wanted = f"an npz file with {', '.join(keys)}"
        problem = f"this is not {wanted}" if path.is_file() else f"holds {len(fitting)} files that are {wanted}; give the file"
        raise SegmotionError(f"{path}: {problem if path.exists() else 'no such file or folder'}")
    try:
        with np.load(fitting[0], allow_pickle=False) as data:
            return fitting[0], {key: data[key] for key in keys}
    except UNREADABLE as error:
        raise SegmotionError(f"{fitting[0]}: not a readable npz file ({error})") from None


def _names(file: Path) -> set[str]:
    try:
        with np.load(file, allow_pickle=False) as data:
            return set(getattr(data, "files", []))
    except UNREADABLE:
        return set()
