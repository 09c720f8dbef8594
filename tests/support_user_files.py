"""Random trees of a user's files, and every command that there is with random arguments over them."""

from __future__ import annotations

import dataclasses
import importlib
import io
import shutil
import sqlite3
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stdout
from importlib import metadata
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import pytest

from segmotion_plugin import SegmotionError, cli, pipeline
from segmotion_plugin.files import read_json, write_json, write_png
from segmotion_plugin.masks import read_grey
from segmotion_plugin.settings import MaskSettings

PLAIN = MaskSettings(masks="none", quiet=True)


def leaf_commands() -> dict[str, type]:
    """Every command and subcommand, of the library and of what is installed beside it, by its words."""
    entries = {name: target for name, (target, _) in cli._COMMANDS.items()}
    entries |= {point.name: point.value for point in metadata.entry_points(group=cli._GROUP)}
    found: dict[str, type] = {}
    for name, target in entries.items():
        module, _, attribute = target.partition(":")
        found |= dict(_leaves(name, getattr(importlib.import_module(module), attribute)))
    return found


def _leaves(words: str, command: Any) -> Iterator[tuple[str, type]]:
    if get_origin(command) in (typing.Union, types.UnionType):
        for member in get_args(command):
            yield from _leaves(words, member)
    elif get_origin(command) is typing.Annotated:
        inner, *marks = get_args(command)
        name = next((mark.name for mark in marks if getattr(mark, "name", None)), None)
        yield from _leaves(f"{words} {name}" if name else words, inner)
    else:
        yield words, command


def pictures(folder: Path, rng: np.random.Generator, count: int = 3) -> None:
    """Small pictures of one size."""
    noise = rng.integers(0, 255, (40, 48 + count, 3), np.uint8)
    for index in range(count):
        write_png(folder / f"frame_{index + 1:05d}.png", noise[:, index : index + 48])


def user_tree(root: Path, rng: np.random.Generator) -> list[Path]:
    """A user's folders: pictures, a dataset, a COLMAP project, a clip that was processed and then added to. Returns paths to give."""
    pictures(root / "photos", rng)
    (root / "photos" / "list.txt").write_text("mine")
    pictures(root / "dataset" / "images", rng)
    frames = [{"file_path": f"images/frame_{k:05d}.png", "transform_matrix": np.eye(4).tolist()} for k in (1, 2, 3)]
    write_json(root / "dataset" / "transforms.json", {"w": 48, "h": 40, "fl_x": 40.0, "frames": frames})
    pictures(root / "project" / "images" / "left", rng)
    pictures(root / "project" / "masks", rng)
    with closing(sqlite3.connect(root / "project" / "database.db")) as connection:
        connection.execute("CREATE TABLE mine (a)")
    (root / "thesis").mkdir()
    (root / "thesis" / "report.md").write_text("mine")
    (root / "thesis" / "checkpoint.pt").write_text("mine")
    (root / "empty").mkdir()
    pipeline.masks(root / "photos", root / "processed", PLAIN)
    chosen = rng.choice(["images/cat.png", "masks/cat.png", "notes.txt", "motion/mine.txt", "colmap/mine.db", "masks_old/a.png"], 2)
    for name in chosen.tolist():
        (root / "processed" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "processed" / name).write_text("mine")
    if rng.random() < 0.5:
        write_png(root / "processed" / "masks" / "frame_00001.png", np.full((40, 48), 9, np.uint8))
    if rng.random() < 0.5:
        (root / "link").symlink_to(root / str(rng.choice(["photos", "project", "processed"])))
    folders = [path for path in root.rglob("*") if path.is_dir()]
    files = [root / "project" / "database.db", root / "thesis" / "report.md", root / "dataset" / "transforms.json"]
    new = [root / "new", root / "photos" / "masks", root / "thesis" / "new.db", root / "new.png", root / "dataset" / "export"]
    return [root, *folders, *files, *new]


def arguments(command: type, rng: np.random.Generator, paths: list[Path]) -> dict[str, Any]:
    """Random values for the fields of a command."""
    hints = typing.get_type_hints(command)
    made = {}
    for field in dataclasses.fields(command):
        value = _value(hints[field.name], rng, paths)
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        often = 0.8 if "Path" in str(hints[field.name]) or hints[field.name] is bool else 0.3
        if value is not None and (required or rng.random() < often):
            made[field.name] = value
    return made


