"""Pixel masks of moving objects and their files.

Two polarities exist, and every name says which: a *keep* mask is 255 (True) on the static world, as COLMAP and
nerfstudio read it; a *dynamic* mask is nonzero on what moves. Object ids are 0 for the static world and k for object k.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from segmotion_plugin.boxes import box_around
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import write_png
from segmotion_plugin.tiff import as_stored


def dilate(dynamic: np.ndarray, radius: float) -> np.ndarray:
    """Grow an H×W bool mask by a disk of `radius` pixels (0 leaves it as it is)."""
    import cv2

    if radius <= 0 or not dynamic.any():
        return dynamic.astype(bool)
    grown = np.zeros(dynamic.shape, bool)
    box = box_around(dynamic, int(np.ceil(radius)))
    distance = cv2.distanceTransform((~dynamic[box].astype(bool)).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    grown[box] = distance <= radius
    return grown


def keep_from_labels(labels: np.ndarray, radius: float = 0.0) -> np.ndarray:
    """H×W uint8 keep mask (255 = static, 0 = moving) from object ids, the moving part grown by `radius` pixels."""
    return np.where(dilate(labels > 0, radius), np.uint8(0), np.uint8(255))


def read_grey(path: Path) -> np.ndarray:
    """Read an image as H×W uint8 as stored (palette images give their indices, orientation tags are ignored).

    Raises:
        SegmotionError: the file is missing or is no image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P"):
                image = image.convert("L")
            return np.array(image, dtype=np.uint8)
    except FileNotFoundError:
        raise SegmotionError(f"{path}: no such mask") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SegmotionError(f"{path}: not a readable image ({error})") from None


# Weights of red, green and blue in COLMAP's grey values (ITU-R BT.709), and what takes 16-bit values to 8 bits: 65535 / 255.
_LUMA = np.array([0.2126, 0.7152, 0.0722])
_TO_8_BIT = 257


def read_brought_keep(path: Path) -> np.ndarray:
    """Read a keep mask that the user brings as COLMAP 4 reads it: H×W uint8 grey values, 0 = leave out, all others keep.

    Palettes become their colours, colours their luma, 16 bits become 8, each rounded; alpha and orientation tags do not count.

    Raises:
        SegmotionError: no readable image, floating-point values, or an image whose alpha alone tells pixels apart.
    """
    import cv2

    if not Path(path).is_file():
        raise SegmotionError(f"{path}: no such mask")
    data = as_stored(np.fromfile(path, np.uint8))
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if image is None:
        raise SegmotionError(f"{path}: {'not a readable image' if len(data) else 'an empty file, no mask'}")
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + _TO_8_BIT // 2) // _TO_8_BIT).astype(np.uint8)
    if image.dtype != np.uint8:
        raise SegmotionError(f"{path}: a mask of {image.dtype} values; save it as an 8-bit grey PNG, 0 = leave out, 255 = keep")
    if image.ndim == 2:
        return image
    grey = np.floor(image[..., 2::-1] @ _LUMA + 0.5).astype(np.uint8)
    if image.shape[2] == 4 and np.ptp(grey) == 0 and np.ptp(image[..., 3]) > 0:
        raise SegmotionError(
            f"{path}: only the alpha of this mask differs, which COLMAP does not look at; save it as an 8-bit grey PNG, "
            "0 = leave out, 255 = keep"
        )
    return grey


def read_keep_of(path: Path, name: str, size: tuple[int, int]) -> np.ndarray:
    """`read_brought_keep` for the image (or camera) `name`, which has (width, height) `size` in pixels as stored.

    Raises:
        SegmotionError: as there, or the mask has another size: COLMAP would look its pixels up as if it had this one.
    """
    keep = read_brought_keep(path)
    found = keep.shape[::-1]
    if found != size:
        turned = "; this one seems to lie over a turned view: orientation tags of images do not count" if found == size[::-1] else ""
        raise SegmotionError(
            f"{path}: {found[0]}×{found[1]} pixels, but {name} has {size[0]}×{size[1]}; "
            f"masks must have the size of their images{turned}"
        )
    return keep


class MotionMasks:
    """Object ids per frame, read from `motion/objects/` one frame at a time.

    `masks[i]` is H×W uint8 with 0 = static and k = object k, for objects that move at any time in the clip, at rest
    too.
    """

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder = Path(folder)
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        return read_grey(self.folder / f"{Path(self.names[index]).stem}.png")

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def keep(self, index: int, radius: float = 0.0) -> np.ndarray:
        """H×W uint8 keep mask of a frame after growing what moves by `radius` pixels."""
        return keep_from_labels(self[index], radius)


def write_keep(out: Path, name: str, keep: np.ndarray) -> None:
    """Write one image's keep mask under both names: `masks/<stem>.png` and `colmap_masks/<name>.png`."""
    stem = Path(name).stem
    write_png(out / "masks" / f"{stem}.png", keep, out / "colmap_masks" / f"{name}.png")
