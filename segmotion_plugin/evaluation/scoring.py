"""All scores of one sequence, kept in a file so that an evaluation goes on where it was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from segmotion_plugin import __version__
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation.datasets import VideoSequence, label_files, object_files
from segmotion_plugin.evaluation.davis import masked_and_missed, sequence_scores
from segmotion_plugin.evaluation.methods import Method
from segmotion_plugin.evaluation.objects import masked_share, moving_now_scores, object_scores
from segmotion_plugin.evaluation.tracks import track_scores, track_truth
from segmotion_plugin.files import read_json, write_json, write_png
from segmotion_plugin.tracks import TrackMotion, Tracks, load_tracks

TRACK_THRESHOLD = 0.5
"""Probability from which a track counts as moving in the track-level F1."""
_MEASURES = 2  # raised when results gain scores, so that stored ones without them are made anew


def predict_labels(method: Method, name: str, images: Path, count: int, out: Path) -> tuple[Path, dict[str, float | None]]:
    """Run a method on a sequence and leave its labels in a folder.

    Args:
        method: what to run.
        name: the sequence.
        images: its folder of images.
        count: number of images.
        out: the method's folder; labels that do not come as a folder go to `out/predictions/NAME`.

    Returns:
        The folder of label images, and `seconds_per_frame` by the clock and of processor time (`cpu_seconds_per_frame`, which a
        busy machine does not change); None for a method that is not timed.

    Raises:
        SegmotionError: not one mask per image, or masks that are no H×W label images.
    """
    work = out / "work" / name
    work.mkdir(parents=True, exist_ok=True)
    start, cpu_start = time.perf_counter(), time.process_time()
    result = method.predict(images, work)
    if isinstance(result, Path):
        folder = result
    else:
        folder = out / "predictions" / name
        made = -1
        for made, labels in enumerate(result):
            if labels.ndim != 2 or labels.dtype.kind not in "bui":
                raise SegmotionError(
                    f"{method.name}: masks must be H×W whole numbers, got {labels.dtype} of shape {labels.shape} on {name}"
                )
            write_png(folder / f"{made:05d}.png", labels.astype(np.uint8), compression=1)
        if made + 1 != count:
            raise SegmotionError(f"{method.name}: {made + 1} masks for the {count} images of {name}; one per image is needed")
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    sum(1 for _ in label_files(folder, count))  # every mask is there and can be read before anything is scored
    return folder, {
        "seconds_per_frame": seconds / count if method.timed else None,
        "cpu_seconds_per_frame": cpu_seconds / count if method.timed else None,
    }


def score_sequence(
    sequence: VideoSequence, labels: Path, moving: np.ndarray | None = None, track_baselines: bool = False
) -> dict[str, Any]:
    """Score predicted labels against a sequence's truth.

    Args:
        sequence: images and true labels.
        labels: folder with one predicted label image per frame.
        moving: T×(K+1) bool, which object moves at which frame, where that is known.
        track_baselines: score the low-rank residual of the same tracks as well.

    Returns:
        Means (`J`, `F`, `JF`, shares of masked pixels; object, moving-now and track scores where truth allows) and, under
        `frames`, J and F per frame. Only objects are scored against the truth; the shares masked have stuff too.
    """
    count = len(sequence)
    region, boundary = sequence_scores(sequence.dynamic(), _dynamic(object_files(labels, count), sequence))
    scores: dict[str, Any] = {
        "frames_scored": count,
        "J": float(region.mean()),
        "F": float(boundary.mean()),
        "JF": float((region.mean() + boundary.mean()) / 2),
        **masked_and_missed(sequence.dynamic(), (image > 0 for image in label_files(labels, count)), sequence.unscored()),
        "share_masked": float(masked_share(label_files(labels, count)).mean()),
        "share_truth": float(masked_share(sequence.dynamic()).mean()),
    }
    if sequence.has_ids or moving is not None:
        scores |= object_scores(sequence.labels(), object_files(labels, count), void=sequence.void).summary()
    track_file = labels.parent / "tracks.npz"
    known = load_tracks(track_file)[:2] if labels.name == "objects" and track_file.is_file() else None
    if moving is not None:
        states = object_states(*known) if known is not None and known[0].num_frames == count else None
        scores |= moving_now_scores(
            sequence.labels(), moving, object_files(labels, count), states, sequence.void
        ).summary()
    if known is not None and known[0].num_frames == count:
        tracks, motion = known
        truth = track_truth(tracks, sequence.dynamic())
        unscored = sequence.unscored()
        if unscored is not None:
            truth = np.where(track_truth(tracks, unscored) > 0, -1, truth)
        scores |= track_scores(motion.probability, truth, TRACK_THRESHOLD)
        if track_baselines:
            from segmotion_plugin.evaluation.baselines.subspace import subspace_residual

            baseline = track_scores(subspace_residual(tracks), truth, np.inf)
            scores |= {f"subspace_{key}": baseline[f"track_{key}"] for key in ("AUC", "best_F1")}
    return scores | {"frames": {"J": region.tolist(), "F": boundary.tolist()}}


def object_states(tracks: Tracks, motion: TrackMotion) -> np.ndarray:
    """T×256 bool: at which frames an object moves, by the majority of its tracks that are visible there.

    At frames where none of its tracks is visible an object keeps its last known state (at the start, its first).
    """
    seen = np.zeros((tracks.num_frames, 256), dtype=np.int64)
    moves = np.zeros_like(seen)
    visible = tracks.visible_flat
    cell = (tracks.frame_flat[visible], np.minimum(motion.object_id[tracks.track_flat[visible]], 255))
    np.add.at(seen, cell, 1)
    np.add.at(moves, cell, motion.moving_flat[visible])
    states = 2 * moves > seen
    known_at = np.where(seen > 0, np.arange(tracks.num_frames)[:, None], -1)
    source = np.maximum.accumulate(known_at, axis=0)
    source = np.where(source < 0, np.argmax(seen > 0, axis=0), source)
    states = np.take_along_axis(states, source, axis=0)
    states[:, 0] = False
    return states


def cached(path: Path, key: dict[str, Any], resume: bool, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result stored at `path` when it was made with the same key, else a new one that is stored there."""
    key = {"version": __version__, "measures": _MEASURES, **key}
    if resume and path.is_file():
        try:
            stored = read_json(path)
        except ValueError:  # damaged: made anew
            stored = {}
        if stored.get("key") == key:
            return stored["result"]
    result = compute()
    write_json(path, {"key": key, "result": result})
    return result


def result_line(method: str, row: dict[str, Any]) -> str:
    """One line for the terminal: what this kind of evaluation is about, in a fixed order."""
    parts = [f"{method:12s} {row['sequence']:24s}", *([f"{row['root']:24s}"] if "root" in row else [])]
    for key, name, form in (
        ("J", "J", ".3f"), ("F", "F", ".3f"), ("JF", "J&F", ".3f"), ("static_masked", "static masked", ".2%"),
        ("mover_missed", "mover missed", ".2%"), ("object_J", "object J", ".3f"),
        ("share_masked", "masked", ".2%"), ("seconds_per_frame", "s/frame", ".3f"),
    ):  # fmt: skip
        if isinstance(row.get(key), float):
            parts.append(f"{name} {row[key]:{form}}")
    return "  ".join(parts)


def _dynamic(labels: Iterator[np.ndarray], sequence: VideoSequence) -> Iterator[np.ndarray]:
    """Predicted masks of all objects together, with the pixels that the truth does not score taken out."""
    if sequence.void is None:
        yield from (image > 0 for image in labels)
    else:
        for truth, image in zip(sequence.labels(), labels, strict=True):
            yield (image > 0) & (truth != sequence.void)