def _value(hint: Any, rng: np.random.Generator, paths: list[Path]) -> Any:
    if get_origin(hint) in (typing.Union, types.UnionType):
        return _value(next(part for part in get_args(hint) if part is not type(None)), rng, paths)
    if hint is Path:
        return paths[rng.integers(len(paths))]
    if hint is bool:
        return bool(rng.random() < 0.7)
    if hint is MaskSettings:
        extra = paths[rng.integers(len(paths))] if rng.random() < 0.2 else None
        return dataclasses.replace(PLAIN, every=int(rng.integers(1, 3)), extra_masks=extra, unordered=bool(rng.random() < 0.3))
    if get_origin(hint) is typing.Literal:
        return get_args(hint)[rng.integers(len(get_args(hint)))]
    if hint is str:
        return str(rng.choice(["colmap", "nerfstudio", "dycheck", "davis", "matte", "demo"]))
    if get_origin(hint) is tuple and get_args(hint)[0] is Path:
        return (paths[rng.integers(len(paths))],)
    if dataclasses.is_dataclass(hint):
        return hint(**arguments(typing.cast(type, hint), rng, paths))
    return None


class Stub(SegmotionError):
    """Raised where a command would begin to compute."""


def quick(patch: pytest.MonkeyPatch) -> None:
    """Replace what takes long by stand-ins; files are handled as always."""
    from segmotion_plugin.reconstruct import sfm
    from segmotion_plugin.training import ablation, clusters, train
    from segmotion_plugin.viewer import command as viewing

    def no_cameras(images: Path, masks: Path | None, work: Path, *_: Any, **__: Any) -> sfm.SfmResult:
        work.mkdir(parents=True, exist_ok=True)
        (work / "database.db").write_bytes(b"ours")
        return sfm.SfmResult("failed", "a stand-in", images_total=3)

    def stop(*_: Any, **__: Any) -> typing.NoReturn:
        raise Stub("would compute")

    patch.setattr(sfm, "reconstruct", no_cameras)
    for module, name in ((ablation, "held_out_clips"), (clusters.JudgedClip, "made"), (train, "make_clips")):
        patch.setattr(module, name, stop)
    patch.setattr("segmotion_plugin.simulation.render", stop)
    patch.setattr("segmotion_plugin.simulation.render_frames", stop)
    patch.setattr("segmotion_plugin.plan.Plan.describe", stop)
    patch.setattr("segmotion_plugin.plan.Plan.track", stop)
    patch.setattr(viewing.View, "_serve", stop)


# What a command is told to change: the dataset that gets masks, the database that is filtered in place.
_MEANT = {"nerfstudio add-masks": ("transforms.json",), "colmap filter": ("database.db",)}


def run_randomly(root: Path, seed: int, steps: int = 4) -> str:
    """Build a tree, run random commands over it, and name the first file of the user's that changed or vanished; "" for none."""
    rng = np.random.default_rng(seed)
    paths = user_tree(root, rng)
    listed = read_json(root / "processed" / "motion" / "files.json")["files"]
    ours = {root / "processed" / name for name in listed} | {root / "processed" / "motion" / n for n in ("state.json", "files.json")}
    painted = root / "processed" / "masks" / "frame_00001.png"
    mine = {p: p.read_bytes() for p in root.rglob("*") if p.is_file() and not p.is_symlink() and (p not in ours or p == painted)}
    if read_grey(painted).max() != 9:  # not painted
        mine.pop(painted, None)
    commands = leaf_commands()
    names = sorted(set(commands) - {"doctor", "nerfstudio enable", "nerfstudio disable"})  # these change an installation, not folders
    told = []
    for _ in range(steps):
        name = names[rng.integers(len(names))]
        made = arguments(commands[name], rng, paths)
        told.append(f"{name} {made}")
        try:
            with redirect_stdout(io.StringIO()):
                commands[name](**made).main()
        except (SegmotionError, OSError, SystemExit):
            pass
        for path, before in list(mine.items()):
            if path.is_file() and path.read_bytes() == before:
                continue
            if path.name in _MEANT.get(name, ()) and path.is_file():
                mine[path] = path.read_bytes()
                continue
            return f"{path.relative_to(root)} after\n" + "\n".join(told)
    return ""


def many(folder: Path, seeds: range, patch: pytest.MonkeyPatch, say: Callable[[str], None] = print) -> int:
    """Run `run_randomly` for some seeds; the number of runs, all without a file lost.

    Raises:
        AssertionError: names the seed, the file, and what was run.
    """
    quick(patch)
    for seed in seeds:
        root = folder / str(seed)
        root.mkdir(parents=True)
        patch.chdir(root)  # some commands have a folder of their own to write to
        lost = run_randomly(root, seed)
        assert not lost, f"seed {seed}: {lost}"
        shutil.rmtree(root)
        if seed % 100 == 99:
            say(f"{seed + 1} runs")
    return len(seeds)
