"""Undistorted COLMAP folders, each with the masks where its program looks for them.

    DEST/
      images/frame_00001.png         undistorted; hard links where nothing changes. `3dgs`: RGBA, alpha = keep, black where it is 0
      images_2/ images_4/ images_8/  shrunk to exactly 1/2, 1/4, 1/8 (gsplat, nerfstudio-colmap, 3dgrut); hard links where OUT has them
      masks/frame_00001.png          keep: 255 = static, 0 = moving (gsplat, nerfstudio-colmap, brush, lichtfeld, fvdb)
      masks_2/ …                     a small pixel is static where all of its large ones are (gsplat, nerfstudio-colmap)
      images*/frame_00001_mask.png   keep, beside every picture (3dgrut)
      occluder_masks/frame_00001.png dynamic: 255 = moving, 0 = static (postshot)
      sparse/0/ *.bin                one PINHOLE camera (`nerfstudio-colmap`: colmap/sparse/0, where its parser looks); static points

Rows and columns beyond a multiple of 2, 4 or 8 are cut off on the right and below before shrinking, so that readers who divide the
calibration by the factor and round sizes down, as gsplat, nerfstudio and 3DGRUT do, are exact.

What the programs do with masks is said in docs/programs.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from segmotion_4d.formats.colmap import WITHOUT_MASKS, image_suffix, write_pinhole_model
from segmotion_4d.pinhole import Pinhole
from segmotion_4d.source import Processed
from segmotion_4d.spec import Format, MaskUse
from segmotion_4d.writing import link
from segmotion_plugin.parallel import in_order

_KEEP = "keep: 255 = static, 0 = moving"
_FACTORS = (2, 4, 8)  # gsplat and nerfstudio name no others
_JPEG_QUALITY = 95
_Placing = Literal["masks", "beside", "alpha", "occluder_masks"]


@dataclass(frozen=True)
class _Layout:
    """Where masks go, whether pictures are shrunk too, and where the model lies."""

    placing: _Placing
    small: bool = False
    model: str = "sparse/0"

    def __call__(self, source: Processed, dest: Path) -> list[str]:
        view = Pinhole(source.cameras)
        names = write_pinhole_model(source, view, dest / self.model, lambda k, image: image.stem, self._suffix(source, view))
        jobs = list(zip(source.posed, names, strict=True))
        with source.console.bar("images", len(jobs), "files") as update:
            for done, _ in enumerate(in_order(lambda job: self._place(source, view, dest, *job), jobs), start=1):
                update(done)
        return source.notes_on_poses()

    def _suffix(self, source: Processed, view: Pinhole) -> str:
        return ".png" if self.placing == "alpha" else image_suffix(source, view)

    def _place(self, source: Processed, view: Pinhole, dest: Path, index: int, name: str) -> None:
        if self.placing == "alpha":
            _write(dest / "images" / name, with_alpha(view.image(source.image_path(index)), view.nearest(source.keep(index))))
            return
        image = None
        if view.identical and source.image_path(index).suffix == Path(name).suffix:
            link(source.image_path(index), dest / "images" / name)
        else:
            image = view.image(source.image_path(index))
            _write(dest / "images" / name, image)
        keep = view.nearest(source.keep(index))
        if self.placing == "occluder_masks":
            _write(dest / "occluder_masks" / f"{Path(name).stem}.png", 255 - keep)
            return
        if view.identical:
            link(source.keep_path_of(source.images[index]), self._mask_path(dest, "", name))
        else:
            _write(self._mask_path(dest, "", name), keep)
        for factor in _FACTORS if self.small else ():
            width, height = view.width // factor, view.height // factor
            _write(self._mask_path(dest, f"_{factor}", name), shrunk_keep(keep, factor))
            small = dest / f"images_{factor}" / name
            ready = source.out / f"images_{factor}" / name
            exact = (width * factor, height * factor) == (view.width, view.height)
            if view.identical and exact and ready.is_file():
                link(ready, small)
                continue
            image = view.image(source.image_path(index)) if image is None else image
            _write(small, cv2.resize(image[: height * factor, : width * factor], (width, height), interpolation=cv2.INTER_AREA))

    def _mask_path(self, dest: Path, scale: str, name: str) -> Path:
        stem = Path(name).stem
        return dest / f"images{scale}" / f"{stem}_mask.png" if self.placing == "beside" else dest / f"masks{scale}" / f"{stem}.png"


def shrunk_keep(keep: np.ndarray, factor: int) -> np.ndarray:
    """H×W keep mask at 1/factor: static where every large pixel is, so that no rim of a mover is trained on."""
    height, width = (side // factor for side in keep.shape)
    blocks = keep[: height * factor, : width * factor].reshape(height, factor, width, factor)
    return np.ascontiguousarray(blocks.min(axis=(1, 3)))


def _write(path: Path, image: np.ndarray) -> None:
    """A grey, RGB or RGBA picture in the kind that its name says (nerfstudio wants shrunk ones under the same name).

    The folder appears as a whole, so that single files need not be atomic; and threads share one umask, which atomic ones set.
    """
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    kind, options = ".png", [cv2.IMWRITE_PNG_COMPRESSION, 1]
    if path.suffix.lower() in (".jpg", ".jpeg"):
        kind, options = ".jpg", [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(kind, image, options)
    path.write_bytes(data.tobytes())


def with_alpha(image: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """H×W×3 RGB and H×W keep as RGBA. What is left out is black: the render is multiplied by alpha, the picture is not."""
    static = keep > 0
    return np.dstack([image * static[..., None], np.where(static, np.uint8(255), np.uint8(0))])


def _format(
    name: str, loader: str, write: Callable[[Processed, Path], list[str]], polarity: str, use: MaskUse, command: str, advice: str = ""
) -> Format:
    return Format(name, loader, polarity, ("masks", "poses"), write, use, command, advice)


FORMATS = (
    _format(
        "gsplat",
        "gsplat, examples/simple_trainer.py",
        _Layout("masks", small=True),
        f"{_KEEP} (masks*/; its reader opens none)",
        "ignored by this program",
        "python simple_trainer.py default --data_dir DEST --data_factor 4 --result_dir RESULT",
        f"examples/08_gsplat_masked.py trains with gsplat and leaves movers out of the loss; otherwise {WITHOUT_MASKS}",
    ),
    _format(
        "3dgs",
        "3D Gaussian Splatting (graphdeco-inria/gaussian-splatting), the version of October 2024 or later",
        _Layout("alpha"),
        "keep, as alpha of the pictures: 255 = static; 0 = moving, and black",
        "used for training",
        "python train.py -s DEST -m MODEL",
        "that version multiplies its render by alpha; older ones and 2DGS do not and learn the black: give them colmap-undistorted",
    ),
    _format(
        "nerfstudio-colmap",
        "nerfstudio's own colmap dataparser",
        _Layout("masks", small=True, model="colmap/sparse/0"),
        _KEEP,
        "used for training",
        "ns-train splatfacto --data DEST colmap --masks-path masks",
        "without --masks-path it opens no mask",
    ),
    _format("brush", "Brush", _Layout("masks"), _KEEP, "used for training", "brush DEST --with-viewer"),
    _format(
        "lichtfeld",
        "LichtFeld Studio",
        _Layout("masks"),
        _KEEP,
        "used for training",
        "LichtFeld-Studio -d DEST -o RESULT --mask-mode ignore",
        "without --mask-mode it opens no mask",
    ),
    _format(
        "postshot",
        "Postshot",
        _Layout("occluder_masks"),
        "dynamic: 255 = moving, left out; 0 = static",
        "used for training",
        "in Postshot's import: DEST/images, the cameras and points of DEST/sparse/0, and DEST/occluder_masks as occluder masks",
    ),
    _format(
        "3dgrut",
        "3DGRUT (nv-tlabs/3dgrut), COLMAP datasets",
        _Layout("beside", small=True),
        f"{_KEEP} (frame_00001_mask.png beside frame_00001.png)",
        "used for training",
        "python train.py --config-name apps/colmap_3dgut.yaml path=DEST out_dir=runs experiment_name=clip dataset.downsample_factor=2",
    ),
    _format(
        "fvdb",
        "fVDB Reality Capture (openvdb/fvdb-reality-capture)",
        _Layout("masks"),
        _KEEP,
        "used for training",
        "frgs reconstruct DEST",
    ),
)
