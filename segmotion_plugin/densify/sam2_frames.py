"""What both ways of running SAM 2.1 share: frames on demand, the order of the passes, scores at the size of the frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

STALE = 16
"""The model looks back over 6 masks and 15 object pointers; memories older than this many frames are dropped."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class NormalisedFrames:
    """Frames [start, stop) of a clip as normalised tensors 3×S×S float32, made when they are asked for.

    Args:
        frames: T frames H×W×3 uint8 RGB.
        start: first frame, number 0 here.
        stop: end.
        size: S, side of the model's square input.
    """

    def __init__(self, frames: Sequence[np.ndarray], start: int, stop: int, size: int) -> None:
        self.frames, self.start, self.stop, self.size = frames, start, stop, size

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Any:
        import torch
        import torch.nn.functional as F

        if not 0 <= index < len(self):
            raise IndexError(index)
        image = torch.from_numpy(np.array(self.frames[self.start + index])).permute(2, 0, 1)[None].float() / 255
        image = F.interpolate(image, (self.size, self.size), mode="bilinear", align_corners=False, antialias=True)[0]
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
        return (image - mean) / std


def passes(prompted: Sequence[int]) -> list[tuple[int, bool]]:
    """Passes (first frame, reverse) that reach all frames: forward from the earliest prompt, and back from it."""
    first = min(prompted)
    return [(first, False)] + ([(first, True)] if first else [])


def resized(score: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scores at the size of the frame, H×W float32."""
    if score.shape == (height, width):
        return score
    import cv2

    return cv2.resize(score.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
