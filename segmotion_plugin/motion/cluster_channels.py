"""What tells whether a cluster of tracks moves: logits pooled, its motion against what lies around, and rigid cameras.

Distances are in pixels of an image 854 wide, displacements per frame; logarithms keep their ranges small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median

import numpy as np

from segmotion_plugin.motion.clusters import Block, Cluster, neighbours
from segmotion_plugin.motion.cohesion import HELD, Cohesion
from segmotion_plugin.motion.rigidity import RIGID, Rigidity
from segmotion_plugin.motion.sweep import SWEPT, Pictures, sweep
from segmotion_plugin.smooth_flow import fit_robustly, middle

POOLED = ("sampson", "sampson / median", "homography", "homography / median")
"""Per-track means of geometry channels that are averaged over a cluster."""

AROUND = (
    "logit around", "high logits around", "against surroundings, 4 frames", "against surroundings, 12 frames",
    "noise of surroundings", "travel", "constancy", "across", "up or down", "size", "height to width", "lowest row",
    "against ground below", "against both sides", "nearness to ground below",
)  # fmt: skip
"""What is dear to measure, frame by frame: a cluster against what lies around it."""

CHANNELS = (
    "mean logit", "highest logits", "spread of logits", "level", "tracks", "observations per frame", "frames", "length of tracks",
    "tracks above", "tracks nearly above", "median logit", "largest likely cluster",
    *POOLED, *AROUND, *RIGID, *SWEPT, *HELD,
)  # fmt: skip

_STRIDES = (4, 12)
_MAIN = 4
_LOOKS = 6  # frames of a cluster that are looked at
_RING = 5.0  # spacings around a cluster that count as its surroundings
_RIM = 0.7  # spacings around it in which tracks of nearly the same logit are part of it rather
_FEWEST = 8  # tracks of the surroundings
_FLOOR = 0.15  # pixels, least scale of what an affine motion of the surroundings leaves
_BELOW, _FEWEST_BELOW = 3.5, 3  # spacings below a cluster that show the ground it stands on, and still tracks there
_NEARER = 0.7  # logarithm of a ratio of nearness, beyond which it tells no more
_LEAST = 0.02  # pixels per frame, below which motion is noise


def describe(
    block: Block,
    found: Sequence[Cluster],
    largest: float,
    logit: np.ndarray,
    pooled: Mapping[str, np.ndarray],
    rigidity: Rigidity,
    pictures: Pictures | None = None,
    worth: Callable[[np.ndarray], np.ndarray] | None = None,
    links: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Channels of clusters.

    Args:
        block: the tracks.
        found: K clusters.
        largest: share of the tracks in the largest cluster that moves by its logits.
        logit: N log odds of the tracks.
        pooled: for every name in `POOLED` N means over a track's pairs of frames, NaN = unknown.
        rigidity: of the block.
        pictures: of the clip, in the pixels of the tracks; absent, the channels `SWEPT` are unknown.
        worth: tells from K×len(CHANNELS) channels without `AROUND` which of the K clusters are worth these; all when absent.
        links: `neighbours` of all tracks that are candidates, where they are known.

    Returns:
        K×len(CHANNELS) float64; NaN where a channel could not be measured.
    """
    here = np.flatnonzero(block.observations > 0)
    ordered = np.sort(logit[here])
    shared = {"median logit": float(np.median(ordered)) if len(ordered) else np.nan, "largest likely cluster": largest}
    swept = np.full((len(found), len(SWEPT)), np.nan)
    if pictures is not None and rigidity.fitted is not None and found:
        swept = sweep(block, rigidity.fitted, np.unique(np.concatenate([c.members for c in found])), pictures).channels(found)
    held = np.zeros((0, len(HELD)))
    if found:
        held = Cohesion(block, neighbours(block, logit + rigidity.doubt) if links is None else links).channels(found)
    rows = []
    for cluster, *measured in zip(found, rigidity.channels(found), swept, held, strict=True):
        values = dict(shared)
        values.update(_pooled(block, cluster, logit, ordered, pooled))
        values.update(zip((*RIGID, *SWEPT, *HELD), np.concatenate(measured).tolist(), strict=True))
        rows.append([values.get(name, np.nan) for name in CHANNELS])
    channels = np.array(rows, float).reshape(len(found), len(CHANNELS))
    around = [CHANNELS.index(name) for name in AROUND]
    for row in np.flatnonzero(np.ones(len(found), bool) if worth is None else worth(channels)).tolist():
        told = _around(block, found[row], logit, channels[row, CHANNELS.index("mean logit")], *rigidity.depth)
        channels[row, around] = [told.get(name, np.nan) for name in AROUND]
    return channels


