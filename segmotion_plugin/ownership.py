"""Whose files are these: the one place that decides what may be replaced or removed in a folder of the user's.

Everything that we write is listed in a manifest beside it, with size, time and hash. What the manifest does not know, or what changed
since, is the user's: a command that would replace or remove it stops before it touches anything. New results are made beside the old
ones and take their place when they are complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import read_json, umask, write_json

MANIFEST = ".segmotion.json"
"""Name of the manifest in a folder that is ours as a whole (masks for COLMAP, an export)."""

_VERSION = 1
_CHUNK = 1 << 20  # bytes that are hashed at a time
# What our own programs leave behind where they are killed: names that nobody else gives to files.
_TEMPORARY = re.compile(r"\.(tmp|segmotion)-.*")


def contains(outer: Path, inner: Path) -> bool:
    """Whether `inner` is `outer` or lies in it: by resolved path, and by identity, as case-insensitive file systems need."""
    outer, inner = Path(outer).resolve(), Path(inner).resolve()
    for candidate in (inner, *inner.parents):
        if candidate == outer:
            return True
        with contextlib.suppress(OSError):
            if outer.exists() and candidate.exists() and os.path.samefile(candidate, outer):
                return True
    return False


def files_below(path: Path) -> Iterator[Path]:
    """Files and links at or below a path; folders that are links are not entered."""
    if path.is_symlink() or path.is_file():
        yield path
    elif path.is_dir():
        for folder, names, files in os.walk(path):
            here = Path(folder)
            yield from (here / name for name in sorted(files))
            yield from (here / name for name in sorted(names) if (here / name).is_symlink())


def _hash(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as handle:
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _entry(path: Path) -> list:
    if path.is_symlink():
        return ["link", os.readlink(path), ""]
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, _hash(path)]


def _untouched(path: Path, entry: list) -> bool:
    """Whether a file has the size and time that it was listed with."""
    status = path.lstat()
    return [status.st_size, status.st_mtime_ns] == entry[:2]


def _same(path: Path, entry: list) -> bool:
    """Whether a file is as it was listed; a copy with another time still is."""
    try:
        if path.is_symlink():
            return entry[0] == "link" and entry[1] == os.readlink(path)
        status = path.stat()
        if status.st_size != entry[0]:
            return False
        return status.st_mtime_ns == entry[1] or _hash(path) == entry[2]
    except OSError:
        return False


class Manifest:
    """What we wrote below a folder.

    Args:
        root: the folder.
        path: file of the list; `MANIFEST` in the folder when absent.
        records: other files of ours that tell what was done; they change all the time and are never listed.
    """

    def __init__(self, root: Path, path: Path | None = None, records: Iterable[Path] = ()) -> None:
        self.root = Path(root)
        self.path = self.root / MANIFEST if path is None else Path(path)
        self._records = {self.path, *records}
        self.files: dict[str, list] = {}
        self.pending: dict[str, list] = {}
        """Files that are complete and about to take the place of listed ones."""
        self.open: tuple[str, str] | None = None
        """What is being written, also when the program ended without a word: patterns of relative names that are ours though not
        listed, and of those that are though they changed."""
        self.known = False
        """Whether there is a list at all."""
        try:
            content = read_json(self.path)
            self.files = {str(name): list(entry) for name, entry in content["files"].items()}
            self.pending = {str(name): list(entry) for name, entry in content["pending"].items()}
            self.open = None if content["open"] is None else (str(content["open"][0]), str(content["open"][1]))
            self.known = True
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            self.files, self.pending = {}, {}

    def _save(self) -> None:
        write_json(self.path, {"version": _VERSION, "open": self.open, "pending": self.pending, "files": self.files})
        self.known = True

    def _own_record(self, path: Path) -> bool:
        return path in self._records or _TEMPORARY.fullmatch(path.name) is not None

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def foreign(self, *names: str, adopted: str | None = None) -> Path | None:
        """The first file at or below some relative names that is not ours; None where all is.

        Args:
            names: files or folders.
            adopted: pattern of relative names that are ours though they are not listed (a folder of an older version).
        """
        unlisted = [re.compile(pattern) for pattern in (self.open and self.open[0], adopted) if pattern]
        rewritten = [re.compile(self.open[1])] if self.open else []
        for name in names:
            for path in files_below(self.root / name):
                own = self._name(path)
                entries = [listed[own] for listed in (self.files, self.pending) if own in listed]
                if self._own_record(path) or any(_same(path, entry) for entry in entries):
                    continue
                if not any(pattern.fullmatch(own) for pattern in (rewritten if entries else unlisted)):
                    return path
        return None

    def check(self, *names: str, adopted: str | None = None, advice: str = "move it elsewhere, or give another folder") -> None:
        """Stop where something at or below some relative names is not ours.

        Raises:
            SegmotionError: names the first such file.
        """
        path = self.foreign(*names, adopted=adopted)
        if path is not None:
            told = "changed since Segmotion wrote it" if self._name(path) in self.files else "not written by Segmotion"
            raise SegmotionError(f"{path}: {told}, so it was left as it is, and so was all else; {advice}")

    def begin(self, unlisted: str, rewritten: str) -> None:
        """Note that files are being written: after a kill they are ours though they are not listed, or not as they are.

        Args:
            unlisted: pattern of relative names of new files.
            rewritten: pattern of those that are changed in place.
        """
        if self.open != (unlisted, rewritten):
            self.open = (unlisted, rewritten)
            self._save()

    def swap_in(self, staging: Path, *names: str) -> None:
        """Give finished files or folders `staging`/name their places; at any moment old and new ones are known to be ours."""
        for name in names:
            for path in files_below(staging / name):
                self.pending[path.relative_to(staging).as_posix()] = _entry(path)
        self._save()
        for name in names:
            swap(staging / name, self.root / name)

    def changed(self, *names: str) -> frozenset[str]:
        """Relative names of listed files at or below some names that somebody changed since."""
        below = (path for name in names for path in files_below(self.root / name))
        return frozenset(n for n in map(self._name, below) if n in self.files and not _same(self.root / n, self.files[n]))

    def finish(self, *names: str, but: frozenset[str] = frozenset()) -> None:
        """List everything at or below some relative names, and nothing else that is gone; what was begun is done.

        `but` names files that are not listed any more, since they are the user's.
        """
        listed = {own: entry for own, entry in self.files.items() if not _below(own, names) and (self.root / own).exists()}
        for name in names:
            for path in files_below(self.root / name):
                own = self._name(path)
                if not self._own_record(path) and own not in but:
                    known = [listing[own] for listing in (self.pending, self.files) if own in listing]
                    unchanged = [entry for entry in known if _untouched(path, entry)]
                    listed[own] = unchanged[0] if unchanged else _entry(path)
        self.files, self.pending, self.open = listed, {}, None
        self._save()


def _below(name: str, folders: Iterable[str]) -> bool:
    return any(name == folder or name.startswith(f"{folder}/") for folder in folders)


def swap(fresh: Path, target: Path) -> None:
    """Give a finished file or folder its name; what had it before, which must be ours, goes only then."""
    if not target.exists() and not target.is_symlink():
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=".segmotion-", dir=target.parent))
    target.rename(aside / target.name)
    fresh.rename(target)
    shutil.rmtree(aside)


@contextlib.contextmanager
def staged_folder(target: Path, overwrite: bool = False, flag: str = "--overwrite") -> Iterator[Path]:
    """Give an empty folder beside `target` that takes its place, with a manifest, when the block ends without an error.

    Args:
        target: where the results shall lie; missing, empty, or with `overwrite` a folder that this function made.
        overwrite: replace what we made there.
        flag: the option that says so.

    Raises:
        SegmotionError: `target` is a file, or holds something that we did not make; nothing was touched.
    """
    target = Path(target)
    check_target(target, overwrite, flag)
    where = target.resolve()
    where.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".segmotion-", dir=where.parent))
    try:
        temporary.chmod(0o777 & ~umask())
        yield temporary
        Manifest(temporary).finish(*(path.name for path in temporary.iterdir()))
        check_target(target, overwrite, flag)  # the block may have taken hours
        swap(temporary, where)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_target(target: Path, overwrite: bool, flag: str = "--overwrite") -> None:
    """Stop where `staged_folder` could not put its results.

    Raises:
        SegmotionError: see `staged_folder`.
    """
    target = Path(target)
    if target.exists() and not target.is_dir():
        raise SegmotionError(f"{target}: this is a file; give a folder")
    if not target.is_dir() or not any(target.iterdir()):
        return
    manifest = Manifest(target)
    if not manifest.known:
        raise SegmotionError(
            f"{target}: this folder holds files already that Segmotion did not make here, and nothing was touched; give another folder"
        )
    if not overwrite:
        raise SegmotionError(f"{target}: this folder holds files already; {flag} replaces what Segmotion made, or give another folder")
    manifest.check(*(path.name for path in target.iterdir()))


def claim(folder: Path, known: Iterable[str] = ()) -> Path:
    """Make a folder of results ours, or find that it is; results of an evaluation or a training grow in it over many runs.

    Args:
        folder: the folder.
        known: names of folders that it may hold before, as clips for training that were made on another machine.

    Raises:
        SegmotionError: it holds files and none says that the folder is ours; nothing was touched.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise SegmotionError(f"{folder}: this is a file; give a folder for the results")
    if not (folder / MANIFEST).is_file():
        if folder.is_dir() and {path.name for path in folder.iterdir()} - set(known):
            raise SegmotionError(f"{folder}: this folder holds other content and nothing of it was touched; give an empty folder")
        Manifest(folder).finish()
    return folder


def check_free(path: Path) -> None:
    """Stop where a single file would be written over another one.

    Raises:
        SegmotionError: something is there.
    """
    if Path(path).exists() or Path(path).is_symlink():
        raise SegmotionError(f"{path}: exists already and was left as it is; give another name, or remove it first")
