"""What moves before a camera that rests, as on a tripod, moves: nothing else needs to be known about it.

The transformer stays in doubt there about what is large or fast: a bus that passes close to the camera could as well be a near plane
that a moving camera passes, and that the ground beside it rests is one hint among many. A camera rests where, at every height of the
picture, much of it hardly moves, and little moves by a bit more than that: under a moving camera the ground would come nearer row
by row. Under what sways a little, as a hand does, near things sway more than far ones; ten times as much is taken for motion.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from segmotion_plugin.smooth_flow import fit_robustly
from segmotion_plugin.tracks import Tracks

# Lengths are pixels of an image 854 wide, over `_STRIDE` frames.
_STRIDE = 3
_SWAY = 3.0  # a resting camera moves the picture by no more than that
_RESTS = 0.6  # from an affine motion of the whole picture
_BANDS, _LEAST_IN_BAND, _LEAST = 12, 0.1, 0.3  # heights that are looked at; share of the tracks that rests in each, and in all
_FEWEST = 12  # tracks in a band that is looked at
_MOVES, _NEARER = 2.5, 10.0  # beyond what sways, and how many times as much near things may sway
_BETWEEN = 0.3  # share of the tracks that moves less than that but does not rest
_STILL = 0.8  # share of what rested before that must go on resting
_OFTEN, _STRAIGHT = 0.5, 0.7  # share of a track's steps that must show it; its way from end to end against its whole way


def unmistakable(tracks: Tracks, image_size: tuple[int, int]) -> np.ndarray:
    """N bool: tracks that go on while the camera rests.

    Args:
        tracks: N tracks.
        image_size: (width, height), pixels.
    """
    seen, moved = np.zeros(len(tracks), int), np.zeros(len(tracks), int)
    for start, stop in tracks.stretches():
        frames = list(range(start, stop - _STRIDE))
        rested: set[int] = set()
        for way in (frames, frames[::-1]):
            if way is not frames and len(rested) in (0, len(frames)):
                break  # the way back only extends what was found
            ground: np.ndarray | None = None  # tracks that rested when the camera did, in the frame before
            for frame in way:
                step = _step(tracks, frame, image_size)
                found = _rest(step) or (None if ground is None else _goes_on_resting(step, ground))
                ground = None if found is None else step.ids[found.rests]
                if found is not None and frame not in rested:
                    rested.add(frame)
                    seen[step.ids] += 1
                    moved[step.ids] += found.moves
    often = (moved > 0) & (moved >= _OFTEN * seen)
    out = np.zeros(len(tracks), bool)
    out[often] = [_goes_straight(tracks, one) for one in np.flatnonzero(often).tolist()]
    return out


class _Step(NamedTuple):
    """The n tracks seen at a frame and `_STRIDE` later, in pixels of an image 854 wide."""

    ids: np.ndarray
    xy: np.ndarray
    by: np.ndarray
    height: float


class _Found(NamedTuple):
    """What a resting camera tells of n points."""

    rests: np.ndarray
    moves: np.ndarray


def _step(tracks: Tracks, frame: int, image_size: tuple[int, int]) -> _Step:
    unit = max(image_size) / 854.0
    ids, xy = tracks.observations_at(frame)
    there, known = tracks.positions_at(ids, frame + _STRIDE)
    ids, xy = ids[known], xy[known].astype(np.float64)
    return _Step(ids, xy / unit, (there[known] - xy) / unit, image_size[1] / unit)


def _rest(step: _Step) -> _Found | None:
    """Which points rest and which move; None where the camera does not rest by what they show."""
    near = np.abs(step.by).max(axis=1) < _SWAY
    if len(near) < _FEWEST or near.mean() < _LEAST:
        return None
    found = _against_sway(step, near)
    band = np.clip((step.xy[:, 1] * _BANDS / step.height).astype(int), 0, _BANDS - 1)
    count = np.bincount(band, minlength=_BANDS)
    resting = np.bincount(band, found.rests, minlength=_BANDS) >= _LEAST_IN_BAND * count
    if found.rests.mean() < _LEAST or not resting[count >= _FEWEST].all():
        return None
    return found if (~found.rests & ~found.moves).mean() <= _BETWEEN else None


def _goes_on_resting(step: _Step, ground: np.ndarray) -> _Found | None:
    """The same where little else is seen, as when something passes close by: what rested before, and is still seen, rests."""
    near = np.isin(step.ids, ground) & (np.abs(step.by).max(axis=1) < _SWAY)
    if near.sum() < _FEWEST or near.sum() < _STILL * np.isin(step.ids, ground).sum():
        return None
    found = _against_sway(step, near)
    rests = near & found.rests
    return _Found(rests, found.moves) if rests.sum() >= _STILL * near.sum() else None


def _against_sway(step: _Step, near: np.ndarray) -> _Found:
    """Which points rest and which move, against the sway that marked ones show."""
    design = np.concatenate([np.ones((len(near), 1)), step.xy / step.height], axis=1)
    coefficients, _ = fit_robustly(design[near], step.by[near], np.ones(near.sum()), ridge=1e-3, floor=0.25)
    sway = design @ coefficients
    apart = np.linalg.norm(step.by - sway, axis=1)
    least = _MOVES + _NEARER * float(np.median(np.linalg.norm(sway, axis=1)))
    return _Found(apart < _RESTS, apart >= least)


def _goes_straight(tracks: Tracks, one: int) -> bool:
    """Whether a track's ends are about as far apart as it went: what swings, as leaves and waves do, is left to the model."""
    own = slice(tracks.offset[one], tracks.offset[one + 1])
    xy = tracks.xy_flat[own][tracks.visible_flat[own]]
    return bool(np.linalg.norm(xy[-1] - xy[0]) >= _STRAIGHT * np.linalg.norm(np.diff(xy, axis=0), axis=1).sum())
