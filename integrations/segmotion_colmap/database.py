"""Masks for a COLMAP database that exists: count keypoints in masked pixels, and take them out.

The database is read and written with SQLite, so that one of any version stays one of its version (pycolmap turns older ones into its
own when it opens them).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from segmotion_colmap.binary import ColmapBinary
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import atomic_path
from segmotion_plugin.masks import read_keep_of
from segmotion_plugin.reading import inside

# COLMAP's kMaxNumImages: pair_id = image_id1 · this + image_id2, with image_id1 < image_id2.
_PAIR_BASE = 2147483647
_PATIENCE = 3.0  # seconds that a database in use is waited for


@dataclass
class FilterReport:
    """What filtering did.

    Attributes:
        images: images in the database.
        keypoints: keypoints before.
        dropped: keypoints that lay in masked pixels (or beyond their mask).
        emptied: names of images that have fewer than 50 keypoints left.
        pairs: image pairs with matches before.
        matches: matches before.
        matches_dropped: matches that lost an end.
        verified_with: program that estimated the two-view geometries anew; None where that is left to the user.
    """

    images: int = 0
    keypoints: int = 0
    dropped: int = 0
    emptied: list[str] | None = None
    pairs: int = 0
    matches: int = 0
    matches_dropped: int = 0
    verified_with: str | None = None


@contextmanager
def _connect(database: Path) -> Iterator[sqlite3.Connection]:
    if not Path(database).is_file():
        raise SegmotionError(f"{database}: no such database")
    with closing(sqlite3.connect(f"{Path(database).resolve().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            connection.execute("SELECT image_id, name FROM images LIMIT 1").fetchall()
            connection.execute("SELECT image_id, rows, cols, data FROM keypoints LIMIT 1").fetchall()
            connection.execute("SELECT camera_id, width, height FROM cameras LIMIT 1").fetchall()
        except sqlite3.DatabaseError as error:
            if Path(f"{database}-journal").exists():
                raise SegmotionError(
                    f"{database}: a program ended while it was writing ({Path(database).name}-journal is still there); "
                    "open it once with COLMAP, which takes the unfinished change back, and run this again"
                ) from None
            raise SegmotionError(f"{database}: not a COLMAP database ({error})") from None
        yield connection


def image_names(database: Path) -> list[str]:
    """Names of the images of a database."""
    with _connect(database) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM images ORDER BY name")]


def read_keep(masks: Path, name: str, size: tuple[int, int]) -> np.ndarray:
    """Keep mask of an image by COLMAP's name: `<masks>/<name>.png`, else `<masks>/<name with the suffix .png>` (COLMAP 4 takes both).

    Args:
        masks: folder of the masks.
        name: of the image.
        size: (width, height) of its camera, pixels. COLMAP looks pixels up in masks of another size as if they had this one.

    Raises:
        SegmotionError: there is none, or one of another size.
    """
    path = inside(masks, f"{name}.png", "the database or model")
    if not path.is_file():
        missing, path = path, (Path(masks) / name).with_suffix(".png")
        if not path.is_file():
            raise SegmotionError(f"{missing}: missing; every image needs a keep mask with this name")
    return read_keep_of(path, f"the camera of {name}", size)


def _camera_sizes(connection: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    rows = connection.execute("SELECT i.name, c.width, c.height FROM images i LEFT JOIN cameras c USING (camera_id)")
    sizes = {name: (width, height) for name, width, height in rows}
    without = next((name for name, size in sizes.items() if None in size), None)
    if without is not None:
        raise KeyError(f"no camera of {without}")
    return sizes


def kept_keypoints(xy: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """N bool: COLMAP's own rule, that the mask at (⌊x⌋, ⌊y⌋) is not 0; positions beyond the mask are dropped."""
    position = np.floor(xy).astype(np.int64)
    within = ((position >= 0) & (position < np.array(keep.shape[::-1]))).all(axis=1)
    kept = np.zeros(len(xy), bool)
    kept[within] = keep[position[within, 1], position[within, 0]] > 0
    return kept


def keypoints(database: Path) -> dict[str, np.ndarray]:
    """N×2 float32 keypoint positions of every image, by name."""
    with _connect(database) as connection, _sound(database):
        rows = connection.execute(
            "SELECT i.name, k.rows, k.cols, k.data FROM images i LEFT JOIN keypoints k USING (image_id)"
        ).fetchall()
        return {name: _matrix(data, count or 0, columns or 2, np.float32)[:, :2] for name, count, columns, data in rows}


