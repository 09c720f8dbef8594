"""Writes masks into a nerfstudio dataset: full size, downscaled, for COLMAP, and what is known about the motion."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from segmotion_colmap.clip_masks import ClipMasks

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.extra_masks import ExtraMasks
from segmotion_plugin.files import read_json, write_json, write_png
from segmotion_plugin.masks import read_grey, write_keep
from segmotion_plugin.ownership import Manifest
from segmotion_plugin.workspace import MADE_MASKS

_PICTURES = r"images(_\d+)?/frame_(train_|eval_)?\d+\.png"
Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels."""


@dataclass
class DatasetClip:
    """Images of a dataset that follow each other, and their masks.

    Attributes:
        names: names of the images in the dataset's `images/`, in the order of `masks`.
        sources: where each came from, in the user's words.
        masks: what was found in them.
    """

    names: list[str]
    sources: list[str]
    masks: ClipMasks


def check_free(out: Path) -> None:
    """Refuse to replace masks that somebody else made, or changed.

    Raises:
        SegmotionError: names the first file that is not ours.
    """
    manifest = Manifest(out)
    # Datasets of 0.1.0 have no manifest; their report says that the masks are ours.
    adopted = MADE_MASKS if not manifest.known and (Path(out) / "motion" / "report.json").is_file() else None
    manifest.check(*_mask_folders(out), adopted=adopted, advice="move it elsewhere; --extra-masks combines masks of yours with ours")


def remove_images(out: Path, names: Sequence[str]) -> None:
    """Remove folders of pictures that we took from a video earlier.

    Raises:
        SegmotionError: they hold others; nothing was touched.
    """
    manifest = Manifest(out)
    manifest.check(*names, advice="move it elsewhere, or give another --output-dir")
    manifest.begin(_PICTURES, _PICTURES)
    for name in names:
        if (Path(out) / name).is_dir():
            shutil.rmtree(Path(out) / name)


def _mask_folders(out: Path) -> list[str]:
    names = ["masks", "colmap_masks", "motion"]
    return names + sorted(p.name for p in Path(out).glob("masks_*") if p.name[6:].isdigit())


