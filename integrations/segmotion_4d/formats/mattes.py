"""Mattes for compositing: one folder per object, one picture per frame, under the source's own names.

    DEST/
      all/shot.1001.png          dynamic: 255 = any moving object, 0 = static
      object_01/shot.1001.png    dynamic: 255 = object 1
      object_02/shot.1001.png

8-bit, one channel, not grown. Every object has a matte for every frame (empty where it is not seen), so that sequences have no gaps.
A source folder of images lends its stems (`shot.1001.exr.jpg` → `shot.1001.exr.png`); the frames of a video `clip.mp4` are called
`clip.0001.png` from 1 on, as compositors count.

Loaders: Nuke, Fusion, After Effects, Blender.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segmotion_4d.source import ImageRecord, Processed
from segmotion_4d.spec import Format
from segmotion_4d.writing import unique
from segmotion_plugin.clip import IMAGE_SUFFIXES
from segmotion_plugin.files import write_png


def matte_name(image: ImageRecord) -> str:
    """File name of an image's mattes."""
    source = Path(image.source)
    if source.suffix.lower() in IMAGE_SUFFIXES:
        return f"{source.stem}.png"
    return f"{source.stem}.{image.number + 1:04d}.png"


def _write(source: Processed, dest: Path) -> list[str]:
    names = [matte_name(image) for image in source.images]
    unique(zip((f"{i.source} (frame {i.number + 1})" for i in source.images), names, strict=True), "mattes")
    ids = source.object_ids
    for index in source.steps("mattes", range(len(source.images))):
        labels = source.labels(index)
        write_png(dest / "all" / names[index], np.where(labels > 0, np.uint8(255), np.uint8(0)))
        for k in ids:
            write_png(dest / f"object_{k:02d}" / names[index], np.where(labels == k, np.uint8(255), np.uint8(0)))
    steps = np.diff([image.frame for image in source.images])
    return ["the images are a selection of the frames: the mattes have gaps"] if len(steps) and steps.max() > 1 else []


FORMAT = Format(
    "mattes",
    "Nuke, Fusion, After Effects, Blender",
    "dynamic: 255 = the object, 0 = everything else",
    ("masks",),
    _write,
    "read as data",
    "read DEST/all as an image sequence",
)
