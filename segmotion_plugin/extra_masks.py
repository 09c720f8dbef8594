"""Masks that people painted or brought: found by name, checked, combined with ours; also those in the alpha of their images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.masks import read_keep_of
from segmotion_plugin.tiff import as_stored


class ExtraMasks:
    """A folder of keep masks (0 = leave out), one per image, or a single file `mask.png` for all images.

    A mask belongs to an image when it is called `<name>.png`, `<stem>.png` or has the name itself, after the name of the image in
    OUT/images or of its source. Images without one are left as they are; a folder in which no name fits is an error.
    """

    def __init__(self, folder: Path, names: list[str], sources: list[str]) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise SegmotionError(f"{folder}: no such folder (--extra-masks)")
        files = {p.name: p for p in self.folder.iterdir() if p.is_file()}
        single = files.get("mask.png")
        self.found: dict[str, Path] = {}
        for name, source in zip(names, sources, strict=True):
            for candidate in (f"{name}.png", f"{Path(name).stem}.png", f"{source}.png", f"{Path(source).stem}.png", source):
                if candidate in files:
                    self.found[name] = files[candidate]
                    break
            else:
                if single is not None:
                    self.found[name] = single
        if not self.found:
            raise SegmotionError(
                f"{folder}: no mask in this folder is named after an image; "
                f"expected, for instance, {names[0]}.png or {Path(sources[0]).stem}.png"
            )

    def combine(self, name: str, keep: np.ndarray) -> np.ndarray:
        """H×W uint8 keep mask: 255 where ours and the extra one keep.

        Raises:
            SegmotionError: the extra mask has another size.
        """
        if name not in self.found:
            return keep
        extra = read_keep_of(self.found[name], name, (keep.shape[1], keep.shape[0]))
        return np.where(extra > 0, keep, np.uint8(0))


def read_alpha(image: Path) -> np.ndarray | None:
    """H×W uint8 alpha of an image as stored, orientation tags ignored; None where it has none, or Pillow does not know the format.

    Raises:
        SegmotionError: the image is missing or cannot be read.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(as_stored(np.fromfile(image, np.uint8)).tobytes())) as opened:
            if not opened.has_transparency_data:
                return None
            return np.array(opened.convert("RGBA").getchannel("A"))
    except UnidentifiedImageError:
        return None  # formats that Pillow does not know; damaged images are told where they are read
    except OSError as error:
        raise SegmotionError(f"{image}: not a readable image ({error})") from None


def combine_alpha(image: Path, keep: np.ndarray) -> np.ndarray:
    """H×W uint8 keep mask: ours, and 0 where the image is wholly transparent: who cut the background out wants it left out."""
    alpha = read_alpha(image)
    return keep if alpha is None else np.where(alpha > 0, keep, np.uint8(0))
