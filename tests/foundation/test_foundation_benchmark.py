"""The benchmark of the adapters: every adapter runs, frames come on demand, trackers come from a checkout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segmotion_plugin.foundation_benchmark import ADAPTERS, Noise, adapters, measure

_STAND_IN = Path(__file__).resolve().parents[1] / "cotracker_stand_in"


@pytest.fixture(autouse=True)
def threads() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", [*(name for name in ADAPTERS if name != "sam2.1-tiny"), "cotracker3-online"])
def test_an_adapter_takes_time_and_memory(name: str) -> None:
    found = measure(adapters(_STAND_IN)[name], [2, 3], cut_down=True)
    assert len(found) == 2 and all(seconds > 0 for seconds, _ in found)
    assert 0.05 < found[0][1] <= found[1][1] < 8


def test_frames_are_made_anew_and_differ() -> None:
    frames = Noise(3, 20, 30)
    assert len(list(frames)) == 3 and frames[1].shape == (20, 30, 3)
    np.testing.assert_array_equal(frames[2], frames[2])
    assert frames[2] is not frames[2] and not np.array_equal(frames[0], frames[1])


def test_trackers_are_those_of_the_checkout(tmp_path: Path) -> None:
    assert set(adapters(_STAND_IN)) - set(ADAPTERS) == {"cotracker3", "cotracker3-online"}
    assert set(adapters(tmp_path)) - set(ADAPTERS) == {"bootstapir"}
