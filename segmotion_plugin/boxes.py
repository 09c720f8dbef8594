"""Boxes of pixels or cells: rows and columns of an array."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

Box: TypeAlias = tuple[slice, slice]


def box_around(marked: np.ndarray, margin: int) -> Box:
    """Rows and columns of the box around the True places of an h×w mask (one at least), with a margin, inside the mask."""
    rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    h, w = marked.shape
    return (
        slice(max(int(rows[0]) - margin, 0), min(int(rows[-1]) + margin + 1, h)),
        slice(max(int(columns[0]) - margin, 0), min(int(columns[-1]) + margin + 1, w)),
    )
