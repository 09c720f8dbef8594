"""A clip: frames of a video or of a folder of images, in order, at the size that motion is measured in.

Images are taken as stored (COLMAP and nerfstudio apply no orientation tag); a video is turned as its display matrix says, as
ffmpeg does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.parallel import in_order
from segmotion_plugin.rawstore import RawStore
from segmotion_plugin.tiff import as_stored

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
VIDEO_HINT = "a video file that FFmpeg reads (mp4, mov, mkv, webm, avi, …) or a folder of images (png, jpg, tif, bmp, webp)"


@dataclass(frozen=True)
class SourceFrame:
    """One frame as the source has it: `name` (file, or the video's), `number` in the source, `time` in seconds where known."""

    name: str
    number: int
    time: float | None


@dataclass
class Clip:
    """What the stages see of the input.

    Attributes:
        frames: T frames H×W×3 uint8 RGB at working size, read one at a time.
        source: T entries telling where each frame came from.
        width: width of the source images in pixels.
        height: height of the source images in pixels.
        fps: frames per second; None where the source does not tell (folders of images).
        shots: half-open frame ranges; nothing crosses a hard cut.
        selected: S int, frames that become images, masks and input of the reconstruction.
        names: S names of those images, as `ns-process-data` gives them.
        ordered: the frames follow each other in time (False for unordered photo sets).
    """

    frames: RawStore | list[np.ndarray]
    source: list[SourceFrame]
    width: int
    height: int
    fps: float | None
    shots: list[tuple[int, int]]
    selected: np.ndarray
    names: list[str]
    ordered: bool = True

    def __len__(self) -> int:
        return len(self.source)

    @property
    def work_size(self) -> tuple[int, int]:
        """(width, height) of the working frames."""
        height, width = self.frames[0].shape[:2]
        return width, height

    @property
    def scale(self) -> tuple[float, float]:
        """Factors from working pixels to source pixels, for x and y."""
        width, height = self.work_size
        return self.width / width, self.height / height


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorting key by which frame2 comes before frame10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part.lower()) for part in re.split(r"(\d+)", name) if part]


def read_rgb(path: Path) -> np.ndarray:
    """Read an image as H×W×3 uint8 RGB as stored: no orientation tag is applied, alpha is dropped, 16 bit become 8.

    Raises:
        SegmotionError: the file is empty or no readable image.
    """
    import cv2

    data = as_stored(np.fromfile(path, np.uint8))
    image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if len(data) else None
    if image is None:
        raise SegmotionError(f"{path}: this file is {'empty' if not len(data) else 'not a readable image'}; mend or remove it")
    return image[..., ::-1]


class ImageFolder:
    """Frames of a folder of images, in natural order of their names."""

    def __init__(self, folder: Path, fps: float | None = None) -> None:
        self.path = Path(folder)
        found = [p for p in self.path.iterdir() if p.is_file() and not p.name.startswith(".")]
        self.files = sorted((p for p in found if p.suffix.lower() in IMAGE_SUFFIXES), key=lambda p: (natural_key(p.name), p.name))
        self.fps = fps
        self.warnings: list[str] = []
        if not self.files:
            raise SegmotionError(f"{folder}: no images in this folder; expected files named {', '.join(sorted(IMAGE_SUFFIXES))}")

    def __iter__(self) -> Iterator[tuple[SourceFrame, np.ndarray]]:
        size = None
        for number, (file, image) in enumerate(zip(self.files, in_order(read_rgb, self.files), strict=True)):
            if size is None:
                size = image.shape[:2]
            elif image.shape[:2] != size:
                raise SegmotionError(
                    f"{file}: {image.shape[1]}×{image.shape[0]} pixels, but the images before it have {size[1]}×{size[0]}.\n"
                    "All images of a sequence must have one size; resize or remove those that differ."
                )
            time = number / self.fps if self.fps else None
            yield SourceFrame(file.name, number, time), image


class VideoFile:
    """Frames of a video file, decoded by FFmpeg's libraries, turned by the display matrix."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.fps: float | None = None
        self.warnings: list[str] = []
        if self.path.stat().st_size == 0:
            raise SegmotionError(f"{path}: the file is empty")

    def __iter__(self) -> Iterator[tuple[SourceFrame, np.ndarray]]:
        import av

        self.warnings.clear()
        try:
            container = av.open(str(self.path))
        except (av.error.FFmpegError, ValueError) as error:
            raise SegmotionError(f"{self.path}: not a readable video ({_first_line(error)}).\nExpected {VIDEO_HINT}.") from None
        with container:
            if not container.streams.video:
                raise SegmotionError(f"{self.path}: the file has no video stream.\nExpected {VIDEO_HINT}.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate = stream.average_rate or stream.guessed_rate
            self.fps = float(rate) if rate else 30.0
            number = 0
            try:
                for frame in container.decode(stream):
                    image = frame.to_ndarray(format="rgb24")
                    turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
                    time = float(frame.time) if frame.time is not None else number / self.fps
                    yield SourceFrame(self.path.name, number, time), np.ascontiguousarray(np.rot90(image, turns))
                    number += 1
            except av.error.FFmpegError as error:
                if number == 0:
                    raise SegmotionError(f"{self.path}: no frame could be decoded ({_first_line(error)})") from None
                self.warnings.append(f"{self.path.name} is damaged after frame {number - 1}: the rest was left out")
            if not self.warnings and stream.frames and number < stream.frames - 1:
                self.warnings.append(
                    f"{self.path.name} announces {stream.frames} frames but holds {number}: it seems cut off; what is there was used"
                )


def open_source(path: Path, fps: float | None = None) -> ImageFolder | VideoFile:
    """The reader for a video file or a folder of images.

    Raises:
        SegmotionError: nothing is there, or it is neither.
    """
    path = Path(path)
    if path.is_dir():
        return ImageFolder(path, fps)
    if path.is_file():
        return VideoFile(path)
    raise SegmotionError(f"{path}: no such file or folder.\nGive {VIDEO_HINT}.")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
