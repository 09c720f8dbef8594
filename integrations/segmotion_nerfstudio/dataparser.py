"""`segmotion-data`: nerfstudio datasets with motion masks, frame times and moving tracks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.dataparsers.nerfstudio_dataparser import Nerfstudio, NerfstudioDataParserConfig

from segmotion_nerfstudio.checkpoints import allow_checkpoint_types
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import read_json, write_png
from segmotion_plugin.masks import read_grey

# nerfstudio loads this module in every ns-* command that reads or writes checkpoints.
allow_checkpoint_types()


@dataclass
class SegmotionDataParserConfig(NerfstudioDataParserConfig):
    """A dataset with motion masks (ns-process-data --motion-mask, segmotion run, segmotion nerfstudio add-masks)"""

    _target: type = field(default_factory=lambda: SegmotionData)
    """target class to instantiate"""
    mask_policy: Literal["keep-static", "keep-dynamic", "none"] = "keep-static"
    """Pixels that count: those of the static world, those of moving objects, or all."""
    eval_mode: Literal["auto", "fraction", "filename", "interval", "all"] = "auto"  # type: ignore[assignment]
    """
    The method to use for splitting the dataset into train and eval.
    Auto is filename where the images are named frame_train_ and frame_eval_ (--eval-data), interval for fewer than ten images,
    otherwise fraction.
    Fraction splits based on a percentage for train and the remaining for eval.
    Filename splits based on filenames containing train/eval.
    Interval uses every nth frame for eval.
    All uses all the images for any split.
    """
    max_tracks: int = 20000
    """How many moving 3D tracks are handed on in the metadata at most; the longest come first."""


@dataclass
class SegmotionData(Nerfstudio):
    """Dataparser of `segmotion-data`.

    Its outputs have, beside nerfstudio's own, `cameras.times` (N×1 in 0..1 over the clip) where the frames' times are known, and in
    `metadata["segmotion"]` a dict of `MotionMetadata`'s fields.
    """

    config: SegmotionDataParserConfig  # type: ignore[assignment]

    def _generate_dataparser_outputs(self, split: str = "train", **_: Any) -> DataparserOutputs:
        root, meta = self._read()
        frames = meta["frames"]
        chosen = self.config.eval_mode
        if chosen == "auto":
            names = [Path(frame["file_path"]).name for frame in frames]
            split_by_name = all(name.startswith(("frame_train_", "frame_eval_")) for name in names)
            named = split_by_name and any("_eval_" in name for name in names)
            # A tenth of fewer than ten images is none, and nerfstudio cannot go without.
            self.config.eval_mode = "filename" if named else "fraction" if len(names) >= 10 else "interval"
        try:
            outputs = super()._generate_dataparser_outputs(split)
        finally:
            self.config.eval_mode = chosen
        self._apply_policy(root, frames, outputs)
        self._set_times(root, frames, outputs)
        outputs.metadata["segmotion"] = _motion_metadata(root, outputs, self.config.max_tracks)
        return outputs

    def _read(self) -> tuple[Path, dict[str, Any]]:
        path = self.config.data if self.config.data.suffix == ".json" else self.config.data / "transforms.json"
        if not path.is_file():
            raise SegmotionError(
                f"{path}: missing, so this dataset has no poses.\n"
                "Make it with 'ns-process-data-motion … --motion-mask' or 'segmotion run INPUT OUT'."
            )
        meta = read_json(path)
        masked = sum("mask_path" in frame for frame in meta["frames"])
        if self.config.mask_policy != "none" and masked < len(meta["frames"]):
            raise SegmotionError(
                f"{path}: {len(meta['frames']) - masked} of {len(meta['frames'])} frames have no mask_path.\n"
                f"Add masks with 'segmotion nerfstudio add-masks {path.parent}', or take --mask-policy none."
            )
        return path.parent, meta

    def _apply_policy(self, root: Path, frames: list[dict[str, Any]], outputs: DataparserOutputs) -> None:
        if self.config.mask_policy == "none":
            outputs.mask_filenames = None
            return
        for path in outputs.mask_filenames or []:
            if not path.is_file():
                raise SegmotionError(f"{path}: no such mask; make them again: segmotion nerfstudio add-masks {root} --overwrite")
        if self.config.mask_policy == "keep-dynamic" and outputs.mask_filenames is not None:
            outputs.mask_filenames = [_dynamic_mask(root, path) for path in outputs.mask_filenames]

    def _set_times(self, root: Path, frames: list[dict[str, Any]], outputs: DataparserOutputs) -> None:
        times = _frame_times(root, frames)
        if times:
            here = [times[path.name] for path in outputs.image_filenames]
            outputs.cameras.times = torch.tensor(here, dtype=torch.float32)[:, None]


def _dynamic_mask(root: Path, keep: Path) -> Path:
    """A mask that is nonzero on moving objects, of the size of `keep`: the frame's object ids, or the inverse of its keep mask."""
    target = root / "motion" / "dynamic" / keep.parent.name / keep.name
    objects = root / "motion" / "objects" / keep.name
    newest = max(path.stat().st_mtime for path in (objects, keep) if path.is_file())
    if target.is_file() and target.stat().st_mtime >= newest:
        return target
    import cv2

    static = read_grey(keep)
    if objects.is_file():
        size = (static.shape[1], static.shape[0])
        moving = cv2.resize(read_grey(objects), size, interpolation=cv2.INTER_NEAREST) > 0
    else:
        moving = static == 0
    write_png(target, np.where(moving, np.uint8(255), np.uint8(0)))
    return target


