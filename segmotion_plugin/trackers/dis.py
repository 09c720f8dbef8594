"""The embedded tracker: optical flow of neighbouring frames (`flow.py`), chained into long tracks.

A point follows the forward flow; it ends where the backward flow does not bring it home (occlusion, or a flow that cannot be
trusted) or where it leaves the image. Cells of the image that hold no point get a new one, so that cover is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from segmotion_plugin.rawstore import RawStore
from segmotion_plugin.trackers.far import missed_at_rest, round_trip
from segmotion_plugin.trackers.flow import FlowStore, pair_flows
from segmotion_plugin.tracks import Tracks


def sample(field: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Bilinear values (n×C) of an H×W×C field at n pixel positions (centre of the top-left pixel = (0.5, 0.5))."""
    if len(xy) == 0:
        return np.zeros((0, *field.shape[2:]), field.dtype)
    x = np.clip(xy[:, 0] - 0.5, 0, field.shape[1] - 1)
    y = np.clip(xy[:, 1] - 0.5, 0, field.shape[0] - 1)
    x0, y0 = (
        np.minimum(x.astype(np.int64), max(field.shape[1] - 2, 0)),
        np.minimum(y.astype(np.int64), max(field.shape[0] - 2, 0)),
    )
    x1, y1 = np.minimum(x0 + 1, field.shape[1] - 1), np.minimum(y0 + 1, field.shape[0] - 1)
    fx, fy = (x - x0).astype(np.float32), (y - y0).astype(np.float32)
    if field.ndim == 3:
        fx, fy = fx[:, None], fy[:, None]
    top = field[y0, x0] * (1 - fx) + field[y0, x1] * fx
    return top * (1 - fy) + (field[y1, x0] * (1 - fx) + field[y1, x1] * fx) * fy


class _Chains:
    """Live points of one shot and the observations collected so far."""

    def __init__(self, width: int, height: int, spacing: float, first_id: int, enlarged: float) -> None:
        self.absolute = missed_at_rest(enlarged)
        self.width, self.height, self.spacing = width, height, spacing
        self.columns, self.rows = max(1, round(width / spacing)), max(1, round(height / spacing))
        self.next_id = first_id
        self.xy = np.zeros((0, 2), np.float32)
        self.ids = np.zeros(0, np.int64)
        self.observations: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]] = []

    def cells(self, xy: np.ndarray) -> np.ndarray:
        column = np.clip((xy[:, 0] * self.columns / self.width).astype(np.int64), 0, self.columns - 1)
        row = np.clip((xy[:, 1] * self.rows / self.height).astype(np.int64), 0, self.rows - 1)
        return row * self.columns + column

    def spawn(self) -> None:
        """A new point at the centre of every cell that holds none; where points crowd (three in a cell), the youngest end."""
        cell = self.cells(self.xy)
        order = np.lexsort((self.ids, cell))
        rank = np.arange(len(order)) - np.searchsorted(cell[order], cell[order])
        stay = np.sort(order[rank < 3])
        self.xy, self.ids = self.xy[stay], self.ids[stay]
        empty = np.setdiff1d(np.arange(self.columns * self.rows), cell)
        centre = np.stack([empty % self.columns + 0.5, empty // self.columns + 0.5], axis=1)
        fresh = (centre * [self.width / self.columns, self.height / self.rows]).astype(np.float32)
        self.xy = np.concatenate([self.xy, fresh])
        self.ids = np.concatenate([self.ids, np.arange(self.next_id, self.next_id + len(fresh))])
        self.next_id += len(fresh)

    def record(self, frame: int, confidence: np.ndarray) -> None:
        self.observations.append((self.ids, self.xy, confidence, frame))

    def advance(self, forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
        """Move the points along the flow; end those that do not come home. Returns the confidence of the others."""
        step = sample(forward, self.xy)
        target = self.xy + step
        inside = (target[:, 0] >= 0) & (target[:, 0] < self.width) & (target[:, 1] >= 0) & (target[:, 1] < self.height)
        back = sample(backward, target)
        miss, allowed = round_trip(step, back, self.absolute)
        alive = inside & (miss < allowed)
        self.xy, self.ids = target[alive].astype(np.float32), self.ids[alive]
        return np.exp(-miss[alive] / allowed[alive]).astype(np.float32)


def track(
    frames: Sequence[np.ndarray] | RawStore,
    shots: Sequence[tuple[int, int]] | None = None,
    *,
    spacing: float | None = None,
    enlarged: float = 1.0,
    features: Sequence[np.ndarray] | RawStore | None = None,
    flow_store: FlowStore | None = None,
    progress: Callable[[int], None] | None = None,
) -> Tracks:
    """Track points over a clip.

    Args:
        frames: T frames H×W×3 uint8 RGB, read one at a time.
        shots: half-open frame ranges that no track crosses; one shot when absent.
        spacing: pixels between neighbouring points; by default 10 for an image of 854 pixels width, in proportion otherwise.
        enlarged: factor by which the frames were enlarged; what a flow misses by grows with it.
        features: T arrays h×w×C of backbone features; with them motion is followed that is too far for the flow alone.
        flow_store: where the flow of every pair is kept for later stages.
        progress: called with the number of frames done.

    Returns:
        Tracks whose every observation is visible; a track has at least two observations.
    """
    if shots is None:
        shots = [(0, len(frames))]
    height, width = frames[0].shape[:2]
    spacing = spacing or max(4.0, 10.0 * max(width, height) / 854.0)
    collected: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]] = []
    next_id = 0
    for start, stop in shots:
        chains = _Chains(width, height, spacing, next_id, enlarged)
        confidence = np.zeros(0, np.float32)
        pairs = pair_flows(frames, features, start, stop, enlarged)
        for frame in range(start, stop):
            before = len(chains.xy)
            known = dict(zip(chains.ids.tolist(), confidence.tolist(), strict=True)) if before else {}
            chains.spawn()
            confidence = np.array([known.get(i, 1.0) for i in chains.ids.tolist()], np.float32)
            chains.record(frame, confidence)
            if frame + 1 < stop:
                forward, backward = next(pairs)
                if flow_store is not None:
                    flow_store.write(frame, forward, backward)
                confidence = chains.advance(forward, backward)
            if progress is not None:
                progress(frame + 1)
        pairs.close()
        collected += chains.observations
        next_id = chains.next_id
    return _assemble(collected, next_id, len(frames))


def _assemble(collected: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]], count: int, num_frames: int) -> Tracks:
    ids = np.concatenate([part[0] for part in collected])
    xy = np.concatenate([part[1] for part in collected])
    confidence = np.concatenate([part[2] for part in collected])
    frame = np.concatenate([np.full(len(part[0]), part[3], np.int32) for part in collected])
    order = np.argsort(ids, kind="stable")  # observations were collected in frame order
    ids, xy, confidence, frame = ids[order], xy[order], confidence[order], frame[order]
    length = np.bincount(ids, minlength=count)
    keep = (length >= 2)[ids]
    ids, xy, confidence, frame = ids[keep], xy[keep], confidence[keep], frame[keep]
    offset = np.concatenate([[0], np.cumsum(length[length >= 2])])
    first = frame[offset[:-1]]
    return Tracks(first, offset, xy, np.ones(len(xy), bool), confidence, first, num_frames)
