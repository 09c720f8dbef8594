"""Region similarity J and boundary accuracy F of the DAVIS benchmark.

Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016. J is the
intersection over union. F is the harmonic mean of boundary precision and recall, where a boundary pixel counts as found
when the other boundary passes within 0.008 of the image diagonal. A sequence's score is the mean over all its frames, a
data set's the mean over its sequences.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.masks import dilate

BOUND = 0.008
"""Tolerance of the boundary measure, as a share of the image diagonal."""


def region_similarity(truth: np.ndarray, predicted: np.ndarray, void: np.ndarray | None = None) -> float:
    """J, the intersection over union of two H×W masks; 1 when both are empty.

    Args:
        truth: H×W, nonzero on the object.
        predicted: H×W, nonzero on the object.
        void: H×W bool, pixels that count for neither.

    Raises:
        SegmotionError: masks of different sizes.
    """
    truth, predicted = _pair(truth, predicted, void)
    union = np.count_nonzero(truth | predicted)
    return 1.0 if union == 0 else np.count_nonzero(truth & predicted) / union


def boundary_accuracy(
    truth: np.ndarray, predicted: np.ndarray, void: np.ndarray | None = None, bound: float = BOUND
) -> float:
    """F, the boundary measure of two H×W masks.

    Where neither mask has a boundary (both empty, or both cover the whole image) F is 1; where only one has, 0.

    Args:
        truth: H×W, nonzero on the object.
        predicted: H×W, nonzero on the object.
        void: H×W bool, pixels that count for neither.
        bound: tolerance, a share of the diagonal when below 1, else pixels.

    Raises:
        SegmotionError: masks of different sizes.
    """
    truth, predicted = _pair(truth, predicted, void)
    radius = tolerance(truth.shape, bound)
    return _boundary_f(Boundary(truth, radius), Boundary(predicted, radius))


def boundary_accuracies(
    truth: Sequence[np.ndarray], predicted: Sequence[np.ndarray], bound: float = BOUND
) -> np.ndarray:
    """F of every pair of K true and P predicted H×W masks, K×P; each mask's boundary is grown only once."""
    scores = np.zeros((len(truth), len(predicted)))
    if not len(truth) or not len(predicted):
        return scores
    radius = tolerance(np.shape(truth[0]), bound)
    lines = [Boundary(np.asarray(mask) != 0, radius) for mask in predicted]
    for row, mask in enumerate(truth):
        line = Boundary(np.asarray(mask) != 0, radius)
        scores[row] = [_boundary_f(line, other) for other in lines]
    return scores


def sequence_scores(
    truth: Iterable[np.ndarray], predicted: Iterable[np.ndarray], bound: float = BOUND
) -> tuple[np.ndarray, np.ndarray]:
    """J and F of every frame of a sequence, as two arrays of T.

    Args:
        truth: T masks H×W, nonzero on the object.
        predicted: T masks H×W, nonzero on the object.

    Raises:
        SegmotionError: different numbers of frames, no frame, or frames of different sizes.
    """
    scores = [
        (region_similarity(mask, guess), boundary_accuracy(mask, guess, bound=bound))
        for mask, guess in frame_pairs(truth, predicted)
    ]
    region, boundary = np.array(scores).T
    return region, boundary


