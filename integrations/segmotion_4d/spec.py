"""How an export format describes itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segmotion_4d.source import Need, Processed

# What a program does with the masks of an export.
MaskUse = Literal["used for training", "only for SfM", "ignored by this program", "read as data", "none"]


@dataclass(frozen=True)
class Format:
    """One layout that an export can have.

    Attributes:
        name: as `--format` takes it.
        loader: the code that reads it.
        polarity: what its masks mean.
        needs: the parts of a processed folder that it is made of.
        write: writes it into an empty folder; returns remarks for the user.
        use: what the loader does with the masks.
        command: what to type next; DEST is the export.
        advice: what helps where the program ignores masks, or does more than it says.
    """

    name: str
    loader: str
    polarity: str
    needs: tuple[Need, ...]
    write: Callable[[Processed, Path], list[str]]
    use: MaskUse
    command: str
    advice: str = ""

    def readme(self, dest: Path) -> str:
        """What lies beside every export: what it is for, what becomes of its masks, and the next command."""
        lines = [f"{self.name}: for {self.loader}", f"masks: {self.use} ({self.polarity})"]
        lines += [self.advice] if self.advice else []
        return "\n".join([*lines, "next:", f"  {self.command.replace('DEST', str(dest))}", ""])
