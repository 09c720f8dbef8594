"""What can be evaluated: our pipeline, the epipolar baseline, and masks that someone already made."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation.datasets import list_images
from segmotion_plugin.settings import MaskSettings

Predict = Callable[[Path, Path], "Path | Iterable[np.ndarray]"]
"""`predict(images, out)`: masks for every image of a folder. `out` is a folder of its own for the sequence, named after it, where
it may keep what it likes. Returns T label images H×W uint8 (0 = static, k = object k), in natural order of the image names, or a
folder that holds them as PNG files. Where that folder is a pipeline's `motion/objects`, `../tracks.npz` and
`../report.json` are read too.
"""


@dataclasses.dataclass(frozen=True)
class Method:
    """A named way to make masks.

    Attributes:
        name: row of the tables, and folder of the results.
        predict: see `Predict`.
        settings: whatever the result depends on; results are made anew when it changes.
        timed: whether the time that `predict` takes is the method's (False for masks read from files).
    """

    name: str
    predict: Predict
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    timed: bool = True


def pipeline_method(settings: MaskSettings | None = None, name: str = "segmotion", cameras: bool = False) -> Method:
    """Our pipeline up to the masks, or further.

    Args:
        settings: how masks are made; the defaults when absent.
        name: row of the tables.
        cameras: reconstruct as well, so that the cameras test the masks.
    """
    chosen = dataclasses.replace(settings or MaskSettings(), quiet=True)

    def predict(images: Path, out: Path) -> Path:
        from segmotion_plugin import pipeline

        (pipeline.run if cameras else pipeline.masks)(images, out, chosen)
        return out / "motion" / "objects"

    return Method(name, predict, {**_plain(chosen), "cameras": cameras})


def epipolar_method(name: str = "epipolar", **options: Any) -> Method:
    """The baseline of `segmotion_plugin.evaluation.baselines.epipolar`; `options` go to its `Options`."""
    from segmotion_plugin.evaluation.baselines.epipolar import Options, epipolar_masks

    chosen = Options(**options)

    def predict(images: Path, out: Path) -> Iterable[np.ndarray]:
        return epipolar_masks(list_images(images), chosen)

    return Method(name, predict, _plain(chosen))


def folder_method(root: Path | str, name: str = "folder") -> Method:
    """Masks that are there already: `ROOT/SEQUENCE/*.png`, or processed clips `ROOT/SEQUENCE/motion/objects/*.png`.

    Raises:
        SegmotionError: no such folder; when predicting, no masks of a sequence in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise SegmotionError(f"{root}: no such folder of predicted masks")

    def predict(images: Path, out: Path) -> Path:
        folder = root / out.name
        objects = folder / "motion" / "objects"
        if objects.is_dir():
            return objects
        if not folder.is_dir():
            raise SegmotionError(f"{root}: no masks of {out.name} here; expected {folder} or {objects}")
        return folder

    newest = max((path.stat().st_mtime_ns for path in root.rglob("*.png")), default=0)
    return Method(name, predict, {"root": str(root.resolve()), "newest": newest}, timed=False)


def _plain(settings: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(settings), default=str, sort_keys=True))
