"""Keep masks of images that already lie somewhere, in the order that the caller gives."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segmotion_plugin.clip import IMAGE_SUFFIXES, natural_key, read_rgb
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.masks import read_grey
from segmotion_plugin.ownership import MANIFEST
from segmotion_plugin.settings import MaskSettings


@dataclass
class ClipMasks:
    """Masks of the images of one clip, in a scratch folder.

    Attributes:
        folder: the processed clip (`masks/`, `motion/`).
        names: name of every image inside that folder, in the order in which the images were given.
        report: the report of the run.
    """

    folder: Path
    names: list[str]
    report: dict[str, Any]

    def keep(self, index: int) -> np.ndarray:
        """H×W uint8 keep mask (255 = static) of an image."""
        return read_grey(self.folder / "masks" / f"{Path(self.names[index]).stem}.png")

    def objects(self, index: int) -> np.ndarray:
        """H×W uint8 object ids (0 = static) of an image."""
        return read_grey(self.folder / "motion" / "objects" / f"{Path(self.names[index]).stem}.png")


def find_masks(images: Sequence[Path], scratch: Path, settings: MaskSettings) -> ClipMasks:
    """Find what moves in images that follow each other in the order given.

    The images are linked under numbered names, so that neither their names nor their folders matter. The scratch folder can be
    given again: what an interrupted run finished is used.

    Args:
        images: two or more image files of one size.
        scratch: folder for intermediate files and the result; the caller removes it.
        settings: `extra_masks`, `every` and `target_frames` must be unset: extra masks are the caller's, and every image gets a mask.

    Raises:
        SegmotionError: the images cannot be used.
    """
    from segmotion_plugin import pipeline
    from segmotion_plugin.ingest import load_frames_json

    if len(images) < 2:
        where = images[0] if images else scratch
        raise SegmotionError(f"{where}: {len(images)} image(s); motion needs at least two images of a clip")
    stage = Path(scratch) / "input"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    for number, image in enumerate(images):
        link_or_copy(Path(image), stage / f"{number:06d}{Path(image).suffix.lower()}")
    out = Path(scratch) / "clip"
    try:
        report = pipeline.masks(stage, out, replace(settings, extra_masks=None, every=1, target_frames=None))
    except SegmotionError as error:
        text = str(error)  # the user knows the images by their own names
        for number, image in enumerate(images):
            text = text.replace(str(stage / f"{number:06d}{Path(image).suffix.lower()}"), str(image))
        raise SegmotionError(text.replace(str(stage), str(Path(images[0]).parent))) from None
    found = {entry["source"]: entry["name"] for entry in load_frames_json(out)["images"]}
    names = [found[f"{number:06d}{Path(image).suffix.lower()}"] for number, image in enumerate(images)]
    shutil.rmtree(stage, ignore_errors=True)
    return ClipMasks(out, names, report)


def link_or_copy(source: Path, target: Path) -> None:
    """Symbolic link where the file system has them, a copy elsewhere."""
    try:
        os.symlink(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def list_images(folder: Path) -> list[Path]:
    """Images in a folder and its sub-folders, folder by folder, in natural order (frame2 before frame10).

    Hidden ones are left out, and sub-folders that we wrote: masks beside their images are no images.

    Raises:
        SegmotionError: there is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SegmotionError(f"{folder}: no such folder of images")
    found = []
    for here, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and not (Path(here) / name / MANIFEST).is_file()]
        found += [Path(here) / name for name in files if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise SegmotionError(f"{folder}: no images in this folder or below; expected files named {', '.join(sorted(IMAGE_SUFFIXES))}")
    return sorted(found, key=lambda p: (natural_key(p.parent.relative_to(folder).as_posix()), natural_key(p.name), p.name))


def clips_of(images: Sequence[Path]) -> list[list[int]]:
    """Indices of the images of every folder: one folder is one clip (one camera of a rig, one video)."""
    groups: dict[Path, list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(Path(image).parent, []).append(index)
    return list(groups.values())


# Pairs that are looked at, the size they are looked at in, and the share of followed pixels that makes them neighbours.
_PAIRS, _WIDTH, _FOLLOWED = 24, 160, 0.35


def looks_ordered(images: Sequence[Path]) -> bool:
    """Whether images follow each other as frames of a video do.

    The rule: of up to 24 pairs of neighbours, more than half must show the same picture moved a little, that is, optical flow
    between small grey copies leads there and back within two pixels for at least 35 % of the pixels, with like brightness.
    """
    import cv2

    starts = np.unique(np.linspace(0, len(images) - 2, min(_PAIRS, len(images) - 1)).round().astype(int))
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    followed = []
    for start in starts.tolist():
        first, second = (_small(Path(images[i])) for i in (start, start + 1))
        if first.shape != second.shape:
            followed.append(False)
            continue
        forward, backward = flow.calc(first, second, None), flow.calc(second, first, None)
        rows, columns = np.mgrid[: first.shape[0], : first.shape[1]].astype(np.float32)
        x, y = columns + forward[..., 0], rows + forward[..., 1]
        home = cv2.remap(backward, x, y, cv2.INTER_LINEAR, borderValue=(1e3, 1e3, 0, 0))
        seen = cv2.remap(second, x, y, cv2.INTER_LINEAR, borderValue=255)
        alike = np.abs(seen.astype(np.float32) - first) < 20
        followed.append(float(np.mean((np.linalg.norm(forward + home, axis=2) < 2.0) & alike)) >= _FOLLOWED)
    return sum(followed) > len(followed) / 2


def _small(image: Path) -> np.ndarray:
    import cv2

    picture = read_rgb(image)
    height = max(16, round(_WIDTH * picture.shape[0] / picture.shape[1]))
    return cv2.cvtColor(cv2.resize(picture, (_WIDTH, height), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
