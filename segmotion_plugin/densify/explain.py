"""Dense evidence: does the static world explain what a pixel shows in other frames, or does only the measured flow?

Flow is smooth, so it drags a rim of background along with a moving object; tracks there are called moving and are wrong. The
picture tells: where the motion that the static tracks around imply explains a pixel's neighbourhood in the next frames as well as the
measured flow does, nothing there says that the pixel moves. Both directions in time are tried and the better one counts, because
background next to an object is covered by it in one of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Generic, TypeVar

import cv2
import numpy as np

from segmotion_plugin.boxes import Box
from segmotion_plugin.smooth_flow import fit_robustly, second_order
from segmotion_plugin.trackers.dis import sample

Value = TypeVar("Value")

_STRIDES = (1, 2, 4)
PROVEN, HALO = 1, 2
Seen = tuple[np.ndarray, np.ndarray, np.ndarray]
"""The visible tracks of a frame: ascending ids n, positions n×2 at full size, probability of motion n."""
WINDOW = 3
_FITTED = 1000  # points at most that a field of second order is fitted to
_STATIC_TRACKS = 12  # in common with another frame, for the two to be compared
KEPT = 48
"""Frames whose images are kept: as many as are looked at for one of them, and some more."""
_WANTED = 6.0  # pixels at full size between the two explanations; the stride grows until objects move by that much


def polynomial_flow(xy: np.ndarray, step: np.ndarray, weight: np.ndarray, size: tuple[int, int]) -> Callable[[np.ndarray], np.ndarray]:
    """Robust second-order flow field through the displacements of points (the flow of a plane seen by a moving camera has this form).

    Args:
        xy: n×2 positions.
        step: n×2 displacements.
        weight: n.
        size: (width, height), to scale the positions.

    Returns:
        A function from m×2 positions to m×2 displacements.
    """

    def basis(points: np.ndarray) -> np.ndarray:
        return second_order(points[:, 0] / size[0] * 2 - 1, points[:, 1] / size[1] * 2 - 1)

    every = max(1, -(-len(xy) // _FITTED))  # twelve numbers need no more
    coefficients, _ = fit_robustly(basis(xy[::every]), step[::every], weight[::every], ridge=1e-3, floor=0.25)
    return lambda points: basis(points) @ coefficients


def static_flow(
    xy: np.ndarray, step: np.ndarray, weight: np.ndarray, shape: tuple[int, int], box: Box | None = None, reach: float = 12.0
) -> np.ndarray:
    """Flow that the static world has at every pixel: a polynomial field, and around static points what they add to it.

    Args:
        xy: n×2 positions of static points, pixels at full size.
        step: n×2 displacements, pixels at full size.
        weight: n trust in each.
        shape: (h, w) of the image, half size.
        box: rows and columns that are wanted; all when absent.
        reach: standard deviation of a point's neighbourhood, pixels at half size.

    Returns:
        float32 displacements (x, y) of the box's size, pixels at full size.
    """
    h, w = shape
    rows, columns = (slice(0, h), slice(0, w)) if box is None else box
    field = polynomial_flow(xy, step, weight, (2 * w, 2 * h))
    rest = (step - field(xy)).astype(np.float32)
    far = np.linalg.norm(rest, axis=1)
    trusted = weight * (far < 4 * float(np.median(far)) + 4)
    # All is smooth, so it is made on a grid of every fourth pixel.
    small = ((h + 3) // 4, (w + 3) // 4)
    place = np.clip((xy[:, 1] / 8).astype(int), 0, small[0] - 1) * small[1] + np.clip((xy[:, 0] / 8).astype(int), 0, small[1] - 1)
    counted = [np.bincount(place, trusted * value, small[0] * small[1]) for value in (rest[:, 0], rest[:, 1], np.ones(len(rest)))]
    total = cv2.GaussianBlur(np.stack(counted, axis=1).reshape(*small, 3).astype(np.float32), (0, 0), reach / 4)
    y, x = np.mgrid[: small[0], : small[1]]
    coarse = field(np.stack([8 * x.ravel() + 4.0, 8 * y.ravel() + 4.0], axis=1)).reshape(*small, 2)
    coarse = (coarse + total[..., :2] / (total[..., 2:] + 1.6e-3)).astype(np.float32)
    # A cell's centre lies 2 pixels from its corner.
    grid = np.meshgrid(
        (np.arange(columns.start, columns.stop, dtype=np.float32) - 1.5) / 4,
        (np.arange(rows.start, rows.stop, dtype=np.float32) - 1.5) / 4,
    )
    return cv2.remap(coarse, grid[0], grid[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def flow_between(first: Seen, second: Seen, shape: tuple[int, int], box: Box, fewest: int) -> np.ndarray | None:
    """`static_flow` of a box from the tracks that two frames have in common; None where fewer than `fewest` of them are static."""
    ids, xy, probability = first
    if not len(second[0]):
        return None
    there = np.minimum(np.searchsorted(second[0], ids), len(second[0]) - 1)
    here = np.flatnonzero(second[0][there] == ids)
    there = there[here]
    weight = np.clip(1 - 2 * probability[here], 0, 1)
    if (weight > 0).sum() < fewest:
        return None
    return static_flow(xy[here], second[1][there] - xy[here], weight, shape, box)


def mismatch(first: np.ndarray, second: np.ndarray, flow: np.ndarray, box: Box | None = None) -> np.ndarray:
    """Mean absolute difference, in the best window around a pixel, between an image and another one seen through a flow.

    Args:
        first: h×w×C uint8 or float32.
        second: the same.
        flow: displacements (x, y) from first to second, of the box's size, pixels at twice this size.
        box: rows and columns of `first` to compare; all when absent.

    Returns:
        float32 of the box's size.
    """
    h, w = first.shape[:2]
    rows, columns = (slice(0, h), slice(0, w)) if box is None else box
    there = places((rows, columns), flow)
    seen = cv2.remap(second, there, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    difference = cv2.absdiff(first[rows, columns], seen).astype(np.float32)
    difference = cv2.transform(difference, np.full((1, first.shape[2]), 1 / first.shape[2], np.float32))
    difference[cv2.inRange(there, (0, 0), (w - 1, h - 1)) == 0] = 255.0
    # The best of all windows that hold the pixel: a window that reaches over the object's outline does not blame its neighbour.
    return cv2.erode(cv2.boxFilter(difference, -1, (WINDOW, WINDOW)), np.ones((WINDOW, WINDOW), np.uint8))


def places(box: Box, flow: np.ndarray) -> np.ndarray:
    """Column and row, float32 of the box's size × 2, where its pixels are led by a flow of that size in pixels at twice this size."""
    return cv2.scaleAdd(flow, 0.5, _grid(box[0].start, box[0].stop, box[1].start, box[1].stop))


