"""How clusters hold together, part from their neighbours, end and shake; and clusters within bounds of nearness."""

from __future__ import annotations

import numpy as np
import pytest

from segmotion_plugin.motion.clusters import Block, Cluster, clusters, neighbours
from segmotion_plugin.motion.cohesion import HELD, Cohesion
from segmotion_plugin.tracks import Tracks

SIZE = (480, 270)
FRAMES = 24


def world(swing: float = 0.0, shake: float = 0.0, dies: int = FRAMES, unit: float = 1.0) -> tuple[Tracks, np.ndarray]:
    """A grid under a panning camera, and which of its points are a body of two rows that walks to the right.

    Args:
        swing: pixels to which the body's rows swing against each other.
        shake: pixels to which all of it bobs from frame to frame.
        dies: frame from which on the body is not seen.
        unit: pixels per pixel.
    """
    x, y = np.meshgrid(np.arange(5, SIZE[0], 10.0), np.arange(5, SIZE[1], 10.0))
    place = np.stack([x.ravel(), y.ravel()], axis=1)
    body = np.all((place > (200, 100)) & (place < (240, 120)), axis=1)
    lower = body & (place[:, 1] > 110)
    time = np.arange(FRAMES)
    xy = place[:, None] + time[None, :, None] * np.array([0.6, 0.2]) + body[:, None, None] * time[None, :, None] * np.array([1.5, 0.0])
    xy[..., 0] += swing * np.sin(0.8 * time)[None] * np.where(lower, 1.0, np.where(body, -1.0, 0.0))[:, None]
    xy[..., 1] += shake * (-1.0) ** time[None] * body[:, None]
    visible = ~body[:, None] | (time < dies)[None]
    return Tracks.from_dense((unit * xy).astype(np.float32), visible), body


def whole(body: np.ndarray) -> Cluster:
    return Cluster(np.flatnonzero(body), 0.0, 0.7, FRAMES * int(body.sum()), 0.01, 0, FRAMES - 1, FRAMES)


def held(tracks: Tracks, body: np.ndarray, size: tuple[int, int] = SIZE) -> dict[str, float]:
    block = Block(tracks, size, 0, FRAMES)
    row = Cohesion(block, neighbours(block, np.zeros(len(tracks)))).channels([whole(body)])[0]
    return dict(zip(HELD, row.tolist(), strict=True))


def test_a_rigid_body_holds_together_and_parts_from_its_neighbours() -> None:
    values = held(*world())
    for name in ("parting within, mean", "parting within, high"):
        assert values[name] == pytest.approx(np.log(0.02), abs=0.05)
    assert values["drift within, mean"] == pytest.approx(np.log(0.01), abs=0.05)
    # It gains 1.5 pixels per frame on its neighbours, which are ten pixels apart.
    assert values["parting from neighbours, mean"] == pytest.approx(np.log(0.6 + 0.02), abs=0.05)
    assert values["drift from neighbours"] == pytest.approx(np.log(0.6 + 0.01), abs=0.05)
    assert values["parting from neighbours, little"] == 0.0
    assert all(np.isfinite(value) for value in values.values())


def test_limbs_that_swing_part_and_shake() -> None:
    still, walking = held(*world()), held(*world(swing=4.0))
    for name in ("parting within, mean", "parting within, high", "shaking, 1 frame", "most shaking, 3 frames"):
        assert walking[name] > still[name] + 1.0, name


def test_what_bobs_shakes_against_its_neighbours_but_stays_together() -> None:
    still, bobbing = held(*world()), held(*world(shake=1.0))
    assert bobbing["shaking, 1 frame"] > still["shaking, 1 frame"] + 3.0
    assert bobbing["shaking against neighbours"] > still["shaking against neighbours"] + 3.0
    assert bobbing["parting within, mean"] == pytest.approx(still["parting within, mean"], abs=0.05)


def test_tracks_that_end_in_the_picture_count_and_those_that_leave_it_do_not() -> None:
    tracks, body = world(dies=12)
    xy, visible = tracks.xy.copy(), tracks.visible.copy()
    visible[::3, 20:] &= body[::3, None]  # some of the others end and start, too
    visible[1::3, :4] &= body[1::3, None]
    values = held(Tracks.from_dense(xy, visible), body)
    assert values["ends of tracks"] > 1.0 > -0.5 > values["starts of tracks"]
    assert values["length of neighbours"] == pytest.approx(np.log(20 / 12), abs=0.1)
    xy[body, :12, 0] += SIZE[0] - 234  # the same beside the border
    assert held(Tracks.from_dense(xy, visible), body)["ends of tracks"] < -0.5


def test_channels_depend_neither_on_the_order_of_tracks_nor_on_the_size_of_images() -> None:
    tracks, body = world(swing=3.0, shake=0.5, dies=20)
    first = held(tracks, body)
    order = np.random.default_rng(0).permutation(len(tracks))
    assert held(tracks.select(order), body[order]) == pytest.approx(first, nan_ok=True)
    larger = world(swing=3.0, shake=0.5, dies=20, unit=2.0)
    assert held(*larger, size=(2 * SIZE[0], 2 * SIZE[1])) == pytest.approx(first, abs=2e-3, nan_ok=True)


def test_a_lonely_cluster_has_no_links() -> None:
    tracks, body = world()
    block = Block(tracks.select(np.flatnonzero(body)[[0, 5]]), SIZE, 0, FRAMES)
    nothing = np.zeros((0, 2), np.int64), np.zeros(0)
    row = dict(zip(HELD, Cohesion(block, nothing).channels([whole(np.ones(2, bool))])[0].tolist(), strict=True))
    assert np.isnan(row["parting within, mean"]) and np.isnan(row["length of neighbours"])
    assert np.isfinite(row["shaking, 1 frame"])


def test_what_parts_little_from_what_lies_behind_it_is_a_cluster_for_its_nearness() -> None:
    tracks, body = world()
    xy = tracks.xy.copy()
    xy[body, :, 0] -= np.arange(FRAMES) * 1.45  # hardly moves against the rest
    block = Block(Tracks.from_dense(xy, tracks.visible), SIZE, 0, FRAMES)
    beside = np.roll(body, 3) & ~body  # equally likely, just beside it
    score = np.where(body | beside, -1.0, -3.0)
    level = np.where(body, 0.5, 0.0)

    def alone(nearness: np.ndarray | None) -> bool:
        wanted = np.flatnonzero(body).tolist()
        return any(cluster.members.tolist() == wanted for cluster in clusters(block, score, nearness=nearness))

    assert alone(level) and not alone(None)
    assert not alone(np.full(len(body), np.nan))
