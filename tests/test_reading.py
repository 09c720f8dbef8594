"""Damaged, hostile and oversized input: one clear line each, nothing outside of a folder, no work without end."""

from __future__ import annotations

import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from segmotion_4d.readers.tapip3d_tracks import read_tracks
from segmotion_colmap.database import keypoints, masked_keypoints

from segmotion_plugin import SegmotionError, cli, pipeline
from segmotion_plugin.clip import natural_key, read_rgb
from segmotion_plugin.files import write_json, write_png
from segmotion_plugin.ingest import _check_room, load_frames_json
from segmotion_plugin.masks import read_grey
from segmotion_plugin.reading import inside, read_checked
from segmotion_plugin.settings import MaskSettings, ReconstructSettings


@pytest.mark.parametrize("name", ["a.png", "left/a.png", "left/../a.png", "..a/b.png", "ä b.png"])
def test_names_within_a_folder_are_taken(tmp_path: Path, name: str) -> None:
    assert inside(tmp_path, name, "list") == tmp_path / name


OUTSIDE = ["../a.png", "a/../../b.png", "/a.png", "C:\\a.png", "..\\a.png", "\\a.png", "..", "", " ", "a\0b", None, 3]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out_of_a_folder_are_refused(tmp_path: Path, name: object) -> None:
    with pytest.raises(SegmotionError, match="^list: "):
        inside(tmp_path, name, "list")


def test_digits_of_other_scripts_in_names_are_letters() -> None:
    assert sorted(["a²", "a10", "a9", "a٣", "a"], key=natural_key)[:3] == ["a", "a9", "a10"]


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"\xff\xfe", "JSON"), (b"[" * 100_000, "nested too deep|JSON"), (b"{}", "fps"), (b"[]", "Expected"), (b"", "JSON")],
)
def test_a_damaged_list_of_frames_is_named(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "motion").mkdir()
    (tmp_path / "motion" / "frames.json").write_bytes(content)
    with pytest.raises(SegmotionError, match=f"frames.json.*({told})"):
        load_frames_json(tmp_path)


def test_wrong_types_and_names_in_a_list_of_frames_are_named(tmp_path: Path) -> None:
    entry = {"name": "a.png", "source": "a.png", "number": 0, "frame": 0, "time": None}
    for change, told in (({"frame": "0"}, "images"), ({"name": "../a.png"}, "leads out"), ({"name": 4}, "images")):
        frames = {"fps": None, "frame_count": 1, "shots": [[0, 1]], "images": [entry | change]}
        write_json(tmp_path / "motion" / "frames.json", frames)
        with pytest.raises(SegmotionError, match=told):
            load_frames_json(tmp_path)
    with pytest.raises(SegmotionError, match="no such file; look elsewhere"):
        read_checked(tmp_path / "none.json", dict, "look elsewhere")


def database(path: Path, rows: object = 1, columns: object = 2, data: object = b"\0" * 8, pair: int | None = None) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE images (image_id INTEGER, name TEXT, camera_id INTEGER)")
        connection.execute("CREATE TABLE cameras (camera_id INTEGER, width INTEGER, height INTEGER)")
        for table in ("keypoints", "descriptors"):
            connection.execute(f"CREATE TABLE {table} (image_id INTEGER, rows, cols, data)")
        connection.execute("CREATE TABLE matches (pair_id INTEGER, rows, cols, data)")
        connection.execute("CREATE TABLE two_view_geometries (pair_id INTEGER, rows, cols, data)")
        connection.execute("INSERT INTO images VALUES (1, 'a.png', 1)")
        connection.execute("INSERT INTO cameras VALUES (1, 8, 8)")
        connection.execute("INSERT INTO keypoints VALUES (1, ?, ?, ?)", (rows, columns, data))
        if pair is not None:
            connection.execute("INSERT INTO matches VALUES (?, 1, 2, ?)", (pair, b"\0" * 8))
        connection.commit()
    return path


WRONG = [(3, 2, b"\0" * 8), ("x", 2, b"\0" * 8), (1, 2, "text"), (1, 2.5, b"\0" * 8), (-1, 2, b"1")]


@pytest.mark.parametrize(("rows", "columns", "data"), WRONG)
def test_keypoints_of_other_sizes_and_types_are_told(tmp_path: Path, rows: object, columns: object, data: object) -> None:
    with pytest.raises(SegmotionError, match="a damaged database"):
        keypoints(database(tmp_path / "a.db", rows, columns, data))


@pytest.mark.parametrize("pair", [0, 2147483647 * 5 + 9])
def test_matches_of_images_that_are_not_there_are_told(tmp_path: Path, pair: int) -> None:
    from segmotion_colmap.database import filter_database

    write_png(tmp_path / "masks" / "a.png.png", np.full((8, 8), 255, np.uint8))
    path = database(tmp_path / "a.db", pair=pair)
    with pytest.raises(SegmotionError, match="a damaged database"):
        filter_database(path, tmp_path / "masks", tmp_path / "b.db", verify="none")
    assert not (tmp_path / "b.db").exists() and masked_keypoints(path, tmp_path / "masks") == {}