def masked_keypoints(database: Path, masks: Path) -> dict[str, int]:
    """Number of keypoints in masked pixels per image, for images that have any."""
    found = {}
    with _connect(database) as connection, _sound(database):
        sizes = _camera_sizes(connection)
    for name, xy in sorted(keypoints(database).items()):
        count = int((~kept_keypoints(xy, read_keep(masks, name, sizes[name]))).sum())
        if count:
            found[name] = count
    return found


def filter_database(
    database: Path,
    masks: Path,
    output: Path,
    *,
    matches: Literal["keep", "drop"] = "keep",
    verify: Literal["auto", "colmap", "pycolmap", "none"] = "auto",
    colmap_cmd: str = "colmap",
) -> FilterReport:
    """Write a copy of a database without the keypoints that lie in masked pixels.

    Two-view geometries are removed, because they may describe the mover instead of the world, and estimated anew from the matches
    that are left. Keypoints, descriptors and matches are renumbered together: matches with old numbers crash the mapper.

    Args:
        database: COLMAP's database; it is not changed.
        masks: folder of keep masks called `<image name>.png`.
        output: the new database; may be the same file.
        matches: keep the (expensive) matches whose both ends are left, or drop all so that the images are matched again.
        verify: who estimates the two-view geometries of kept matches: auto takes pycolmap for databases of COLMAP 4 and the
            COLMAP binary for older ones (pycolmap would turn them into its own version).
        colmap_cmd: how the binary is called.

    Raises:
        SegmotionError: no database, or a mask is missing or has another size than its camera.
    """
    report = FilterReport(emptied=[])
    if Path(output).exists() and not os.path.samefile(database, output):
        raise SegmotionError(f"{output}: exists already; give another --output, or --in-place to replace the input")
    # In place the copy is made elsewhere, and SQLite itself puts it back: other programs may have the database open.
    in_place = Path(output).exists()
    with contextlib.ExitStack() as stack:
        if in_place:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=".segmotion-", dir=Path(output).resolve().parent))
            temporary = Path(folder) / "database.db"
        else:
            temporary = stack.enter_context(atomic_path(output))
        with _connect(database) as source, closing(sqlite3.connect(temporary)) as copy, _sound(database):
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            kept = _filter_features(copy, Path(masks), report)
            _filter_matches(copy, kept, matches, report)
            copy.commit()
            of_colmap_4 = _is_of_colmap_4(copy)
            pairs = _pair_names(copy)
            copy.execute("VACUUM")
        if matches == "keep" and verify != "none" and pairs:
            report.verified_with = _verify(temporary, pairs, verify, of_colmap_4, colmap_cmd)
        with closing(sqlite3.connect(temporary)) as copy:
            copy.execute("PRAGMA journal_mode=DELETE")  # all into the one file, which is about to get its name
        if in_place:
            _put_back(temporary, Path(output))
    return report


def _put_back(copy: Path, database: Path) -> None:
    """Replace the content of a database in one transaction, with its write-ahead log if it has one.

    Raises:
        SegmotionError: another program is writing it; it was left as it is.
    """
    try:
        with closing(sqlite3.connect(copy)) as source, closing(sqlite3.connect(database, timeout=_PATIENCE)) as target:
            if target.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                source.execute("PRAGMA journal_mode=WAL")
            target.execute("BEGIN IMMEDIATE")  # says at once that it is locked, which a backup would wait for without end
            target.rollback()
            source.backup(target)
    except sqlite3.OperationalError as error:
        raise SegmotionError(
            f"{database}: another program is using it ({error}), so it was left as it is; close that program, or give --output"
        ) from None


def _matrix(data: bytes | None, rows: int, columns: int, kind: type) -> np.ndarray:
    if not isinstance(data or b"", bytes) or not isinstance(rows, int) or not isinstance(columns, int):
        raise ValueError("a table holds values of another type")
    return np.frombuffer(data or b"", dtype=kind).reshape(rows, columns)