def frame_pairs(
    truth: Iterable[np.ndarray], predicted: Iterable[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Walk true and predicted frames in step.

    Raises:
        SegmotionError: different numbers of frames, no frame at all, or a frame that is not H×W in both, of one size.
    """
    count = 0
    for true_mask, mask in itertools.zip_longest(truth, predicted):
        if true_mask is None or mask is None:
            more = "truth" if mask is None else "prediction"
            raise SegmotionError(f"truth and prediction differ in length: after {count} frames only the {more} goes on")
        if np.ndim(true_mask) != 2 or np.shape(true_mask) != np.shape(mask):
            raise SegmotionError(
                f"frame {count}: true mask {np.shape(true_mask)} and predicted mask {np.shape(mask)} "
                "must both be H×W of one size"
            )
        yield true_mask, mask
        count += 1
    if count == 0:
        raise SegmotionError("no frame to score: truth and prediction are empty")


def boundary_map(mask: np.ndarray) -> np.ndarray:
    """The one pixel wide boundary of an H×W bool mask, as uint8 0/1.

    A pixel is on it when its neighbour to the right, below, or diagonally right below differs; outside the image the
    border pixel is repeated. This is `seg2bmap` of the Berkeley segmentation benchmark (Martin, Fowlkes, Malik, PAMI
    2004), which DAVIS uses.
    """
    seg = np.ascontiguousarray(mask != 0).view(np.uint8)
    edge = np.zeros_like(seg)
    here = seg[:-1, :-1]
    edge[:-1, :-1] = (here ^ seg[:-1, 1:]) | (here ^ seg[1:, :-1]) | (here ^ seg[1:, 1:])
    edge[-1, :-1] = seg[-1, :-1] ^ seg[-1, 1:]
    edge[:-1, -1] = seg[:-1, -1] ^ seg[1:, -1]
    return edge


def tolerance(shape: Sequence[int], bound: float = BOUND) -> int:
    """Radius in whole pixels within which boundaries of images of this shape (H, W) match."""
    return math.ceil(bound if bound >= 1 else bound * math.hypot(shape[0], shape[1]))


def masked_and_missed(
    truth: Iterable[np.ndarray], predicted: Iterable[np.ndarray], void: Iterable[np.ndarray] | None = None
) -> dict[str, float | None]:
    """What structure from motion feels of a sequence's masks.

    Static pixels are those farther from the true mask than the boundary measure's tolerance (8 pixels at 854×480): the border, where
    annotators differ, is neither static nor moving there. Mover pixels are all those of the true mask.

    Args:
        truth: T masks H×W, nonzero on the object.
        predicted: T masks H×W, nonzero where something is masked.
        void: T masks H×W, nonzero on pixels that count for neither; none when absent.

    Returns:
        `static_masked`, the share of all frames' static pixels that is masked, and `mover_missed`, the share of all frames' mover
        pixels that is not; None where there are no such pixels.

    Raises:
        SegmotionError: different numbers of frames, no frame, or frames of different sizes.
    """
    static = masked = mover = missed = 0
    unscored = iter(void) if void is not None else itertools.repeat(None)
    for mask, guess in frame_pairs(truth, predicted):
        left_out = next(unscored)
        scored = np.ones(mask.shape, bool) if left_out is None else np.asarray(left_out) == 0
        moves, found = (np.asarray(mask) != 0) & scored, np.asarray(guess) != 0
        rests = ~dilate(moves, tolerance(mask.shape)) & scored
        static, masked = static + np.count_nonzero(rests), masked + np.count_nonzero(rests & found)
        mover, missed = mover + np.count_nonzero(moves), missed + np.count_nonzero(moves & ~found)
    return {"static_masked": masked / static if static else None, "mover_missed": missed / mover if mover else None}


class Boundary:
    """A mask's boundary and what lies within the tolerance of it, kept for the boundary's bounding box only.

    Attributes:
        count: number of boundary pixels.
        box: (top, bottom, left, right) of the grown boundary, bottom and right exclusive.
        line, near: 0/1 uint8 within `box`: the boundary, and the boundary grown by a disk.
    """

    def __init__(self, mask: np.ndarray, radius: int) -> None:
        import cv2

        edge = boundary_map(mask)
        rows = np.flatnonzero(edge.any(axis=1))
        self.count = 0
        self.box = (0, 0, 0, 0)
        self.line = self.near = edge[:0, :0]
        if not len(rows):
            return
        columns = np.flatnonzero(edge.any(axis=0))
        height, width = edge.shape
        top, bottom = max(int(rows[0]) - radius, 0), min(int(rows[-1]) + radius + 1, height)
        left, right = max(int(columns[0]) - radius, 0), min(int(columns[-1]) + radius + 1, width)
        self.box = (top, bottom, left, right)
        self.line = np.ascontiguousarray(edge[top:bottom, left:right])
        self.count = int(np.count_nonzero(self.line))
        self.near = cv2.dilate(self.line, _disk(radius))

    def found_by(self, other: Boundary) -> int:
        """How many pixels of this boundary lie within the tolerance of the other."""
        top, bottom = max(self.box[0], other.box[0]), min(self.box[1], other.box[1])
        left, right = max(self.box[2], other.box[2]), min(self.box[3], other.box[3])
        if top >= bottom or left >= right:
            return 0
        line = self.line[top - self.box[0] : bottom - self.box[0], left - self.box[2] : right - self.box[2]]
        near = other.near[top - other.box[0] : bottom - other.box[0], left - other.box[2] : right - other.box[2]]
        return int(np.count_nonzero(line & near))


def _boundary_f(truth: Boundary, predicted: Boundary) -> float:
    if truth.count == 0 and predicted.count == 0:
        return 1.0
    if truth.count == 0 or predicted.count == 0:
        return 0.0
    precision = predicted.found_by(truth) / predicted.count
    recall = truth.found_by(predicted) / truth.count
    return 2.0 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


@functools.lru_cache(maxsize=16)
def _disk(radius: int) -> np.ndarray:
    """(2r+1)×(2r+1) uint8, 1 where x² + y² ≤ r²."""
    offset = np.arange(-radius, radius + 1)
    return (offset[:, None] ** 2 + offset[None, :] ** 2 <= radius**2).astype(np.uint8)


def _pair(truth: np.ndarray, predicted: np.ndarray, void: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    truth, predicted = np.asarray(truth) != 0, np.asarray(predicted) != 0
    if truth.ndim != 2 or truth.shape != predicted.shape:
        raise SegmotionError(
            f"true and predicted masks must both be H×W of one size, got {truth.shape} and {predicted.shape}"
        )
    if void is not None:
        truth, predicted = truth & ~void, predicted & ~void
    return truth, predicted
