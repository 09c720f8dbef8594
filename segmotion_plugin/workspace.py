"""The folder of a processed clip: who owns it, which stages are done, where things lie."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import read_json, write_json

_MARK = "segmotion"


class Workspace:
    """OUT and the record of what was done in it (`motion/state.json`).

    A stage's result is used again when its key, a hash of its settings and of the keys of the stages before it, is the recorded one.
    """

    def __init__(self, out: Path) -> None:
        self.out = Path(out)
        self.work = self.out / ".segmotion"
        self.motion = self.out / "motion"
        self._state_path = self.motion / "state.json"
        self.state: dict[str, Any] = {"made_by": _MARK, "stages": {}}

    @classmethod
    def create(cls, out: Path, source: Path | None = None) -> Workspace:
        """Open OUT for writing, making it where it is missing.

        Raises:
            SegmotionError: it holds other content, belongs to another input, or cannot be written.
        """
        self = cls(out)
        out = self.out
        if out.exists() and not out.is_dir():
            raise SegmotionError(f"{out}: this is a file; give a folder for the results")
        if source is not None and source.is_dir() and out.exists() and os.path.samefile(source, out):
            raise SegmotionError(f"{out}: the results cannot go into the input folder; give another one")
        ours = self._state_path.is_file()
        if out.is_dir() and any(out.iterdir()) and not ours:
            raise SegmotionError(f"{out}: this folder holds other content and nothing of it was touched.\nGive a new or empty folder.")
        try:
            self.motion.mkdir(parents=True, exist_ok=True)
            self.work.mkdir(exist_ok=True)
        except OSError as error:
            raise SegmotionError(f"{out}: cannot be written ({error.strerror}); give a folder that you may write") from None
        if not os.access(out, os.W_OK):
            raise SegmotionError(f"{out}: cannot be written; give a folder that you may write")
        if ours:
            self._load()
        else:
            write_json(self._state_path, self.state)
        return self

    @classmethod
    def open(cls, out: Path) -> Workspace:
        """Open a folder that `segmotion masks` or `segmotion run` made.

        Raises:
            SegmotionError: it is none.
        """
        self = cls(out)
        if not self._state_path.is_file():
            raise SegmotionError(
                f"{out}: not a folder made by Segmotion (motion/state.json is missing).\n"
                f"Make one with 'segmotion masks INPUT {out}'."
            )
        self._load()
        return self

    def _load(self) -> None:
        try:
            state = read_json(self._state_path)
            if state["made_by"] != _MARK or not isinstance(state["stages"], dict):
                raise ValueError("unexpected content")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SegmotionError(f"{self._state_path}: damaged ({error}); give another folder or remove this one") from None
        self.state = state

    def done(self, stage: str, key: str) -> bool:
        """Whether the stored result of a stage belongs to this key."""
        return self.state["stages"].get(stage, {}).get("key") == key

    def info(self, stage: str) -> dict[str, Any]:
        """What was recorded with a stage."""
        return self.state["stages"].get(stage, {}).get("info", {})

    def finish(self, stage: str, key: str, info: dict[str, Any] | None = None) -> None:
        """Record a stage as done."""
        self.state["stages"][stage] = {"key": key, "info": info or {}}
        write_json(self._state_path, self.state)

    def forget(self, *stages: str) -> None:
        """Drop the record of stages whose results are about to change or are gone."""
        if any(self.state["stages"].pop(stage, None) is not None for stage in stages):
            write_json(self._state_path, self.state)

    def fresh(self, name: str) -> Path:
        """An empty folder OUT/name, whatever it held before."""
        path = self.out / name
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True)
        return path

    def discard(self) -> None:
        """Take back what `create` made, when nothing was done in it."""
        if not self.state["stages"]:
            shutil.rmtree(self.work, ignore_errors=True)
            shutil.rmtree(self.motion, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.out.rmdir()

    def remove_work(self) -> None:
        """Remove the intermediate files; results stay."""
        shutil.rmtree(self.work, ignore_errors=True)