def circle(width: int, height: int, share: float) -> np.ndarray | None:
    """H×W bool that holds within `share` of half the diagonal from the centre, as --percent-radius-crop means it; None for 1."""
    if share >= 1.0:
        return None
    if share <= 0.0:
        raise SegmotionError(f"--percent-radius-crop {share}: must be above 0")
    rows, columns = np.mgrid[:height, :width]
    radius = int(share * np.hypot(width, height) / 2.0)
    return (columns - width // 2) ** 2 + (rows - height // 2) ** 2 <= radius**2


def place(
    out: Path,
    clips: Sequence[DatasetClip],
    *,
    extra: Path | None,
    radius_share: float = 1.0,
    downscales: int = 0,
    box: Box | None = None,
    images: Sequence[str] = (),
) -> float:
    """Write `masks/`, `masks_2/` …, `colmap_masks/` and `motion/` of a dataset, replacing what is there.

    Args:
        out: the dataset.
        clips: all its images; `motion/` itself describes the first clip, `motion/clip_2/` the second, and so on, while
            `motion/objects/` and `motion/disparity/` (where a depth model ran) hold those of all images.
        extra: folder of keep masks of the user.
        radius_share: see `circle`.
        downscales: how many times masks are halved, nearest pixel; a copy has the size of its image in `images_2/` ….
        box: part of the pictures that the dataset shows.
        images: folders of pictures that are ours, too: taken from a video, not given by the user.

    Returns:
        Share of masked pixels.

    Raises:
        SegmotionError: extra masks that do not fit, or two images that would share a mask.
    """
    names = [name for clip in clips for name in clip.names]
    stems = [Path(name).stem for name in names]
    if len(set(stems)) != len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise SegmotionError(f"{out}: two images are called {twice}; nerfstudio's masks are named without suffix, so rename one")
    own = ExtraMasks(extra, names, [source for clip in clips for source in clip.sources]) if extra is not None else None
    area, total = 0, 0
    # All of it is made aside first: what fails half-way leaves the masks that were there.
    with tempfile.TemporaryDirectory(prefix=".segmotion-", dir=out) as scratch:
        fresh = Path(scratch)
        for clip in clips:
            for index, name in enumerate(clip.names):
                keep = cut(clip.masks.keep(index), box)
                write_png(fresh / "motion" / "objects" / f"{Path(name).stem}.png", cut(clip.masks.objects(index), box))
                _take_disparity(clip, index, fresh / "motion" / "disparity", box)
                inner = circle(keep.shape[1], keep.shape[0], radius_share)
                if inner is not None:
                    keep = np.where(inner, keep, np.uint8(0))
                if own is not None:
                    keep = own.combine(name, keep)
                write_keep(fresh, name, keep)
                _write_downscaled(Path(out), fresh, name, keep, downscales)
                area, total = area + int((keep == 0).sum()), total + keep.size
        for number, clip in enumerate(clips, start=1):
            _move_motion(clip, fresh / "motion" if number == 1 else fresh / "motion" / f"clip_{number}", box)
        stages = {"images": {"key": "nerfstudio", "info": {"names": clips[0].names}}}
        write_json(fresh / "motion" / "state.json", {"made_by": "segmotion", "stages": stages})
        check_free(out)  # finding the masks may have taken hours
        manifest, made = Manifest(out), sorted(path.name for path in fresh.iterdir())
        for name in _mask_folders(out):
            if name not in made:
                shutil.rmtree(Path(out) / name)
        manifest.swap_in(fresh, *made)
        manifest.finish(*made, *images)
    return area / max(total, 1)


def cut(image: np.ndarray, box: Box | None) -> np.ndarray:
    """The part of an image inside the box."""
    if box is None:
        return image
    left, top, right, bottom = box
    return np.ascontiguousarray(image[top:bottom, left:right])


def _write_downscaled(out: Path, fresh: Path, name: str, keep: np.ndarray, downscales: int) -> None:
    """Write `masks_2/<stem>.png` … with the sizes of `images_2/<name>` … where these are, and of whole divisions where not."""
    import cv2

    from segmotion_plugin.reconstruct.database import image_size

    for factor in (2**i for i in range(1, downscales + 1)):
        image = out / f"images_{factor}" / name
        size = image_size(image) if image.is_file() else (max(1, keep.shape[1] // factor), max(1, keep.shape[0] // factor))
        write_png(fresh / f"masks_{factor}" / f"{Path(name).stem}.png", cv2.resize(keep, size, interpolation=cv2.INTER_NEAREST))


def add_mask_paths(transforms: Path, masks: str = "masks") -> int:
    """Give every frame of a transforms.json its mask; nerfstudio wants all or none. Returns the number of frames.

    Raises:
        SegmotionError: a frame has no mask, or one of another size than its image.
    """
    from segmotion_plugin.reconstruct.database import image_size

    out = transforms.parent
    meta = read_json(transforms)
    for frame in meta["frames"]:
        path = f"{masks}/{Path(frame['file_path']).stem}.png"
        keep = read_grey(out / path)
        if (keep.shape[1], keep.shape[0]) != image_size(out / frame["file_path"]):
            raise SegmotionError(f"{out / path}: {keep.shape[1]}×{keep.shape[0]} pixels, another size than {frame['file_path']}")
        frame["mask_path"] = path
    write_json(transforms, meta)
    return len(meta["frames"])


def _take_disparity(clip: DatasetClip, index: int, folder: Path, box: Box | None) -> None:
    """The depth model's map of an image, where there is one, cut like the picture; it has a size of its own."""
    from segmotion_plugin.depth.base import write_disparity

    source = clip.masks.folder / "motion" / "disparity" / f"{Path(clip.masks.names[index]).stem}.npy"
    if not source.is_file():
        return
    disparity = np.load(source, allow_pickle=False)
    if box is not None:
        across, down = disparity.shape[1] / clip.masks.report["size"][0], disparity.shape[0] / clip.masks.report["size"][1]
        left, top = round(box[0] * across), round(box[1] * down)
        box = left, top, max(left + 1, round(box[2] * across)), max(top + 1, round(box[3] * down))
    write_disparity(folder, Path(clip.names[index]).stem, cut(disparity, box))


def _move_motion(clip: DatasetClip, target: Path, box: Box | None) -> None:
    """Take over tracks, report and pictures of a clip, with the names of the dataset."""
    source = clip.masks.folder / "motion"
    target.mkdir(parents=True, exist_ok=True)
    frames = read_json(source / "frames.json")
    place_of = {name: index for index, name in enumerate(clip.masks.names)}
    for entry in frames["images"]:
        index = place_of[entry["name"]]
        entry["name"], entry["source"] = clip.names[index], clip.sources[index]
    write_json(target / "frames.json", frames)
    for path in source.iterdir():
        if path.is_file() and path.name not in ("frames.json", "state.json"):
            shutil.move(path, target / path.name)
    if box is not None and (target / "tracks.npz").is_file():
        _shift_tracks(target / "tracks.npz", box)


def _shift_tracks(path: Path, box: Box) -> None:
    """Tracks in pixels of the cut pictures; what lies outside of these is not visible."""
    from segmotion_plugin.tracks import load_tracks, save_tracks

    tracks, motion, _ = load_tracks(path)
    left, top, right, bottom = box
    tracks.xy_flat -= np.array([left, top], tracks.xy_flat.dtype)
    inside = ((tracks.xy_flat >= 0) & (tracks.xy_flat < np.array([right - left, bottom - top]))).all(axis=1)
    tracks.visible_flat &= inside
    save_tracks(path, tracks, motion, right - left, bottom - top)
