"""What must not change a verdict: mirroring, the direction of time, size, compression, and where the clip begins.

A mover moves whichever way the picture is turned. J of a changed sequence is taken against the truth changed alike, and set against J
of the sequence as it is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segmotion_plugin.clip import read_rgb
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation.datasets import VideoSequence, every_nth, paired_sequence, rooted_sequences
from segmotion_plugin.evaluation.methods import Method
from segmotion_plugin.evaluation.report import Evaluation, markdown_table, write_report
from segmotion_plugin.evaluation.scoring import cached, predict_labels, score_sequence
from segmotion_plugin.files import write_json, write_png, write_text
from segmotion_plugin.masks import read_grey
from segmotion_plugin.ownership import claim

KINDS = ("mirrored", "reversed", "half", "jpeg60", "shifted")
"""Left and right exchanged; the last frame first; half the width and height; JPEG of quality 60; without the first frame."""
MEAN_LIMIT, WORST_LIMIT = 0.03, 0.10
"""Change of J that is allowed on average and for one sequence: the first is about what two annotators differ by."""
_QUALITY = 60


def evaluate_invariance(
    roots: Path | str | Sequence[Path | str],
    methods: Sequence[Method],
    out: Path | str,
    *,
    kinds: Iterable[str] = KINDS,
    sequences: Iterable[str] | str | Path | None = None,
    every: int = 1,
    resume: bool = True,
    say: Callable[[str], None] = print,
) -> list[Evaluation]:
    """Score methods on sequences as they are and changed, and tell how far J changes.

    Writes `report.md`, `report.json` and `report.csv` (a row per sequence: J, the change of J by each kind, the worst), and
    `kinds.json` (per method and kind the mean and worst size of the change); results per sequence and kind in
    `METHOD/KIND/SEQUENCE.json`. Changed pictures and the masks made of them are not kept.

    Args:
        roots: the data, see `rooted_sequences`.
        methods: what to score; masks from files cannot be, as they belong to the sequence as it is.
        out: folder of the results.
        kinds: of `KINDS`.
        sequences: names, a named list, or a list file; all when absent.
        every: take only every so many of a root's sequences.
        resume: take results that are there.
        say: called with one line per sequence and per kind.

    Raises:
        SegmotionError: an unknown kind, a sequence of one frame, data that cannot be read, masks that do not fit, or `out` holds
            other files.
    """
    kinds = list(dict.fromkeys(kinds))
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise SegmotionError(f"no such change: {', '.join(unknown) or 'none given'}; choose from {', '.join(KINDS)}")
    several = [roots] if isinstance(roots, Path | str) else list(roots)
    found = every_nth(rooted_sequences(several, sequences), every)
    short = [sequence.name for _, sequence in found if len(sequence) < 2]
    if short:
        raise SegmotionError(f"{', '.join(short)}: one frame only; a shift in time needs two or more")
    out, evaluations, summary = claim(Path(out)), [], []
    for method in methods:
        rows = []
        for root, sequence in found:
            results = {kind: _result(method, sequence, kind, out, resume) for kind in ("as_is", *kinds)}
            row: dict[str, Any] = {"sequence": sequence.name, **({"root": root} if len(several) > 1 else {})}
            row["J"] = results["as_is"]["J"]
            for kind in kinds:
                # Without its first frame a sequence is held against its other frames as they were.
                before = np.mean(results["as_is"]["frames"][1:] if kind == "shifted" else results["as_is"]["frames"])
                row[kind] = float(results[kind]["J"] - before)
            row["worst"] = max(abs(row[kind]) for kind in kinds)
            say("  ".join([f"{method.name:12s} {sequence.name:24s} J {row['J']:.3f}", *(f"{k} {row[k]:+.3f}" for k in kinds)]))
            rows.append(row)
        evaluations.append(Evaluation.of(method.name, rows))
        for kind in [*kinds, "all"]:
            sizes = np.array([abs(row[k]) for row in rows for k in (kinds if kind == "all" else [kind])])
            mean, worst = float(sizes.mean()), float(sizes.max())
            holds = mean <= MEAN_LIMIT and worst <= WORST_LIMIT
            summary.append({"method": method.name, "kind": kind, "mean": mean, "worst": worst, "holds": holds})
            say(f"{method.name:12s} {kind:12s} mean change {mean:.3f}  worst {worst:.3f}  {'holds' if holds else 'does not hold'}")
    text = write_report(out, f"Change of J on {len(found)} sequences", evaluations, ("J", *kinds, "worst"))
    law = f"Size of the change per kind; it should be at most {MEAN_LIMIT} on average and {WORST_LIMIT} for one sequence:\n"
    write_text(out / "report.md", "\n".join([text, law, markdown_table(summary, ["method", "kind", "mean", "worst", "holds"])]))
    write_json(out / "kinds.json", summary)
    return evaluations


def _result(method: Method, sequence: VideoSequence, kind: str, out: Path, resume: bool) -> dict[str, Any]:
    """J (mean, and per frame as `frames`) of a method on a changed sequence."""

    def compute() -> dict[str, Any]:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="changed-", dir=out) as folder:
            there = sequence if kind == "as_is" else changed(sequence, kind, Path(folder) / sequence.name)
            labels, seconds = predict_labels(method, sequence.name, there.images_folder, len(there), Path(folder) / "made")
            scores = score_sequence(there, labels)
            kept = ("J", "F", "JF", "static_masked", "mover_missed")
            return {**{key: scores[key] for key in kept}, **seconds, "frames": scores["frames"]["J"]}

    if not method.timed:
        raise SegmotionError(f"{method.name}: masks from files belong to the sequences as they are and cannot be made anew")
    key = {
        "method": method.name,
        "settings": dict(method.settings),
        "images": str(sequence.images_folder.resolve()),
        "masks": str(sequence.masks[0].parent.resolve()),
        "frames": len(sequence),
        "kind": kind,
    }
    return cached(out / method.name / kind / f"{sequence.name}.json", key, resume, compute)


def changed(sequence: VideoSequence, kind: str, folder: Path) -> VideoSequence:
    """Write a sequence changed in one of the `KINDS`, and its truth changed alike, to `FOLDER/images` and `FOLDER/masks`."""
    order = list(range(len(sequence)))
    if kind == "reversed":
        order.reverse()
    elif kind == "shifted":
        order = order[1:]
    for sub in ("images", "masks"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for place, frame in enumerate(order):
        source, truth = sequence.images[frame], sequence.masks[frame]
        image, mask = folder / "images" / f"{place:05d}{source.suffix}", folder / "masks" / f"{place:05d}{truth.suffix}"
        if kind in ("reversed", "shifted"):
            image.write_bytes(source.read_bytes())  # the same bytes: nothing but the order changes
            mask.write_bytes(truth.read_bytes())
            continue
        picture, labels = read_rgb(source), read_grey(truth)
        if kind == "mirrored":
            picture, labels = picture[:, ::-1], labels[:, ::-1]
        elif kind == "half":
            size = (max(1, picture.shape[1] // 2), max(1, picture.shape[0] // 2))
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
        write_png(mask.with_suffix(".png"), labels)
        if kind == "jpeg60":
            written, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
            if not written:
                raise OSError(f"{source}: the image could not be encoded as JPEG")
            image.with_suffix(".jpg").write_bytes(data.tobytes())
        else:
            write_png(image.with_suffix(".png"), picture, compression=1)
    return paired_sequence(sequence.name, folder / "images", folder / "masks")
