"""Tables and pictures of an evaluation."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segmotion_plugin.clip import read_rgb
from segmotion_plugin.evaluation.datasets import VideoSequence, object_files
from segmotion_plugin.evaluation.davis import boundary_map
from segmotion_plugin.files import write_json, write_png, write_text

_TRUTH_COLOUR, _PREDICTED_COLOUR, _BOTH_COLOUR = (60, 220, 60), (255, 60, 60), (255, 225, 40)
_TILE_WIDTH, _COLUMNS = 320, 3


@dataclass
class Evaluation:
    """Scores of one method on a set of sequences.

    Attributes:
        method: the method's name.
        rows: one mapping per sequence, with `sequence` and its scores.
        mean: mean over the sequences of every score that is a number (of those sequences that have it).
    """

    method: str
    rows: list[dict[str, Any]]
    mean: dict[str, float]

    @classmethod
    def of(cls, method: str, rows: Sequence[Mapping[str, Any]]) -> Evaluation:
        """Take the means of rows."""
        keys = dict.fromkeys(key for row in rows for key, value in row.items() if is_number(value))
        mean = {key: float(np.mean([row[key] for row in rows if is_number(row.get(key))])) for key in keys}
        return cls(method, [dict(row) for row in rows], mean)


def summary_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mean of rows; of rows with a `root` the mean of each root, and the others' means less the first root's."""
    roots = list(dict.fromkeys(str(row["root"]) for row in rows if "root" in row))
    if len(roots) < 2:
        return [{"sequence": f"mean of {len(rows)}", **Evaluation.of("", rows).mean}]
    groups = {root: [row for row in rows if row["root"] == root] for root in roots}
    means = {root: Evaluation.of("", group).mean for root, group in groups.items()}
    out: list[dict[str, Any]] = [
        {"sequence": f"mean of {len(groups[root])}", "root": root, **mean} for root, mean in means.items()
    ]
    for root in roots[1:]:
        gap = {key: value - means[roots[0]][key] for key, value in means[root].items() if key in means[roots[0]]}
        out.append({"sequence": "gap", "root": f"{root} − {roots[0]}", **gap})
    return out


def is_number(value: Any) -> bool:
    """Whether a score can be averaged: a finite number or a yes/no, as against a text, a list, or nothing."""
    return isinstance(value, bool | int | float | np.number) and math.isfinite(value)


