"""What a person looks at first: a contact sheet of the masks and a video with the masks laid over."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from segmotion_plugin.files import atomic_path, write_png

# Colours of objects 1, 2, … (RGB), told apart also by people who do not see red and green as different (Okabe and Ito 2008).
PALETTE = np.array(
    [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]], np.uint8
)


def colour(object_id: int) -> np.ndarray:
    """RGB colour of an object (its id counts from 1)."""
    return PALETTE[(object_id - 1) % len(PALETTE)]


def overlay(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The image with every object tinted and outlined; the static world is a little dimmed where something moves."""
    if not labels.any():
        return image.copy()
    ids = np.unique(labels[labels > 0]).tolist()
    tints = np.zeros((max(ids) + 1, 3), np.uint8)
    tints[ids] = [colour(object_id) for object_id in ids]
    moves = (labels > 0).astype(np.uint8)
    result = cv2.convertScaleAbs(image, alpha=0.75)
    cv2.copyTo(cv2.addWeighted(image, 0.5, tints[labels], 0.5, 0), moves, result)
    for object_id in ids:
        contours, _ = cv2.findContours((labels == object_id).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(result, contours, -1, colour(object_id).tolist(), max(1, image.shape[1] // 400))
    return result


def write_overview(path: Path, frames: list[tuple[str, np.ndarray, np.ndarray]], title: str, width: int = 1280) -> None:
    """A contact sheet: for each (caption, image H×W×3, labels H×W) the image and, below it, the image with its mask.

    Args:
        path: PNG to write.
        frames: up to about eight entries.
        title: one line at the top.
        width: of the sheet in pixels.
    """
    columns = min(4, len(frames))
    cell = width // columns
    rows: list[np.ndarray] = [_caption(title, width, 28, 0.6)]
    for begin in range(0, len(frames), columns):
        group = frames[begin : begin + columns]
        height = round(cell * group[0][1].shape[0] / group[0][1].shape[1])
        top, middle, bottom = [], [], []
        for caption, image, labels in group:
            small = cv2.resize(image, (cell, height), interpolation=cv2.INTER_AREA)
            top.append(_caption(caption, cell, 20, 0.42))
            middle.append(small)
            bottom.append(overlay(small, cv2.resize(labels, (cell, height), interpolation=cv2.INTER_NEAREST)))
        for parts in (top, middle, bottom):
            line = np.concatenate(parts, axis=1)
            rows.append(np.pad(line, ((0, 0), (0, width - line.shape[1]), (0, 0))))
    write_png(path, np.concatenate(rows))


def _caption(text: str, width: int, height: int, scale: float) -> np.ndarray:
    strip = np.full((height, width, 3), 24, np.uint8)
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(strip, plain, (6, height - 7), cv2.FONT_HERSHEY_SIMPLEX, scale, (235, 235, 235), 1, cv2.LINE_AA)
    return strip


def write_overlay_video(
    path: Path, frames: Iterable[tuple[np.ndarray, np.ndarray]], fps: float, progress: Callable[[int], None] | None = None
) -> None:
    """An H.264 video (plays in browsers) of the images with their masks laid over.

    Args:
        path: mp4 to write.
        frames: pairs (image H×W×3 uint8, labels H×W) of one size; odd sizes lose their last row or column.
        fps: frames per second.
        progress: called with the number of frames done.
    """
    import av

    with atomic_path(path) as temporary, av.open(str(temporary), "w", options={"movflags": "+faststart"}) as container:
        stream = None
        for done, (image, labels) in enumerate(frames, start=1):
            picture = overlay(image, labels)
            picture = np.ascontiguousarray(picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2])
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(max(fps, 1.0)).limit_denominator(1000))
                stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], "yuv420p"
                stream.options = {"crf": "23", "preset": "veryfast"}
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
            if progress is not None:
                progress(done)
        if stream is not None:
            for packet in stream.encode():
                container.mux(packet)
