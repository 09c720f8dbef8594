"""Arrays by frame in a file: what comes back, and what is not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segmotion_plugin.rawstore import RawStore


def test_half_floats_are_rounded_as_numpy_rounds_them_and_come_back_wide(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(5, 200)) * np.exp(rng.uniform(-20, 10, (5, 200)))).astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    store = RawStore(tmp_path / "half.raw", values.shape, np.float16)
    store[0] = values
    assert store[0].dtype == np.float32
    np.testing.assert_array_equal(store[0], values.astype(np.float16).astype(np.float32))
    assert (tmp_path / "half.raw").stat().st_size in (0, 2 * values.size)  # not flushed, or half floats
    store.flush()
    assert (tmp_path / "half.raw").stat().st_size == 2 * values.size


def test_arrays_are_kept_by_frame_and_read_from_another_store(tmp_path: Path) -> None:
    store = RawStore(tmp_path / "frames.raw", (4, 6, 3), np.uint8)
    frames = np.random.default_rng(1).integers(0, 255, (3, 4, 6, 3), dtype=np.uint8)
    for index in (2, 0, 1):
        store[index] = frames[index]
    assert len(store) == 3
    store.close()
    again = RawStore(tmp_path / "frames.raw", (4, 6, 3), np.uint8)
    for index in range(3):
        assert again[index].dtype == np.uint8
        np.testing.assert_array_equal(again[index], frames[index])


@pytest.mark.parametrize("index", [-1, 1, 7])
def test_what_was_not_stored_is_an_index_error(tmp_path: Path, index: int) -> None:
    store = RawStore(tmp_path / "frames.raw", (4, 6), np.uint8)
    store[0] = np.ones((4, 6), np.uint8)
    with pytest.raises(IndexError):
        store[index]
