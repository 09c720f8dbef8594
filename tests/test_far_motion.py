"""Motion that is too far for the flow alone is followed from matches of features; whatever was followed well stays as it is."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from segmotion_plugin.trackers import dis
from segmotion_plugin.trackers.far import beginnings, lost, pans, round_trip

_WIDTH, _HEIGHT, _CELL = 640, 360, 8


def texture(seed: int, channels: int, rough: float) -> np.ndarray:
    """H×W×C smooth noise between 0 and 255 on a canvas twice as wide as the pictures."""
    noise = np.random.default_rng(seed).normal(size=(_HEIGHT, 2 * _WIDTH, channels)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), rough).reshape(noise.shape)
    return np.clip(128 + 50 * smooth / smooth.std(), 0, 255).astype(np.float32)


def scene(shift: int, pan: int, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Two frames in which a disc of 48 pixels jumps to the right before a panning wall, their features, and the disc in the first."""
    frames, features = [], []
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    for step in (0, 1):
        disc = (x - 200 - step * shift) ** 2 + (y - 180) ** 2 < 24**2
        layers = []
        for channels, rough in ((3, 2.0), (12, 10.0)):
            wall = texture(seed, channels, rough)[:, step * pan : step * pan + _WIDTH]
            thing = np.roll(texture(seed + 1, channels, rough), step * shift, axis=1)[:, :_WIDTH]
            layers.append(np.where(disc[..., None], thing, wall))
        frames.append(layers[0].astype(np.uint8))
        cells = cv2.resize(layers[1], (_WIDTH // _CELL, _HEIGHT // _CELL), interpolation=cv2.INTER_AREA)
        features.append((cells - 128) / 50)
    return frames, features, (x - 200) ** 2 + (y - 180) ** 2 < 20**2


def right(tracks, step: tuple[float, float], where: np.ndarray) -> float:
    """Share of the points that begin in a region which are within a pixel of where it went."""
    begun = np.flatnonzero(tracks.first == 0)
    xy = tracks.xy[begun]
    inside = where[np.floor(xy[:, 0, 1]).astype(int), np.floor(xy[:, 0, 0]).astype(int)]
    followed = np.linalg.norm(xy[:, 1] - xy[:, 0] - step, axis=1) < 1
    # Points without a second observation are not in the tracks at all.
    return float((inside & followed).sum() / (where.sum() / 8**2))


@pytest.mark.parametrize("shift", [90, -120])
def test_a_small_thing_that_jumps_is_followed_with_features(shift: int) -> None:
    frames, features, disc = scene(shift, pan=3)
    assert right(dis.track(frames, spacing=8), (shift, 0), disc) < 0.2
    assert right(dis.track(frames, spacing=8, features=features), (shift, 0), disc) > 0.5


def test_what_comes_home_stays_as_it_is() -> None:
    frames, features, _ = scene(2, pan=3)
    plain, described = dis.track(frames), dis.track(frames, features=features)
    np.testing.assert_array_equal(plain.xy_flat, described.xy_flat)
    np.testing.assert_array_equal(plain.offset, described.offset)


def test_features_without_places_change_nothing() -> None:
    frames, _, _ = scene(90, pan=3)
    nothing = [np.zeros((1, 1, 1), np.float16)] * 2
    np.testing.assert_array_equal(dis.track(frames).xy_flat, dis.track(frames, features=nothing).xy_flat)


def test_what_leaves_the_picture_is_not_lost() -> None:
    flow = np.zeros((20, 30, 2), np.float32)
    flow[..., 0] = 10
    grey = np.full((20, 30), 90, np.uint8)
    gone = lost((grey, grey), (flow, np.zeros_like(flow)), 0.5)
    assert gone[:, :19].all() and not gone[:, 20:].any()
    assert not lost((grey, grey), (flow, -flow), 0.5).any()


def test_what_looks_different_where_it_is_led_is_lost() -> None:
    still = np.zeros((20, 30, 2), np.float32)
    first = np.full((20, 30), 90, np.uint8)
    second = first.copy()
    second[:, 15:] = 160
    gone = lost((first, second), (still, still), 0.5)
    assert gone[:, 18:].all() and not gone[:, :12].any()


def test_a_round_trip_may_miss_by_more_where_it_is_long() -> None:
    step = np.array([[3.0, 4.0], [30.0, 40.0]])
    missed, allowed = round_trip(step, -step + [[0.0, 1.0]], 0.5)
    np.testing.assert_allclose(missed, 1.0)
    assert allowed[0] == pytest.approx(0.5 + 0.01 * (25 + 18)) and missed[0] > allowed[0] and missed[1] < allowed[1]


def jump(seed: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Two pictures between which a square of four cells jumps by six cells to the right and two down, their features, what is lost."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, 20, 30, 8)).astype(np.float32)
    second[6:12, 9:15] = first[4:10, 3:9]
    before, after = (texture(seed + k, 1, 6.0)[:160, :240, 0].astype(np.uint8) for k in (0, 1))
    after[48:96, 72:120] = before[32:80, 24:72]
    gone = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    gone[0][5:9, 4:8], gone[1][7:11, 10:14] = True, True
    return (before, after), (first, second), gone


def test_matches_lead_from_each_frame_to_the_other() -> None:
    images, features, gone = jump(3)
    still = np.zeros((160, 240, 2), np.float32)
    found = beginnings(images, (still, still.copy()), gone, features)
    assert found is not None
    np.testing.assert_array_equal(found[0].where[5:9, 4:8], True)
    np.testing.assert_allclose(found[0].flow[7, 6], [6, 2])
    np.testing.assert_allclose(found[1].flow[9, 12], [-6, -2])
    assert not still.any() and found[0].where.sum() <= 36


def test_matches_that_the_pictures_do_not_confirm_are_dropped() -> None:
    (before, _), features, gone = jump(3)
    still = np.zeros((160, 240, 2), np.float32)
    # The features match as before, but nothing in the picture jumped: the flow explains it perfectly.
    assert beginnings((before, before), (still, still.copy()), gone, features) is None


@pytest.mark.parametrize("shift", [(23, -9), (-40, 14), (0, 0)])
def test_pans_are_what_large_parts_of_two_pictures_have_in_common(shift: tuple[int, int]) -> None:
    wall = texture(5, 1, 3.0)[..., 0]
    first, second = wall[60:260, 200:500].copy(), wall[60 - shift[1] : 260 - shift[1], 200 - shift[0] : 500 - shift[0]].copy()
    # What the camera follows stays where it is.
    first[80:140, 120:180] = second[80:140, 120:180] = texture(6, 1, 3.0)[:60, :60, 0]
    assert {shift, (0, 0)} <= {tuple(found) for found in pans(first, second, 2).tolist()}
    assert {(-shift[0], -shift[1]), (0, 0)} <= {tuple(found) for found in pans(second, first, 2).tolist()}


def test_a_whip_pan_is_followed_around_what_the_camera_follows() -> None:
    pan, (y, x) = 230, np.mgrid[:_HEIGHT, :_WIDTH]
    disc = (x - 320) ** 2 + (y - 180) ** 2 < 60**2
    wall, thing = texture(7, 3, 2.0), texture(8, 3, 2.0)[:, :_WIDTH]
    frames = [np.where(disc[..., None], thing, wall[:, step * pan : step * pan + _WIDTH]).astype(np.uint8) for step in (0, 1)]
    # Features of nothing: only what the pictures have in common can tell.
    features = [np.zeros((_HEIGHT // _CELL, _WIDTH // _CELL, 2), np.float32)] * 2
    beside = (x > pan + 20) & ~((x - 320) ** 2 + (y - 180) ** 2 < 80**2)
    assert right(dis.track(frames, spacing=8), (-pan, 0), beside) < 0.3
    tracks = dis.track(frames, spacing=8, features=features)
    assert right(tracks, (-pan, 0), beside) > 0.6
    assert right(tracks, (0, 0), (x - 320) ** 2 + (y - 180) ** 2 < 50**2) > 0.8
