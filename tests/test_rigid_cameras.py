"""Cameras from tracks alone, and whether clusters of tracks are rigid with the world they show."""

from __future__ import annotations

import numpy as np
import pytest
from support_street import FOCAL, FRAMES, SIZE, street, tracked, whole

from segmotion_plugin.motion.cluster_channels import CHANNELS
from segmotion_plugin.motion.cluster_model import Judged, Verdicts, _settled
from segmotion_plugin.motion.clusters import Block
from segmotion_plugin.motion.depth_order import depth_order
from segmotion_plugin.motion.rigid_cameras import solve
from segmotion_plugin.motion.rigidity import RIGID, Rigidity, misfit
from segmotion_plugin.tracks import Tracks


def channels(tracks: Tracks, kind: np.ndarray, logit: np.ndarray) -> list[dict[str, float]]:
    found = Rigidity(Block(tracks, SIZE, 0, FRAMES), logit).channels([whole(kind == 1), whole(kind == 2)])
    return [dict(zip(RIGID, row, strict=True)) for row in found.tolist()]


def test_focal_length_and_places_are_found_from_tracks() -> None:
    xy, kind = street()
    tracks = tracked(xy)
    block = Block(tracks, SIZE, 0, FRAMES)
    cameras = solve(block, np.where(kind == 0, -3.0, 1.0))
    assert cameras is not None and cameras.known.all()
    assert cameras.focal == pytest.approx(FOCAL, rel=0.05)
    row, number, frame = block.rows(np.arange(len(tracks)))
    left = misfit(cameras, block.unit, number, frame, tracks.xy_flat[row], len(tracks))
    long = left.observations >= 12
    assert np.median(left.error[long & (kind < 2)]) < 0.25
    assert np.median(left.error[kind == 2]) > 2
    assert (left.in_front[long & (kind < 2)] == 1).all()


def test_a_pole_is_rigid_with_the_world_and_a_ball_is_not() -> None:
    xy, kind = street()
    pole, ball = channels(tracked(xy), kind, np.where(kind == 0, -3.0, 1.0))
    for name in ("residual to cameras", "residual of median motion"):
        assert pole[name] < 0.4 < 1.5 < ball[name], name


def test_tracks_that_slide_along_a_pole_cancel_in_their_median_motion() -> None:
    xy, kind = street()
    xy[kind == 1, :, 1] += np.linspace(-0.4, 0.4, 14)[:, None] * np.arange(FRAMES) * np.sin(np.arange(FRAMES))
    pole, _ = channels(tracked(xy), kind, np.where(kind == 0, -3.0, 1.0))
    assert pole["residual of median motion"] < pole["residual to cameras"] - 0.3
    assert pole["residual to cameras, across"] < pole["residual to cameras"] - 0.3


def test_hidden_observations_do_not_count() -> None:
    xy, kind = street()
    visible = np.random.default_rng(2).random(xy.shape[:2]) > 0.2
    logit = np.where(kind == 0, -3.0, 1.0)
    first = channels(tracked(xy, visible), kind, logit)
    wild = np.where(visible[..., None], xy, np.nan)
    wild[~visible & (np.random.default_rng(3).random(visible.shape) > 0.5)] = 1e4
    second = channels(tracked(np.nan_to_num(wild, nan=-1e4), np.where(visible, True, False)), kind, logit)
    assert second == first


def test_a_camera_that_does_not_move_makes_no_pole_move() -> None:
    xy, kind = street()
    still = np.repeat(xy[:, :1], FRAMES, axis=1) + np.random.default_rng(4).normal(0, 0.1, xy.shape)
    pole, ball = channels(tracked(still), kind, np.where(kind == 0, -3.0, 1.0))
    for row in (pole, ball):
        assert abs(row["residual to cameras"]) < 0.3


def test_nothing_is_known_where_too_little_seems_static() -> None:
    xy, kind = street()
    tracks = tracked(xy)
    assert solve(Block(tracks, SIZE, 0, FRAMES), np.full(len(tracks), 2.0)) is None
    assert np.isnan([list(row.values()) for row in channels(tracks, kind, np.full(len(tracks), 2.0))]).all()


