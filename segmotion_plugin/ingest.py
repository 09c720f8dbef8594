"""First stage: read the input once, keep working frames, find the shots, choose and write the images."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import cv2
import numpy as np

from segmotion_plugin.clip import Clip, ImageFolder, SourceFrame, VideoFile, open_source
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.extra_masks import read_alpha
from segmotion_plugin.files import write_json, write_png
from segmotion_plugin.progress import Console
from segmotion_plugin.rawstore import RawStore
from segmotion_plugin.reading import FramesFile, inside, read_checked
from segmotion_plugin.settings import MaskSettings, fingerprint
from segmotion_plugin.shots import CutDetector
from segmotion_plugin.workspace import Workspace

_NOT_SQUARE = (
    "the pixels of this video are not square ({:.3f} times as wide as high): images are left as stored, and the cameras get a focal "
    "length for each axis"
)
_MOST_ENLARGED = 2.0
_WORK_BYTES = 6.0  # per working pixel: the frame 3, flows 2, features and soft masks less than 1
_KEPT_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


def source_key(path: Path, settings: MaskSettings) -> str:
    """Key of the working frames: the input's identity and what shapes them."""
    path = Path(path)
    if path.is_dir():
        identity = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in ImageFolder(path).files]
    elif path.is_file():
        identity = [(path.name, path.stat().st_size, path.stat().st_mtime_ns)]
    else:
        open_source(path)  # says what is wrong
        identity = []
    return fingerprint("frames-2", identity, settings.work_size, settings.fps, settings.unordered)


def select(count: int, every: int, target: int | None) -> np.ndarray:
    """Indices of the frames that become images."""
    if target is not None and target < count:
        return np.unique(np.round(np.linspace(0, count - 1, target)).astype(np.int64))
    return np.arange(0, count, every if target is None else 1)


def ingest(path: Path, space: Workspace, settings: MaskSettings, console: Console) -> tuple[Clip, list[str]]:
    """Read the input and write `images/` and `motion/frames.json`, or take them from an earlier run.

    Returns:
        The clip, and warnings (a damaged video).

    Raises:
        SegmotionError: the input cannot be used; nothing of it is half-written.
    """
    key = source_key(path, settings)
    raw = space.work / "frames.raw"
    if not (space.done("frames", key) and _whole_frames(raw, space.info("frames"))):
        try:
            info = _decode(path, raw, settings, console)
        except (SegmotionError, OSError):
            space.discard()
            raise
        space.forget(*list(space.state["stages"]))
        space.finish("frames", key, info)
    info = space.info("frames")
    frames = RawStore(raw, (*info["work_size"][::-1], 3), np.uint8)
    selected = select(len(info["source"]), settings.every, settings.target_frames)
    images_key = fingerprint(key, selected.tolist())
    if not (space.done("images", images_key) and (space.out / "images").is_dir()):
        space.forget("images")
        names = _write_images(path, space, selected, settings, console)
        space.finish("images", images_key, {"names": names})
    names = space.info("images")["names"]
    clip = Clip(
        frames,
        [SourceFrame(*entry) for entry in info["source"]],
        info["width"],
        info["height"],
        info["fps"],
        [(int(a), int(b)) for a, b in info["shots"]],
        selected,
        names,
        ordered=not settings.unordered,
    )
    entries = [
        {"name": name, "source": clip.source[i].name, "number": clip.source[i].number, "frame": int(i), "time": clip.source[i].time}
        for name, i in zip(names, selected.tolist(), strict=True)
    ]
    aspect = info.get("pixel_aspect", 1.0)
    frames_json = {"fps": clip.fps, "frame_count": len(clip), "shots": clip.shots, "images": entries, "pixel_aspect": aspect}
    write_json(space.motion / "frames.json", frames_json)
    return clip, info["warnings"] + ([_NOT_SQUARE.format(aspect)] if aspect != 1.0 else [])


def _whole_frames(raw: Path, info: dict) -> bool:
    """Whether the working frames are all there; a full disk or a power cut may have left fewer than were recorded."""
    try:
        return raw.stat().st_size >= len(info["source"]) * int(np.prod(info["work_size"])) * 3
    except (OSError, KeyError, TypeError, ValueError):
        return False


def load_frames_json(out: Path) -> FramesFile:
    """Read `motion/frames.json`.

    Raises:
        SegmotionError: it is missing, damaged, or names images outside of their folder.
    """
    path = Path(out) / "motion" / "frames.json"
    if not path.is_file():
        raise SegmotionError(f"{path}: missing; make it with 'segmotion masks INPUT {out}'")
    frames = read_checked(path, FramesFile, f"make it anew with 'segmotion masks INPUT {out}'")
    for entry in frames["images"]:
        inside(Path(out) / "images", entry["name"], path)
    return frames


