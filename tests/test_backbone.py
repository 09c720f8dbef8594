"""The embedded backbone: blocks some rows at a time give what the whole gives."""

from __future__ import annotations

import numpy as np
import pytest

from segmotion_plugin.semantics import efficientnet
from segmotion_plugin.semantics.efficientnet import CHANNELS, EfficientNetLite0


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    return EfficientNetLite0()


def picture(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(336, 192), (192, 336), (330, 200)])
def test_strips_of_any_height_give_what_the_whole_gives(
    network: EfficientNetLite0, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = picture(*size)
    found = []
    for values in (2**40, 2**20, 2**17, 1):
        monkeypatch.setattr(efficientnet, "_STRIP", values)
        found.append(network(frame))
    assert found[0].shape == (*network.output_shape(*size), CHANNELS)
    scale = np.abs(found[0]).max()
    for other in found[1:]:
        assert np.allclose(found[0], other, atol=1e-5 * scale)


def test_a_place_is_told_by_its_surroundings_only(network: EfficientNetLite0) -> None:
    frame = picture(336, 192)
    changed = frame.copy()
    changed[:, 300:] = 0
    first, second = network(frame), network(changed)
    columns = first.shape[1]
    assert np.array_equal(first[:, : columns // 4], second[:, : columns // 4])
    assert not np.allclose(first[:, -4:], second[:, -4:])
