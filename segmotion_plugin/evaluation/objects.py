"""Scores of several objects: assignment over the clip, counts, identity switches, and what moves at each frame.

Objects are ids in H×W uint8 label images, 0 = static. True and predicted ids need not agree; they are matched one to
one over the whole clip by the Hungarian method, as the unsupervised task of DAVIS 2017 does (Caelles et al., "The 2019
DAVIS Challenge on VOS").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation.davis import boundary_accuracies, frame_pairs

MATCH_COVER = 0.25
"""A predicted object carries a true one at a frame when it covers at least this share of its pixels."""


@dataclass
class ObjectScores:
    """Result of `object_scores` for K true and P predicted objects.

    Attributes:
        truth_ids: K ids of the true objects.
        assigned: K predicted ids, 0 where no predicted object is left for a true one.
        region: K mean J over all frames (0 where unassigned).
        boundary: K mean F over all frames, NaN when boundaries were not asked for.
        count_truth, count_predicted: objects with at least one pixel in the clip.
        switches: K changes of the predicted identity over each true object.
    """

    truth_ids: np.ndarray
    assigned: np.ndarray
    region: np.ndarray
    boundary: np.ndarray
    count_truth: int
    count_predicted: int
    switches: np.ndarray

    @property
    def count_right(self) -> bool:
        return self.count_truth == self.count_predicted

    def summary(self) -> dict[str, float | int | bool]:
        """Means over the true objects, ready for a table; NaN where there is no true object."""
        some = len(self.truth_ids) > 0
        return {
            "objects": self.count_truth,
            "objects_found": self.count_predicted,
            "count_right": self.count_right,
            "object_J": float(self.region.mean()) if some else float("nan"),
            "object_F": float(self.boundary.mean()) if some else float("nan"),
            "switches_per_object": float(self.switches.mean()) if some else float("nan"),
        }


def object_scores(
    truth: Iterable[np.ndarray], predicted: Iterable[np.ndarray], void: int | None = None, boundaries: bool = True
) -> ObjectScores:
    """Match predicted to true objects over a clip and score each pair.

    The match maximises the mean over frames of J, or of (J + F) / 2 when `boundaries` is set; as in DAVIS 2017, a pair
    scores 1 at a frame where neither is there. Predicted objects without a partner cost nothing here: the counts
    tell of them.

    Args:
        truth: T label images H×W uint8.
        predicted: T label images H×W uint8.
        void: true label of pixels that count for nobody (255 in DAVIS 2017).
        boundaries: compute F as well.

    Raises:
        SegmotionError: different numbers of frames, no frame, or sizes that differ.
    """
    lines: list[_FrameBoundaries] = []
    overlaps = _overlaps(truth, predicted, void, lines if boundaries else None)
    truth_ids = np.flatnonzero(overlaps.sum(axis=(0, 2))[1:]) + 1
    predicted_ids = np.flatnonzero(overlaps.sum(axis=(0, 1))[1:]) + 1
    region = _pair_iou(overlaps, truth_ids, predicted_ids)  # T×K×P
    boundary = np.full_like(region, np.nan)
    for t, line in enumerate(lines):
        boundary[t] = line.spread(truth_ids, predicted_ids)
    mean_region, mean_boundary = region.mean(axis=0), boundary.mean(axis=0)
    quality = (mean_region + mean_boundary) / 2 if boundaries else mean_region
    assigned = np.zeros(len(truth_ids), dtype=int)
    scores = np.zeros((2, len(truth_ids)))
    if not boundaries:
        scores[1] = np.nan
    for row, column in zip(*_best_assignment(quality), strict=True):
        assigned[row] = predicted_ids[column]
        scores[:, row] = mean_region[row, column], mean_boundary[row, column]
    switches = np.array([_switches(overlaps[:, k, :]) for k in truth_ids], dtype=int)
    return ObjectScores(truth_ids, assigned, scores[0], scores[1], len(truth_ids), len(predicted_ids), switches)


@dataclass
class MovingNowScores:
    """Result of `moving_now_scores`: what is said to move at each frame against what does.

    Attributes:
        region: T J of the union of what moves at each frame, NaN at frames where nothing moves.
        false_positives: T predicted moving objects that lie on nothing that moves at that frame.
        share: T share of the pixels masked.
    """

    region: np.ndarray
    false_positives: np.ndarray
    share: np.ndarray

    def summary(self) -> dict[str, float]:
        moving = np.isfinite(self.region)
        return {
            "J_moving": float(self.region[moving].mean()) if moving.any() else float("nan"),
            "false_positives_per_frame": float(self.false_positives.mean()),
            "share_masked_at_rest": float(self.share[~moving].mean()) if (~moving).any() else float("nan"),
        }


def moving_now_scores(
    truth: Iterable[np.ndarray],
    moving: np.ndarray,
    predicted: Iterable[np.ndarray],
    predicted_moving: np.ndarray | None = None,
    void: int | None = None,
) -> MovingNowScores:
    """Score per frame what moves *now*, after the MOS-I protocol (Xie et al., GMOS, 2026).

    A predicted object is a false positive at a frame when less than half of its pixels there lie on true objects that
    move there.

    Args:
        truth: T label images H×W uint8 of the objects that move at any time.
        moving: T×(K+1) bool, whether object k moves at frame t (column 0 is the static world).
        predicted: T label images H×W uint8.
        predicted_moving: T×(P+1) bool like `moving`; absent, a predicted object moves wherever it is seen.
        void: value of `truth` whose pixels count for nothing.

    Raises:
        SegmotionError: different numbers of frames, no frame, sizes that differ, or states of too few objects.
    """
    overlaps = _overlaps(truth, predicted, void, None)
    num_frames, num_truth, num_predicted = overlaps.shape
    true_now = _states("moving", moving, num_frames, num_truth)
    if predicted_moving is None:
        predicted_moving = np.ones((num_frames, num_predicted), dtype=bool)
    predicted_now = _states("predicted_moving", predicted_moving, num_frames, num_predicted)
    both = np.einsum("tkp,tk,tp->t", overlaps, true_now, predicted_now)
    union = np.einsum("tkp,tk->t", overlaps, true_now) + np.einsum("tkp,tp->t", overlaps, predicted_now) - both
    any_true = np.einsum("tkp,tk->t", overlaps, true_now) > 0
    region = np.where(any_true, both / np.maximum(union, 1), np.nan)
    size = overlaps.sum(axis=1) * predicted_now  # T×P
    on_movers = np.einsum("tkp,tk->tp", overlaps, true_now) * predicted_now
    false_positives = ((size > 0) & (2 * on_movers < size)).sum(axis=1)
    return MovingNowScores(region, false_positives, size.sum(axis=1) / overlaps.sum(axis=(1, 2)))


def masked_share(predicted: Iterable[np.ndarray]) -> np.ndarray:
    """T share of the pixels that each label image masks: the false-positive share of a clip where nothing moves."""
    return np.array([np.count_nonzero(labels) / max(labels.size, 1) for labels in predicted], dtype=float)


class _FrameBoundaries:
    """F between the objects present at one frame; the last row and column stand for every object that is absent."""

    def __init__(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        self.truth_ids, self.predicted_ids = (np.setdiff1d(labels, [0]) for labels in (truth, predicted))
        absent = np.zeros(truth.shape, dtype=bool)
        self.scores = boundary_accuracies(
            [*(truth == k for k in self.truth_ids), absent], [*(predicted == p for p in self.predicted_ids), absent]
        )

    def spread(self, truth_ids: np.ndarray, predicted_ids: np.ndarray) -> np.ndarray:
        """K×P scores of all objects of the clip at this frame."""
        row, column = (
            np.where(np.isin(wanted, present), np.searchsorted(present, wanted), len(present))
            for wanted, present in ((truth_ids, self.truth_ids), (predicted_ids, self.predicted_ids))
        )
        return self.scores[row[:, None], column[None, :]]


def _overlaps(
    truth: Iterable[np.ndarray],
    predicted: Iterable[np.ndarray],
    void: int | None,
    lines: list[_FrameBoundaries] | None,
) -> np.ndarray:
    """Pixels of every pair of labels per frame, T×(K+1)×(P+1) for largest labels K and P; fills `lines` when given."""
    counts: list[np.ndarray] = []
    for true_labels, labels in frame_pairs(truth, predicted):
        if void is not None:
            valid = true_labels != void
            true_labels, labels = true_labels * valid, labels * valid
        columns = int(labels.max()) + 1
        pair = true_labels.astype(np.int32).ravel() * columns + labels.ravel()
        counts.append(np.bincount(pair, minlength=(int(true_labels.max()) + 1) * columns).reshape(-1, columns))
        if lines is not None:
            lines.append(_FrameBoundaries(true_labels, labels))
    overlaps = np.zeros((len(counts), *np.max([count.shape for count in counts], axis=0)), dtype=np.int64)
    for t, count in enumerate(counts):
        overlaps[t, : count.shape[0], : count.shape[1]] = count
    return overlaps


def _pair_iou(overlaps: np.ndarray, truth_ids: np.ndarray, predicted_ids: np.ndarray) -> np.ndarray:
    both = overlaps[:, truth_ids][:, :, predicted_ids].astype(float)
    true_size = overlaps.sum(axis=2)[:, truth_ids, None]
    size = overlaps.sum(axis=1)[:, None, predicted_ids]
    union = true_size + size - both
    return np.where(union > 0, both / np.maximum(union, 1), 1.0)


def _best_assignment(quality: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(-quality)


def _switches(overlap: np.ndarray) -> int:
    """Changes of the predicted id that carries a true object, from its T×(P+1) overlaps.

    Frames where nobody carries it are passed over. The id of the frames before is kept as long as it still covers
    enough, so two predicted parts of equal size do not flicker.
    """
    size = overlap.sum(axis=1)
    carried, switches = 0, 0
    for t in np.flatnonzero(size > 0):
        cover = overlap[t] / size[t]
        cover[0] = 0.0
        if carried and cover[carried] >= MATCH_COVER:
            continue
        best = int(cover.argmax())
        if cover[best] >= MATCH_COVER:
            switches += int(carried not in (0, best))
            carried = best
    return switches


def _states(name: str, states: np.ndarray, num_frames: int, labels: int) -> np.ndarray:
    """T×labels bool with column 0 False, after checking that every label has a column."""
    states = np.array(states, dtype=bool)
    if states.ndim != 2 or states.shape[0] != num_frames or states.shape[1] < labels:
        raise SegmotionError(f"{name} must be {num_frames} frames × at least {labels} labels, got {states.shape}")
    states[:, 0] = False
    return states[:, :labels]