def _frame_times(root: Path, frames: list[dict[str, Any]]) -> dict[str, float]:
    """Time of every image in 0..1 by name: from transforms.json, else from motion/frames.json; empty where a frame has none."""
    listing = root / "motion" / "frames.json"
    known = {entry["name"]: entry["time"] for entry in read_json(listing)["images"]} if listing.is_file() else {}
    times: dict[str, float] = {}
    for frame in frames:
        name = Path(frame["file_path"]).name
        time = frame.get("time", known.get(name))
        if time is None:
            return {}
        times[name] = float(time)
    first, last = min(times.values(), default=0.0), max(times.values(), default=0.0)
    return {name: (time - first) / (last - first) if last > first else 0.0 for name, time in times.items()}


def _motion_metadata(root: Path, outputs: DataparserOutputs, max_tracks: int) -> dict[str, Any]:
    """Moving tracks in the world of the dataparser.

    Keys: `root` (the dataset), and where `motion/tracks_3d.npz` is: `xyz` N×K×3 float32 (NaN where unknown), `visible` N×K bool,
    `object_id` N int, `frame_index` K int (frame of the clip), `depth_source` N words.
    """
    from segmotion_plugin.reconstruct.tracks_3d import load_tracks_3d

    result: dict[str, Any] = {"root": str(root)}
    path = root / "motion" / "tracks_3d.npz"
    if not path.is_file():
        return result
    tracks = load_tracks_3d(path)
    moving = np.flatnonzero(tracks.object_id > 0)
    if len(moving) > max_tracks:
        seen = tracks.visible[moving].sum(axis=1)
        moving = np.sort(moving[np.argsort(-seen, kind="stable")[:max_tracks]])
    part = tracks.select(moving)
    xyz = torch.from_numpy(part.xyz.astype(np.float32))
    transform = outputs.dataparser_transform.to(torch.float32)
    result["xyz"] = (xyz @ transform[:3, :3].T + transform[:3, 3]) * float(outputs.dataparser_scale)
    result["visible"] = torch.from_numpy(part.visible.copy())
    result["object_id"] = torch.from_numpy(part.object_id.astype(np.int64))
    result["frame_index"] = torch.from_numpy(np.asarray(part.frame_index, dtype=np.int64))
    return result


def specification() -> Any:
    """What nerfstudio's entry point `segmotion-data` names."""
    from nerfstudio.plugins.registry_dataparser import DataParserSpecification

    return DataParserSpecification(
        config=SegmotionDataParserConfig(), description="Datasets with motion masks, frame times and moving tracks"
    )
