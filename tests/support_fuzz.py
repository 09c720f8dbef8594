"""Commands on damaged input: valid small files are changed in one place, and every command ends with one clear line.

``python tests/support_fuzz.py FOLDER FIRST COUNT SECONDS`` does it in a program of its own, since every command runs in a forked child
(as from the shell) and threads of other libraries would be lost in it; it prints its figures as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from support_mutations import mutate

LONGEST_SECONDS = 60
MOST_MEMORY = 16 << 30
"""Bytes of address space of a command: what damaged sizes ask for must not take the machine down."""


@dataclass(frozen=True)
class Case:
    """A command, the files of its input that are damaged (patterns), and what it may write, relative to the folder it runs in."""

    words: tuple[str, ...]
    damaged: tuple[str, ...]
    written: tuple[str, ...] = ("new",)
    statuses: tuple[int, ...] = (0, 2)


HEAVY = ("av", "cv2", "numpy", "PIL.Image", "pycolmap", "scipy.ndimage", "scipy.sparse", "torch", "tyro")
PLAIN = ("--masks", "none", "--quiet")
STATE = ("motion/state.json", "motion/files.json", "motion/frames.json", "motion/report.json")
MODEL = ("colmap/sparse/0/*.bin",)
PARTS = (*STATE, *STATE, *MODEL, "motion/*.npz", "motion/depth/*_00001.npy", "motion/objects/*_00001.png", "masks/*_00001.png")
_DATASET = ("transforms.json", "masks", "colmap_masks", "motion", ".segmotion.json", "transforms.before.json")


def _export(form: str) -> Case:
    return Case(("export", "clip", "--format", form, "new", "--quiet"), tuple(f"clip/{part}" for part in PARTS))


CASES = (
    Case(("masks", "photos", "new", *PLAIN), ("photos/*",)),
    Case(("masks", "video.mp4", "new", *PLAIN), ("video.mp4",)),
    Case(("masks", "photos", "new", *PLAIN, "--extra-masks", "extra"), ("extra/*",)),
    Case(("masks", "photos", "plain", *PLAIN), tuple(f"plain/{part}" for part in STATE), ("plain",)),
    _export("colmap"),
    _export("nerfstudio"),
    _export("shape-of-motion"),
    _export("tapip3d"),
    _export("davis"),
    _export("tum"),
    Case(
        ("import", "clip/images", "new", "--no-reconstruct", "--quiet", "--tracks", "tracks.npz", "--masks", "clip/masks")
        + ("--masks-format", "nerfstudio"),
        ("tracks.npz", "tracks.npz", "clip/masks/*_00001.png"),
    ),
    Case(("nerfstudio", "add-masks", "dataset", *PLAIN), ("dataset/transforms.json",), tuple(f"dataset/{name}" for name in _DATASET)),
    Case(
        ("colmap", "filter", "database.db", "project/masks", "--output", "new/a.db", "--verify", "none"),
        ("database.db", "database.db", "project/masks/*"),
    ),
    Case(("colmap", "check", "database.db", "project/masks"), ("database.db", "database.db", "project/masks/*"), statuses=(0, 1, 2)),
    Case(("colmap", "undistort", "project/sparse", "project/masks", "new"), ("project/sparse/*.bin", "project/masks/*")),
    Case(("view", "clip", "--snapshot", "new/a.png", "--width", "64", "--height", "64"), tuple(f"clip/{part}" for part in PARTS)),
)


def build(root: Path) -> None:
    """Write valid input of every case."""
    import sqlite3
    from contextlib import closing

    import av
    from segmotion_4d import export
    from support_4d import textured
    from support_distortion import write_models
    from support_processed import write_dataset_of_others, write_processed

    from segmotion_plugin import cli
    from segmotion_plugin.files import write_png

    clip, tracks = textured()
    for k in range(3):
        write_png(root / "photos" / f"a{k}.png", clip.frames[k])
        write_png(root / "extra" / f"a{k}.png", np.where(clip.labels[k] > 0, 0, 255).astype(np.uint8))
    from PIL import Image

    Image.fromarray(clip.frames[3]).save(root / "photos" / "a3.jpg")
    write_png(root / "extra" / "a3.png", np.where(clip.labels[3] > 0, 0, 255).astype(np.uint8))
    with av.open(str(root / "video.mp4"), "w") as video:
        stream = video.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = clip.frames.shape[2], clip.frames.shape[1], "yuv420p"
        for frame in clip.frames[:6]:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame))))
        video.mux(stream.encode())
    assert cli.run(["masks", str(root / "photos"), str(root / "plain"), *PLAIN]) == 0
    write_processed(root / "clip", clip, tracks, depth=True, tracks_3d=True)
    export(root / "clip", "tapip3d", root / "made")
    shutil.copyfile(root / "made" / "clip.npz", root / "tracks.npz")
    shutil.rmtree(root / "made")
    write_dataset_of_others(root / "dataset", clip)
    names = write_models(root / "project", ["SIMPLE_RADIAL", "OPENCV"])
    rng = np.random.default_rng(0)
    with closing(sqlite3.connect(root / "database.db")) as connection:
        connection.execute("CREATE TABLE cameras (camera_id INTEGER PRIMARY KEY, model, width, height, params, prior_focal_length)")
        connection.execute("CREATE TABLE images (image_id INTEGER PRIMARY KEY, name, camera_id)")
        for table, key in (("keypoints", "image_id"), ("descriptors", "image_id"), ("matches", "pair_id")):
            connection.execute(f"CREATE TABLE {table} ({key} INTEGER PRIMARY KEY, rows, cols, data)")
        connection.execute(
            "CREATE TABLE two_view_geometries (pair_id INTEGER PRIMARY KEY, rows, cols, data, config, F, E, H, qvec, tvec)"
        )
        connection.execute("INSERT INTO cameras VALUES (1, 2, 160, 120, ?, 0)", (np.array([100.0, 80, 60, 0]).tobytes(),))
        for k, name in enumerate(names, start=1):
            xy = rng.uniform(0, [160, 120, 1, 1], (9, 4)).astype(np.float32)
            connection.execute("INSERT INTO images VALUES (?, ?, 1)", (k, name))
            connection.execute("INSERT INTO keypoints VALUES (?, 9, 4, ?)", (k, xy.tobytes()))
            connection.execute("INSERT INTO descriptors VALUES (?, 9, 128, ?)", (k, bytes(9 * 128)))
        pairs = np.arange(9, dtype=np.uint32)[:, None].repeat(2, 1).tobytes()
        for table, more in (("matches", ""), ("two_view_geometries", ", 2, NULL, NULL, NULL, NULL, NULL")):
            connection.execute(f"INSERT INTO {table} VALUES (?, 9, 2, ?{more})", (2147483647 + 2, pairs))
        connection.commit()


def forked(work: Callable[[], int], told: Path) -> tuple[int | None, int | None]:
    """Do some work in a child, what it says in a file; its status and the signal that ended it (SIGALRM: it took too long)."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            handle = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(LONGEST_SECONDS)
            status = work()
            sys.stdout.flush()
            sys.stderr.flush()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 98
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    return (os.WEXITSTATUS(ended), None) if os.WIFEXITED(ended) else (None, os.WTERMSIG(ended))


