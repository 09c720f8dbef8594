"""Where the time and memory of the pipeline go, and how they grow with the length of a clip."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation.report import markdown_table
from segmotion_plugin.files import read_json, write_json, write_text
from segmotion_plugin.ownership import claim

Stages = Mapping[str, Mapping[str, float]]
"""Per stage `seconds` and `peak_memory_mb`, as a report's `stages`."""
SFM_STAGE = "reconstruction"
_SHORT = 0.05
"""Seconds below which a stage's growth is noise."""


def evaluate_benchmarks(
    out: Path | str,
    *,
    reports: Sequence[Path | str] = (),
    frames: Sequence[int] = (16, 32, 64),
    scene: str = "two_cars_parked_twin",
    width: int = 480,
    height: int = 270,
    run: Callable[[Path, Path], Stages] | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Write `report.md` and `report.json`: seconds per stage of finished runs, and the growth of each stage with the frames.

    Args:
        out: folder of the results and of the clips rendered for them.
        reports: processed folders, or their `motion/report.json`, to tabulate.
        frames: lengths of the rendered clips, each a prefix of the longest; none leaves the growth out.
        scene: type of scene that is rendered.
        width: of the rendered clips, pixels.
        height: of the rendered clips, pixels.
        run: makes masks of a folder of images into a new folder and returns the stages; our pipeline when absent.
        say: called with the tables.

    Raises:
        SegmotionError: a report that cannot be read, or nothing to do.
    """
    if not reports and not frames:
        raise SegmotionError("a benchmark needs reports to tabulate or numbers of frames to try")
    out = claim(Path(out))
    result: dict[str, Any] = {}
    parts = ["# Seconds and memory per stage\n"]
    if reports:
        result["stages"] = stage_rows([Path(path) for path in reports])
        columns = ["clip", "stage", "seconds", "seconds_per_frame", "share", "times_sfm", "peak_memory_mb"]
        parts.append(markdown_table(result["stages"], columns))
    if frames:
        measured = _measure(out, sorted(set(frames)), scene, (width, height), run or _pipeline_stages)
        result["growth"] = growth_rows(measured)
        parts += [
            f"## Growth with the number of frames ({width}×{height}, {scene})\n",
            "Exponent 1 is linear; memory should not grow.\n",
            markdown_table(result["growth"], list(result["growth"][0])),
        ]
    text = "\n".join(parts)
    write_text(out / "report.md", text)
    write_json(out / "report.json", result)
    say(text)
    return result


def stage_rows(reports: Sequence[Path]) -> list[dict[str, Any]]:
    """One row per stage of every report: seconds, seconds per frame, share of the run, and times the reconstruction's.

    Args:
        reports: processed folders, or their `motion/report.json`.

    Raises:
        SegmotionError: a file that is missing or is no report.
    """
    rows = []
    for path in reports:
        file = path / "motion" / "report.json" if path.is_dir() else path
        if not file.is_file():
            raise SegmotionError(f"{file}: no such report; 'segmotion masks' and 'segmotion run' write one")
        try:
            report = read_json(file)
            frames = max(int(report["frames"]), 1)
            stages = {name: (float(s["seconds"]), float(s["peak_memory_mb"])) for name, s in report["stages"].items()}
        except (ValueError, KeyError, TypeError) as error:
            raise SegmotionError(f"{file}: not a report of Segmotion ({error!r})") from None
        total = sum(seconds for seconds, _ in stages.values())
        sfm = stages.get(SFM_STAGE, (None, None))[0]
        masks = total - (sfm or 0.0)
        memory_before = max((memory for name, (_, memory) in stages.items() if name != SFM_STAGE), default=0.0)
        stages["all before the reconstruction"] = (masks, memory_before)
        for name, (seconds, memory) in stages.items():
            rows.append(
                {
                    "clip": file.parent.parent.name,
                    "stage": name,
                    "seconds": seconds,
                    "seconds_per_frame": seconds / frames,
                    "share": seconds / total if total else None,
                    "times_sfm": seconds / sfm if sfm else None,
                    "peak_memory_mb": memory,
                }
            )
    return rows


def growth_rows(measured: Mapping[int, Stages]) -> list[dict[str, Any]]:
    """One row per stage: seconds at every number of frames, the exponent of their growth, and peak memory at both ends.

    The exponent is the slope of log seconds over log frames by least squares, over the lengths where the stage takes at least
    0.05 s; None where fewer than two do.

    Args:
        measured: per number of frames the stages of that run.
    """
    lengths = sorted(measured)
    names = list(dict.fromkeys(name for length in lengths for name in measured[length]))
    rows = []
    for name in [*names, "all"]:
        seconds = {n: _seconds(measured[n], name) for n in lengths}
        memory = [_memory(measured[n], name) for n in (lengths[0], lengths[-1])]
        row: dict[str, Any] = {"stage": name}
        row |= {f"{n} frames": seconds[n] for n in lengths}
        row["exponent"] = growth_exponent(lengths, [seconds[n] for n in lengths])
        row["seconds_per_frame"] = seconds[lengths[-1]] / lengths[-1]
        row[f"MB at {lengths[0]}"], row[f"MB at {lengths[-1]}"] = memory
        rows.append(row)
    return rows


def growth_exponent(lengths: Sequence[int], seconds: Sequence[float]) -> float | None:
    """p of the best fit seconds ≈ c · lengthsᵖ, or None where fewer than two runs took long enough to tell."""
    long = [(n, s) for n, s in zip(lengths, seconds, strict=True) if s >= _SHORT]
    if len(long) < 2:
        return None
    x, y = np.log(np.array(long, dtype=float)).T
    return float(np.polyfit(x, y, 1)[0])


def _measure(
    out: Path, frames: Sequence[int], scene: str, size: tuple[int, int], run: Callable[[Path, Path], Stages]
) -> dict[int, Stages]:
    from segmotion_plugin.evaluation.rendered import RenderedClip

    clip = RenderedClip.load_or_render(out / "clips", scene, 0, (max(frames), *size))
    measured = {}
    for count in frames:
        images = out / "prefixes" / str(count)
        images.mkdir(parents=True, exist_ok=True)
        for path in clip.sequence.images[:count]:
            (images / path.name).write_bytes(path.read_bytes())
        work = out / "runs" / str(count)
        shutil.rmtree(work, ignore_errors=True)
        measured[count] = run(images, work)
    return measured


def _pipeline_stages(images: Path, out: Path) -> Stages:
    from segmotion_plugin import pipeline
    from segmotion_plugin.settings import MaskSettings

    return pipeline.masks(images, out, MaskSettings(quiet=True))["stages"]


def _seconds(stages: Stages, name: str) -> float:
    if name == "all":
        return sum(stage["seconds"] for stage in stages.values())
    return stages[name]["seconds"] if name in stages else 0.0


def _memory(stages: Stages, name: str) -> float:
    if name == "all":
        return max((stage["peak_memory_mb"] for stage in stages.values()), default=0.0)
    return stages[name]["peak_memory_mb"] if name in stages else 0.0
