"""Every kind of input that people have is read, in order, turned the right way; what cannot be read is refused in clear words."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segmotion_plugin import SegmotionError
from segmotion_plugin.clip import natural_key, open_source, read_rgb
from segmotion_plugin.ingest import ingest, select
from segmotion_plugin.progress import Console
from segmotion_plugin.settings import MaskSettings
from segmotion_plugin.shots import CutDetector
from segmotion_plugin.workspace import Workspace

QUIET = Console(quiet=True)


def picture(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def write_video(path: Path, frames: list[np.ndarray], fps: int = 25) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.height, stream.width, stream.pix_fmt = frames[0].shape[0], frames[0].shape[1], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_names_are_in_natural_order() -> None:
    assert sorted(["f10.png", "f2.png", "F1.png"], key=natural_key) == ["F1.png", "f2.png", "f10.png"]


def test_every_kind_of_image_is_read(tmp_path: Path) -> None:
    colour = picture(1)
    grey = colour[..., 0]
    Image.fromarray(colour).save(tmp_path / "a 1 with space.png")
    Image.fromarray(grey).save(tmp_path / "-dash 2.png")
    Image.fromarray(grey.astype(np.uint16) << 8).save(tmp_path / "deep 3.png")
    Image.fromarray(np.dstack([colour, grey])).save(tmp_path / "été 4.png")
    Image.fromarray(colour).quantize(16).save(tmp_path / "palette 5.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    frames = {source.name: image for source, image in open_source(tmp_path)}
    assert len(frames) == 5
    assert all(image.shape == (48, 64, 3) and image.dtype == np.uint8 for image in frames.values())
    np.testing.assert_array_equal(frames["-dash 2.png"][..., 1], grey)
    np.testing.assert_array_equal(frames["deep 3.png"][..., 1], grey)
    np.testing.assert_array_equal(frames["été 4.png"], colour)


def test_the_orientation_tag_of_images_is_not_applied(tmp_path: Path) -> None:
    image = Image.fromarray(picture(2))
    exif = Image.Exif()
    exif[274] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_rgb(tmp_path / "turned.jpg").shape == (48, 64, 3)


def test_images_are_named_as_ns_process_data_names_them(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in (1, 2, 10):
        Image.fromarray(picture(number)).save(folder / f"x{number}.{'JPG' if number == 2 else 'png'}")
    Image.fromarray(picture(11)[..., 0].astype(np.uint16) << 8).save(folder / "x11.png")
    clip, _ = ingest(folder, Workspace.create(tmp_path / "out", folder), MaskSettings(), QUIET)
    assert clip.names == ["frame_00001.png", "frame_00002.jpg", "frame_00003.png", "frame_00004.png"]
    assert (tmp_path / "out/images/frame_00002.jpg").read_bytes() == (folder / "x2.JPG").read_bytes()
    with Image.open(tmp_path / "out/images/frame_00004.png") as deep:
        assert deep.mode == "RGB"
    np.testing.assert_array_equal(clip.frames[2], cv2.resize(picture(10), (128, 96), interpolation=cv2.INTER_LINEAR))


def test_frames_are_brought_near_the_working_size(tmp_path: Path) -> None:
    def worked(width: int, height: int, work_size: int) -> tuple[int, int]:
        folder = tmp_path / f"{width}-{work_size}"
        folder.mkdir()
        for number in range(2):
            Image.fromarray(np.full((height, width, 3), 100 + number, np.uint8)).save(folder / f"{number}.png")
        clip, _ = ingest(folder, Workspace.create(tmp_path / f"out {folder.name}", folder), MaskSettings(work_size=work_size), QUIET)
        assert (clip.width, clip.height) == (width, height)
        return clip.work_size

    assert worked(160, 90, 128) == (128, 72)
    assert worked(160, 90, 240) == (240, 135)
    assert worked(160, 90, 1280) == (320, 180)  # more than twice would show nothing new
    assert worked(158, 89, 256) == (256, 144)  # of 144.2
    assert worked(171, 96, 230) == (230, 130)  # of 129.1: a half of it is whole


def test_video_frames_have_numbers_and_times(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", [picture(i) for i in range(10)])
    out = tmp_path / "out"
    clip, warnings = ingest(video, Workspace.create(out), MaskSettings(every=3), QUIET)
    assert len(clip) == 10 and clip.selected.tolist() == [0, 3, 6, 9] and warnings == []
    assert clip.fps == pytest.approx(25)
    assert clip.source[6].time == pytest.approx(6 / 25, abs=1e-3)
    assert sorted(p.name for p in (out / "images").iterdir()) == [f"frame_0000{i}.png" for i in range(1, 5)]


def test_a_truncated_video_is_used_up_to_the_damage(tmp_path: Path) -> None:
    import av

    whole = tmp_path / "whole.mkv"
    write_video(whole, [picture(i, 96, 128) for i in range(30)])
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    frames = [source.number for source, _ in open_source(cut)]
    assert 2 <= len(frames) < 30
    del av


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda p: None, "no such file"),
        (lambda p: p.mkdir(), "no images"),
        (lambda p: p.write_bytes(b""), "empty"),
        (lambda p: p.write_bytes(b"just text, no video at all" * 50), "not a readable video"),
    ],
)
def test_input_that_cannot_be_used_is_refused(tmp_path: Path, make, word: str) -> None:  # noqa: ANN001
    make(tmp_path / "input")
    with pytest.raises(SegmotionError, match=word):
        list(open_source(tmp_path / "input"))


def test_a_single_frame_and_mixed_sizes_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(picture(1)).save(folder / "a.png")
    with pytest.raises(SegmotionError, match="single frame"):
        ingest(folder, Workspace.create(tmp_path / "out", folder), MaskSettings(), QUIET)
    Image.fromarray(picture(2, 50, 64)).save(folder / "b.png")
    with pytest.raises(SegmotionError, match="one size"):
        ingest(folder, Workspace.create(tmp_path / "out", folder), MaskSettings(), QUIET)


def test_frames_are_chosen_evenly() -> None:
    assert select(10, 3, None).tolist() == [0, 3, 6, 9]
    assert select(10, 1, 4).tolist() == [0, 3, 6, 9]
    assert select(5, 1, 100).tolist() == [0, 1, 2, 3, 4]


def test_hard_cuts_are_found_and_motion_is_not_taken_for_one() -> None:
    rng = np.random.default_rng(0)
    import cv2

    def world(seed: int) -> np.ndarray:
        noise = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8)
        return cv2.resize(noise, (600, 400), interpolation=cv2.INTER_CUBIC)

    first, second = world(1), world(2) // 2
    detector = CutDetector()
    found = []
    for index in range(24):
        source = first if index < 13 else second
        shift = 9 * index + int(rng.integers(0, 3))
        if detector(source[20:200, shift : shift + 320]):
            found.append(index)
    assert found == [13]
