"""The evaluations behind `segmotion evaluate`: DAVIS-like data, rendered worlds, and clips where nothing moves.

Every sequence's result is stored when it is done and read again on the next call, unless the method's settings changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation.datasets import SEQUENCE_LISTS, every_nth, label_files, list_images, rooted_sequences
from segmotion_plugin.evaluation.methods import Method
from segmotion_plugin.evaluation.objects import masked_share
from segmotion_plugin.evaluation.report import Evaluation, contact_sheet, summary_rows, worst_frames, write_report
from segmotion_plugin.evaluation.scoring import cached, predict_labels, result_line, score_sequence
from segmotion_plugin.ownership import claim

DAVIS_COLUMNS = (
    "J", "F", "JF", "static_masked", "mover_missed", "seconds_per_frame", "cpu_seconds_per_frame", "share_masked", "share_truth",
    "object_J", "objects", "objects_found", "count_right", "switches_per_object",
    "track_AUC", "track_F1", "track_best_F1", "subspace_AUC", "subspace_best_F1",
)  # fmt: skip
STATIC_COLUMNS = ("share_masked", "worst_frame", "frames_masked", "seconds_per_frame", "cpu_seconds_per_frame")


def evaluate_davis(
    roots: Path | str | Sequence[Path | str],
    methods: Sequence[Method],
    out: Path | str,
    *,
    sequences: Iterable[str] | str | Path | None = None,
    resolution: str = "480p",
    annotations: str = "Annotations",
    every: int = 1,
    track_baselines: bool = False,
    resume: bool = True,
    say: Callable[[str], None] = print,
) -> list[Evaluation]:
    """Score methods on DAVIS-like sequences, with the DAVIS protocol: all frames, mean per sequence, mean over sequences.

    Writes `report.md`, `report.json`, `report.csv`, per method `METHOD/worst.png`, and the results per sequence in
    `METHOD/sequences`. With several roots there is a table for each, and how far the means of the others are from the first's.

    Args:
        roots: the data, see `davis_sequences`; several to compare.
        methods: what to score.
        out: folder of the results.
        sequences: names, a named list, or a list file; all when absent.
        resolution: of the official DAVIS layout.
        annotations: of the official DAVIS layout.
        every: take only every so many of a root's sequences.
        track_baselines: for methods that leave tracks, score the subspace baseline on the same tracks.
        resume: take results that are there.
        say: called with one line per sequence and method, and the mean.

    Raises:
        SegmotionError: data that cannot be read, or masks that do not fit.
    """
    several = [roots] if isinstance(roots, Path | str) else list(roots)
    found = every_nth(rooted_sequences(several, sequences, resolution=resolution, annotations=annotations), every)
    out = claim(Path(out))
    evaluations = []
    for method in methods:
        rows, scored = [], []
        for root, sequence in found:

            def compute(method: Method = method, sequence: Any = sequence) -> dict[str, Any]:
                labels, seconds = predict_labels(
                    method, sequence.name, sequence.images_folder, len(sequence), out / method.name
                )
                scores = score_sequence(sequence, labels, track_baselines=track_baselines)
                return {"labels": str(labels.resolve()), **seconds, **scores}

            key = {
                "method": method.name,
                "settings": dict(method.settings),
                "images": str(sequence.images_folder.resolve()),
                "masks": str(sequence.masks[0].parent.resolve()),
                "frames": len(sequence),
                "track_baselines": track_baselines,
            }
            result = cached(out / method.name / "sequences" / f"{sequence.name}.json", key, resume, compute)
            where = {"root": root} if len(several) > 1 else {}
            row = {"sequence": sequence.name, **where, **{k: v for k, v in result.items() if k not in ("frames", "labels")}}
            say(result_line(method.name, row))
            rows.append(row)
            if Path(result["labels"]).is_dir():
                scored.append((sequence, Path(result["labels"]), result["frames"]))
        evaluation = Evaluation.of(method.name, rows)
        for summary in summary_rows(evaluation.rows):
            say(result_line(method.name, summary))
        contact_sheet(out / method.name / "worst.png", worst_frames(scored), f"{method.name}, worst frames")
        evaluations.append(evaluation)
    name = sequences if isinstance(sequences, str) and sequences in SEQUENCE_LISTS else f"{len(found)} sequences"
    write_report(out, f"Motion masks on {name}", evaluations, DAVIS_COLUMNS)
    return evaluations


def evaluate_static(
    clips: Sequence[Path | str],
    methods: Sequence[Method],
    out: Path | str,
    *,
    resume: bool = True,
    say: Callable[[str], None] = print,
) -> list[Evaluation]:
    """Score methods on clips where nothing moves: the share of pixels that they mask all the same.

    Args:
        clips: folders of images, or folders that hold them in `images`.
        methods: what to score.
        out: folder of the results, as `evaluate_davis` writes them (without pictures).
        resume: take results that are there.
        say: called with one line per clip and method, and the mean.

    Raises:
        SegmotionError: no images in a folder, two clips of one name, or masks that do not fit.
    """
    folders = {_clip_name(Path(clip)): _images_of(Path(clip)) for clip in clips}
    if len(folders) != len(clips):
        raise SegmotionError("two of the static clips have the same name; name their folders apart")
    out = claim(Path(out))
    evaluations = []
    for method in methods:
        rows = []
        for name, images in folders.items():
            count = len(list_images(images))

            def compute(
                method: Method = method, name: str = name, images: Path = images, count: int = count
            ) -> dict[str, Any]:
                labels, seconds = predict_labels(method, name, images, count, out / method.name)
                share = masked_share(label_files(labels, count))
                return {
                    "share_masked": float(share.mean()),
                    "worst_frame": float(share.max()),
                    "frames_masked": float((share > 0).mean()),
                    **seconds,
                }

            settings = dict(method.settings)
            key = {"method": method.name, "settings": settings, "images": str(images.resolve()), "frames": count}
            result = cached(out / method.name / "sequences" / f"{name}.json", key, resume, compute)
            rows.append({"sequence": name, **result})
            say(result_line(method.name, rows[-1]))
        evaluations.append(Evaluation.of(method.name, rows))
    write_report(out, "Pixels masked where nothing moves", evaluations, STATIC_COLUMNS)
    return evaluations


def _images_of(clip: Path) -> Path:
    return clip / "images" if (clip / "images").is_dir() else clip


def _clip_name(clip: Path) -> str:
    clip = clip.resolve()
    return clip.parent.name if clip.name == "images" else clip.name
