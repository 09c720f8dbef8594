"""What makes two fragments one thing or two: drift against their size, swinging, looks, smallness, and what their patches hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from segmotion_plugin.densify.cuts import cut_apart
from segmotion_plugin.densify.fragments import Sightings, join
from segmotion_plugin.densify.objects import group
from segmotion_plugin.tracks import Tracks

_SIZE = (320, 180)


def _block(x: float, y: float, columns: int = 8, rows: int = 8) -> np.ndarray:
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    return grid * 4.0 + [x, y]


def _travelling(start: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """N×T×2 paths of N points that all move 4 pixels per frame, plus T×2 offsets."""
    time = np.arange(len(offset))[:, None]
    return start[:, None] + time * np.array([4.0, 0.0]) + offset


def _sightings(xy: np.ndarray, patch_of_track: np.ndarray | None = None) -> Sightings:
    tracks = Tracks.from_dense(xy.astype(np.float32), np.ones(xy.shape[:2], bool))
    patch = np.zeros(len(tracks.xy_flat), int) if patch_of_track is None else patch_of_track[tracks.track_flat]
    return Sightings.collect(tracks, np.arange(len(xy)), patch, _SIZE, (0, xy.shape[1]))


def _looks(cosine: float) -> np.ndarray:
    """128×2 features of two blocks of 64 tracks whose mean features have this cosine."""
    return np.repeat([[1.0, 0.0], [cosine, np.sqrt(1 - cosine**2)]], 64, axis=0)


def _joined(offset: np.ndarray, cosine: float) -> bool:
    """Whether two blocks that travel together, the second with an offset, are one thing."""
    still = np.zeros_like(offset)
    xy = np.concatenate([_travelling(_block(30, 50), still), _travelling(_block(30, 82), offset)])
    return len(np.unique(join(_sightings(xy), np.repeat([0, 1], 64), _looks(cosine)))) == 1


def test_what_swings_is_a_limb_and_what_drifts_as_far_straight_on_is_not() -> None:
    time = np.arange(30)
    swinging, straight = 10 * np.sin(time * 0.7), 20 * time / 29
    assert np.ptp(swinging) == pytest.approx(np.ptp(straight), rel=0.02)
    assert _joined(np.stack([swinging, 0 * time], axis=1), 0.1)
    assert not _joined(np.stack([straight, 0 * time], axis=1), 0.1)


def test_looks_tell_companions_from_pieces_of_one_thing() -> None:
    offset = np.stack([np.zeros(30), 16 * np.arange(30) / 29], axis=1)
    assert _joined(offset, 0.8)
    assert not _joined(offset, 0.0)


def test_drift_counts_against_the_size() -> None:
    time = np.arange(30)[:, None]
    drift = 30 * time / 29 * np.array([1.0, 0.0])
    verdicts = []
    for columns in (3, 24):
        start = _block(20, 50, columns, 8)
        xy = np.concatenate([_travelling(start, 0 * drift), _travelling(start + [0.0, 32.0], drift)])
        features = np.repeat([[1.0, 0.0], [0.35, np.sqrt(1 - 0.35**2)]], len(start), axis=0)
        verdicts.append(len(np.unique(join(_sightings(xy), np.repeat([0, 1], len(start)), features))))
    assert verdicts == [2, 1]


def test_two_that_move_almost_alike_are_cut_apart_by_their_looks() -> None:
    offset = np.stack([np.zeros(30), 16 * np.arange(30) / 29], axis=1)
    xy = np.concatenate([_travelling(_block(30, 50), 0 * offset), _travelling(_block(30, 82), offset)])
    side = np.repeat([0, 1], 64)
    likeness = csr_matrix(np.where(side[:, None] == side[None], 1.0, 0.05))
    weight = np.full(128, 30.0)
    found = [cut_apart(_sightings(xy), np.zeros(128, int), likeness, weight, 100.0, _looks(cosine)) for cosine in (0.0, 0.8)]
    assert [len(np.unique(label)) for label in found] == [2, 1]
    assert len(np.unique(found[0][:64])) == len(np.unique(found[0][64:])) == 1


def test_a_thing_of_which_little_moves_alike_counts_with_all_of_its_patch() -> None:
    rng = np.random.default_rng(2)
    frames, epoch = 28, 4
    time = np.arange(frames)[None, :, None]
    large = _block(30, 20, 14, 14)[:, None] + time * np.array([3.0, 0.0])
    # Few tracks of the small thing hold, those of its tail last four frames and go their own ways.
    head = _block(270, 120, 2, 3)[:, None] - time * np.array([4.0, 0.0])
    wild = np.cumsum(rng.normal(0, 6.0, (12 * frames // epoch, frames, 2)), axis=1) * 0.2
    starts = np.tile(_block(290, 110, 3, 4), (frames // epoch, 1))
    tail = starts[:, None] - time * np.array([4.0, 0.0]) + wild + rng.normal(0, 2, wild.shape)
    born = np.repeat(np.arange(0, frames, epoch), 12)[:, None]
    lives = (np.arange(frames)[None] >= born) & (np.arange(frames)[None] < born + epoch)
    visible = np.concatenate([np.ones((len(large) + len(head), frames), bool), lives])
    xy = np.concatenate([large, head, tail])
    tracks = Tracks.from_dense(np.where(visible[..., None], xy, np.nan).astype(np.float32), visible)
    patch = (tracks.track_flat >= len(large)).astype(int)
    found = group(tracks, np.ones(len(xy), bool), [(0, frames)], radius=13.0, size=_SIZE, patch=patch)
    assert np.unique(found[: len(large)]).tolist() == [1] and np.unique(found[len(large) :]).tolist() == [2]


def test_what_is_half_hidden_when_it_goes_and_comes_is_one_thing() -> None:
    frames = 60
    time = np.arange(frames)
    # A long thing passes behind a wall wider than itself: its tail is seen on the left of it, then its head on the right.
    start = _block(-60, 60, 30, 6)
    xy = _travelling(start, np.zeros((frames, 2)))
    before = (xy[..., 0] > 0) & (xy[..., 0] < 60) & (time < 30)
    after = (xy[..., 0] > 220) & (xy[..., 0] < 320) & (time >= 42)
    xy, seen = np.concatenate([xy, xy]), np.concatenate([before, after])
    keep = seen.any(axis=1)
    label = np.repeat([0, 1], len(start))[keep]
    tracks = Tracks.from_dense(np.where(seen[keep, :, None], xy[keep], np.nan).astype(np.float32), seen[keep])
    patch = np.zeros(len(tracks.xy_flat), int)
    sightings = Sightings.collect(tracks, np.arange(len(tracks)), patch, _SIZE, (0, frames))
    verdicts = []
    for cosine in (0.44, 0.3):
        features = np.where(label[:, None] == 0, [1.0, 0.0], [cosine, np.sqrt(1 - cosine**2)])
        verdicts.append(len(np.unique(join(sightings, label, features))))
    assert verdicts == [1, 2]


def test_what_turns_about_a_joint_stays_with_its_body() -> None:
    angle = np.linspace(0, np.pi / 2, 30)
    arm = 32.0 * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    assert _joined(arm - arm[0], 0.45)
    assert not _joined(np.linspace(0, 1, 30)[:, None] * np.array([0.0, np.ptp(arm[:, 0]) * np.sqrt(2)]), 0.45)


def _with_piece(body: np.ndarray, piece: np.ndarray, drift: float, cosine: float, patch_of_piece: int = 0) -> bool:
    """Whether a piece that drifts sideways against a travelling body is one thing with it."""
    offset = np.stack([np.zeros(30), drift * np.arange(30) / 29], axis=1)
    xy = np.concatenate([_travelling(body, 0 * offset), _travelling(piece, offset)])
    side = np.repeat([0, 1], [len(body), len(piece)])
    features = np.where(side[:, None] == 0, [1.0, 0.0], [cosine, np.sqrt(1 - cosine**2)])
    return len(np.unique(join(_sightings(xy, side * patch_of_piece), side, features))) == 1


def test_a_small_piece_that_never_leaves_a_large_body_is_a_part_of_it() -> None:
    dense = _block(20, 20, 20, 16)
    sparse = dense.reshape(16, 20, 2)[1::4, 1::4].reshape(-1, 2)  # as large, of about as many tracks as the piece
    piece = _block(30, 84, 4, 4)
    assert _with_piece(dense, piece, 20.0, 0.2)
    assert not _with_piece(sparse, piece, 20.0, 0.2)
    assert not _with_piece(dense, piece, 20.0, 0.2, patch_of_piece=1)


def _with_wheel(turns: bool) -> bool:
    """Whether a small patch that runs backwards against a body is one thing with it: a wheel in its place, or what stays back."""
    body, time = _block(20, 20, 40, 20), np.arange(30)
    row, begin = np.meshgrid(np.arange(4), np.arange(-12, 30))
    height, begin = row.ravel() * 4.0, begin.ravel()
    if not turns:
        height, begin = height[:16], np.repeat(0, 16)
    age = time - begin[:, None]
    behind = 2.0 * age if turns else 2.0 * time + 4.0 * np.arange(16)[:, None] // 4
    wheel = np.stack([90 + 4.0 * time - behind, np.broadcast_to(70 + height[:, None], behind.shape)], axis=2)
    visible = (age >= 0) & (age < 12) if turns else np.ones(behind.shape, bool)
    xy = np.concatenate([_travelling(body, np.zeros((30, 2))), wheel]).astype(np.float32)
    tracks = Tracks.from_dense(xy, np.concatenate([np.ones((len(body), 30), bool), visible]))
    side = np.repeat([0, 1], [len(body), len(wheel)])
    seen = Sightings.collect(tracks, np.arange(len(tracks)), np.zeros(len(tracks.xy_flat), int), _SIZE, (0, 30))
    return len(np.unique(join(seen, side, np.where(side[:, None] == 0, [1.0, 0.0], [0.1, 0.995])))) == 1


def test_what_turns_in_its_place_is_a_part_of_what_holds_it() -> None:
    assert _with_wheel(turns=True)
    assert not _with_wheel(turns=False)


def test_a_gap_in_the_mask_that_is_nothing_beside_a_body_leaves_its_limb_with_it() -> None:
    body = _block(20, 20, 40, 20)
    assert _with_piece(body, _block(60, 99, 4, 4), 2.0, 0.05, patch_of_piece=1)
    assert not _with_piece(body, _block(60, 130, 4, 4), 2.0, 0.05, patch_of_piece=1)


def test_a_cut_lies_where_looks_change_when_motion_hangs_together_least_elsewhere() -> None:
    offset = np.stack([np.zeros(30), 20 * np.arange(30) / 29], axis=1)
    xy = np.concatenate([_travelling(_block(30, 50, 16, 4), 0 * offset), _travelling(_block(30, 66, 16, 4), offset)])
    rng = np.random.default_rng(5)
    features = _looks(0.0) + rng.normal(0, 0.4, (128, 2))
    near = np.linalg.norm(xy[:, None, 0] - xy[None, :, 0], axis=2) < 9
    # Motion parts the fifth row of tracks from the sixth, a row beyond the place where one thing ends.
    row = np.repeat(np.arange(8), 16)
    likeness = csr_matrix(np.where(near, np.where((row[:, None] <= 4) == (row[None] <= 4), 1.0, 0.6), 0.0))
    label = cut_apart(_sightings(xy), np.zeros(128, int), likeness, np.full(128, 30.0), 100.0, features)
    assert np.mean((label == label[0]) == (np.arange(128) < 64)) > 0.95