@contextlib.contextmanager
def _sound(database: Path) -> Iterator[None]:
    """Tell of contents that no COLMAP writes: rows of other sizes or types, matches of images that are not there.

    Raises:
        SegmotionError: in one line.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, sqlite3.DatabaseError) as error:
        raise SegmotionError(f"{database}: a damaged database ({type(error).__name__}: {error}); make it anew with COLMAP") from None


def _filter_features(connection: sqlite3.Connection, masks: Path, report: FilterReport) -> dict[int, np.ndarray]:
    kept: dict[int, np.ndarray] = {}
    sizes = _camera_sizes(connection)
    for image_id, name in connection.execute("SELECT image_id, name FROM images").fetchall():
        report.images += 1
        keep = read_keep(masks, name, sizes[name])
        row = connection.execute("SELECT rows, cols, data FROM keypoints WHERE image_id = ?", (image_id,)).fetchone()
        if row is None:
            continue
        points = _matrix(row[2], row[0], row[1], np.float32)
        kept[image_id] = chosen = kept_keypoints(points[:, :2], keep)
        report.keypoints += len(chosen)
        report.dropped += int((~chosen).sum())
        if chosen.sum() < 50 and report.emptied is not None:
            report.emptied.append(name)
        _store(connection, "keypoints", image_id, points[chosen])
        row = connection.execute("SELECT rows, cols, data FROM descriptors WHERE image_id = ?", (image_id,)).fetchone()
        if row is not None:
            _store(connection, "descriptors", image_id, _matrix(row[2], row[0], row[1], np.uint8)[chosen])
    return kept


def _store(connection: sqlite3.Connection, table: str, image_id: int, value: np.ndarray) -> None:
    connection.execute(f"UPDATE {table} SET rows = ?, data = ? WHERE image_id = ?", (len(value), value.tobytes(), image_id))


def _filter_matches(connection: sqlite3.Connection, kept: dict[int, np.ndarray], matches: str, report: FilterReport) -> None:
    number = {image_id: np.where(chosen, np.cumsum(chosen) - 1, -1) for image_id, chosen in kept.items()}
    connection.execute("DELETE FROM two_view_geometries")
    for pair_id, rows, columns, data in connection.execute("SELECT pair_id, rows, cols, data FROM matches").fetchall():
        pairs = _matrix(data, rows, columns or 2, np.uint32)
        report.pairs += 1
        report.matches += len(pairs)
        first, second = divmod(pair_id, _PAIR_BASE)
        renumbered = np.stack([number[first][pairs[:, 0]], number[second][pairs[:, 1]]], axis=1) if len(pairs) else pairs.astype(int)
        left = renumbered[(renumbered >= 0).all(axis=1)].astype(np.uint32)
        report.matches_dropped += len(pairs) - len(left)
        connection.execute("UPDATE matches SET rows = ?, data = ? WHERE pair_id = ?", (len(left), left.tobytes(), pair_id))
    if matches == "drop":
        connection.execute("DELETE FROM matches")


def _pair_names(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    names = dict(connection.execute("SELECT image_id, name FROM images"))
    pairs = (divmod(pair_id, _PAIR_BASE) for (pair_id,) in connection.execute("SELECT pair_id FROM matches WHERE rows > 0"))
    return [(names[first], names[second]) for first, second in pairs]


def _is_of_colmap_4(connection: sqlite3.Connection) -> bool:
    """Told by its tables: COLMAP 3.8 writes its own number into `user_version` of whatever it opens, even where it then gives up."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return {"rigs", "frames"} <= tables


def _verify(database: Path, pairs: list[tuple[str, str]], verify: str, of_colmap_4: bool, colmap_cmd: str) -> str | None:
    binary = None if verify == "pycolmap" else ColmapBinary.find(colmap_cmd)
    if verify == "pycolmap" or (verify == "auto" and of_colmap_4):
        import pycolmap

        from segmotion_plugin.reconstruct.database import quiet_colmap

        with quiet_colmap():
            pycolmap.geometric_verification(database)
        return f"pycolmap {pycolmap.__version__}"
    if binary is None:
        if verify == "colmap":
            raise SegmotionError(f"{colmap_cmd}: no such program (--colmap-cmd); --verify pycolmap needs none")
        return None
    if any(" " in name for pair in pairs for name in pair):
        raise SegmotionError("COLMAP's lists of pairs cannot hold names with spaces; use --verify pycolmap")
    with atomic_path(database.with_name("pairs.txt")) as listing:
        listing.write_text("".join(f"{first} {second}\n" for first, second in pairs), encoding="utf-8")
        binary.verify(database, listing)
        return f"COLMAP {binary.version[0]}.{binary.version[1]}"
