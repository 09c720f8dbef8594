"""`segmotion export`: writes a processed folder in the layout of another program."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from segmotion_4d.formats import FORMATS
from segmotion_4d.source import Processed
from segmotion_4d.spec import Format
from segmotion_4d.writing import RECORD, destination
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import write_json, write_text
from segmotion_plugin.progress import Console


def export(out: Path, format: str, dest: Path, *, overwrite: bool = False, quiet: bool = True) -> list[str]:
    """Write a processed folder in one of `FORMATS`.

    The destination appears whole or not at all. Files that need no change are hard links: programs that edit files in place would edit
    the processed folder too.

    Args:
        out: folder made by `segmotion run` (or by `segmotion masks`, where the format needs no poses).
        format: a name in `FORMATS`.
        dest: folder to write; must be new or empty.
        overwrite: replace an earlier export.
        quiet: no progress bars.

    Returns:
        Remarks (images that were left out, what a loader will miss); also kept in `segmotion_export.json`.

    Raises:
        SegmotionError: an unknown format, parts that are missing, a destination with content, names that would collide.
    """
    form = FORMATS.get(format)
    if form is None:
        raise SegmotionError(f"--format {format}: no such format; formats: {', '.join(FORMATS)}")
    source = Processed(out, Console(quiet))
    source.check(form.needs, form.name)
    with destination(dest, source.out, overwrite) as folder:
        notes = form.write(source, folder)
        write_text(folder / "README.txt", form.readme(Path(dest)))
        write_json(
            folder / RECORD,
            {
                "format": form.name,
                "loader": form.loader,
                "masks": form.polarity,
                "masks_are": form.use,
                "source": source.out.resolve().name,
                "notes": notes,
            },
        )
    return notes


def describe(form: Format) -> str:
    """A paragraph for `--list`."""
    lines = [form.name]
    lines += textwrap.wrap(f"for    {form.loader}", 110, initial_indent="  ", subsequent_indent=" " * 9)
    lines += textwrap.wrap(f"masks  {form.use} ({form.polarity})", 110, initial_indent="  ", subsequent_indent=" " * 9)
    lines += textwrap.wrap(f"hint   {form.advice}", 110, initial_indent="  ", subsequent_indent=" " * 9) if form.advice else []
    lines += [f"  needs  {', '.join(form.needs)}", f"  next   {form.command}"]
    return "\n".join(lines)


@dataclass
class Export:
    """Write a processed folder in the layout of another program: segmotion export OUT --format F DEST (--list shows the formats)."""

    out: tyro.conf.Positional[Path | None] = None
    """Folder made by 'segmotion run'."""
    dest: tyro.conf.Positional[Path | None] = None
    """Folder to write (new or empty)."""
    format: str | None = None
    """A name that --list shows."""
    list: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show the formats: what each needs, whether its program uses masks and in which polarity, and the next command."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace an earlier export."""
    quiet: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """No progress bars."""

    def main(self) -> int:
        """Run it."""
        if self.list:
            print("\n\n".join(describe(form) for form in FORMATS.values()))
            return 0
        if self.out is None or self.dest is None or self.format is None:
            raise SegmotionError(
                "give the processed folder, a format and a destination: segmotion export OUT --format F DEST\n"
                f"Formats ('segmotion export --list' tells more): {', '.join(FORMATS)}."
            )
        console = Console(self.quiet)
        for note in export(self.out, self.format, self.dest, overwrite=self.overwrite, quiet=self.quiet):
            console.say(f"note: {note}")
        console.say(FORMATS[self.format].readme(self.dest).rstrip())
        return 0
