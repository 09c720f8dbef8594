"""The folder of a processed clip: what in it is ours, who works in it, which stages are done, where things lie."""

from __future__ import annotations

import contextlib
import filecmp
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import read_json, write_json
from segmotion_plugin.ownership import Manifest, contains, files_below

_MARK = "segmotion"
FORMAT = 2
"""Version of the folder, of its state and report: 1 (0.1.0) had no manifest."""

_RESULTS = re.compile(r"(images|masks)(_\d+)?|colmap_masks|motion|colmap|sparse_pc\.ply|transforms\.json")
# Relative names of all that is ever written into the folder: those of a run that was killed, or of a folder without a manifest.
_FRAME = r"frame_(train_|eval_)?\d+(\.\w+)+"
MADE_MASKS = rf"(masks(_\d+)?|colmap_masks)/{_FRAME}|motion/.*"
_MADE_CAMERAS = r"colmap/(database\.db.*|(mapping|sparse|masks)/.*|pairs.*)|sparse_pc\.ply|transforms\.json"
_MADE = rf"images(_\d+)?/{_FRAME}|{MADE_MASKS}|{_MADE_CAMERAS}"
# Of these, what is changed in place while a run goes on; masks and pictures, which users paint, only while we draw them anew.
_REWRITTEN = rf"motion/(?!objects/).*|(images|masks)_\d+/.*|{_MADE_CAMERAS}"
_PARSERS = r"motion/dynamic/.*"  # made by the data parser while nerfstudio trains, whenever they are older than the masks
_WORK_FILE = re.compile(r".*\.(raw|npz)")
# Results that belong to the masks and images they were made from.
_OF_IMAGES = ("colmap", "motion/tracks.npz", "motion/disparity", "motion/depth", "motion/dynamic")
_OF_MASKS = ("transforms.json", "sparse_pc.ply", "motion/tracks_3d.npz", "colmap/sparse")