@lru_cache(maxsize=4)
def _grid(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """Columns and rows of the pixels of a box, float32 of its size × 2; not to be written to."""
    return np.stack(np.meshgrid(np.arange(left, right, dtype=np.float32), np.arange(top, bottom, dtype=np.float32)), axis=-1)


def follow(field: np.ndarray, flow: np.ndarray, box: Box | None = None) -> np.ndarray:
    """What h×w(×C) values are where a flow leads: displacements of the box's size (h×w×2 without a box), pixels at twice this size."""
    h, w = field.shape[:2]
    there = places((slice(0, h), slice(0, w)) if box is None else box, flow)
    return cv2.remap(field, there, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def compose(flows: list[np.ndarray], box: Box | None = None) -> np.ndarray:
    """Flow of a box over several frames from the flows of neighbouring pairs, each h×w×2 in pixels at twice this size."""
    total = flows[0] if box is None else flows[0][box]
    for flow in flows[1:]:
        total = total + follow(flow, total, box)
    return total


def splat(xy: np.ndarray, shape: tuple[int, int], radius: int) -> np.ndarray:
    """h×w bool at half size: within `radius` pixels (a square) of one of n×2 positions at full size."""
    marks = np.zeros(shape, np.uint8)
    column, row = np.clip((xy[:, 0] / 2).astype(int), 0, shape[1] - 1), np.clip((xy[:, 1] / 2).astype(int), 0, shape[0] - 1)
    marks[row, column] = 1
    return cv2.dilate(marks, np.ones((2 * radius + 1,) * 2, np.uint8)) > 0


def regions(
    worse: np.ndarray,
    apart: np.ndarray,
    near: np.ndarray,
    image: np.ndarray,
    *,
    told: float,
    least_apart: float,
    closing: int,
    halo_width: float,
    alike: float,
) -> np.ndarray:
    """Where the picture proves motion, and the halo that only follows it.

    Proof shows on texture and outlines, not on plain surfaces. What it encloses is an object's inside; what moves with the object by
    its flow, without proof, beside still background and outside of everything enclosed, is halo.

    Args:
        worse: h×w, by how many grey levels the static world explains a pixel worse than the flow.
        apart: h×w, pixels between the two explanations.
        near: h×w bool, near tracks that move.
        image: h×w×3 uint8 CIELAB, a little blurred.
        told: least `worse` of a proof.
        least_apart: least `apart` at which the explanations can be told apart.
        closing: radius over which proof is closed.
        halo_width: pixels from still background at most.
        alike: colour distance up to which a plain pixel counts as its still neighbour's continuation.

    Returns:
        h×w uint8 of PROVEN, HALO or 0.
    """
    candidate = near & (apart > least_apart)
    proof = candidate & (worse > told)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * closing + 1, 2 * closing + 1))
    padded = cv2.morphologyEx(np.pad(proof.astype(np.uint8), closing + 1), cv2.MORPH_CLOSE, kernel)
    reached = np.zeros((padded.shape[0] + 2, padded.shape[1] + 2), np.uint8)
    cv2.floodFill(padded, reached, (0, 0), 2)
    inside = (padded != 2)[closing + 1 : -closing - 1, closing + 1 : -closing - 1]
    depth = cv2.distanceTransform(candidate.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    halo = candidate & ~inside & (depth <= halo_width)
    # A plain rim may be the object's own: it is halo where it has the colour of the still background next to it.
    halo &= (worse < -0.25) | (_step_to_still(image, candidate) < alike)
    return np.where(proof, PROVEN, np.where(halo, HALO, 0)).astype(np.uint8)


def _step_to_still(image: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """h×w: distance in colour (8-bit CIELAB) from each pixel to the nearest pixel that is no candidate."""
    if candidate.all():
        return np.full(candidate.shape, np.inf, np.float32)
    _, nearest = cv2.distanceTransformWithLabels(
        candidate.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    rows, columns = np.nonzero(~candidate)
    image = image.astype(np.float32)
    colour_of = np.zeros((int(nearest.max()) + 1, 3), np.float32)
    colour_of[nearest[rows, columns]] = image[rows, columns]
    return np.linalg.norm(image - colour_of[nearest], axis=2)


class Recent(Generic[Value]):
    """Values by frame, made when they are asked for and kept until `count` later ones came; threads may ask at the same time."""

    def __init__(self, make: Callable[[int], Value], count: int) -> None:
        self._make, self._count = make, count
        self._kept: dict[int, Value] = {}
        self._lock = threading.Lock()

    def __call__(self, frame: int) -> Value:
        """The value of a frame."""
        with self._lock:
            known = self._kept.get(frame)
        if known is None:
            known = self._make(frame)
            with self._lock:
                self._kept[frame] = known
                while len(self._kept) > self._count:
                    del self._kept[next(iter(self._kept))]
        return known


class Explainer:
    """Compares the two explanations for the frames of one shot; threads may ask at the same time.

    Args:
        half: gives a frame at half size, h×w×3 uint8.
        flow: gives the stored flows of the pair (frame, frame + 1), forward and backward, at half size.
        at: gives the visible tracks of a frame.
        shot: half-open frame range.
    """

    def __init__(
        self,
        half: Callable[[int], np.ndarray],
        flow: Callable[[int], tuple[np.ndarray, np.ndarray]],
        at: Callable[[int], Seen],
        shot: tuple[int, int],
    ) -> None:
        self._half, self._flow, self._at, self._shot = half, flow, at, shot
        self.image = Recent(self._blurred, KEPT)
        """Gives h×w×3 uint8 CIELAB, a little blurred, of a frame."""

    def _blurred(self, frame: int) -> np.ndarray:
        lab = cv2.cvtColor(self._half(frame), cv2.COLOR_RGB2LAB)
        return cv2.GaussianBlur(lab, (3, 3), 0)

    def __call__(self, frame: int, box: Box) -> tuple[np.ndarray, np.ndarray] | None:
        """Compare at a frame.

        Args:
            frame: index.
            box: rows and columns where the two explanations are weighed.

        Returns:
            Two float32 arrays of the box's size: by how many grey levels the static world explains the pixel worse than the flow does
            (negative: better), and how far apart the two explanations are, pixels at full size. None where there is no static track.
        """
        start, stop = self._shot
        tracks = self._at(frame)
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for direction in (1, -1):
            best = None
            for stride in _STRIDES:
                other = frame + direction * stride
                if not start <= other < stop:
                    break
                best = self._compare(frame, direction, stride, tracks, box) or best
                if best is not None and best[3] >= _WANTED:
                    break
            if best is not None:
                found.append(best[:3])
        if not found:
            return None
        static = np.min([entry[0] for entry in found], axis=0)
        measured = np.min([entry[1] for entry in found], axis=0)
        apart = np.max([entry[2] for entry in found], axis=0)
        return static - measured, apart

    def _compare(
        self, frame: int, direction: int, stride: int, tracks: Seen, box: Box
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, float] | None:
        other = frame + direction * stride
        image, second = self.image(frame), self.image(other)
        static = flow_between(tracks, self._at(other), (image.shape[0], image.shape[1]), box, _STATIC_TRACKS)
        if static is None:
            return None
        if direction > 0:
            measured = compose([self._flow(frame + i)[0] for i in range(stride)], box)
        else:
            measured = compose([self._flow(frame - 1 - i)[1] for i in range(stride)], box)
        apart = cv2.magnitude(*cv2.split(static - measured))
        rows, columns = box
        _, xy, probability = tracks
        moving = xy[probability > 0.5] / 2 - (columns.start, rows.start)
        typical = float(np.median(sample(apart, moving))) if len(moving) else 0.0
        return mismatch(image, second, static, box), mismatch(image, second, measured, box), apart, typical
