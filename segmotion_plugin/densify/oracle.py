"""An oracle segmenter: answers clicks from the truth, with mistakes of a known kind. For measuring the prompting itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from segmotion_plugin.densify.segmenter import MaskPrompt

HALVES = ("left", "right", "top", "bottom")


class OracleSegmenter:
    """Knows the objects of a clip and is wrong about some clicks.

    The mistakes are a function of the seed, the frame and the first point, so that the same question has the same answer. Points
    mend them as they would with a real model: a negative point on a wrongly included neighbour removes it, a second positive point
    outside a returned part completes it.

    Args:
        labels: T×H×W uint8 true segments, moving or not; 0 = background.
        seed: of the mistakes.
        merge: share of clicks that return touching segments as well.
        part: share of clicks that return one half of the segment.
        miss: share of clicks that return nothing.
    """

    def __init__(self, labels: np.ndarray, seed: int = 0, merge: float = 0.0, part: float = 0.0, miss: float = 0.0) -> None:
        self.labels = labels
        self.seed, self.merge, self.part, self.miss = seed, merge, part, miss
        self.clicks = 0

    def open(self, frames: Sequence[np.ndarray]) -> None:
        """Nothing to prepare: the truth is known."""
        self.clicks = 0

    def click(self, frame: int, xy: np.ndarray, positive: np.ndarray) -> np.ndarray:
        """As `Segmenter.click`."""
        self.clicks += 1
        labels = self.labels[frame]
        height, width = labels.shape
        column = np.clip(np.floor(xy[:, 0]).astype(int), 0, width - 1)
        row = np.clip(np.floor(xy[:, 1]).astype(int), 0, height - 1)
        under, positive = labels[row, column], np.asarray(positive, bool)
        wanted = set(under[positive].tolist()) - {0}
        if not wanted:
            return self._background(labels, row[0], column[0])
        # The first positive point says what is meant; the others only complete it.
        target = int(under[positive][0]) or min(wanted)
        mask = labels == target
        rng = np.random.default_rng([self.seed, frame, *np.round(xy[0] * 16).astype(np.int64).tolist()])
        kind, choice = rng.random(), int(rng.integers(len(HALVES)))
        if kind < self.miss:
            return np.zeros_like(mask) if positive.sum() < 2 else mask
        if kind < self.miss + self.merge:
            refused = set(under[~positive].tolist())
            for neighbour in touching(labels, target) - refused:
                mask = mask | (labels == neighbour)
            return mask
        if kind < self.miss + self.merge + self.part:
            for name in HALVES[choice:] + HALVES[:choice]:
                half = half_of(mask, name)
                if half[row[positive], column[positive]].all():
                    return half
        return mask

    def propagate(self, prompts: Sequence[MaskPrompt], start: int, stop: int) -> Iterator[tuple[int, dict[int, np.ndarray]]]:
        """Follows what each prompt shows: the set of segments it covers, or the same half; the nearest prompt in time decides."""
        meaning: dict[int, list[tuple[int, set[tuple[int, str]]]]] = {}
        for prompt in prompts:
            if start <= prompt.frame < stop:
                meaning.setdefault(prompt.object_id, []).append((prompt.frame, self._meaning(prompt)))
        for frame in range(start, stop):
            labels, scores = self.labels[frame], {}
            for k, readings in meaning.items():
                _, shown = min(readings, key=lambda reading: abs(reading[0] - frame))
                mask = np.zeros(labels.shape, bool)
                for segment, half in sorted(shown):
                    whole = labels == segment
                    mask |= half_of(whole, half) if half else whole
                scores[k] = np.where(mask, np.float32(1), np.float32(-1))
            yield frame, scores

    def _meaning(self, prompt: MaskPrompt) -> set[tuple[int, str]]:
        labels, shown = self.labels[prompt.frame], set()
        for segment in np.unique(labels[prompt.dynamic]):
            whole = labels == segment
            covered = (whole & prompt.dynamic).sum() / whole.sum()
            if segment and covered > 0.85:
                shown.add((int(segment), ""))
            elif segment and covered > 0.15:
                likeness = [(half_of(whole, name) == (whole & prompt.dynamic)).mean() for name in HALVES]
                shown.add((int(segment), HALVES[int(np.argmax(likeness))]))
        return shown

    @staticmethod
    def _background(labels: np.ndarray, row: int, column: int) -> np.ndarray:
        height, width = labels.shape
        y, x = np.ogrid[:height, :width]
        radius = min(height, width) / 6
        return ((y - row) ** 2 + (x - column) ** 2 < radius**2) & (labels == 0)


def touching(labels: np.ndarray, segment: int) -> set[int]:
    """Other segments with a pixel beside one of this segment."""
    grown = labels == segment
    grown[1:] |= labels[:-1] == segment
    grown[:-1] |= labels[1:] == segment
    grown[:, 1:] |= labels[:, :-1] == segment
    grown[:, :-1] |= labels[:, 1:] == segment
    return set(np.unique(labels[grown]).tolist()) - {0, segment}


def half_of(mask: np.ndarray, name: str) -> np.ndarray:
    """The left, right, top or bottom half (by area) of an H×W mask."""
    row, column = np.nonzero(mask)
    if len(row) == 0:
        return mask.copy()
    along = column if name in ("left", "right") else row
    middle = np.median(along)
    chosen = along <= middle if name in ("left", "top") else along > middle
    half = np.zeros_like(mask)
    half[row[chosen], column[chosen]] = True
    return half
