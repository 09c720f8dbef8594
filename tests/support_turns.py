"""One picture stored with each of the eight EXIF orientations."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

ORIENTATION = 274
"""The EXIF tag: 1 upright, 2–4 mirrored or upside down, 5–8 on the side."""
WIDTH, HEIGHT = 160, 120


def picture() -> np.ndarray:
    """HEIGHT×WIDTH×3 uint8 with much to find in it."""
    coarse = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    return cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)


def write_turned(path: Path, orientation: int) -> Path:
    """Store the picture as it is, with a tag that says how viewers are to turn it."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture()).save(path, exif=exif, **({"quality": 95} if path.suffix == ".jpg" else {}))
    return path


def left_half() -> np.ndarray:
    """HEIGHT×WIDTH uint8 keep mask of the stored picture."""
    keep = np.zeros((HEIGHT, WIDTH), np.uint8)
    keep[:, : WIDTH // 2] = 255
    return keep
