"""Cutting a clip's tracks into overlapping windows of the motion model, and merging what the windows say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree

from segmotion_plugin.motion.features import WINDOW, WindowTokens, window_tokens
from segmotion_plugin.motion.geometry import FitOptions
from segmotion_plugin.motion.salience import keys_first, unexplained
from segmotion_plugin.tracks import Tracks

STRIDES = (1, 3)
"""Frame strides of the windows. The coarse ones see motion that is slow, or that rests for a second."""

_LEAST_SEEN_COARSE = 6  # shorter tracks show nothing in a coarse window that a fine one does not show
MOST_TRACKS = 4096
"""Tracks judged per window; the others take their neighbours' word (`spread`)."""
KEYS = 512
_EVEN_KEYS = 320


@dataclass
class ClipWindow:
    """One window of a clip, its tracks in the order the model wants (keys first).

    Attributes:
        ids: n indices into the clip's tracks.
        frames: frames of the clip that the window's columns stand for (fewer than `WINDOW` at the end of a clip).
        stride: frames between two columns.
        tokens: one window, batch size 1.
    """

    ids: np.ndarray
    frames: np.ndarray
    stride: int
    tokens: WindowTokens


def plan(num_frames: int, strides: tuple[int, ...] = STRIDES) -> list[tuple[int, int]]:
    """(start, stride) of the windows that cover a clip with half overlap; linear in the number of frames."""
    windows = []
    for stride in strides:
        span = WINDOW * stride
        if stride > 1 and num_frames <= span // stride + stride:
            continue  # nothing is seen that the finer windows do not see
        last = max(0, num_frames - span)
        count = -(-last // (span // 2)) + 1
        starts = np.unique(np.round(np.linspace(0, last, count)).astype(int))
        windows += [(int(start), stride) for start in starts]
    return windows


def shuffled(xy: np.ndarray, visible: np.ndarray, seed: int) -> np.ndarray:
    """An order of tracks that looks random but depends on the tracks only, not on how they are listed.

    The first tracks in this order serve as keys and for the geometric fits; hashing the first visible position makes the
    choice the same for every permutation of the input.
    """
    first = visible.argmax(axis=1)
    point = np.ascontiguousarray(xy[np.arange(len(xy)), first], dtype=np.float32)
    bits = point.view(np.uint32).astype(np.uint64)
    mixed = bits[:, 0] << np.uint64(32) | bits[:, 1]
    mixed ^= (first.astype(np.uint64) + np.uint64(seed * 1024 + 1)) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.lexsort((point[:, 1], point[:, 0], mixed ^ (mixed >> np.uint64(31))))


def clip_windows(
    tracks: Tracks,
    image_size: tuple[int, int],
    depth: np.ndarray | None,
    seed: int,
    device: str,
    options: FitOptions,
    strides: tuple[int, ...] = STRIDES,
) -> Iterator[ClipWindow]:
    """Tokens of one window after the other; memory does not grow with the clip.

    Args:
        tracks: of the clip.
        image_size: (width, height) of the images the tracks are measured in.
        depth: M depths by observation, or None.
        seed: chooses keys and samples of the fits.
        device: of the tokens.
        options: effort of the fits.
        strides: of the windows.
    """
    as_tracks = None
    if depth is not None:
        columns = np.stack([depth, depth], axis=1)
        run = (tracks.first, tracks.offset, columns, tracks.visible_flat, np.ones(len(depth)), tracks.query_frame)
        as_tracks = Tracks(*run, tracks.num_frames)
    with np.errstate(over="ignore"):
        for first, last in tracks.stretches():
            for start, stride in plan(last - first, strides):
                # Random numbers do not depend on what was before a cut.
                generator = torch.Generator().manual_seed((seed * 1_000_003 + start * 31 + stride) % (2**62))
                frames = (first + start, min(first + start + WINDOW * stride, last))
                window = _clip_window(tracks, as_tracks, image_size, frames, stride, seed, generator, options)
                if window is not None:
                    window.tokens = window.tokens.to(device)
                    yield window


def _clip_window(
    tracks: Tracks,
    depths: Tracks | None,
    image_size: tuple[int, int],
    frames: tuple[int, int],
    stride: int,
    seed: int,
    generator: torch.Generator,
    options: FitOptions,
) -> ClipWindow | None:
    """The window of a range of frames, None where it shows too little; `depths` has depths for positions."""
    part = tracks.window(*frames)
    visible = part.visible[:, ::stride]
    enough = np.flatnonzero(visible.sum(axis=1) >= (2 if stride == 1 else _LEAST_SEEN_COARSE))
    if len(enough) == 0:
        return None
    xy = part.xy[enough][:, ::stride]
    visible = visible[enough]
    order = keys_first(unexplained(xy, visible, image_size), shuffled(xy, visible, seed), _EVEN_KEYS)[:MOST_TRACKS]
    chosen = enough[order]
    tokens = window_tokens(
        _padded(xy[order], 0)[None],
        _padded(visible[order], False)[None],
        _padded(part.confidence[chosen][:, ::stride], 0)[None],
        torch.tensor([image_size], dtype=torch.float32),
        options,
        generator,
        None if depths is None else _padded(depths.window(*frames).xy[chosen][:, ::stride, 0], np.nan)[None],
    )
    return ClipWindow(part.ids[chosen], np.arange(*frames, stride), stride, tokens)


def _padded(values: np.ndarray, fill: float | bool) -> torch.Tensor:
    """n×t×… -> n×WINDOW×…, filled behind."""
    missing = WINDOW - values.shape[1]
    if missing:
        values = np.pad(values, [(0, 0), (0, missing)] + [(0, 0)] * (values.ndim - 2), constant_values=fill)
    return torch.from_numpy(np.ascontiguousarray(values))


class Merger:
    """Merges the logits of overlapping windows by track identity.

    A track that moves in one window and rests in the others moves in the clip, so windows that see motion count more: the mean
    is weighted with visible frames × exp(sharpness · logit).

    Args:
        tracks: of the clip.
        sharpness: 0 gives the plain mean.
    """

    def __init__(self, tracks: Tracks, sharpness: float) -> None:
        self._tracks, self._sharpness = tracks, sharpness
        self._weight, self._sum = np.zeros(len(tracks)), np.zeros(len(tracks))
        self._frame_weight = np.zeros(len(tracks.xy_flat), np.float32)
        self._frame_sum = np.zeros(len(tracks.xy_flat), np.float32)

    def add(self, window: ClipWindow, track_logit: np.ndarray, frame_logit: np.ndarray) -> None:
        """Take in n track logits and n×`WINDOW` frame logits of a window."""
        columns = len(window.frames)
        visible = window.tokens.frame_visible[0].cpu().numpy()[:, :columns]
        logit = np.clip(track_logit, -20, 20).astype(np.float64)
        weight = visible.sum(axis=1) * np.exp(self._sharpness * logit)
        self._weight[window.ids] += weight
        self._sum[window.ids] += weight * logit
        first, length = self._tracks.first[window.ids], self._tracks.length[window.ids]
        for column, frame in enumerate(window.frames):
            for nearby in range(frame, min(frame + window.stride, self._tracks.num_frames)):
                inside = visible[:, column] & (nearby >= first) & (nearby < first + length)
                rows = self._tracks.offset[window.ids[inside]] + nearby - first[inside]
                self._frame_weight[rows] += 1
                self._frame_sum[rows] += frame_logit[inside, column]

    def result(self, unseen: float = -10.0) -> tuple[np.ndarray, np.ndarray]:
        """N track logits and M frame logits; tracks that no window judged take their neighbours' word, or `unseen`."""
        judged = self._weight > 0
        track = np.where(judged, self._sum / np.maximum(self._weight, 1e-300), unseen)
        frame = np.where(self._frame_weight > 0, self._frame_sum / np.maximum(self._frame_weight, 1), unseen)
        if not judged.all() and judged.any():
            _spread(self._tracks, judged, track, frame)
        return track, frame


def _spread(tracks: Tracks, judged: np.ndarray, track: np.ndarray, frame: np.ndarray, neighbours: int = 6) -> None:
    """Fill in N track and M frame logits of tracks without any, in place: the mean of the nearest judged ones that move alike.

    Tracks seen once stay as they are. The others ask in the middle of their life; a neighbour counts less the more its step to the
    next frame differs.
    """
    seen = np.bincount(tracks.track_flat, weights=tracks.visible_flat, minlength=len(tracks))
    waiting = np.flatnonzero(~judged & (seen > 1))
    middle = tracks.first[waiting] + np.maximum(tracks.length[waiting] - 2, 0) // 2
    step = np.zeros_like(tracks.xy_flat)
    step[:-1] = tracks.xy_flat[1:] - tracks.xy_flat[:-1]
    last = tracks.offset[1:] - 1
    step[last] = step[np.maximum(last - 1, tracks.offset[:-1])] * (tracks.length > 1)[:, None]
    for at in np.unique(middle):
        rows = tracks.rows_at(int(at))
        owner = tracks.track_flat[rows]
        rows, owner = rows[judged[owner]], owner[judged[owner]]
        asking = waiting[middle == at]
        if not len(rows):
            continue
        own = tracks.offset[asking] + at - tracks.first[asking]
        distance, found = cKDTree(tracks.xy_flat[rows]).query(tracks.xy_flat[own], k=min(neighbours, len(rows)))
        distance, found = distance.reshape(len(asking), -1), found.reshape(len(asking), -1)
        difference = np.linalg.norm(step[rows][found] - step[own][:, None], axis=2)
        tolerance = 1.0 + 0.1 * np.linalg.norm(step[own], axis=1)[:, None]
        weight = 1 / (1 + (difference / tolerance) ** 2) / (1 + distance / (distance[:, :1] + 1e-3))
        weight /= weight.sum(axis=1, keepdims=True)
        track[asking] = (weight * track[owner[found]]).sum(axis=1)
        mean = (weight * frame[rows][found]).sum(axis=1)
        for one, value in zip(asking, mean, strict=True):
            frame[tracks.offset[one] : tracks.offset[one + 1]] = value