class Workspace:
    """OUT and the record of what was done in it (`motion/state.json`, `motion/files.json`).

    A stage's result is used again when its key, a hash of its settings and of the keys of the stages before it, is the recorded one.
    """

    def __init__(self, out: Path) -> None:
        self.out = Path(out)
        self.work = self.out / ".segmotion"
        self.motion = self.out / "motion"
        self._state_path = self.motion / "state.json"
        self.state: dict[str, Any] = {"made_by": _MARK, "format": FORMAT, "stages": {}}
        self.manifest = self._listed_files()
        self.painted: frozenset[str] = frozenset()
        """Masks that the user painted: they stay the user's, so that masks made anew do not take their place."""

    @classmethod
    def create(cls, out: Path, source: Path | None = None) -> Workspace:
        """Open OUT for writing, making it where it is missing.

        Raises:
            SegmotionError: it holds other content, the input lies in it, or it cannot be written; nothing was touched.
        """
        self = cls(out)
        out = self.out
        if out.exists() and not out.is_dir():
            raise SegmotionError(f"{out}: this is a file; give a folder for the results")
        if source is not None and source.exists() and contains(out, source):
            where = "the results cannot go into the input folder" if contains(source, out) else f"the input {source} lies in it"
            raise SegmotionError(f"{out}: {where}; give another folder for the results")
        ours = self._state_path.exists() or self._begun()
        if out.is_dir() and any(out.iterdir()) and not ours:
            raise SegmotionError(f"{out}: this folder holds other content and nothing of it was touched.\nGive a new or empty folder.")
        if ours:
            self._load()
            self._check_ours()
        try:
            self.motion.mkdir(parents=True, exist_ok=True)
            self.work.mkdir(exist_ok=True)
            if not os.access(out, os.W_OK):
                raise PermissionError(13, "permission denied")
            self.manifest.begin(_MADE, _REWRITTEN)
            if not self._state_path.is_file() or self._state_path.stat().st_size == 0:
                write_json(self._state_path, self.state)
        except OSError as error:
            raise SegmotionError(f"{out}: cannot be written ({error.strerror}); give a folder that you may write") from None
        return self

    @classmethod
    def open(cls, out: Path, *, write: bool = False) -> Workspace:
        """Open a folder that `segmotion masks` or `segmotion run` made.

        Args:
            out: the folder.
            write: what was made from the masks is about to be replaced; masks may have been painted by hand and are not asked for.

        Raises:
            SegmotionError: it is none, a run was cut short in it, or it holds other files where results would be written.
        """
        self = cls(out)
        if not self._state_path.is_file():
            raise SegmotionError(
                f"{out}: not a folder made by Segmotion (motion/state.json is missing).\n"
                f"Make one with 'segmotion masks INPUT {out}'."
            )
        self._load()
        if self.state.get("format", 1) >= FORMAT and "masks" not in self.state["stages"]:
            raise SegmotionError(f"{out}: a run was cut short here; the same command, 'segmotion masks' or 'run', completes it")
        if write:
            self.painted = self.manifest.changed("masks", "colmap_masks", "motion/objects")
            self._check_ours("masks", "colmap_masks", "motion", "images")
            self.manifest.begin(_MADE, _REWRITTEN)
        return self

    def _listed_files(self) -> Manifest:
        return Manifest(self.out, self.motion / "files.json", [self._state_path])

    def _begun(self) -> bool:
        """Whether OUT holds nothing but what is there before the first state file: a run that was killed at once."""
        if not self.out.is_dir():
            return False
        names = {path.name for path in self.out.iterdir()}
        return bool(names) and names <= {"motion", ".segmotion"} and not any(
            not path.name.startswith(".tmp-") and path != self.manifest.path for path in files_below(self.motion)
        )

    def _check_ours(self, *but: str) -> None:
        """Stop where results would take the place of files that are not ours."""
        names = [path.name for path in self.out.iterdir() if _RESULTS.fullmatch(path.name) and path.name not in but]
        adopted = _PARSERS
        if not self.manifest.known:  # a folder of 0.1.0; in a nerfstudio dataset only the masks were ours
            key = self.info_of("images").get("key")
            adopted = _PARSERS if key is None else MADE_MASKS if key == "nerfstudio" else _MADE
        self.manifest.check(*names, adopted=adopted, advice="move it elsewhere, or give another folder for the results")

    def _load(self) -> None:
        try:
            state = read_json(self._state_path)
        except (OSError, ValueError, RecursionError):
            return  # lost in a power cut: stages are done anew, the manifest tells what is ours
        try:
            known = state["made_by"] == _MARK and isinstance(state.get("format", 1), int)
            if not known or not all(isinstance(entry, dict) for entry in state["stages"].values()):
                raise ValueError("unexpected content")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SegmotionError(f"{self._state_path}: damaged ({error}); give another folder or remove this one") from None
        if state.get("format", 1) > FORMAT:
            raise SegmotionError(f"{self.out}: made by a newer Segmotion; update this one, or give another folder")
        self.state = state

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Work alone in OUT until the block ends; a crash ends it too.

        Raises:
            SegmotionError: another command works in it.
        """
        try:
            import fcntl
        except ImportError:  # no such locks on Windows
            yield
            return
        handle = os.open(self.out, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise SegmotionError(
                    f"{self.out}: another command is working in this folder; wait for it, or give another folder"
                ) from None
            self._reload()
            yield
        finally:
            os.close(handle)

    def _reload(self) -> None:
        """What another command did before the lock was ours counts."""
        self.manifest = self._listed_files()
        self._load()
        self.manifest.begin(_MADE, _REWRITTEN)

    def redraws(self) -> None:
        """Note that masks are about to be changed in place."""
        self.manifest.begin(_MADE, _MADE)

    def done(self, stage: str, key: str) -> bool:
        """Whether the stored result of a stage belongs to this key."""
        return self.state["stages"].get(stage, {}).get("key") == key

    def info_of(self, stage: str) -> dict[str, Any]:
        """The record of a stage, empty where there is none."""
        return self.state["stages"].get(stage, {})

    def info(self, stage: str) -> dict[str, Any]:
        """What was recorded with a stage."""
        return self.info_of(stage).get("info", {})

    def finish(self, stage: str, key: str, info: dict[str, Any] | None = None) -> None:
        """Record a stage as done."""
        self.state["stages"][stage] = {"key": key, "info": info or {}}
        self.state["format"] = FORMAT
        write_json(self._state_path, self.state)

    def forget(self, *stages: str) -> None:
        """Drop the record of stages whose results are about to change or are gone."""
        if any([self.state["stages"].pop(stage, None) is not None for stage in stages]):
            write_json(self._state_path, self.state)

    def fresh(self, name: str) -> Path:
        """An empty folder OUT/name, whatever it held before."""
        path = self.out / name
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True)
        return path

    @property
    def staging(self) -> Path:
        """Folder in which results are made before `publish` gives them their place in OUT."""
        return self.work / "new"

    def staged(self, *names: str) -> Path:
        """Empty folders `staging`/name; returns `staging`."""
        for name in names:
            path = self.staging / name
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
        return self.staging

    def publish(self, *names: str) -> None:
        """Put finished folders of `staging` in their places; what was made from other contents goes first."""
        if "colmap" in names or not all(_alike(self.staging / name, self.out / name) for name in names):
            self.drop_derived(images="images" in names)
        self.manifest.swap_in(self.staging, *names)

    def drop_derived(self, images: bool = False) -> None:
        """Remove what belongs to the masks that are there: cameras, 3D tracks, downscaled masks; with `images` also what is theirs."""
        gone = [self.out / name for name in _OF_MASKS]
        gone += [path for path in self.out.glob("masks_*") if _RESULTS.fullmatch(path.name)]
        if images:
            gone += [self.out / name for name in _OF_IMAGES]
            gone += [path for path in self.out.glob("images_*") if _RESULTS.fullmatch(path.name)]
        for path in gone:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        self.forget("reconstruction")

    def listed(self) -> None:
        """List all results in the manifest: whatever is there was found to be ours, or was written since."""
        self.manifest.finish(*(path.name for path in self.out.iterdir() if _RESULTS.fullmatch(path.name)), but=self.painted)

    def undo(self) -> None:
        """Remove all results, as when nothing was done in OUT before and what was given turns out not to fit."""
        self.drop_derived(images=True)
        for name in ("images", "masks", "colmap_masks", "motion/objects"):
            shutil.rmtree(self.out / name, ignore_errors=True)
        for name in ("frames.json", "tracks.npz", "report.json"):
            (self.motion / name).unlink(missing_ok=True)
        self.state["stages"] = {}
        self.discard()

    def discard(self) -> None:
        """Take back what `create` made, when nothing was done in it."""
        if not self.state["stages"]:
            self.remove_work()
            for path in (self._state_path, self.manifest.path):
                path.unlink(missing_ok=True)
            for folder in (self.motion, self.out):
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def remove_work(self) -> None:
        """Remove the intermediate files; results stay."""
        shutil.rmtree(self.staging, ignore_errors=True)
        if self.work.is_dir():
            for path in self.work.iterdir():
                if path.is_file() and _WORK_FILE.fullmatch(path.name):
                    path.unlink()
            with contextlib.suppress(OSError):
                self.work.rmdir()


def _alike(fresh: Path, old: Path) -> bool:
    """Whether two folders hold the same files with the same bytes."""
    if not old.is_dir():
        return False
    names = [path.relative_to(fresh) for path in files_below(fresh)]
    if names != [path.relative_to(old) for path in files_below(old)]:
        return False
    return all(filecmp.cmp(fresh / name, old / name, shallow=False) for name in names)
