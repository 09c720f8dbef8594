"""Arrays of one shape, one per frame, in a plain file: any of them is a seek away and memory stays flat in the length of a clip."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np


class RawStore:
    """A file of equally shaped arrays; threads may read it at the same time.

    Attributes:
        shape: of each array.
        dtype: of each array in the file. What is stored as float16 comes back as float32.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: type | np.dtype) -> None:
        self.path, self.shape, self.dtype = Path(path), shape, np.dtype(dtype)
        self._bytes = int(np.prod(shape)) * self.dtype.itemsize
        self._lock = threading.Lock()
        self._handle = open(self.path, "r+b" if self.path.exists() else "w+b")

    def __len__(self) -> int:
        self._handle.flush()
        return os.fstat(self._handle.fileno()).st_size // self._bytes

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index:
            raise IndexError(index)
        array = np.empty(self.shape, self.dtype)
        with self._lock:
            self._handle.seek(index * self._bytes)
            count = self._handle.readinto(array.reshape(-1).view(np.uint8).data)
        if count < self._bytes:
            raise IndexError(index)
        return _widened(array) if self.dtype == np.float16 else array

    def __setitem__(self, index: int, array: np.ndarray) -> None:
        array = _narrowed(array) if self.dtype == np.float16 else np.ascontiguousarray(array, self.dtype)
        with self._lock:
            self._handle.seek(index * self._bytes)
            self._handle.write(array.tobytes())

    def flush(self) -> None:
        """Push everything written to the file."""
        self._handle.flush()

    def close(self) -> None:
        """Close the file."""
        self._handle.close()


# numpy converts half floats one by one, torch many at a time; the results are the same.


def _widened(array: np.ndarray) -> np.ndarray:
    """float32 of a float16 array."""
    import torch

    return torch.from_numpy(array).float().numpy()


def _narrowed(array: np.ndarray) -> np.ndarray:
    """Contiguous float16 of an array."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(array, np.float32)).half().numpy()
