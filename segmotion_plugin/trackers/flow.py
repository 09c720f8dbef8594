"""Optical flow of neighbouring frames: dense inverse search (DIS), and once more where motion was too far for it.

DIS is Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016. What it loses is looked for among backbone features
(`far.py`) and computed again from there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np

from segmotion_plugin.boxes import Box, box_around
from segmotion_plugin.rawstore import RawStore
from segmotion_plugin.trackers.far import beginnings, lost, missed_at_rest, unlike

_QUANTILES = np.linspace(0.1, 0.9, 9)  # of the grey levels, by which two exposures are compared
_ALIKE = 0.12  # logarithm of a gain: what moves into the picture changes its brightness by less from frame to frame
_WORSE = 4  # grey levels by which a flow must explain a place worse to be replaced there although it comes home

_Flows: TypeAlias = tuple[np.ndarray, np.ndarray]  # of a pair of frames: two images, or flow forward and backward
_Begun: TypeAlias = tuple["Future[np.ndarray]", "Future[np.ndarray]"]


class FlowStore:
    """Flow between neighbouring frames on disk, at half resolution.

    Values are float16 displacements in pixels of the full-size working frame, x then y.
    """

    def __init__(self, path: Path, width: int, height: int) -> None:
        self._store = RawStore(path, (2, (height + 1) // 2, (width + 1) // 2, 2), np.float16)

    def write(self, frame: int, forward: np.ndarray, backward: np.ndarray) -> None:
        """Store the flows of the pair (frame, frame + 1), each H×W×2 float32 at full size."""
        size = (self._store.shape[2], self._store.shape[1])
        small = [cv2.resize(flow, size, interpolation=cv2.INTER_AREA) for flow in (forward, backward)]
        self._store[frame] = np.clip(np.stack(small), -6e4, 6e4)

    def read(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Flows frame → frame + 1 and frame + 1 → frame, each h×w×2 float32 at half size."""
        forward, backward = self._store[frame]
        return forward, backward

    def flush(self) -> None:
        """Push everything written to the file."""
        self._store.flush()

    def close(self) -> None:
        """Close the file."""
        self._store.close()


class DisFlow:
    """DIS optical flow at the medium preset, deterministic.

    The preset ends at half resolution. Images whose longer side is below `SMALL` pixels, and ones that were enlarged to about twice
    their size, end at full resolution instead: a patch of 8 pixels then covers about the same part of any image, and of a mover that
    is hardly larger than a patch more points are followed.

    Args:
        width: of the images, pixels.
        height: of the images, pixels.
        enlarged: factor by which the images were enlarged.
    """

    SMALL, ENLARGED = 640, 1.9
    STRIDE, COARSE_STRIDE = 4, 5  # pixels between patches at full and at half resolution; 3 in the preset
    DESCENT = 12  # steps; with the preset's 25 and 3 it takes half as long again and brings no more home
    SMOOTHING = 40.0  # of enlarged images, twice the preset's: they are as smooth as their originals of half the size

    def __init__(self, width: int, height: int, enlarged: float = 1.0) -> None:
        # An engine that was given a beginning keeps it for later calls (and may crash on a larger image): so there are two.
        self._from_rest, self._from_flow = (cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM) for _ in range(2))
        fine = max(width, height) < self.SMALL or enlarged >= self.ENLARGED
        for engine in (self._from_rest, self._from_flow):
            engine.setFinestScale(0 if fine else 1)
            if enlarged >= self.ENLARGED:
                engine.setVariationalRefinementAlpha(self.SMOOTHING)
            engine.setPatchStride(self.STRIDE if fine else self.COARSE_STRIDE)
            engine.setGradientDescentIterations(self.DESCENT)

    def __call__(self, first: np.ndarray, second: np.ndarray, begin: np.ndarray | None = None) -> np.ndarray:
        """H×W×2 float32 flow from one H×W uint8 grey image to another, begun at rest or at a flow of that shape (overwritten)."""
        return (self._from_rest if begin is None else self._from_flow).calc(first, second, begin)


