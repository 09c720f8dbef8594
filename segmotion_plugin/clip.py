"""A clip: frames of a video or of a folder of images, in order, at the size that motion is measured in.

Images are taken as stored (COLMAP and nerfstudio apply no orientation tag); a video is turned as its display matrix says, as
ffmpeg does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.parallel import in_order
from segmotion_plugin.rawstore import RawStore
from segmotion_plugin.reading import check_pixels
from segmotion_plugin.tiff import as_stored

if TYPE_CHECKING:
    import av

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
    # Only these ten are numbers to everybody; "²" is a digit to Python that int() refuses.
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in re.split(r"([0-9]+)", name) if part]


def read_rgb(path: Path) -> np.ndarray:
    """Read an image as H×W×3 uint8 RGB as stored: no orientation tag is applied, alpha is dropped, 16 bit become 8.

    Raises:
        SegmotionError: the file is empty or no readable image.
    """
    import cv2

    data = as_stored(np.fromfile(path, np.uint8))
    check_pixels(*_announced_size(path), path)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if len(data) else None
    except cv2.error:  # OpenCV has bounds of its own
        image = None
    if image is None:
        raise SegmotionError(f"{path}: this file is {'empty' if not len(data) else 'not a readable image'}; mend or remove it")
    return image[..., ::-1]


def _announced_size(path: Path) -> tuple[int, int]:
    """(width, height) that a picture's header tells; (0, 0) where it tells none."""
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return image.size
    except Image.DecompressionBombError:
        raise SegmotionError(f"{path}: more pixels than can be read; make it smaller") from None
    except Exception:  # whatever is wrong with it, the reader says
        return 0, 0


class ImageFolder:
    """Frames of a folder of images, in natural order of their names."""

    def __init__(self, folder: Path, fps: float | None = None) -> None:
        self.path = Path(folder)
        found = [p for p in self.path.iterdir() if p.is_file() and not p.name.startswith(".")]
        self.files = sorted((p for p in found if p.suffix.lower() in IMAGE_SUFFIXES), key=lambda p: (natural_key(p.name), p.name))
        self.fps = fps
        self.announced, self.pixel_aspect = len(self.files), 1.0
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
        self.announced = 0
        """Frames that the file says it has, known once it is being read; 0 where it does not say."""
        self.fps: float | None = None
        self.warnings: list[str] = []
        self.pixel_aspect = 1.0
        """Width of a pixel over its height, known once the video is being read."""
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
            self.announced = stream.frames
            rate = stream.average_rate or stream.guessed_rate
            self.fps = float(rate) if rate else 30.0
            number = packets = 0
            check_pixels(stream.codec_context.width, stream.codec_context.height, self.path)
            try:
                for packet in container.demux(stream):
                    packets += packet.size > 0
                    for frame in packet.decode():
                        check_pixels(frame.width, frame.height, self.path)
                        matrix = display_matrix(frame)
                        image = displayed(frame.to_ndarray(format="rgb24"), matrix)
                        self.pixel_aspect = _pixel_aspect(stream, turned=matrix is not None and is_quarter_turn(matrix))
                        time = float(frame.time) if frame.time is not None else number / self.fps
                        yield SourceFrame(self.path.name, number, time), image
                        number += 1
            except av.error.FFmpegError as error:
                if number == 0:
                    raise SegmotionError(f"{self.path}: no frame could be decoded ({_first_line(error)})") from None
                self.warnings.append(f"{self.path.name} is damaged after frame {number - 1}: the rest was left out")
            # A clip that was trimmed without encoding it anew holds more packets than it shows; one that was cut off holds fewer.
            if not self.warnings and stream.frames and packets < stream.frames - 1:
                self.warnings.append(
                    f"{self.path.name} announces {stream.frames} frames but holds {packets}: it seems cut off; what is there was used"
                )


def display_matrix(frame: av.VideoFrame) -> np.ndarray | None:
    """The 2×2 linear part of a frame's display matrix, rows by source axis (x, y), or None where it has none."""
    from av.sidedata.sidedata import Type

    data: Any = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]  # the stub knows names only
    return None if data is None else np.frombuffer(bytes(data), "=i4").reshape(3, 3)[:2, :2].astype(np.float64)


def is_quarter_turn(matrix: np.ndarray) -> bool:
    """Whether a 2×2 display matrix exchanges width and height."""
    return bool(abs(matrix[0, 0]) + abs(matrix[1, 1]) < abs(matrix[0, 1]) + abs(matrix[1, 0]))


def _pixel_aspect(stream: av.VideoStream, turned: bool) -> float:
    """Width over height of a pixel as it is displayed; 1 where the file does not say."""
    ratio = stream.sample_aspect_ratio
    if not ratio:
        return 1.0
    return float(1 / ratio) if turned else float(ratio)


def displayed(image: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """An H×W×3 picture mirrored and turned by quarters as its display matrix says (FFmpeg's libavutil/display.h).

    Other angles than quarters are taken to the nearest one.
    """
    if matrix is None or not matrix.any():
        return image
    if is_quarter_turn(matrix):
        image, across, down = image.transpose(1, 0, 2), matrix[1, 0], matrix[0, 1]
    else:
        across, down = matrix[0, 0], matrix[1, 1]
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


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
