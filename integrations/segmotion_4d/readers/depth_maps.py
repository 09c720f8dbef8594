"""Depth made elsewhere, one map per frame or per image.

    npy      DIR/<image stem>.npy or any names in order, H×W float
    png16    DIR/*.png, 16-bit grey, 0 = unknown
    monst3r  DIR/frame_0000.npy …, as MonST3R leaves them (depth)
    megasam  FILE.npz or the folder with it, `depths` T×H×W (depth)
    da3      FILE.npz or the folder with it, `depth` T×H×W (Depth Anything 3's npz and mini_npz; depth)

Scale does not matter, nor does a shift of disparity: every map is brought to the model by its static points, as those of our own depth
models are. So depth is turned into disparity here, and NaN, infinity, zero and less become unknown.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np

from segmotion_4d.readers.npz import read_npz
from segmotion_plugin.clip import Clip, natural_key
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.reading import UNREADABLE

DepthFormat = Literal["npy", "png16", "monst3r", "megasam", "da3"]
DepthKind = Literal["depth", "disparity"]
_STACKS = {"megasam": "depths", "da3": "depth"}
# Models work on multiples of 14, 16 or 32 pixels, so that sides are a little off.
_RATIO_TOLERANCE = 0.05


class DepthMaps:
    """Depth of every image of a clip.

    Args:
        path: folder or file.
        format: see the module.
        kind: whether values grow with the distance (`depth`) or fall (`disparity`); the last three formats hold depth.
        clip: the clip they belong to.

    Raises:
        SegmotionError: nothing there, another number of maps than of frames or images.
    """

    def __init__(self, path: Path, format: DepthFormat, kind: DepthKind, clip: Clip) -> None:
        self.path, self.kind = Path(path), kind
        if format not in get_args(DepthFormat):
            raise SegmotionError(f"--depth-format {format}: must be one of {', '.join(get_args(DepthFormat))}")
        if kind not in get_args(DepthKind):
            raise SegmotionError(f"--depth-kind {kind}: must be one of {', '.join(get_args(DepthKind))}")
        if kind == "disparity" and format not in ("npy", "png16"):
            raise SegmotionError(f"--depth-kind disparity: {format} holds depth; leave --depth-kind out")
        if not self.path.exists():
            raise SegmotionError(f"{path}: no such file or folder of depth maps")
        self._size = (clip.width, clip.height)
        self._stack: np.ndarray | None = None
        if format in _STACKS:
            self.path, arrays = read_npz(self.path, [_STACKS[format]])
            self._stack = arrays[_STACKS[format]]
            if self._stack.ndim != 3:
                raise SegmotionError(f"{self.path}: '{_STACKS[format]}' {self._stack.shape} is not T×H×W")
            items: list[Path | int] = list(range(len(self._stack)))
        else:
            items = list(_files(self.path, format))
        self._of_image = self._match(items, clip)

    def disparity(self, image: int) -> np.ndarray:
        """h×w float32 disparity of image `image`, in units of its own; NaN where unknown.

        Raises:
            SegmotionError: an unreadable map, one without a known value, or of other proportions than the images.
        """
        item = self._of_image[image]
        if isinstance(item, int):
            assert self._stack is not None
            where, values = f"{self.path}: map {item}", self._stack[item]
        else:
            where, values = str(item), _read(item)
        if values.ndim == 3 and 1 in values.shape:
            values = values.squeeze()
        if values.ndim != 2 or values.dtype.kind not in "fu":
            raise SegmotionError(f"{where}: an array {values.shape} of {values.dtype} is no depth map (H×W numbers)")
        ratio = (values.shape[1] / values.shape[0]) / (self._size[0] / self._size[1])
        if abs(np.log(ratio)) > _RATIO_TOLERANCE:
            raise SegmotionError(
                f"{where}: {values.shape[1]}×{values.shape[0]} has other proportions than the images "
                f"({self._size[0]}×{self._size[1]}); give maps of whole frames"
            )
        values = values.astype(np.float64)
        known = np.isfinite(values) & (values > 0)
        if not known.any():
            raise SegmotionError(f"{where}: holds no known value (all are NaN, infinite, zero or negative)")
        middle = float(np.median(values[known]))
        relative = np.where(known, values / middle, np.nan)
        return (relative if self.kind == "disparity" else 1.0 / relative).astype(np.float32)

    def _match(self, items: list[Path | int], clip: Clip) -> list[Path | int]:
        by_stem = {item.stem: item for item in items if isinstance(item, Path)}
        for stems in ([Path(n).stem for n in clip.names], [Path(clip.source[f].name).stem for f in clip.selected.tolist()]):
            if len(set(stems)) == len(stems) and all(stem in by_stem for stem in stems):
                return [by_stem[stem] for stem in stems]
        if len(items) == len(clip):
            return [items[frame] for frame in clip.selected.tolist()]
        if len(items) == len(clip.names):
            return items
        raise SegmotionError(
            f"{self.path}: {len(items)} depth maps, but there are {len(clip)} frames and {len(clip.names)} images; give one for each"
        )


def _files(folder: Path, format: str) -> list[Path]:
    pattern = {"npy": r".*\.npy", "png16": r".*\.png", "monst3r": r"frame_\d+\.npy"}[format]
    if not folder.is_dir():
        raise SegmotionError(f"{folder}: give the folder of the {format} depth maps")
    files = [p for p in folder.iterdir() if p.is_file() and re.fullmatch(pattern, p.name) and not p.name.startswith(".")]
    if not files:
        raise SegmotionError(f"{folder}: no {format} depth maps in this folder")
    return sorted(files, key=lambda p: natural_key(p.name))


def _read(path: Path) -> np.ndarray:
    if path.suffix == ".png":
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) if path.stat().st_size else None
        if image is None or image.dtype != np.uint16 or image.ndim != 2:
            raise SegmotionError(f"{path}: no 16-bit grey PNG; 8 bits are too coarse for depth")
        return image
    try:
        return np.load(path, allow_pickle=False)
    except UNREADABLE as error:
        raise SegmotionError(f"{path}: not a readable depth map ({error})") from None
