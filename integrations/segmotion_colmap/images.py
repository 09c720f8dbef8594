"""Keep masks of a folder of images, with sub-folders, in the naming that every COLMAP version reads."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from segmotion_colmap.clip_masks import clips_of, find_masks, list_images, looks_ordered
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import write_json, write_png
from segmotion_plugin.masks import read_keep_of
from segmotion_plugin.ownership import check_target, contains, staged_folder
from segmotion_plugin.settings import MaskSettings

Order = Literal["auto", "sequence", "unordered"]


@dataclass
class ImageMasks:
    """What `write_image_masks` did.

    Attributes:
        names: names of the images relative to their folder, as COLMAP calls them.
        masked_share: share of masked pixels per image.
        warnings: what the user should look at.
    """

    names: list[str]
    masked_share: list[float]
    warnings: list[str]


def write_image_masks(
    images: Path,
    masks: Path,
    settings: MaskSettings | None = None,
    *,
    order: Order = "auto",
    overwrite: bool = False,
    motion: Path | None = None,
) -> ImageMasks:
    """Find what moves in a folder of images and write one keep mask per image, `<masks>/<relative name>.png`.

    Every sub-folder is a clip of its own (one camera of a rig, one take). Images in which nothing moves get a white mask, because
    COLMAP from 3.12 on drops images without one. Masks appear together, once all are made.

    Args:
        images: the folder that COLMAP gets as image_path.
        masks: the folder that it gets as ImageReader.mask_path.
        settings: `extra_masks` may hold masks of the user (0 = leave out) under the same relative names, combined with ours.
        order: whether the images of a folder follow each other in time; auto looks at them.
        overwrite: replace a folder of masks that is there.
        motion: folder that receives tracks, object ids, report and overview of every clip, under its sub-folder's name.

    Raises:
        SegmotionError: no images, images that cannot be used, extra masks that do not fit, or a folder of masks that is there.
    """
    images, masks = Path(images), Path(masks)
    settings = settings or MaskSettings()
    settings.check()
    paths = list_images(images)
    names = [path.relative_to(images).as_posix() for path in paths]
    motion = None if motion is None else Path(motion)
    for target, what in ((masks, "the masks"), (motion, "--motion-dir")):
        if target is not None and contains(target, images):
            raise SegmotionError(f"{target}: {what} cannot lie where the images are or around them; give another folder")
    if motion is not None and (contains(motion, masks) or contains(masks, motion)):
        raise SegmotionError(f"{motion}: --motion-dir and the folder of the masks cannot contain each other; give another folder")
    for target in (masks, motion):
        if target is not None:
            check_target(target, overwrite)
    extra = OwnMasks(settings.extra_masks, names) if settings.extra_masks else None
    result = ImageMasks(names, [0.0] * len(names), [])
    with contextlib.ExitStack() as stack:
        fresh = stack.enter_context(staged_folder(masks, overwrite))
        fresh_motion = None if motion is None else stack.enter_context(staged_folder(motion, overwrite))
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix=".segmotion-", dir=fresh.parent))
        for number, members in enumerate(clips_of(paths)):
            clip_paths = [paths[i] for i in members]
            folder = clip_paths[0].parent.relative_to(images).as_posix()
            ordered = order == "sequence" or (order == "auto" and len(clip_paths) > 1 and looks_ordered(clip_paths))
            if not ordered:
                result.warnings.append(
                    f"{images / folder}: the images follow each other like photos, not like frames of a video; hardly any motion can "
                    "be seen in them (--order sequence overrules)"
                )
            clip = find_masks(clip_paths, Path(scratch) / str(number), replace(settings, unordered=not ordered))
            result.warnings += clip.report["warnings"]
            for position, index in enumerate(members):
                keep = clip.keep(position)
                if extra is not None:
                    keep = extra.combine(names[index], keep)
                result.masked_share[index] = float((keep == 0).mean())
                write_png(fresh / f"{names[index]}.png", keep)
            if fresh_motion is not None:
                _keep_motion(clip.folder / "motion", fresh_motion / folder, [names[i] for i in members], clip.names)
            shutil.rmtree(Path(scratch) / str(number), ignore_errors=True)
    heavy = [name for name, share in zip(names, result.masked_share, strict=True) if share > 0.8]
    if heavy:
        result.warnings.append(
            f"{len(heavy)} image(s) have more than 80 % masked, {heavy[0]} first: COLMAP will find few features there"
        )
    return result


def _keep_motion(source: Path, target: Path, names: list[str], clip_names: list[str]) -> None:
    from segmotion_plugin.files import read_json

    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("state.json", "files.json"))
    frames = read_json(target / "frames.json")
    source_of = dict(zip(clip_names, names, strict=True))
    for entry in frames["images"]:
        entry["source"] = source_of[entry["name"]]
    write_json(target / "frames.json", frames)


class OwnMasks:
    """Keep masks of the user's (0 = leave out) for images in sub-folders.

    A mask belongs to an image when it has the image's relative name with `.png` added, with its suffix replaced by `.png`, or as it
    is; one file `mask.png` serves all others.
    """

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise SegmotionError(f"{folder}: no such folder (--extra-masks)")
        self.found: dict[str, Path] = {}
        for name in names:
            candidates = [
                self.folder / f"{name}.png",
                (self.folder / name).with_suffix(".png"),
                self.folder / name,
                self.folder / "mask.png",
            ]
            path = next((c for c in candidates if c.is_file()), None)
            if path is not None:
                self.found[name] = path
        if not self.found:
            raise SegmotionError(f"{folder}: no mask in this folder is named after an image; expected, for instance, {names[0]}.png")

    def combine(self, name: str, keep: np.ndarray) -> np.ndarray:
        """H×W uint8 keep mask: 255 where ours and the user's keep.

        Raises:
            SegmotionError: the user's mask has another size.
        """
        if name not in self.found:
            return keep
        own = read_keep_of(self.found[name], name, (keep.shape[1], keep.shape[0]))
        return np.where(own > 0, keep, np.uint8(0))
