"""Videos are read as the ffmpeg program reads them: turned, mirrored, trimmed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from segmotion_plugin import pipeline
from segmotion_plugin.clip import VideoFile
from segmotion_plugin.ingest import load_frames_json
from segmotion_plugin.reconstruct.job import _camera_model
from segmotion_plugin.settings import MaskSettings


def encoded(path: Path, turn: int = 0, mirror: tuple[bool, bool] = (False, False), count: int = 3, gop: int = 12) -> Path:
    """A small clip whose pictures have no symmetry."""
    blocks = np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    picture = cv2.resize(blocks, (64, 48), interpolation=cv2.INTER_CUBIC)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"g": str(gop), "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(turn, hflip=mirror[0], vflip=mirror[1])
        for number in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(picture, number, axis=1), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def as_ffmpeg(path: Path) -> list[np.ndarray]:
    """The pictures that the program writes."""
    folder = path.with_suffix("")
    folder.mkdir()
    subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-fps_mode", "passthrough", folder / "%03d.png"], check=True)
    return [cv2.imread(str(file))[..., ::-1] for file in sorted(folder.iterdir())]


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("mirror", [(False, False), (True, False), (False, True)])
def test_display_matrices_turn_and_mirror(tmp_path: Path, turn: int, mirror: tuple[bool, bool]) -> None:
    path = encoded(tmp_path / "clip.mp4", turn, mirror)
    ours, theirs = [image for _, image in VideoFile(path)], as_ffmpeg(path)
    assert len(ours) == len(theirs) == 3
    for image, other in zip(ours, theirs, strict=True):
        assert image.shape == other.shape and np.abs(image.astype(int) - other).max() <= 2


def test_a_clip_that_was_trimmed_without_encoding_is_not_called_cut_off(tmp_path: Path) -> None:
    whole = encoded(tmp_path / "whole.mp4", count=60, gop=30)
    trimmed = tmp_path / "trimmed.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-ss", "1.5", "-i", whole, "-c", "copy", trimmed], check=True)
    source = VideoFile(trimmed)
    frames = [(entry.number, image) for entry, image in source]
    theirs = as_ffmpeg(trimmed)
    assert source.warnings == [] and [number for number, _ in frames] == list(range(len(theirs)))
    assert source.announced > len(theirs) + 1  # the file holds frames that are not shown
    assert np.abs(frames[0][1].astype(int) - theirs[0]).max() <= 2


def test_a_clip_that_is_cut_off_is_told(tmp_path: Path) -> None:
    whole = encoded(tmp_path / "whole.mkv", count=60)
    subprocess.run(["ffmpeg", "-v", "error", "-i", whole, "-c", "copy", "-movflags", "faststart", tmp_path / "whole.mp4"], check=True)
    data = (tmp_path / "whole.mp4").read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: int(0.6 * len(data))])
    source = VideoFile(cut)
    count = sum(1 for _ in source)
    assert 0 < count < 60 and len(source.warnings) == 1 and "cut" in source.warnings[0] + "cut" * ("damaged" in source.warnings[0])


@pytest.mark.parametrize(("turn", "expected"), [(0, 4 / 3), (90, 3 / 4)])
def test_pixels_that_are_not_square_are_told_and_get_two_focal_lengths(tmp_path: Path, turn: int, expected: float) -> None:
    square = encoded(tmp_path / "square.mp4", turn)
    path = tmp_path / "wide.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-i", square, "-c", "copy", "-aspect", "16:9", path], check=True)  # 64×48: pixels 4:3
    out = tmp_path / "out"
    report = pipeline.masks(path, out, MaskSettings(masks="none", quiet=True))
    assert any("not square" in warning for warning in report["warnings"])
    aspect = load_frames_json(out)["pixel_aspect"]
    assert aspect == pytest.approx(expected, rel=0.01)
    assert _camera_model("SIMPLE_RADIAL", aspect) == "OPENCV" and _camera_model("SIMPLE_RADIAL", 1.0) == "SIMPLE_RADIAL"
    plain = pipeline.masks(square, tmp_path / "plain", MaskSettings(masks="none", quiet=True))
    assert not any("not square" in warning for warning in plain["warnings"])
