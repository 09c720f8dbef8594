"""Whether pictures allow that clusters of tracks stand still: worlds of bright spots seen by a moving camera."""

from __future__ import annotations

import numpy as np
import pytest
from support_street import SIZE, street, tracked, whole

from segmotion_plugin.motion.cluster_channels import CHANNELS, POOLED, describe
from segmotion_plugin.motion.clusters import Block
from segmotion_plugin.motion.rigidity import Rigidity
from segmotion_plugin.motion.sweep import SWEPT, Sweep, sweep

_SPOT = 2.5  # pixels


def pictures(xy: np.ndarray, seed: int = 0) -> np.ndarray:
    """T×H×W uint8: a spot of its own brightness at every point."""
    rng = np.random.default_rng(seed)
    bright = rng.uniform(60, 120, len(xy)) * rng.choice([-1, 1], len(xy))
    out = np.full((xy.shape[1], SIZE[1], SIZE[0]), 128.0)
    for amount, path in zip(bright, xy, strict=True):
        for image, (x, y) in zip(out, path, strict=True):
            left, top = int(x) - 8, int(y) - 8
            if 0 <= left < SIZE[0] - 16 and 0 <= top < SIZE[1] - 16:
                across = np.exp(-(((np.arange(left, left + 16) + 0.5 - x) / _SPOT) ** 2) / 2)
                down = np.exp(-(((np.arange(top, top + 16) + 0.5 - y) / _SPOT) ** 2) / 2)
                image[top : top + 16, left : left + 16] += amount * np.outer(down, across)
    return np.clip(out, 0, 255).astype(np.uint8)


def led(xy: np.ndarray, some: np.ndarray, down: float) -> np.ndarray:
    """N×T×2 positions, some of them that many pixels farther down with every frame."""
    return xy + some[:, None, None] * np.arange(xy.shape[1])[None, :, None] * np.array([0.0, down])


def swept(found: np.ndarray, kind: np.ndarray, shown: np.ndarray) -> tuple[Sweep, list[dict[str, float]]]:
    """Channels of the pole and of the ball from tracks that were found in pictures."""
    tracks = tracked(found)
    block = Block(tracks, SIZE, 0, tracks.num_frames)
    fitted = Rigidity(block, np.where(kind == 0, -3.0, 1.0)).fitted
    assert fitted is not None
    looked = sweep(block, fitted, np.flatnonzero(kind > 0), shown)
    return looked, [dict(zip(SWEPT, row, strict=True)) for row in looked.channels([whole(kind == 1), whole(kind == 2)]).tolist()]


def test_pictures_allow_that_a_pole_stands_still_and_not_that_a_ball_does() -> None:
    xy, kind = street(noise=0.0)
    xy = led(xy, kind == 2, 3.0)
    _, (pole, ball) = swept(xy, kind, pictures(xy))
    assert pole["still places against tracks"] < 0.15
    assert ball["still places against tracks"] > 0.5
    assert pole["contrast of depths"] > 0.5


def test_tracks_that_slide_along_a_pole_do_not_make_it_move() -> None:
    xy, kind = street(noise=0.0)
    looked, (pole, _) = swept(led(xy, kind == 1, 0.8), kind, pictures(xy))
    _, (right, _) = swept(xy, kind, pictures(xy))
    assert pole["still places against tracks"] < -0.3
    assert pole["mismatch along tracks"] > right["mismatch along tracks"] + 0.5
    assert (looked.frames > 0).all()


def test_colour_or_grey_tell_the_same() -> None:
    xy, kind = street(noise=0.0)
    grey = pictures(xy)
    one, other = swept(xy, kind, grey)[0], swept(xy, kind, np.repeat(grey[..., None], 3, axis=3))[0]
    np.testing.assert_allclose(one.still, other.still, atol=0.5)


def test_exposure_does_not_count() -> None:
    xy, kind = street(noise=0.0)
    shown = pictures(xy) // 2 + 40
    brighter = (shown + (2 * np.arange(len(shown)))[:, None, None]).astype(np.uint8)
    one, other = swept(xy, kind, shown)[0], swept(xy, kind, brighter)[0]
    np.testing.assert_allclose(one.along, other.along, atol=0.05)


def test_without_pictures_or_cameras_nothing_is_known() -> None:
    xy, kind = street()
    tracks = tracked(xy)
    block, found = Block(tracks, SIZE, 0, tracks.num_frames), [whole(kind == 1)]
    pooled = {name: np.full(len(tracks), np.nan) for name in POOLED}
    columns = [CHANNELS.index(name) for name in SWEPT]
    for logit, shown in ((np.where(kind == 0, -3.0, 1.0), None), (np.full(len(kind), 3.0), pictures(xy))):
        channels = describe(block, found, 0.0, logit, pooled, Rigidity(block, logit), shown)
        assert np.isnan(channels[:, columns]).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_the_tracks_does_not_matter(seed: int) -> None:
    xy, kind = street(noise=0.0)
    order = np.random.default_rng(seed).permutation(len(xy))
    first, second = swept(xy, kind, pictures(xy))[1], swept(xy[order], kind[order], pictures(xy))[1]
    for one, other in zip(first, second, strict=True):
        assert list(one.values()) == pytest.approx(list(other.values()), abs=0.02)
