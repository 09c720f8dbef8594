"""DAVIS: pictures and palette masks.

    DEST/
      JPEGImages/480p/<title>/00000.jpg     quality 95; hard links where the source is JPEG
      Annotations/480p/<title>/00000.png    palette PNG, index = object id: 0 = static, k = object k (dynamic), 255 = masked,
                                            but no object (DAVIS: not scored)
      ImageSets/2016/val.txt, ImageSets/2017/val.txt

The folder is named 480p whatever the size is, as every loader expects it. All images are written, with a pose or without.

Loaders: the DAVIS toolkits; SAM 2, XMem and Cutie in DAVIS mode; Shape-of-Motion's `data:davis`; `segmotion evaluate`.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from segmotion_4d.source import FIRST_RESERVED_ID, Processed
from segmotion_4d.spec import Format
from segmotion_4d.writing import link
from segmotion_plugin.clip import read_rgb
from segmotion_plugin.files import write_text

_QUALITY = 95
_NOT_SCORED = 255


def palette() -> np.ndarray:
    """256×3 uint8 colours, of PASCAL VOC and DAVIS: bit k of every third bit of the index sets bit 7 - k of a channel."""
    index = np.arange(256)
    colors = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colors


def write_palette_png(path: Path, labels: np.ndarray) -> None:
    """Write H×W uint8 object ids as a palette PNG."""
    from PIL import Image

    image = Image.fromarray(labels)
    image.putpalette(palette().tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _write(source: Processed, dest: Path) -> list[str]:
    images, masks = (dest / part / "480p" / source.title for part in ("JPEGImages", "Annotations"))
    for index in source.steps("images", range(len(source.images))):
        path = source.image_path(index)
        target = images / f"{index:05d}.jpg"
        if path.suffix.lower() in (".jpg", ".jpeg"):
            link(path, target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            _, data = cv2.imencode(".jpg", np.ascontiguousarray(read_rgb(path)[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
            target.write_bytes(data.tobytes())
        labels = source.labels(index)
        write_palette_png(masks / f"{index:05d}.png", np.where(labels >= FIRST_RESERVED_ID, np.uint8(_NOT_SCORED), labels))
    for year in ("2016", "2017"):
        write_text(dest / "ImageSets" / year / "val.txt", f"{source.title}\n")
    return []


FORMAT = Format(
    "davis",
    "DAVIS toolkits, SAM 2, XMem, Cutie",
    "dynamic: index = object id, 0 = static, 255 = no object",
    ("masks",),
    _write,
    "read as data",
    "segmotion evaluate davis DEST",
)