def _decode(path: Path, raw: Path, settings: MaskSettings, console: Console) -> dict:
    source = open_source(path, settings.fps)
    total = len(source.files) if isinstance(source, ImageFolder) else None
    raw.unlink(missing_ok=True)
    frames: RawStore | None = None
    detector = CutDetector()
    size = (0, 0)
    entries: list[tuple[str, int, float | None]] = []
    cuts: list[int] = []
    width = height = 0
    with console.bar("reading", total) as update:
        for entry, image in source:
            if frames is None:
                height, width = image.shape[:2]
                if min(width, height) < 32:
                    raise SegmotionError(f"{path}: {width}×{height} pixels are too few; 32×32 is the least")
                size = working_size(width, height, settings.work_size)
                _check_room(raw.parent, source.announced, size, path)
                frames = RawStore(raw, (size[1], size[0], 3), np.uint8)
            if image.shape[:2] != (height, width):
                raise SegmotionError(f"{path}: the picture size changes at frame {entry.number}; cut the video there")
            small = at_working_size(image, size)
            if settings.unordered or detector(small):
                cuts.append(len(entries))
            frames[len(entries)] = small
            entries.append((entry.name, entry.number, entry.time))
            update(len(entries))
    if frames is None or len(entries) < 2:
        raise SegmotionError(f"{path}: {'a single frame' if entries else 'no frame'} was found; motion needs at least two")
    frames.close()
    bounds = sorted({0, *cuts, len(entries)})
    return {
        "source": entries,
        "width": width,
        "height": height,
        "work_size": [frames.shape[1], frames.shape[0]],
        "fps": source.fps,
        "shots": list(zip(bounds[:-1], bounds[1:], strict=True)),
        "warnings": list(source.warnings),
        "pixel_aspect": source.pixel_aspect,
    }


def _check_room(folder: Path, count: int, size: tuple[int, int], path: Path) -> None:
    """Stop where the disk cannot hold the intermediate files of so many frames; better now than in an hour."""
    need = count * size[0] * size[1] * _WORK_BYTES
    free = shutil.disk_usage(folder).free
    if need > free:
        raise SegmotionError(
            f"{path}: {count} frames take {need / 1e9:.0f} GB of intermediate files, and {folder} has {free / 1e9:.0f} GB free; "
            "cut the video, or give a smaller --work-size"
        )


def working_size(width: int, height: int, long_side: int) -> tuple[int, int]:
    """(width, height) that images are worked on at, pixels; even where it has to be rounded, since flow and masks live at half of it.

    Small images are enlarged, to twice their size at most: masks are drawn at half of this size, where movers must not get lost.
    """
    factor = min(_MOST_ENLARGED, long_side / max(width, height))
    return _whole(width * factor), _whole(height * factor)


def _whole(length: float) -> int:
    """The even one of the whole numbers beside a length; 16 at least."""
    near = {math.floor(round(length, 6)), math.ceil(round(length, 6))}
    return max(16, min(near, key=lambda number: number % 2))


def at_working_size(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An H×W×3 image at (width, height) `size`; the image itself when it has that size."""
    width = image.shape[1]
    if size == (width, image.shape[0]):
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if size[0] < width else cv2.INTER_LINEAR)


def _write_images(path: Path, space: Workspace, selected: np.ndarray, settings: MaskSettings, console: Console) -> list[str]:
    """Write the selected frames as images/frame_00001.<suffix>: files are copied as they are where every reader takes them."""
    folder = space.staged("images") / "images"
    source = open_source(path, settings.fps)
    wanted = set(selected.tolist())
    names: list[str] = []
    with console.bar("images", len(selected), "images") as update:
        if isinstance(source, ImageFolder):
            for index in selected.tolist():
                names.append(_place(source.files[index], folder, len(names) + 1))
                update(len(names))
        else:
            _write_video_frames(source, wanted, folder, names, update)
    space.publish("images")
    return names


def _write_video_frames(source: VideoFile, wanted: set[int], folder: Path, names: list[str], update) -> None:  # noqa: ANN001
    last = max(wanted)
    for index, (_, image) in enumerate(source):
        if index in wanted:
            names.append(f"frame_{len(names) + 1:05d}.png")
            write_png(folder / names[-1], image, compression=1)
            update(len(names))
        if index >= last:
            break


def _place(file: Path, folder: Path, number: int) -> str:
    """Copy an image, or write it anew as 8-bit PNG, with its alpha, where COLMAP or nerfstudio would not read it as it is."""
    from PIL import Image
    from PIL.ExifTags import Base

    from segmotion_plugin.clip import read_rgb

    suffix = file.suffix.lower()
    with Image.open(file) as image:
        plain = image.mode in ("L", "RGB", "RGBA") and getattr(image, "n_frames", 1) == 1
        # Pillow, and with it nerfstudio, turns TIFFs that have an orientation tag; COLMAP does not.
        plain = plain and getattr(image, "tag_v2", {}).get(Base.Orientation, 1) == 1
    if plain and suffix in _KEPT_SUFFIXES:
        name = f"frame_{number:05d}{suffix}"
        shutil.copyfile(file, folder / name)
    else:
        name = f"frame_{number:05d}.png"
        rgb, alpha = read_rgb(file), read_alpha(file)
        write_png(folder / name, rgb if alpha is None else np.dstack([rgb, alpha]), compression=1)
    return name