def test_an_image_without_a_camera_is_told(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE cameras SET camera_id = 7")
        connection.commit()
    with pytest.raises(SegmotionError, match="a damaged database.*no camera of a.png"):
        masked_keypoints(path, tmp_path / "masks")


def test_a_broken_mask_is_told(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.zeros((8, 8), np.uint8))
    data = bytearray((tmp_path / "a.png").read_bytes())
    for place in range(8, len(data), 5):
        broken = bytes(data[:place] + bytes([data[place] ^ 0x5A]) + data[place + 1 :])
        (tmp_path / "b.png").write_bytes(broken)
        try:
            assert read_grey(tmp_path / "b.png").ndim == 2
        except SegmotionError as error:
            assert "b.png" in str(error)


def test_a_picture_that_declares_a_thousand_million_pixels_is_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 25_000, 8, 2, 0, 0, 0)
    path = tmp_path / "huge.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    with pytest.raises(SegmotionError, match="huge.png: .*pixels"):
        read_rgb(path)


def test_a_clip_that_the_disk_cannot_hold_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(SegmotionError, match="1000000 frames take .* GB of intermediate files"):
        _check_room(tmp_path, 1_000_000, (7680, 4320), Path("long.mp4"))


def test_a_track_file_without_bounds_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tracks.npz"
    shapes: dict[str, tuple[int, ...]] = {"coords": (10_000, 100_000, 3), "extrinsics": (1, 4, 4), "intrinsics": (1, 3, 3)}
    shapes |= {"visibs": (1, 1), "video": (1, 8, 8, 3)}
    with zipfile.ZipFile(path, "w") as archive:
        for name, shape in shapes.items():
            with archive.open(f"{name}.npy", "w") as handle:
                np.lib.format.write_array_header_1_0(handle, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with pytest.raises(SegmotionError, match="more than can be read"):
        read_tracks(path, 10_000, 8, 8)


@pytest.mark.parametrize("dilate", [float("inf"), float("nan"), -1.0, 1e9])
def test_numbers_of_pixels_that_make_no_sense_are_refused(tmp_path: Path, dilate: float) -> None:
    with pytest.raises(SegmotionError, match="--dilate"):
        MaskSettings(dilate=dilate).check()
    with pytest.raises(SegmotionError, match="--dilate"):
        pipeline.reconstruct(tmp_path, dilate=dilate)


@pytest.mark.parametrize("change", [{"downscales": 99999999999}, {"downscales": -1}, {"refine": -2}, {"threads": 0}])
def test_settings_of_the_cameras_are_checked_before_the_masks(tmp_path: Path, change: dict) -> None:
    with pytest.raises(SegmotionError, match=f"--{next(iter(change))}"):
        pipeline.run(tmp_path, tmp_path / "out", reconstruction=ReconstructSettings(**change))
    assert not (tmp_path / "out").exists()


def test_work_files_that_are_cut_short_are_made_anew(walker_folder: Path, tmp_path: Path) -> None:
    settings = MaskSettings(quiet=True, work_size=160, keep_work=True)
    out = tmp_path / "out"
    pipeline.masks(walker_folder, out, settings)
    masks = {path.name: path.read_bytes() for path in (out / "masks").iterdir()}
    for name in ("frames.raw", "features.raw", "flow.raw", "tracks.npz", "motion.npz"):
        path = out / ".segmotion" / name
        os.truncate(path, path.stat().st_size // 2)
        pipeline.masks(walker_folder, out, settings)
        assert {path.name: path.read_bytes() for path in (out / "masks").iterdir()} == masks, name


def test_a_fault_of_ours_is_one_line_and_a_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(cli, "_dispatch", lambda arguments: {}["nothing"])
    assert cli.main(["masks", "a", "b"]) == 1
    said = capsys.readouterr().err.strip()
    report = Path(said.rsplit(" ", 1)[1])
    assert len(said.splitlines()) == 1 and "KeyError" in said
    assert "Traceback" in report.read_text() and "['masks', 'a', 'b']" in report.read_text()
    report.unlink()


CONTAINED = "import os, sys; from segmotion_plugin.cli import contained; sys.exit(contained(lambda: {}))"


@pytest.mark.parametrize(
    ("work", "status", "said"),
    [
        ("0", 0, ""),
        ("2", 2, ""),
        ("sys.exit(2)", 2, ""),
        (f"os.kill(os.getpid(), {int(signal.SIGSEGV)})", 2, "a library crashed"),
        (f"os.kill(os.getpid(), {int(signal.SIGKILL)})", 2, "memory did not suffice"),
        (f"os.kill(os.getpid(), {int(signal.SIGTERM)})", 130, "goes on from what is stored"),
        (f"(os.kill(os.getppid(), {int(signal.SIGTERM)}), __import__('time').sleep(20))", 130, "goes on from what is stored"),
    ],
)
def test_a_child_that_dies_is_told_in_words(work: str, status: int, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", CONTAINED.format(work)], capture_output=True, text=True, timeout=60)
    assert done.returncode == status and said in done.stderr and len(done.stderr.strip().splitlines()) <= 1


SLEEPS = "\n".join(
    [
        "import os, sys, time",
        "from segmotion_plugin import cli",
        "cli._dispatch = lambda _: (print(os.getpid(), flush=True), time.sleep(30))",
    ]
)


def test_ctrl_c_given_to_the_command_alone_reaches_the_work(tmp_path: Path) -> None:
    code = f"{SLEEPS}\nsys.argv = ['segmotion', 'view']; sys.exit(cli.main())"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline().strip().isdecimal()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 130 and said.strip().count("\n") == 0 and "interrupted" in said


def test_the_work_does_not_outlive_a_command_that_is_killed() -> None:
    code = f"{SLEEPS}\nsys.argv = ['segmotion']; cli.main()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    for _ in range(100):
        try:
            state = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("the child goes on")