def pair_flows(
    frames: Sequence[np.ndarray] | RawStore, features: Sequence[np.ndarray] | RawStore | None, start: int, stop: int, enlarged: float
) -> Generator[_Flows, None, None]:
    """Flow forward and backward of every pair of neighbouring frames, the next pair's begun while one is used.

    Args:
        frames: images H×W×3 uint8 RGB.
        features: of the images, h×w×C each; with them motion is followed that is too far for the flow alone.
        start: first frame.
        stop: frame after the last one.
        enlarged: factor by which the images were enlarged.

    Yields:
        Two arrays H×W×2 float32, pixels.
    """
    height, width = frames[start].shape[:2]
    engines = DisFlow(width, height, enlarged), DisFlow(width, height, enlarged)
    absolute = missed_at_rest(enlarged)
    # An engine has buffers of its own and serves one pair at a time, so each has one thread.
    with ThreadPoolExecutor(max_workers=1) as ahead, ThreadPoolExecutor(max_workers=1) as back:

        def submit(first: np.ndarray, second: np.ndarray, begin: _Flows | tuple[None, None] = (None, None)) -> _Begun:
            return ahead.submit(engines[0], first, second, begin[0]), back.submit(engines[1], second, first, begin[1])

        def looked_at(index: int, first: np.ndarray, second: np.ndarray, begun: _Begun) -> _Pair:
            pair = _Pair((first, second), (begun[0].result(), begun[1].result()))
            if features is not None:
                images, small = _halved(pair.images, pair.flows)
                gone = lost(images, small, absolute / 4), lost(images[::-1], small[::-1], absolute / 4)
                found = beginnings(images, small, gone, (features[index], features[index + 1]))
                if found is not None:
                    box = _pixels_around(found[0].where | found[1].where, (width, height))
                    begin = _cropped((_enlarged(found[0].flow, (width, height)), _enlarged(found[1].flow, (width, height))), box)
                    pair.again = _Again(box, gone, (found[0].where, found[1].where), submit(*_cropped(pair.images, box), begin))
            return pair

        grey = cv2.cvtColor(frames[start], cv2.COLOR_RGB2GRAY)
        # While one pair is looked at, the engines have the next one's flow and what is begun again of the one before.
        waiting: deque[tuple[int, np.ndarray, np.ndarray, _Begun]] = deque()
        looked: deque[_Pair] = deque()
        for frame in range(start + 1, stop):
            following = cv2.cvtColor(frames[frame], cv2.COLOR_RGB2GRAY)
            alike = as_exposed(following, grey)
            waiting.append((frame - 1, grey, alike, submit(grey, alike)))
            if len(waiting) > 1:
                looked.append(looked_at(*waiting.popleft()))
            if len(looked) > 1:
                yield looked.popleft().finished()
            grey = following
        looked.extend(looked_at(*pair) for pair in waiting)
        for pair in looked:
            yield pair.finished()


class _Again(NamedTuple):
    """Flow of a pair of frames that is begun once more."""

    box: Box  # of the pictures
    lost: _Flows  # what each frame lost, h×w bool
    cells: _Flows  # where each has another beginning, h×w bool
    begun: _Begun  # flows of the box


@dataclass
class _Pair:
    """Two neighbouring frames, the flows between them, and what may still replace parts of these."""

    images: _Flows
    flows: _Flows
    again: _Again | None = None

    def finished(self) -> _Flows:
        """The flows when all is computed."""
        if self.again is not None:
            box, gone, cells, begun = self.again
            for seen, flow, mask, where, task in zip(
                (self.images, self.images[::-1]), self.flows, gone, cells, begun, strict=True
            ):
                _replace(seen, flow, mask, where, task.result(), box)
        return self.flows


def as_exposed(image: np.ndarray, like: np.ndarray) -> np.ndarray:
    """An H×W uint8 grey image as bright as another of its size; itself where both are about equally bright.

    Flow compares grey levels: a camera that sets its exposure anew, or a flickering lamp, would leave it nothing to follow.
    """
    here, there = (np.quantile(grey[::4, ::4], _QUANTILES) for grey in (image, like))
    gain = float(here @ there / max(here @ here, 1e-6))
    if here.max() < 1 or abs(np.log(max(gain, 1e-6))) < _ALIKE:
        return image
    return np.clip(np.round(image * np.float32(gain)), 0, 255).astype(np.uint8)


def _halved(images: _Flows, flows: _Flows) -> tuple[_Flows, _Flows]:
    """Two grey images and the flows between them at half size."""
    size = images[0].shape[1] // 2, images[0].shape[0] // 2
    first, second = (cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images)
    forward, backward = (cv2.resize(flow, size, interpolation=cv2.INTER_AREA) / 2 for flow in flows)
    return (first, second), (forward, backward)


def _enlarged(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """H×W×2 float32 pixels of an image of `size` (width, height) from displacements h×w×2 in cells of a grid over it."""
    rows, columns = flow.shape[:2]
    return cv2.resize(flow * np.array([size[0] / columns, size[1] / rows], np.float32), size, interpolation=cv2.INTER_LINEAR)


def _cropped(pair: _Flows, box: Box) -> _Flows:
    """A box of two arrays, contiguous as OpenCV wants it."""
    return np.ascontiguousarray(pair[0][box]), np.ascontiguousarray(pair[1][box])


def _pixels_around(cells: np.ndarray, size: tuple[int, int], margin: int = 4) -> Box:
    """Rows and columns of an image of `size` (width, height) around cells of a grid over it, with cells to spare on each side."""
    rows, columns = (
        slice(int(part.start * pixels / count), int(part.stop * pixels / count))
        for part, pixels, count in zip(box_around(cells, margin), size[::-1], cells.shape, strict=True)
    )
    return rows, columns


def _replace(
    seen: _Flows, flow: np.ndarray, gone: np.ndarray, cells: np.ndarray, again: np.ndarray, box: Box
) -> None:
    """Put the second flow of a box, in these cells and those beside them, where the first is lost or explains the pictures worse."""
    beside = cv2.dilate(cells.astype(np.uint8), np.ones((3, 3), np.uint8))
    size = flow.shape[1::-1]
    near, was_lost = (cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)[box] > 0 for mask in (beside, gone.astype(np.uint8)))
    first, second = _cropped(seen, box)
    better = unlike(first, second, flow[box]) > unlike(first, second, again).astype(np.float32) + _WORSE
    here = near & (was_lost | better)
    flow[box][here] = again[here]
