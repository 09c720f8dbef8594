"""What a training leaves behind: the loss curve as a picture, and the model card beside the weights."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from segmotion_plugin.files import write_png, write_text
from segmotion_plugin.motion.model import Calibration, ModelConfig, TrajectoryTransformer


def draw_curve(curve: Path, picture: Path) -> None:
    """Draw a curve file (rows: step, loss, seconds) as PNG."""
    import cv2

    with open(curve, newline="") as handle:
        rows = np.array([[float(v) for v in row] for row in csv.reader(handle)]).reshape(-1, 3)
    canvas = np.full((360, 640, 3), 255, np.uint8)
    cv2.rectangle(canvas, (60, 20), (620, 320), (0, 0, 0), 1)
    if len(rows):
        low, high = float(rows[:, 1].min()), float(rows[:, 1].max())
        span = max(high - low, 1e-6)
        x = 60 + 560 * rows[:, 0] / max(rows[-1, 0], 1)
        kernel = np.ones(min(9, len(rows)))
        smooth = np.convolve(rows[:, 1], kernel, "same") / np.convolve(np.ones(len(rows)), kernel, "same")
        for values, color, width in ((rows[:, 1], (190, 190, 190), 1), (smooth, (30, 80, 200), 2)):
            y = 320 - 300 * (values - low) / span
            points = np.round(np.stack([x, y], axis=1)).astype(np.int32)
            cv2.polylines(canvas, [points], False, color, width, cv2.LINE_AA)
        for text, place in (
            (f"{high:.3f}", (8, 28)),
            (f"{low:.3f}", (8, 320)),
            (f"{int(rows[-1, 0])} steps", (540, 340)),
        ):
            cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        cv2.putText(canvas, "training loss", (64, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    write_png(picture, canvas)


def write_card(
    path: Path,
    config: ModelConfig,
    calibration: Calibration,
    data: Sequence[str],
    command: str,
    commit: str,
    hours: float,
    steps: int,
    metrics: Mapping[str, Mapping[str, float]],
) -> None:
    """Write MODEL_CARD.md.

    Args:
        path: of the card.
        config: shape of the model.
        calibration: in the weights file.
        data: sentences on what it was trained on.
        command: that retrains it.
        commit: of the code.
        hours: of training.
        steps: of the optimiser.
        metrics: name of a set of clips -> name of a measure -> value.
    """
    parameters = sum(p.numel() for p in TrajectoryTransformer(config).parameters())
    lines = [
        "# trajectory_transformer.safetensors",
        "",
        "Says for every point track of a video whether its surface moves in the world, and at which frames.",
        "",
        f"- Parameters: {parameters:,}, float32. Shape: `{asdict(config)}`.",
        f"- Calibration on held-out rendered clips: `{asdict(calibration)}`; the threshold is 0.5.",
        "- Licence: Apache-2.0. No third-party data went into it; EfficientNet-Lite0 (Apache-2.0) made the features.",
        "",
        "## Training data",
        "",
        *[f"- {line}" for line in data],
        "",
        "## How to make it again",
        "",
        f"    {command}",
        "",
        f"Code at commit `{commit}`; {steps} steps, {hours:.1f} hours on one CPU thread (making the clips not counted).",
        "The curve is in `training_curve.png`.",
        "",
        "## Measures",
        "",
        "Track level; F1 at the fixed threshold 0.5, best F1 at the best threshold of each clip; means over clips.",
        "",
        "| clips | AUC | F1 | best F1 | static clips: called moving |",
        "|---|---|---|---|---|",
    ]
    for name, row in metrics.items():
        cells = [_cell(row.get(key)) for key in ("track_AUC", "track_F1", "track_best_F1")]
        lines.append(f"| {name} | {' | '.join(cells)} | {_percent(row.get('static_called_moving'))} |")
    lines += [
        "",
        "## Limits",
        "",
        "- Trained on simulated worlds only. Water, smoke and foliage count as static; real ones are wilder.",
        "- Points just outside a silhouette follow the object in any smooth flow; some of them are called moving.",
        "- Motion along the epipolar lines of a moving camera cannot be told from depth by geometry; depth input helps.",
        "- Motion of less than about 0.3 pixels in four frames (at 854×480) is not seen.",
        "- A mover that fills most of the picture for the whole clip may be taken for the world.",
    ]
    write_text(path, "\n".join(lines) + "\n")


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"