def listing(root: Path, but: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """Size and time of every file below a folder, without what may be written."""
    outside = [path for path in root.rglob("*") if path.is_file() or path.is_symlink()]
    names = [(path.relative_to(root).as_posix(), path.lstat()) for path in outside]
    return {
        name: (status.st_size, status.st_mtime_ns)
        for name, status in names
        if not any(name == own or name.startswith(f"{own}/") for own in but)
    }


@dataclass
class Figures:
    """What came of many runs."""

    runs: int = 0
    refused: int = 0
    crashes_contained: int = 0
    slowest_seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def one(template: Path, folder: Path, seed: int, figures: Figures, sound: bool = False) -> None:
    """One damaged input: FOLDER/deep/tree is where the command runs; nothing but its OUT may change in FOLDER.

    `sound` leaves the input as it is, and the command must do its work.
    """
    from segmotion_plugin import cli

    rng = np.random.default_rng(seed)
    case = CASES[seed % len(CASES)]
    shutil.rmtree(folder, ignore_errors=True)
    root, scratch = folder / "deep" / "tree", folder / "scratch"
    shutil.copytree(template, root)
    scratch.mkdir()
    patterns = [sorted(root.glob(pattern)) for pattern in case.damaged]
    patterns = [files for files in patterns if files]  # a folder that somebody wrote by hand has no list of files
    what = "nothing"
    if not sound:
        victims = patterns[rng.integers(len(patterns))]
        victim = victims[rng.integers(len(victims))]
        what = f"{victim.relative_to(root)}: {mutate(victim, rng)}"
    own = tuple(f"deep/tree/{name}" for name in case.written) + ("scratch", "told.txt")
    before = listing(folder, own)

    def work() -> int:
        os.chdir(root)
        tempfile.tempdir = str(scratch)
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        return cli.run(list(case.words))

    begun = time.monotonic()
    status, ended = forked(work, folder / "told.txt")
    seconds = time.monotonic() - begun
    told = (folder / "told.txt").read_text(errors="replace")
    reports = sorted(scratch.glob("segmotion-fault-*"))
    figures.runs += 1
    figures.refused += status == 2
    figures.slowest_seconds = max(figures.slowest_seconds, seconds)
    problem = ""
    if ended == signal.SIGALRM:
        problem = f"took longer than {LONGEST_SECONDS} s"
    elif ended is not None:
        figures.crashes_contained += 1  # cli.contained tells of it in words
    elif reports:
        problem = "a fault of ours\n" + reports[0].read_text()
    elif status not in (case.statuses if not sound else (0, 1) if 1 in case.statuses else (0,)) or "Traceback" in told:
        problem = f"status {status}\n{told[-2000:]}"
    after = listing(folder, own)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed and not problem:
        problem = f"{changed[0]} was written"
    if problem:
        figures.faults.append(f"seed {seed}, {' '.join(case.words)}, {what}: {problem}")


def main(folder: Path, first: int, count: int, seconds: float) -> Figures:
    """Run some seeds, for at most some seconds."""
    template = folder / "template"
    folder.mkdir(parents=True)

    def work() -> int:
        template.mkdir()
        build(template)
        return 0

    status, _ = forked(work, folder / "built.txt")
    assert status == 0, (folder / "built.txt").read_text()
    for name in HEAVY:  # imported once, not by every child
        importlib.import_module(name)
    figures = Figures()
    for number in range(len(CASES)):
        one(template, folder / "case", number, figures, sound=True)
    figures.runs = 0
    begun = time.monotonic()
    for seed in range(first, first + count):
        if time.monotonic() - begun > seconds:
            break
        one(template, folder / "case", seed, figures)
    return figures


def in_own_program(folder: Path, first: int, count: int, seconds: float) -> Figures:
    """`main` in a program of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, __file__, str(folder), str(first), str(count), str(seconds)]
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    found = main(Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    print(json.dumps(vars(found)))
