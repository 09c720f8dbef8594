"""How an export format describes itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from segmotion_4d.source import Need, Processed


@dataclass(frozen=True)
class Format:
    """One layout that an export can have.

    Attributes:
        name: as `--format` takes it.
        loader: the code that reads it.
        polarity: what its masks mean.
        needs: the parts of a processed folder that it is made of.
        write: writes it into an empty folder; returns remarks for the user.
    """

    name: str
    loader: str
    polarity: str
    needs: tuple[Need, ...]
    write: Callable[[Processed, Path], list[str]]
