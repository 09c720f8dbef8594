"""Motion masks for a finished nerfstudio dataset, whoever made it (polycam, record3d, metashape, realitycapture, by hand)."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from segmotion_colmap.clip_masks import clips_of, find_masks, looks_ordered

from segmotion_nerfstudio import placing, reconstruction
from segmotion_plugin.clip import natural_key
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import read_json, write_json
from segmotion_plugin.reading import checked, inside
from segmotion_plugin.settings import MaskSettings
from segmotion_plugin.tiff import is_turned


def add_masks(
    dataset: Path,
    settings: MaskSettings | None = None,
    *,
    order: Literal["auto", "sequence", "unordered"] = "auto",
    rerun_sfm: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write `masks/`, `masks_2/` …, `colmap_masks/`, `motion/` and the `mask_path` of every frame of `transforms.json`.

    Args:
        dataset: folder with `transforms.json`, or that file.
        settings: how what moves is found; `extra_masks` are masks of the user, named like the images.
        order: whether the images of a folder follow each other in time; auto looks at them.
        rerun_sfm: find the cameras anew with pycolmap on what the masks leave. The old file is kept as `transforms.before.json`.
        overwrite: replace the `mask_path` that frames have of other masks; mask files that are not ours are never replaced.

    Returns:
        images, masked_share, warnings, and `reconstruction` with `rerun_sfm`.

    Raises:
        SegmotionError: no poses, images that are missing or of other sizes than their cameras, masks that are there already, a folder
            that cannot be written, or no reconstruction.
    """
    settings = settings or MaskSettings()
    settings.check()
    if settings.every != 1 or settings.target_frames is not None:
        raise SegmotionError("a dataset needs a mask for every frame; --every and --target-frames are for videos ('segmotion masks')")
    root, transforms = _open(Path(dataset))
    meta = _read(transforms)
    paths = [_image(root, frame) for frame in meta["frames"]]
    _check(root, transforms, meta, paths, overwrite, rerun_sfm)
    order_of = sorted(range(len(paths)), key=lambda i: (natural_key(paths[i].parent.as_posix()), natural_key(paths[i].name)))
    images = [paths[i] for i in order_of]
    clips: list[placing.DatasetClip] = []
    with tempfile.TemporaryDirectory(prefix=".segmotion-", dir=root) as scratch:
        warnings = []
        ordered_sets = []
        for number, members in enumerate(clips_of(images)):
            chosen = [images[i] for i in members]
            ordered = order == "sequence" or (order == "auto" and len(chosen) > 1 and looks_ordered(chosen))
            ordered_sets.append(ordered)
            if not ordered:
                warnings.append(
                    f"{chosen[0].parent}: taken as photos in no order, where hardly any motion is seen (--order sequence overrules)"
                )
            found = find_masks(chosen, Path(scratch) / str(number), replace(settings, unordered=not ordered))
            warnings += found.report["warnings"]
            names = [path.name for path in chosen]
            clips.append(placing.DatasetClip(names, [path.relative_to(root).as_posix() for path in chosen], found))
        _check_sizes(meta, clips)
        share = placing.place(root, clips, extra=settings.extra_masks, downscales=_downscales(root))
    report: dict[str, Any] = {"images": len(images), "masked_share": share, "warnings": list(dict.fromkeys(warnings))}
    if rerun_sfm:
        report["reconstruction"] = _rerun(root, transforms, images, clips, all(ordered_sets) and len(clips) == 1)
    else:
        _write_mask_paths(transforms, meta)
    return report


def _open(dataset: Path) -> tuple[Path, Path]:
    transforms = dataset if dataset.suffix == ".json" else dataset / "transforms.json"
    if not transforms.is_file():
        raise SegmotionError(
            f"{transforms}: missing, so this is no finished nerfstudio dataset.\n"
            "Make one with 'ns-process-data-motion … --motion-mask', which adds the masks by itself."
        )
    root = transforms.parent
    if not os.access(root, os.W_OK) or not os.access(transforms, os.W_OK):
        raise SegmotionError(f"{root}: cannot be written; copy the dataset to a place that you may write")
    return root, transforms


