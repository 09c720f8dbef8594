"""Masks of several objects over a clip, followed window by window and kept compressed."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from segmotion_plugin.densify.segmenter import MaskPrompt, Segmenter
from segmotion_plugin.devices import is_out_of_memory
from segmotion_plugin.errors import SegmotionError


class FollowedMasks:
    """Masks per frame and object. Objects may overlap; `labels` gives each pixel to the object of the highest score.

    Args:
        num_frames: T.
        height: H in pixels.
        width: W in pixels.
    """

    def __init__(self, num_frames: int, height: int, width: int) -> None:
        self.num_frames, self.height, self.width = num_frames, height, width
        self._masks: list[dict[int, bytes]] = [{} for _ in range(num_frames)]
        self._winner: list[bytes | None] = [None] * num_frames

    def store(self, frame: int, scores: dict[int, np.ndarray]) -> None:
        """Keep the masks (score > 0, H×W float32 per object) of a frame and which object wins each pixel."""
        self._masks[frame] = {k: _pack(score > 0) for k, score in scores.items() if (score > 0).any()}
        ids = sorted(self._masks[frame])
        self._winner[frame] = None
        if ids:
            winner = np.array(ids, np.uint8)[np.argmax(np.stack([scores[k] for k in ids]), axis=0)]
            self._winner[frame] = zlib.compress(winner.tobytes(), 1)

    def mask(self, frame: int, object_id: int) -> np.ndarray:
        """H×W bool mask of one object, overlaps included."""
        data = self._masks[frame].get(object_id)
        if data is None:
            return np.zeros((self.height, self.width), bool)
        bits = np.frombuffer(zlib.decompress(data), np.uint8)
        return np.unpackbits(bits, count=self.height * self.width).reshape(self.height, self.width).astype(bool)

    def objects(self, frame: int) -> list[int]:
        """Objects with a mask at a frame, ascending."""
        return sorted(self._masks[frame])

    def labels(self, frame: int) -> np.ndarray:
        """H×W uint8: 0 = static, k = object k."""
        labels = np.zeros((self.height, self.width), np.uint8)
        data = self._winner[frame]
        if data is None:
            return labels
        winner = np.frombuffer(zlib.decompress(data), np.uint8).reshape(labels.shape)
        for k in self.objects(frame):
            # An object also gets pixels whose winner is gone, because it was dropped or is absent.
            mask = self.mask(frame, k)
            labels[mask & ((winner == k) | (labels == 0))] = k
        return labels

    def rename(self, new: dict[int, int]) -> None:
        """Give objects other numbers; those with the same new number become one, those renamed to 0 are dropped."""
        table = np.arange(256, dtype=np.uint8)
        for old, number in new.items():
            table[old] = number
        for frame, masks in enumerate(self._masks):
            united: dict[int, np.ndarray] = {}
            for k in masks:
                number = int(table[k])
                if number:
                    mask = self.mask(frame, k)
                    united[number] = united[number] | mask if number in united else mask
            self._masks[frame] = {number: _pack(mask) for number, mask in united.items()}
            data = self._winner[frame]
            if data is not None:
                self._winner[frame] = zlib.compress(table[np.frombuffer(zlib.decompress(data), np.uint8)].tobytes(), 1)

    def discard(self, frame: int, object_ids: Sequence[int]) -> None:
        """Remove objects from one frame."""
        for k in object_ids:
            self._masks[frame].pop(k, None)


def _pack(mask: np.ndarray) -> bytes:
    return zlib.compress(np.packbits(mask).tobytes(), 1)


def follow(prompts: Sequence[MaskPrompt], segmenter: Segmenter, size: tuple[int, int, int], window: int) -> FollowedMasks:
    """Follow all prompted objects through a clip, in windows of bounded length.

    Neighbouring windows share a frame. An object without a prompt of its own in a window enters it with its mask from that frame.

    Args:
        prompts: verified masks.
        segmenter: an opened segmenter.
        size: number of frames, height and width.
        window: frames per window.
    """
    masks = FollowedMasks(*size)
    last = size[0] - 1
    start = 0
    while True:
        stop = min(start + max(2, window), size[0])
        inside = [prompt for prompt in prompts if start <= prompt.frame < stop]
        prompted = {prompt.object_id for prompt in inside}
        if start:
            inside += [MaskPrompt(k, start, masks.mask(start, k)) for k in masks.objects(start) if k not in prompted]
        if inside:
            ordered = sorted(inside, key=lambda prompt: (prompt.object_id, prompt.frame))
            try:
                for frame, scores in segmenter.propagate(ordered, start, stop):
                    if frame > start or start == 0:
                        masks.store(frame, scores)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                count = len({prompt.object_id for prompt in ordered})
                raise SegmotionError(
                    f"out of memory while {count} objects were followed through frames {start} to {stop - 1}.\n"
                    "Use a smaller model, a smaller --work-size or --device cpu."
                ) from None
        if stop > last:
            return masks
        start = stop - 1


def duplicates(masks: FollowedMasks, covered: float = 0.8, share: float = 0.5) -> dict[int, int]:
    """For every object the smallest number among those that are the same thing.

    Two are the same when one covers more than `covered` of the smaller in at least `share` of the frames with both; sameness is
    carried on by union-find.
    """
    counts: dict[tuple[int, int], list[int]] = {}
    parent: dict[int, int] = {}
    for frame in range(masks.num_frames):
        ids = masks.objects(frame)
        flat = {k: masks.mask(frame, k) for k in ids}
        for k in ids:
            parent.setdefault(k, k)
        for i, first in enumerate(ids):
            for second in ids[i + 1 :]:
                entry = counts.setdefault((first, second), [0, 0])
                smaller = min(int(flat[first].sum()), int(flat[second].sum()))
                entry[0] += int((flat[first] & flat[second]).sum()) > covered * smaller
                entry[1] += 1

    def root(k: int) -> int:
        while parent[k] != k:
            parent[k] = parent[parent[k]]
            k = parent[k]
        return k

    for (first, second), (same, both) in sorted(counts.items()):
        if same >= share * both:
            a, b = root(first), root(second)
            parent[max(a, b)] = min(a, b)
    return {k: root(k) for k in sorted(parent)}
