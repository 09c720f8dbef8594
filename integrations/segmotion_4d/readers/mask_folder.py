"""Masks made elsewhere: a folder of pictures, one per frame, in one of four meanings.

    colmap      <image name>.png   keep: 0 = moving, everything else static
    nerfstudio  <image stem>.png   keep: 0 = moving, everything else static
    dynamic     <image stem>.png   0 = static, everything else moving (motion segmenters that write black and white: GMOS, GeoMotion)
    davis       <image stem>.png   object ids: palette index, grey value or colour; 0 (black) = static (DAVIS, SegAnyMo, SAM 2)

In `davis` masks, 255 beside other ids means "not scored" and is taken for static; masks of 0 and 255 alone (DAVIS 2016) hold one
object. Masks belong to frames by name; where no name fits, by order, when there is one for every frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np

from segmotion_4d.source import FIRST_RESERVED_ID
from segmotion_plugin.clip import IMAGE_SUFFIXES, Clip, natural_key
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.masks import read_brought_keep

MaskFormat = Literal["colmap", "nerfstudio", "dynamic", "davis"]
_LOSSY = (".jpg", ".jpeg", ".webp")
_MOST_OBJECTS = FIRST_RESERVED_ID - 1


class MaskFolder:
    """Object ids per frame from a folder of masks.

    Args:
        folder: the masks.
        format: what they mean, see the module.
        clip: the clip they belong to.

    Attributes:
        files: mask file of every frame that has one.
        notes: what was assumed.

    Raises:
        SegmotionError: no such folder, masks that fit no frame, images without a mask, more objects than there are ids.
    """

    def __init__(self, folder: Path, format: MaskFormat, clip: Clip) -> None:
        self.folder, self.format = Path(folder), format
        self._size = (clip.width, clip.height)
        self.notes: list[str] = []
        if format not in get_args(MaskFormat):
            raise SegmotionError(f"--masks-format {format}: must be one of {', '.join(get_args(MaskFormat))}")
        if not self.folder.is_dir():
            raise SegmotionError(f"{folder}: no such folder of masks")
        found = [p for p in self.folder.iterdir() if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
        if not found:
            raise SegmotionError(f"{folder}: no pictures in this folder (for DAVIS give the sequence's own folder)")
        self.files = self._match(sorted(found, key=lambda p: natural_key(p.name)), clip)
        for frame, name in zip(clip.selected.tolist(), clip.names, strict=True):
            if frame not in self.files:
                raise SegmotionError(f"{folder}: no mask for {clip.source[frame].name} (frame {frame}, {name}); every image needs one")
        self._ids = self._collect_ids() if format == "davis" else {}

    def labels(self, frame: int) -> np.ndarray:
        """H×W uint8 object ids at the images' size; 0 = static.

        Raises:
            SegmotionError: an unreadable mask, or one of other proportions than the images.
        """
        path = self.files[frame]
        if self.format == "davis":
            values = _read_ids(path)
            labels = np.zeros(values.shape, np.uint8)
            for value, label in self._ids.items():
                labels[values == value] = label
        else:
            # Lossy files ring around edges: only there black is more than 0.
            dark = read_brought_keep(path) <= (127 if path.suffix.lower() in _LOSSY else 0)
            labels = (dark if self.format in ("colmap", "nerfstudio") else ~dark).astype(np.uint8)
        return self._fit(labels, path)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        return ((frame, self.labels(frame)) for frame in sorted(self.files))

    def _match(self, files: list[Path], clip: Clip) -> dict[int, Path]:
        by_name = {path.name: path for path in files} | {path.stem: path for path in files}
        names = {frame: [entry.name, Path(entry.name).stem] for frame, entry in enumerate(clip.source)}
        if len({entry.name for entry in clip.source}) < len(clip):
            names = {frame: [] for frame in names}  # the frames of a video share its name
        for frame, name in zip(clip.selected.tolist(), clip.names, strict=True):
            names[frame] += [name, Path(name).stem]
        matched = {frame: by_name[name] for frame, options in names.items() for name in reversed(options) if name in by_name}
        if matched:
            return matched
        for frames, what in ((range(len(clip)), "frame"), (clip.selected.tolist(), "image")):
            if len(files) == len(frames):
                self.notes.append(f"no mask is named after a frame: the {len(files)} masks were taken in order, one per {what}")
                return dict(zip(frames, files, strict=True))
        raise SegmotionError(
            f"{self.folder}: {len(files)} masks, and none is named after one of the {len(clip)} frames; "
            f"expected, for instance, {Path(clip.source[0].name).stem}.png or {clip.names[0]}.png"
        )

    def _collect_ids(self) -> dict[int, int]:
        """Object id of every value that the files hold."""
        found: set[int] = set()
        for path in self.files.values():
            found.update(np.unique(_read_ids(path)).tolist())
        found.discard(0)
        if found == {255} or found == {0xFFFFFF}:
            return {found.pop(): 1}
        if max(found, default=0) <= 255:
            if 255 in found:
                self.notes.append("the value 255 beside other ids was taken for 'not scored', as in DAVIS, and is static")
                found.discard(255)
            if max(found, default=0) < FIRST_RESERVED_ID:
                return {value: value for value in sorted(found)}
        if len(found) > _MOST_OBJECTS:
            raise SegmotionError(
                f"{self.folder}: the masks hold {len(found)} objects; {_MOST_OBJECTS} is the most.\n"
                "Colour pictures with soft edges have many colours: give the masks themselves, not a rendering of them."
            )
        return {value: label for label, value in enumerate(sorted(found), start=1)}

    def _fit(self, labels: np.ndarray, path: Path) -> np.ndarray:
        width, height = self._size
        if labels.shape == (height, width):
            return labels
        if abs(labels.shape[1] * height - labels.shape[0] * width) > 0.01 * labels.shape[0] * width + max(width, height):
            raise SegmotionError(
                f"{path}: {labels.shape[1]}×{labels.shape[0]} pixels, but the images have {width}×{height}: other proportions. "
                "Masks must show what the images show."
            )
        note = f"masks of {labels.shape[1]}×{labels.shape[0]} pixels were resized to the images' {width}×{height}"
        if note not in self.notes:
            self.notes.append(note)
        return cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)


def _read_ids(path: Path) -> np.ndarray:
    """H×W int32 ids as stored: palette index, grey value of 8 or 16 bits, or the 24 bits of a colour."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode in ("P", "L", "I", "I;16"):
                return np.asarray(image).astype(np.int32)
            if image.mode == "1":
                return np.asarray(image).astype(np.int32) * 255
            rgb = np.asarray(image.convert("RGB")).astype(np.int32)
    except (UnidentifiedImageError, OSError) as error:
        raise SegmotionError(f"{path}: not a readable mask ({error})") from None
    grey = (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all()
    return rgb[..., 0] if grey else rgb @ np.array([65536, 256, 1], np.int32)