def test_the_order_of_the_tracks_does_not_matter() -> None:
    xy, kind = street()
    logit = np.where(kind == 0, -3.0, 1.0)
    order = np.random.default_rng(5).permutation(len(kind))
    first = channels(tracked(xy), kind, logit)
    second = channels(tracked(xy[order]), kind[order], logit[order])
    for one, other in zip(first, second, strict=True):
        assert list(one.values()) == pytest.approx(list(other.values()), abs=1e-4)


def test_a_large_cluster_that_stays_at_its_places_is_explained_and_a_mover_is_not() -> None:
    xy, kind = street()
    wall = np.zeros(len(kind), bool)
    wall[260:460] = True
    logit = np.where(wall | (kind == 2), 2.0, -3.0)
    rigidity = Rigidity(Block(tracked(xy), SIZE, 0, FRAMES), logit)
    few = np.zeros(len(kind), bool)
    few[260:264] = True
    assert rigidity.explained([whole(wall), whole(kind == 2), whole(few)]).tolist() == [True, False, False]


def test_what_would_have_to_stand_before_everything_else_is_not_explained() -> None:
    # A scooter beside which the camera drives looks like a thing close to the lens, or behind it.
    for depth, plausible in ((1.0, False), (4.0, True), (-1.0, False)):
        middle = np.array([0.6 + 0.12 * depth, 0.1, depth])
        near = middle + np.random.default_rng(8).uniform(-0.08, 0.08, (60, 3)) * [depth, depth, 1]
        xy, kind = street(more=near)
        rigidity = Rigidity(Block(tracked(xy), SIZE, 0, FRAMES), np.where(kind == 3, 2.0, -3.0))
        assert rigidity.explained([whole(kind == 3)]).tolist() == [plausible], depth


def test_a_walker_seems_to_lie_behind_or_before_all_around_it() -> None:
    body = np.array([1.2, 1.1, 8.0]) + np.random.default_rng(9).uniform(-0.2, 0.2, (10, 3))
    # The camera goes by 0.05 a frame: who goes along seems farther, who comes towards it nearer, who stands is where it is.
    for walk, behind, before in ((0.035, True, False), (-0.05, False, True), (0.0, False, False)):
        xy, kind = street(more=body, walk=walk)
        logit = np.where(kind == 0, -3.0, -2.0)
        rigidity = Rigidity(Block(tracked(xy), SIZE, 0, FRAMES), logit)
        told = [float(np.nanmedian(order[kind == 3])) for order in rigidity.order]
        assert [told[0] > 0.2, told[1] > 0.2] == [behind, before], walk
        ground = float(np.percentile(rigidity.doubt[kind == 0], 90))
        assert (np.median(rigidity.doubt[kind == 3]) > ground + 0.1) == (behind or before), walk
        row = rigidity.channels([whole(kind == 3)])[0]
        assert [row[RIGID.index("behind all around")] > 0.2, row[RIGID.index("before all around")] > 0.2] == [behind, before]


def test_depth_order_is_unknown_where_little_is_still_around() -> None:
    xy, kind = street()
    block = Block(tracked(xy), SIZE, 0, FRAMES)
    few = np.zeros(len(kind), bool)
    few[:8] = True
    assert np.isnan(depth_order(block, np.zeros(len(kind)), few)).all()
    order = np.array(depth_order(block, np.zeros(len(kind)), kind == 0))
    assert np.isfinite(order).any() and np.nanmax(np.abs(order)) < 1e-9


def test_nothing_raises_a_candidate_where_no_cameras_are_found() -> None:
    xy, kind = street()
    assert not Rigidity(Block(tracked(xy), SIZE, 0, FRAMES), np.full(len(kind), 2.0)).doubt.any()


def test_a_static_thing_that_the_logits_call_moving_is_made_static_and_a_ball_on_it_is_not() -> None:
    _, kind = street()
    wall = np.zeros(len(kind), bool)
    wall[260:460] = True
    cluster = whole(kind == 2)
    judged = Judged([cluster], np.zeros((1, len(CHANNELS))), np.zeros(len(kind), bool), wall | (kind == 2))
    settled = _settled(judged, Verdicts(np.array([3.0]), np.array([3.0])), np.where(wall | (kind == 2), 2.0, -3.0))
    assert (settled[wall] < -0.9).all() and (settled[kind == 2] > 0).all()
