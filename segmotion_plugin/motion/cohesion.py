"""How clusters of tracks hold together, part from their neighbours, and shake: what walks swings its limbs.

A walker who goes along the camera's path can keep a place in a still world, but its tracks die as its legs cross, its parts part, and
its steps shake against the camera's own motion. What is still and slid along by its tracks parts and dies otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segmotion_plugin.motion.clusters import Block, Cluster
from segmotion_plugin.smooth_flow import middle

HELD = (
    "ends of tracks", "starts of tracks", "links within", "links to neighbours",
    "parting within, mean", "parting within, middle", "parting within, high",
    "parting from neighbours, mean", "parting from neighbours, little", "parting from neighbours, low",
    "drift within, middle", "drift within, mean", "drift from neighbours", "shaking, 1 frame", "most shaking, 1 frame",
    "shaking, 3 frames", "most shaking, 3 frames", "shaking against neighbours", "length of neighbours",
)  # fmt: skip

_BORDER = 2.0  # spacings from the picture's border within which tracks end and start because they leave or come
_STRIDES = (1, 3)  # frames over which accelerations are taken
_LITTLE = 0.25  # spacings
_MOST = 3.0  # spacings; what parts further is equally far
_SOFT_PARTING, _SOFT_DRIFT, _SOFT_SHAKING = 0.02, 0.01, 0.001  # spacings, and such pixels, added before logarithms are taken


class Cohesion:
    """Measures, for a block of tracks, what the channels `HELD` of its clusters are made of.

    Args:
        block: the tracks.
        links: E×2 pairs of neighbouring tracks, and E spacings by which they part (`clusters.neighbours`).
    """

    def __init__(self, block: Block, links: tuple[np.ndarray, np.ndarray]) -> None:
        self._pairs, parting = links
        self._parting = np.minimum(parting, _MOST)
        self._met = np.isfinite(parting)
        count = len(block.tracks)
        row, which, frame = block.rows(np.arange(count))
        seen = block.tracks.visible_flat[row]
        self._xy, self._frame, self._which = block.tracks.xy_flat[row].astype(np.float64), frame, which
        self._xy[~seen] = np.nan
        self._first, self._last = np.full(count, block.stop), np.full(count, block.start - 1)
        np.minimum.at(self._first, which[seen], frame[seen])
        np.maximum.at(self._last, which[seen], frame[seen])
        self._begin = np.searchsorted(which, np.arange(count))
        self._length = block.observations.astype(float)
        self._inside = np.zeros(count, bool)
        self._spacing, self._size, self._unit = block.spacing, block.size, block.unit
        lived = self._last >= self._first
        self._ends = lived & (self._last < block.stop - 1) & ~self._leaves(self._last)
        self._starts = lived & (self._first > block.start) & ~self._leaves(self._first)
        self._drift = self._drifts()
        self._shaking = [self._shakes(stride) for stride in _STRIDES]
        # Links by track: those of track i are at places edge[i] to edge[i + 1] of `_of`.
        ends = self._pairs.ravel()
        order = np.argsort(ends, kind="stable")
        self._of, self._edge = order // 2, np.searchsorted(ends[order], np.arange(count + 1))

    def _at(self, ids: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """n×2 positions of tracks at frames of the block between their first and last ones; NaN where hidden."""
        place = self._begin[ids] + frame - self._frame[np.minimum(self._begin[ids], len(self._frame) - 1)]
        return self._xy[np.clip(place, 0, len(self._xy) - 1)]

    def _leaves(self, frame: np.ndarray) -> np.ndarray:
        """N bool: tracks that are near the picture's border at frames, one for each."""
        xy, border = self._at(np.arange(len(frame)), frame), _BORDER * self._spacing
        return np.asarray(((xy < border) | (xy > self._size - border)).any(axis=1))

    def _drifts(self) -> np.ndarray:
        """E spacings per four frames by which linked tracks move apart from the first to the last frame of their common life."""
        pairs = self._pairs
        begin, end = self._first[pairs].max(axis=1), self._last[pairs].min(axis=1)
        change = [self._at(pairs[:, k], end) - self._at(pairs[:, k], begin) for k in (0, 1)]
        drift = np.linalg.norm(change[0] - change[1], axis=1) * 4 / np.maximum(end - begin, 1) / self._spacing
        return np.where((end > begin) & np.isfinite(drift), np.minimum(drift, _MOST), np.nan)

    def _shakes(self, stride: int) -> np.ndarray:
        """N mean accelerations of tracks over a stride against the middle one of each frame; NaN where never known.

        Pixels of an image 854 wide.
        """
        xy, count = self._xy, len(self._first)
        at = np.arange(stride, len(xy) - stride)
        at = at[self._which[at - stride] == self._which[at + stride]]
        change = xy[at + stride] - 2 * xy[at] + xy[at - stride]
        known = np.isfinite(change[:, 0])
        at, change = at[known], change[known]
        order = np.argsort(self._frame[at], kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(self._frame[at][order])) + 1):
            if len(part):
                change[part] -= middle(change[part])
        number = np.bincount(self._which[at], minlength=count)
        total = np.bincount(self._which[at], np.linalg.norm(change, axis=1) / self._unit, count)
        return np.where(number > 0, total / np.maximum(number, 1), np.nan)

    def channels(self, found: Sequence[Cluster]) -> np.ndarray:
        """Channels `HELD` of K clusters, K×19; NaN where they could not be measured."""
        out = np.full((len(found), len(HELD)), np.nan)
        total = max(self._length.sum(), 1.0)
        usual = [np.log((flags.sum() + 0.5) / total) for flags in (self._ends, self._starts)]
        still = [np.log(np.nanmedian(s) + _SOFT_SHAKING) if np.isfinite(s).any() else np.nan for s in self._shaking]
        for row, cluster in enumerate(found):
            values = self._of_one(cluster.members, usual, still)
            out[row] = [values.get(name, np.nan) for name in HELD]
        return out

    def _of_one(self, members: np.ndarray, usual: list[float], still: list[float]) -> dict[str, float]:
        seen = max(self._length[members].sum(), 1.0)
        values = {
            "ends of tracks": np.log((self._ends[members].sum() + 0.5) / seen) - usual[0],
            "starts of tracks": np.log((self._starts[members].sum() + 0.5) / seen) - usual[1],
        }
        touched, times = np.unique(
            np.concatenate([self._of[self._edge[member] : self._edge[member + 1]] for member in members.tolist()]), return_counts=True
        )
        across = touched[times == 1]
        within, beside = touched[times == 2], across[self._met[across]]
        within = within[self._met[within]]
        values["links within"] = np.log1p(len(within)) - np.log(len(members))
        values["links to neighbours"] = np.log1p(len(beside)) - np.log(len(members))
        if len(within):
            apart, drift = np.sort(self._parting[within]), _known(self._drift[within])
            values["parting within, mean"] = np.log(apart.mean() + _SOFT_PARTING)
            values["parting within, middle"] = np.log(_ranked(apart, 0.5) + _SOFT_PARTING)
            values["parting within, high"] = np.log(_ranked(apart, 0.9) + _SOFT_PARTING)
            if len(drift):
                values["drift within, middle"] = np.log(_ranked(drift, 0.5) + _SOFT_DRIFT)
                values["drift within, mean"] = np.log(drift.mean() + _SOFT_DRIFT)
        if len(beside):
            apart, drift = np.sort(self._parting[beside]), _known(self._drift[beside])
            values["parting from neighbours, mean"] = np.log(apart.mean() + _SOFT_PARTING)
            values["parting from neighbours, little"] = float((apart < _LITTLE).mean())
            values["parting from neighbours, low"] = np.log(_ranked(apart, 0.1) + _SOFT_PARTING)
            if len(drift):
                values["drift from neighbours"] = np.log(_ranked(drift, 0.5) + _SOFT_DRIFT)
        self._inside[members] = True
        linked = self._pairs[across].ravel()
        others = np.unique(linked[~self._inside[linked]])
        self._inside[members] = False
        if len(others):
            lengths = (_ranked(np.sort(self._length[ids]), 0.5) for ids in (others, members))
            values["length of neighbours"] = float(np.subtract(*(np.log(length) for length in lengths)))
        for stride, shaking, level in zip(_STRIDES, self._shaking, still, strict=True):
            own = _known(shaking[members])
            if not len(own):
                continue
            name = "shaking, 1 frame" if stride == 1 else f"shaking, {stride} frames"
            typical = np.log(_ranked(own, 0.5) + _SOFT_SHAKING)
            values[name] = typical - level
            values[f"most {name}"] = np.log(own[-1] + _SOFT_SHAKING) - level
            beyond = _known(shaking[others])
            if stride == 1 and len(beyond):
                values["shaking against neighbours"] = typical - np.log(_ranked(beyond, 0.5) + _SOFT_SHAKING)
        return values


def _known(values: np.ndarray) -> np.ndarray:
    """The finite ones of n values, ascending."""
    return np.sort(values[np.isfinite(values)])


def _ranked(ordered: np.ndarray, share: float) -> float:
    """The value below which about a share of n ascending values lies."""
    return float(ordered[int(share * (len(ordered) - 1))])
