"""What a point tracker must offer, and how one that sees a window of frames becomes one for clips of any length.

A tracker of one's own needs a single method, `track_points` (see `examples/04_own_tracker.py`); `track_clip` chooses the points before
tracking, walks over the clip in overlapping windows, and carries every track on from the last frame at which it was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.tracks import Tracks


class PointTracks(NamedTuple):
    """Tracks of n points over the t frames of a window."""

    xy: np.ndarray  # n×t×2 float32 pixels, centre of the top-left pixel = (0.5, 0.5); NaN where the tracker says nothing
    visible: np.ndarray  # n×t bool
    visibility: np.ndarray  # n×t float32, probability of being visible
    confidence: np.ndarray  # n×t float32, that the position is right


class WindowTracker(Protocol):
    """A model that follows points through a window of frames."""

    name: str
    window: int  # frames it takes at once

    def track_points(self, frames: np.ndarray, queries: np.ndarray) -> PointTracks:
        """Follow points.

        Args:
            frames: t×H×W×3 uint8 RGB.
            queries: n×3 float32: frame within the window, x, y in pixels.
        """


class ProbabilisticTracks(Tracks):
    """Tracks that also keep, per observation, the probability of being visible.

    Attributes:
        visibility_flat: M float16.
    """

    visibility_flat: np.ndarray


@dataclass(frozen=True)
class SamplingOptions:
    """Which points are tracked.

    Attributes:
        num_tracks: alive at once.
        query_step: frames between frames on which points are chosen.
        window: frames per window; the tracker's own when None.
        overlap: share of a window that the next one sees again.
    """

    num_tracks: int = 5000
    query_step: int = 10
    window: int | None = None
    overlap: float = 0.3


def track_clip(
    tracker: WindowTracker,
    frames: Sequence[np.ndarray],
    shots: Sequence[tuple[int, int]] | None = None,
    *,
    options: SamplingOptions | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> ProbabilisticTracks:
    """Track points over a clip of any length, in time linear and memory constant per frame.

    Args:
        tracker: the model.
        frames: T frames H×W×3 uint8 RGB, read one window at a time.
        shots: half-open frame ranges that no track crosses; one shot when absent.
        options: which points are tracked.
        seed: shifts the grids that points are chosen on.
        progress: called with the number of frames done.

    Returns:
        Tracks that were seen at least once.

    Raises:
        SegmotionError: the tracker returned arrays that do not fit.
    """
    options = options or SamplingOptions()
    rng = np.random.default_rng(seed)
    chains = _Chains(len(frames))
    for start, stop in shots or [(0, len(frames))]:
        if stop - start < 2:
            continue  # one frame has no motion
        length = min(max(2, options.window or tracker.window), stop - start)
        step = max(1, length - round(options.overlap * length))
        begin = start
        alive = np.zeros(0, np.int64)
        known_until = start
        while True:
            end = min(begin + length, stop)
            picture = np.stack([frames[t] for t in range(begin, end)])
            carried = chains.last_seen(alive, begin, known_until)
            fresh = _choose(picture.shape, carried, begin == start, known_until - begin, options, rng)
            queries = np.concatenate([carried.queries, fresh]).astype(np.float32)
            if len(queries):
                found = _checked(tracker.track_points(picture, queries), len(queries), end - begin, tracker.name)
                ids = np.concatenate([carried.ids, chains.new(fresh, begin)])
                new = np.arange(len(queries)) >= len(carried.ids)
                chains.extend(ids, found, begin, np.where(new, begin, known_until))
                alive = ids
            if progress is not None:
                progress(end)
            known_until = end
            if end == stop:
                break
            begin = min(begin + step, stop - length)
    return chains.assemble()


class _Carried(NamedTuple):
    ids: np.ndarray  # n int64
    queries: np.ndarray  # n×3, frame within the window, x, y


class _Chains:
    """Observations collected track by track."""

    def __init__(self, num_frames: int) -> None:
        self.num_frames = num_frames
        self.parts: list[list[tuple[int, PointTracks]]] = []  # per track: first frame and rows of one track
        self.query: list[int] = []

    def new(self, queries: np.ndarray, begin: int) -> np.ndarray:
        first = len(self.parts)
        self.parts += [[] for _ in range(len(queries))]
        self.query += (queries[:, 0].astype(np.int64) + begin).tolist()
        return np.arange(first, len(self.parts))

    def extend(self, ids: np.ndarray, found: PointTracks, begin: int, since: np.ndarray) -> None:
        """Append what a window says from frame `since` (per track) on."""
        for row, (track, frame) in enumerate(zip(ids.tolist(), since.tolist(), strict=True)):
            cut = slice(frame - begin, None)
            part = PointTracks(*(array[row, cut] for array in found))
            if len(part.xy):
                self.parts[track].append((frame, part))

    def last_seen(self, ids: np.ndarray, begin: int, until: int) -> _Carried:
        """For tracks seen in frames [begin, until): where they were seen last, as queries of the window that begins there."""
        kept, queries = [], []
        for track in ids.tolist():
            for frame, part in reversed(self.parts[track]):
                seen = np.flatnonzero(part.visible) + frame
                seen = seen[(seen >= begin) & (seen < until)]
                if len(seen):
                    at = int(seen[-1])
                    kept.append(track)
                    queries.append((at - begin, *part.xy[at - frame]))
                    break
        return _Carried(np.array(kept, np.int64), np.array(queries, np.float32).reshape(-1, 3))

    def assemble(self) -> ProbabilisticTracks:
        first, length, query, pieces = [], [], [], []
        for parts, asked in zip(self.parts, self.query, strict=True):
            whole = (
                PointTracks(*(np.concatenate(arrays) for arrays in zip(*(part for _, part in parts), strict=True))) if parts else None
            )
            if whole is None or not whole.visible.any():
                continue
            known = np.flatnonzero(np.isfinite(whole.xy).all(axis=1))
            run = slice(known[0], known[-1] + 1)
            first.append(parts[0][0] + run.start)
            length.append(run.stop - run.start)
            query.append(asked)
            pieces.append(PointTracks(*(array[run] for array in whole)))
        flat = [np.concatenate(arrays) for arrays in zip(*pieces, strict=True)] if pieces else [np.zeros((0, 2)), *[np.zeros(0)] * 3]
        offset = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
        tracks = ProbabilisticTracks(
            np.array(first, np.int32), offset, flat[0], flat[1], flat[3], np.array(query, np.int32), self.num_frames
        )
        tracks.visibility_flat = np.asarray(flat[2], np.float16)
        return tracks


def _choose(
    shape: tuple[int, ...], carried: _Carried, first: bool, news: int, options: SamplingOptions, rng: np.random.Generator
) -> np.ndarray:
    """New queries n×3: grids on every `query_step`-th frame, where no carried track stands and while the budget lasts."""
    frames, height, width = shape[:3]
    budget = options.num_tracks - len(carried.ids)
    # After the first window, only frames that were not seen before are asked.
    asked = np.arange(0 if first else news, frames, options.query_step)
    if budget <= 0 or len(asked) == 0:
        return np.zeros((0, 3), np.float32)
    share = budget / len(asked)
    spacing = np.sqrt(height * width / max(share, 1.0))
    columns, rows = max(1, int(width / spacing)), max(1, int(height / spacing))
    taken = np.zeros((rows, columns), bool)
    if len(carried.ids):
        column = np.clip((carried.queries[:, 1] * columns / width).astype(int), 0, columns - 1)
        row = np.clip((carried.queries[:, 2] * rows / height).astype(int), 0, rows - 1)
        taken[row, column] = True
    chosen = []
    for frame in asked.tolist():
        row, column = np.nonzero(~taken)
        jitter = rng.uniform(0.1, 0.9, 2)
        x, y = (column + jitter[0]) * width / columns, (row + jitter[1]) * height / rows
        chosen.append(np.stack([np.full(len(x), frame), x, y], axis=1))
    return np.concatenate(chosen)[:budget].astype(np.float32)


def _checked(found: PointTracks, count: int, frames: int, name: str) -> PointTracks:
    shapes = {"xy": (count, frames, 2), "visible": (count, frames), "visibility": (count, frames), "confidence": (count, frames)}
    for field, shape in shapes.items():
        if np.shape(getattr(found, field)) != shape:
            raise SegmotionError(f"tracker {name}: {field} must have shape {shape}, got {np.shape(getattr(found, field))}")
    finite = np.isfinite(found.xy).all(axis=2)
    return found._replace(visible=np.asarray(found.visible, bool) & finite)