def markdown_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """A Markdown table; numbers with three decimals, a dash where a row lacks a value."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def write_report(out: Path, title: str, evaluations: Sequence[Evaluation], columns: Sequence[str]) -> str:
    """Write `report.md`, `report.json` and `report.csv` of one or more methods on the same sequences, and return the Markdown text.

    Columns that no row has are left out. With several methods a first table has a row of means for each, and a second their
    `J&F` per sequence.
    """
    present = [column for column in columns if any(column in row for item in evaluations for row in item.rows)]
    parts = [f"# {title}\n"]
    if len(evaluations) > 1:
        means = [{"method": item.method, **item.mean} for item in evaluations]
        parts.append(markdown_table(means, ["method", *(c for c in present if any(c in mean for mean in means))]))
        if "JF" in present:
            parts.append("J&F per sequence:\n")
            table: dict[str, dict[str, Any]] = {}
            for item in evaluations:
                for row in item.rows:
                    table.setdefault(row["sequence"], {"sequence": row["sequence"]})[item.method] = row["JF"]
            parts.append(markdown_table(table.values(), ["sequence", *(item.method for item in evaluations)]))
    for item in evaluations:
        parts.append(f"## {item.method}\n")
        where = ["root"] if any("root" in row for row in item.rows) else []
        parts.append(markdown_table([*item.rows, *summary_rows(item.rows)], ["sequence", *where, *present]))
    text = "\n".join(parts)
    write_text(out / "report.md", text)
    write_json(
        out / "report.json",
        {
            "title": title,
            "methods": [
                {"method": item.method, "mean": item.mean, "summary": summary_rows(item.rows), "sequences": item.rows}
                for item in evaluations
            ],
        },
    )
    lines = io.StringIO()
    sheet = csv.DictWriter(lines, ["method", "sequence", "root", *present], restval="", extrasaction="ignore", lineterminator="\n")
    sheet.writeheader()
    sheet.writerows({"method": item.method, **row} for item in evaluations for row in [*item.rows, *summary_rows(item.rows)])
    write_text(out / "report.csv", lines.getvalue())
    return text


@dataclass(frozen=True)
class SheetFrame:
    """One picture of a contact sheet."""

    sequence: VideoSequence
    labels: Path
    frame: int
    region: float
    boundary: float


def worst_frames(
    scored: Iterable[tuple[VideoSequence, Path, Mapping[str, Sequence[float]]]], count: int = 12, per_sequence: int = 2
) -> list[SheetFrame]:
    """The frames with the lowest J + F, at most `per_sequence` of a sequence and these a quarter of its length apart.

    Args:
        scored: for every sequence its truth, the folder of predicted labels, and J and F per frame.
        count: how many frames at most.
        per_sequence: how many of one sequence at most.
    """
    found: list[SheetFrame] = []
    for sequence, labels, frames in scored:
        quality = np.asarray(frames["J"]) + np.asarray(frames["F"])
        taken: list[int] = []
        for frame in np.argsort(quality, kind="stable"):
            if all(abs(int(frame) - other) >= max(1, len(sequence) / 4) for other in taken):
                taken.append(int(frame))
            if len(taken) == per_sequence:
                break
        found += [SheetFrame(sequence, labels, t, frames["J"][t], frames["F"][t]) for t in taken]
    return sorted(found, key=lambda item: (item.region + item.boundary, item.sequence.name, item.frame))[:count]


def contact_sheet(path: Path, frames: Sequence[SheetFrame], title: str) -> None:
    """Write a PNG of frames with the outlines of truth (green), prediction (red) and both (yellow), worst first."""
    tiles = [_tile(item) for item in frames]
    header = np.full((34, _TILE_WIDTH * min(_COLUMNS, max(len(tiles), 1)), 3), 255, np.uint8)
    _write(header, f"{title}: truth green, predicted red, both yellow", (8, 22), (20, 20, 20))
    rows = []
    for start in range(0, len(tiles), _COLUMNS):
        row = tiles[start : start + _COLUMNS]
        height = max(tile.shape[0] for tile in row)
        row = [np.pad(tile, ((0, height - tile.shape[0]), (0, 0), (0, 0)), constant_values=255) for tile in row]
        sheet_row = np.concatenate(row, axis=1)
        gap = header.shape[1] - sheet_row.shape[1]
        rows.append(np.pad(sheet_row, ((0, 0), (0, gap), (0, 0)), constant_values=255))
    write_png(path, np.concatenate([header, *rows], axis=0))


def outlined(image: np.ndarray, truth: np.ndarray, predicted: np.ndarray, thickness: int = 2) -> np.ndarray:
    """A copy of an H×W×3 image with two masks' outlines: truth green, prediction red, both yellow."""
    brush = np.ones((thickness, thickness), np.uint8)
    true_line, line = (cv2.dilate(boundary_map(mask), brush) > 0 for mask in (truth, predicted))
    image = image.copy()
    image[true_line], image[line], image[true_line & line] = _TRUTH_COLOUR, _PREDICTED_COLOUR, _BOTH_COLOUR
    return image


def _tile(item: SheetFrame) -> np.ndarray:
    image = read_rgb(item.sequence.images[item.frame])
    truth = _nth(item.sequence.dynamic(), item.frame)
    predicted = _nth(object_files(item.labels, len(item.sequence)), item.frame) > 0
    height = max(1, round(image.shape[0] * _TILE_WIDTH / image.shape[1]))
    image = cv2.resize(image, (_TILE_WIDTH, height), interpolation=cv2.INTER_AREA)
    small_truth, small = (
        cv2.resize(mask.astype(np.uint8), (_TILE_WIDTH, height), interpolation=cv2.INTER_NEAREST)
        for mask in (truth, predicted)
    )
    image = outlined(image, small_truth, small)
    caption = np.full((24, _TILE_WIDTH, 3), 245, np.uint8)
    text = f"{item.sequence.name} {item.frame}  J {item.region:.2f}  F {item.boundary:.2f}"
    _write(caption, text, (6, 16), (20, 20, 20))
    return np.concatenate([image, caption], axis=0)


def _nth(items: Iterable[np.ndarray], index: int) -> np.ndarray:
    return next(item for position, item in enumerate(items) if position == index)


def _write(image: np.ndarray, text: str, origin: tuple[int, int], colour: tuple[int, int, int]) -> None:
    cv2.putText(image, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
