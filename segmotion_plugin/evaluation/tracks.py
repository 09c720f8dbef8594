"""Scores of a track classifier: truth from masks, area under the ROC curve, and F1."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.tracks import Tracks


def track_truth(tracks: Tracks, truth: Iterable[np.ndarray]) -> np.ndarray:
    """The label that each track lies on in most of its visible frames.

    Args:
        tracks: N tracks over T frames, positions in pixels of the masks.
        truth: T label images H×W, 0 = static, k = object k.

    Returns:
        N int32: the object id when the track is on objects in more than half of its visible frames (of several objects
        the most frequent), 0 when it is on the static world, -1 when it is never visible inside the image.

    Raises:
        SegmotionError: not one mask per frame.
    """
    votes = np.zeros((len(tracks), 256), dtype=np.uint16)
    frame = -1
    for frame, labels in enumerate(truth):
        if frame >= tracks.num_frames:
            break
        ids, xy = tracks.observations_at(frame)
        column, row = np.floor(xy).astype(int).T.reshape(2, -1)
        inside = (row >= 0) & (row < labels.shape[0]) & (column >= 0) & (column < labels.shape[1])
        votes[ids[inside], labels[row[inside], column[inside]].astype(np.intp)] += 1
    if frame + 1 != tracks.num_frames:
        count = "more" if frame >= tracks.num_frames else str(frame + 1)
        raise SegmotionError(f"the tracks span {tracks.num_frames} frames, but there are {count} masks")
    seen = votes.sum(axis=1, dtype=np.int64)
    on_objects = seen - votes[:, 0]
    best = votes[:, 1:].argmax(axis=1) + 1
    return np.where(seen == 0, -1, np.where(2 * on_objects > seen, best, 0)).astype(np.int32)


def roc_auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    Computed from ranks (Mann and Whitney 1947). NaN when one of the classes is empty.

    Args:
        score: N numbers, larger = more likely positive.
        positive: N bool.

    Raises:
        SegmotionError: shapes that differ or scores that are not numbers.
    """
    score, positive = _checked(score, positive)
    wins = int(positive.sum())
    losses = len(positive) - wins
    if wins == 0 or losses == 0:
        return float("nan")
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2.0  # mean rank of each distinct score, from 1
    return float((rank[place.ravel()][positive].sum() - wins * (wins + 1) / 2) / (wins * losses))


def f1_score(predicted: np.ndarray, positive: np.ndarray) -> float:
    """F1 = 2 TP / (2 TP + FP + FN) of N bool decisions; 1 when nothing is positive and nothing is predicted so."""
    predicted, positive = np.asarray(predicted, dtype=bool), np.asarray(positive, dtype=bool)
    if predicted.shape != positive.shape:
        raise SegmotionError(f"decisions {predicted.shape} and truth {positive.shape} differ in shape")
    hits = np.count_nonzero(predicted & positive)
    wrong = np.count_nonzero(predicted ^ positive)
    return 1.0 if hits + wrong == 0 else float(2.0 * hits / (2 * hits + wrong))


def best_f1(score: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """The highest F1 over all thresholds, and the lowest score that counts as positive there.

    Returns:
        (F1, threshold); F1 is NaN when nothing is positive, the threshold then infinite.

    Raises:
        SegmotionError: shapes that differ or scores that are not numbers.
    """
    score, positive = _checked(score, positive)
    if not positive.any():
        return float("nan"), float("inf")
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(positive[order])
    f1 = 2.0 * hits / (np.arange(1, len(score) + 1) + positive.sum())
    last_of_ties = np.append(np.diff(score[order]) != 0, True)
    best = int(np.where(last_of_ties, f1, -1.0).argmax())
    return float(f1[best]), float(score[order][best])


def track_scores(score: np.ndarray, truth: np.ndarray, threshold: float) -> dict[str, float]:
    """AUC, F1 at a fixed threshold, and best F1 of a classifier against `track_truth`; tracks of truth -1 are left out.

    Args:
        score: N numbers, larger = more likely moving.
        truth: N ints from `track_truth`.
        threshold: scores at or above it count as moving.
    """
    known = np.asarray(truth) >= 0
    score, positive = np.asarray(score)[known], np.asarray(truth)[known] > 0
    called = score >= threshold
    total = max(len(score), 1)
    return {
        "track_AUC": roc_auc(score, positive),
        "track_F1": f1_score(called, positive),
        "track_best_F1": best_f1(score, positive)[0],
        "tracks_on_movers": float(positive.sum() / total),
        "tracks_called_moving": float(called.sum() / total),
    }


def _checked(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    score, positive = np.asarray(score, dtype=float), np.asarray(positive, dtype=bool)
    if score.shape != positive.shape or score.ndim != 1:
        raise SegmotionError(f"scores {score.shape} and truth {positive.shape} must both be N numbers")
    if np.isnan(score).any():
        raise SegmotionError(f"{int(np.isnan(score).sum())} of {len(score)} scores are not numbers")
    return score, positive