def _read(transforms: Path) -> dict[str, Any]:
    try:
        meta = read_json(transforms)
        frames = meta["frames"]
        usable = bool(frames) and all("file_path" in frame and "transform_matrix" in frame for frame in frames)
        for frame in frames:
            inside(transforms.parent, frame["file_path"], transforms)
            for side in ("w", "h"):
                checked(frame.get(side, meta.get(side)), float | None, transforms, f"{side} of a camera must be a number")  # type: ignore[arg-type]
    except (ValueError, KeyError, TypeError) as error:
        raise SegmotionError(f"{transforms}: not a nerfstudio dataset ({type(error).__name__}: {error})") from None
    if not usable:
        raise SegmotionError(f"{transforms}: without poses (every frame needs file_path and transform_matrix)")
    return meta


def _image(root: Path, frame: dict[str, Any]) -> Path:
    """The image of a frame; instant-ngp's files leave the suffix out."""
    path = root / frame["file_path"]
    for candidate in (path, *(path.with_name(path.name + suffix) for suffix in (".png", ".jpg", ".jpeg"))):
        if candidate.is_file():
            return candidate
    raise SegmotionError(f"{path}: this image is named in transforms.json and missing")


def _check(root: Path, transforms: Path, meta: dict[str, Any], paths: list[Path], overwrite: bool, rerun_sfm: bool) -> None:
    stems = [path.stem for path in paths]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None) if len(set(stems)) < len(stems) else None
    if twice is not None:
        raise SegmotionError(
            f"{transforms}: two frames are called {twice}; nerfstudio reads masks without folder and suffix, so rename one"
        )
    if meta.get("camera_model") == "EQUIRECTANGULAR":
        raise SegmotionError(f"{transforms}: equirectangular pictures cannot be masked; cut them into perspective views first")
    turned = next((path for path in paths if path.suffix.lower() in (".tif", ".tiff") and is_turned(path)), None)
    if turned is not None:
        raise SegmotionError(f"{turned}: nerfstudio turns this TIFF by its orientation tag, COLMAP does not; save it without")
    if rerun_sfm and {path.parent for path in paths} != {root / "images"}:
        raise SegmotionError(f"{transforms}: --rerun-sfm needs all images in {root / 'images'}; leave it out to add masks alone")
    placing.check_free(root)
    if not overwrite and not (root / "motion" / "report.json").is_file() and any("mask_path" in frame for frame in meta["frames"]):
        raise SegmotionError(
            f"{transforms}: frames have a mask_path already; --overwrite replaces it "
            "(with --extra-masks FOLDER your masks are combined with ours)"
        )


def _check_sizes(meta: dict[str, Any], clips: list[placing.DatasetClip]) -> None:
    """Masks have the size of the images; the cameras must have it too, or nerfstudio puts them in the wrong place."""
    sizes = {Path(frame["file_path"]).stem: (frame.get("w", meta.get("w")), frame.get("h", meta.get("h"))) for frame in meta["frames"]}
    for clip in clips:
        width, height = clip.masks.report["size"]
        for name in clip.names:
            camera = sizes.get(Path(name).stem, (None, None))
            if None not in camera and (int(camera[0]), int(camera[1])) != (width, height):  # type: ignore[arg-type]
                raise SegmotionError(
                    f"{name}: the image has {width}×{height} pixels, its camera {camera[0]}×{camera[1]}; mend transforms.json first"
                )


def _downscales(root: Path) -> int:
    """How many downscaled folders the dataset has in a row: images_2, images_4, …"""
    count = 0
    while (root / f"images_{2 ** (count + 1)}").is_dir():
        count += 1
    return count


def _write_mask_paths(transforms: Path, meta: dict[str, Any]) -> None:
    for frame in meta["frames"]:
        frame["mask_path"] = f"masks/{Path(frame['file_path']).stem}.png"
    write_json(transforms, meta)


def _rerun(root: Path, transforms: Path, images: list[Path], clips: list[placing.DatasetClip], ordered: bool) -> dict[str, Any]:
    from segmotion_plugin.reconstruct import nerfstudio_dataset

    names = [name for clip in clips for name in clip.names]
    figures = reconstruction.with_pycolmap(
        images[0].parent,
        root / "colmap_masks",
        root / "colmap",
        camera_type="perspective",
        matching="auto",
        ordered=ordered,
        names=names,
    )
    kept = transforms.with_name("transforms.before.json")
    if not kept.exists():
        shutil.copyfile(transforms, kept)
    nerfstudio_dataset.write(root, root / "colmap" / "sparse" / "0", downscales=_downscales(root))
    reconstruction.record(root, figures)
    return figures