def _pooled(
    block: Block, cluster: Cluster, logit: np.ndarray, ordered: np.ndarray, pooled: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Channels that need no positions."""
    members = cluster.members
    own, weight = logit[members], block.observations[members].astype(float)
    mean = float(np.average(own, weights=weight))
    values = {
        "mean logit": mean,
        "highest logits": float(np.sort(own)[-3:].mean()),
        "spread of logits": float(own.std()),
        "level": cluster.level,
        "tracks": np.log(len(members)),
        "observations per frame": np.log(cluster.observations / cluster.frames),
        "frames": np.log(cluster.frames),
        "length of tracks": np.log(np.average(weight, weights=weight)),
    }
    for name, bound in (("tracks above", mean), ("tracks nearly above", mean - 1)):
        others = len(ordered) - np.searchsorted(ordered, bound, side="right") - (own > bound).sum()
        values[name] = np.log1p(1000 * others / len(ordered))
    for name in POOLED:
        known = pooled[name][members]
        known = known[np.isfinite(known)]
        values[name] = float(known.mean()) if len(known) else np.nan
    return values


def _around(
    block: Block, cluster: Cluster, logit: np.ndarray, mean: float, level: np.ndarray, still: np.ndarray
) -> dict[str, float]:
    """Those of the channels `AROUND` that are known, medians over some frames; for `level` and `still` see `Rigidity.depth`."""
    seen: dict[str, list[float]] = {}
    steps: dict[int, list[np.ndarray]] = {stride: [] for stride in _STRIDES}
    ring, margin = _RING * block.spacing, block.spacing
    inside_flag = np.zeros(len(block.tracks), bool)
    inside_flag[cluster.members] = True

    def note(name: str, value: float | np.floating | np.ndarray) -> None:
        seen.setdefault(name, []).append(float(value))

    for frame in np.unique(np.linspace(cluster.first, cluster.last, _LOOKS).astype(int)).tolist():
        ids, xy = block.at(frame)
        own = inside_flag[ids]
        if own.sum() < 2:
            continue
        low, high = xy[own].min(axis=0), xy[own].max(axis=0)
        extent = high - low + margin
        note("size", np.log(extent.prod() / block.size.prod()))
        note("height to width", np.log(extent[1] / extent[0]))
        note("lowest row", high[1] / block.size[1])
        around = _within(xy, low - ring, high + ring)
        around = around[~own[around]]
        if len(around):
            note("logit around", logit[ids[around]].mean())
            note("high logits around", _ninth_decile(logit[ids[around]]))
        # What stands on the ground is as near as the ground there, but for a mover whose motion passes for a parallax.
        spread = np.array([block.spacing, 0.0])
        below = ids[_within(xy, np.array([low[0], high[1]]) - spread, high + spread + (0.0, _BELOW * block.spacing))]
        ground, placed = level[below[still[below]]], level[ids[own]]
        placed = placed[np.isfinite(placed)]
        if len(ground) >= _FEWEST_BELOW and len(placed):
            note("nearness to ground below", min(max(placed.mean() - middle(ground), -_NEARER), _NEARER))
        for stride in _STRIDES:
            other = frame + stride if frame + stride <= min(cluster.last + 1, block.stop - 1) else frame - stride
            if other < block.start:
                continue
            sign = np.sign(other - frame) / (stride * block.unit)
            found = _against(block, frame, other, inside_flag, logit, mean)
            if found is None:
                continue
            steps[stride].append(sign * found["step"])
            if stride == _MAIN:
                note("noise of surroundings", np.log(found["noise"] / (stride * block.unit)))
                for name in ("against ground below", "against both sides"):
                    if name in found:
                        note(name, np.linalg.norm(found[name]) / (stride * block.unit))
    values = {name: median(entries) for name, entries in seen.items()}
    for name in ("logit around", "high logits around"):
        if name in seen:
            values[name] = float(np.mean(seen[name]))
    for name in ("against ground below", "against both sides"):
        if name in values:
            values[name] = np.log(values[name] + _LEAST)
    for stride, found_steps in steps.items():
        if found_steps:
            length = np.median(np.linalg.norm(found_steps, axis=1))
            values[f"against surroundings, {stride} frames"] = np.log(length + _LEAST)
    if steps[_MAIN]:
        mean_step = np.mean(steps[_MAIN], axis=0)
        values["constancy"] = np.linalg.norm(mean_step) / (np.linalg.norm(steps[_MAIN], axis=1).mean() + _LEAST)
        values["across"], values["up or down"] = np.abs(mean_step).tolist()
        values["travel"] = np.log(np.linalg.norm(mean_step) * cluster.frames + 0.1)
    return values


def _ninth_decile(values: np.ndarray) -> float:
    """As NumPy's percentile, in a tenth of its time on few values."""
    place = 0.9 * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    ordered = np.partition(values, (low, high))
    return float(ordered[low] + (place - low) * (ordered[high] - ordered[low]))


def _within(xy: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Indices of the positions, sorted by x, that lie in a box."""
    start, stop = np.searchsorted(xy[:, 0], (low[0], high[0]), side="left")
    return start + np.flatnonzero((xy[start:stop, 1] > low[1]) & (xy[start:stop, 1] < high[1]))


def _against(block: Block, frame: int, other: int, inside: np.ndarray, logit: np.ndarray, mean: float) -> dict[str, np.ndarray] | None:
    """Median motion of a cluster from a frame to another against its surroundings; None where too little is seen.

    "step" is taken against a robust affine motion of the surroundings, whose scale is "noise". What stands on the ground moves with
    the ground below it however the camera travels, so the lowest part is compared with that, too.
    """
    ids, xy, step = block.step(frame, other)
    own = np.flatnonzero(inside[ids])
    if len(own) < 2:
        return None
    spacing = block.spacing
    low, high = xy[own].min(axis=0), xy[own].max(axis=0)
    ring, rim = _RING * spacing, _RIM * spacing
    around = _within(xy, low - ring, high + ring)
    place = xy[around]
    close = np.all((place > low - rim) & (place < high + rim), axis=1)
    around = around[~inside[ids[around]] & ~(close & (logit[ids[around]] > mean - 1.2))]
    if len(around) < _FEWEST:
        return None
    place, flow = xy[around], step[around]
    centre = (low + high) / 2
    floor = _FLOOR * block.unit
    affine, left = fit_robustly(_design((place - centre) / ring), flow, np.ones(len(flow)), ridge=1e-6, floor=floor)
    rest = step[own] - _design((xy[own] - centre) / ring) @ affine
    found = {"step": middle(rest), "noise": 1.5 * middle(left) + floor}
    beside = (place[:, 0] > low[0] - spacing) & (place[:, 0] < high[0] + spacing)
    below = beside & (place[:, 1] > high[1]) & (place[:, 1] < high[1] + _BELOW * spacing)
    if below.sum() >= 2:
        foot = xy[own][:, 1] > high[1] - max((high[1] - low[1]) / 3, spacing)
        found["against ground below"] = middle(step[own][foot]) - middle(flow[below])
    sides = (place[:, 1] > low[1] - spacing) & (place[:, 1] < high[1] + spacing)
    if sides.sum() >= 3:
        found["against both sides"] = middle(step[own]) - middle(flow[sides])
    return found


def _design(place: np.ndarray) -> np.ndarray:
    """n×3 inputs 1, x, y of n positions."""
    return np.concatenate([np.ones((len(place), 1)), place], axis=1)
