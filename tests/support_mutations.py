"""Small random changes of files: of their bytes, and of what JSON, npz, PNG, SQLite and COLMAP files hold."""

from __future__ import annotations

import json
import sqlite3
import struct
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

ODD: list[Any] = [None, True, -1, 0, 3, 0.5, 1e308, 10**15, -(2**63), "", "x", "²", "../x", "a\0b", [], {}, [[]], [None], {"x": 1}]


def mutate(path: Path, rng: np.random.Generator) -> str:
    """Change a file in place; what was done."""
    by_kind = {".json": _json, ".npz": _npz, ".png": _png, ".db": _database, ".bin": _model}
    change = by_kind.get(path.suffix)
    if change is None or rng.random() < 0.4:
        return _bytes(path, rng)
    return change(path, rng)


def _bytes(path: Path, rng: np.random.Generator) -> str:
    data = bytearray(path.read_bytes())
    kind = rng.choice(["flip", "flip", "cut", "empty", "zero", "twice", "large", "noise"])
    at = int(rng.integers(max(1, len(data))))
    if rng.random() < 0.5:
        at = int(rng.integers(min(max(1, len(data)), 200)))  # headers are where most can go wrong
    if kind == "flip":
        for _ in range(int(rng.integers(1, 9))):
            if data:
                data[int(rng.integers(len(data))) if rng.random() < 0.5 else at] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        del data[at:]
    elif kind == "empty":
        data.clear()
    elif kind == "zero":
        data[at : at + 16] = bytes(16)
    elif kind == "twice":
        data[at:at] = data[at : at + 64]
    elif kind == "large":
        data[at : at + 4] = b"\xff\xff\xff\x7f"
    else:
        data[at : at + 8] = rng.bytes(8)
    path.write_bytes(bytes(data))
    return f"{kind} at {at}"


def _json(path: Path, rng: np.random.Generator) -> str:
    value = json.loads(path.read_text())
    places: list[tuple[Any, Any]] = []

    def walk(node: Any, depth: int) -> None:
        keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
        for key in keys:
            places.extend([(node, key)] * max(1, 4 - depth))  # few large parts, many small ones
            walk(node[key], depth + 1)

    walk(value, 0)
    if not places:
        path.write_text("[]")
        return "[] for all"
    node, key = places[rng.integers(len(places))]
    odd = ODD[rng.integers(len(ODD))]
    if rng.random() < 0.2:
        del node[key]
        told = f"without {key}"
    elif rng.random() < 0.05:
        value, told = odd, f"{odd!r} for all"
    elif rng.random() < 0.1 and isinstance(node, list):
        node.append(node[key])
        told = f"{key} twice"
    else:
        node[key] = odd
        told = f"{key} = {odd!r}"
    path.write_text(json.dumps(value))
    return told


def _npz(path: Path, rng: np.random.Generator) -> str:
    with np.load(path, allow_pickle=False) as data:
        arrays = {name: data[name] for name in data.files}
    name = sorted(arrays)[rng.integers(len(arrays))]
    array = arrays[name]
    kind = str(rng.choice(["gone", "short", "empty", "flat", "scalar", "text", "nan", "large", "negative", "complex", "more"]))
    if kind == "gone":
        del arrays[name]
    else:
        numeric = array.dtype.kind in "iufb"
        extreme = np.iinfo(array.dtype).max if array.dtype.kind in "iu" else 1e30
        arrays[name] = {
            "short": lambda: array[: array.shape[0] // 2] if array.ndim else array,
            "empty": lambda: array[:0] if array.ndim else array,
            "flat": lambda: array.reshape(-1),
            "scalar": lambda: np.array(3),
            "text": lambda: np.array(["text"]),
            "nan": lambda: np.full(array.shape, np.nan),
            "large": lambda: np.full(array.shape, extreme, array.dtype) if numeric and array.dtype.kind != "b" else array,
            "negative": lambda: -np.ones(array.shape, np.int64),
            "complex": lambda: np.ones(array.shape, np.complex64),
            "more": lambda: np.concatenate([array, array]) if array.ndim else array,
        }[kind]()
    np.savez(path, **arrays)
    return f"{name} {kind}"


def _png(path: Path, rng: np.random.Generator) -> str:
    """Another value in the header, with a right checksum; or another kind or size of picture."""
    if rng.random() < 0.5:
        from PIL import Image

        mode = str(rng.choice(["RGBA", "I;16", "1", "P", "LA", "RGB"]))
        picture = Image.open(path).convert("L").resize((int(rng.integers(1, 200)), int(rng.integers(1, 200))))
        picture = picture.point(lambda v: v * 256).convert("I;16") if mode == "I;16" else picture.convert(mode)
        picture.save(path)
        return f"{mode} {picture.size}"
    data = bytearray(path.read_bytes())
    at, size = (16, 4) if rng.random() < 0.3 else (20, 4) if rng.random() < 0.5 else (int(rng.integers(24, 29)), 1)
    value = int(rng.choice([0, 1, 7, 200])) if size == 1 else int(rng.choice([0, 1, 95, 20_000, 200_000, 2**31 - 1]))
    data[at : at + size] = value.to_bytes(size, "big")
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(bytes(data))
    return f"header byte {at} = {value}"


def _database(path: Path, rng: np.random.Generator) -> str:
    with closing(sqlite3.connect(path)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        table = tables[rng.integers(len(tables))]
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        column = columns[rng.integers(len(columns))]
        kind = rng.random()
        if kind < 0.1:
            told, statement, values = f"without {table}", f"DROP TABLE {table}", ()
        elif kind < 0.2:
            told, statement, values = f"{table} without rows", f"DELETE FROM {table}", ()
        elif kind < 0.25:
            told, statement, values = f"{table} without {column}", f"ALTER TABLE {table} RENAME COLUMN {column} TO other", ()
        else:
            odd = [None, -1, 0, 1, 10**12, 0.5, "", "text", "../x", "/x", b"", b"\xff" * 7, b"\xff" * 64]
            value = odd[rng.integers(len(odd))]
            told = f"{table}.{column} = {value!r}"
            statement, values = f"UPDATE {table} SET {column} = ? WHERE rowid = (SELECT min(rowid) FROM {table})", (value,)
        try:
            connection.execute(statement, values)
            connection.commit()
        except sqlite3.Error:
            return "nothing"
    return told


def _model(path: Path, rng: np.random.Generator) -> str:
    """A name that leads elsewhere, or a number of a COLMAP file that is out of all bounds."""
    data = bytearray(path.read_bytes())
    at = data.find(b".png\0")
    if at > 5 and rng.random() < 0.4:
        data[at - 3 : at] = [b"../", b"/ab", b"\xff\xfe\xfd"][rng.integers(3)]
        path.write_bytes(bytes(data))
        return "another name"
    at = 4 * int(rng.integers(max(1, min(len(data) // 4, 40))))
    value = [b"\xff" * 8, bytes(8), struct.pack("<d", np.nan), struct.pack("<d", 1e300), struct.pack("<q", 2**40)][rng.integers(5)]
    data[at : at + 8] = value
    path.write_bytes(bytes(data))
    return f"{value.hex()} at {at}"
