"""What a promptable video segmenter must offer to the iterative prompting of `segmotion_plugin.densify.prompting`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class MaskPrompt:
    """The mask of one object at one frame, from which it is followed.

    Attributes:
        object_id: 1, 2, ...
        frame: index in the clip.
        dynamic: H×W bool.
    """

    object_id: int
    frame: int
    dynamic: np.ndarray


class Segmenter(Protocol):
    """A model that segments what is clicked on and follows masks through a clip. Frames are read one at a time."""

    def open(self, frames: Sequence[np.ndarray]) -> None:
        """Begin a clip of frames H×W×3 uint8 RGB (a lazy sequence is fine)."""

    def click(self, frame: int, xy: np.ndarray, positive: np.ndarray) -> np.ndarray:
        """Segment what the points of a frame show.

        Args:
            frame: index in the clip.
            xy: n×2 pixels, centre of the top-left pixel = (0.5, 0.5).
            positive: n bool, False for points that must stay outside.

        Returns:
            H×W bool; the same answer for the same question.
        """

    def propagate(self, prompts: Sequence[MaskPrompt], start: int, stop: int) -> Iterator[tuple[int, dict[int, np.ndarray]]]:
        """Follow all objects together through frames [start, stop).

        Prompts outside the range are ignored. Yields every frame once, in any order, with an H×W float32 score for each object that
        has a prompt in the range; positive where the object is.
        """
