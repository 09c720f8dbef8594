"""``segmotion train``: from nothing to the shipped weights, on a CPU, with one seed; every step resumes where it was stopped."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.progress import track as show_progress

from segmotion_plugin.motion.classifier import classify, geometric_scores
from segmotion_plugin.motion.model import TrajectoryTransformer, save_weights
from segmotion_plugin.ownership import claim
from segmotion_plugin.training.calibrate import LabelledClip, averages, calibrate, scores
from segmotion_plugin.training.clips import TrainingClip, clip_path, exact_clip, pool
from segmotion_plugin.training.export import draw_curve, write_card
from segmotion_plugin.training.loop import TrainConfig, load_checkpoint, optimise
from segmotion_plugin.training.rendered import tracked_clip

__all__ = ["TrainConfig", "export_weights", "main", "make_clips"]

WEIGHTS_NAME = "trajectory_transformer.safetensors"
# Seeds of the three kinds of clips never meet.
_TRACKED_SEEDS = 100_000_000
_HELD_OUT_SEEDS = 200_000_000


def make_clips(folder: Path, make: Callable[[int], TrainingClip], first_seed: int, count: int, what: str) -> None:
    """Make the clips of `count` seeds that are not stored yet."""
    seeds = [seed for seed in range(first_seed, first_seed + count) if not clip_path(folder, seed).exists()]
    for seed in show_progress(seeds, description=what, disable=not seeds):
        make(seed).save(clip_path(folder, seed))


def main(config: TrainConfig) -> Path:
    """Make the clips, train, calibrate on held-out clips, and export; returns the path of the weights.

    Raises:
        SegmotionError: the checkpoint in `config.out` belongs to a model of another shape.
    """
    out = claim(Path(config.out), known=("exact", "tracked", "held_out"))
    torch.set_num_threads(config.threads)
    make_clips(out / "exact", exact_clip, config.seed * 1_000_000, config.exact_clips, "simulating tracks")
    make_clips(
        out / "tracked",
        tracked_clip,
        _TRACKED_SEEDS + config.seed * 1_000_000,
        config.tracked_clips,
        "rendering and tracking",
    )
    make_clips(
        out / "held_out", tracked_clip, _HELD_OUT_SEEDS + config.seed * 1_000_000, config.held_out, "held-out clips"
    )
    optimise(config, out / "exact", out / "tracked", out / "checkpoint.pt")
    return export_weights(config)


def export_weights(config: TrainConfig) -> Path:
    """Calibrate the checkpoint's averaged weights on the held-out clips, measure, and write weights, card and curve."""
    out = Path(config.out)
    target = claim(Path(config.export) if config.export else out / "export")
    model = TrajectoryTransformer(config.model)
    average, state = load_checkpoint(out / "checkpoint.pt", model, None)
    model.load_state_dict(average)
    model.eval()
    held_out = [LabelledClip.from_training(path) for path in pool(out / "held_out")]
    fitting, testing = held_out[::2], held_out[1::2]
    calibration = calibrate(model, fitting, config.seed)
    weights = target / WEIGHTS_NAME
    save_weights(weights, model, calibration)

    def judged(clip: LabelledClip) -> np.ndarray:
        return classify(clip.tracks, clip.size, features=clip.features, weights=weights).probability

    def baseline(clip: LabelledClip) -> np.ndarray:
        return geometric_scores(clip.tracks, clip.size)["homography / median"]

    metrics = {
        "held-out rendered clips, model": averages(scores(testing, judged)),
        "held-out rendered clips, homography residual / median": averages(scores(testing, baseline)),
    }
    draw_curve(out / "checkpoint.csv", target / "training_curve.png")
    options = (
        "seed",
        "steps",
        "fine_steps",
        "batch",
        "tracks",
        "learning_rate",
        "exact_clips",
        "tracked_clips",
        "held_out",
    )
    given = " ".join(f"--{name.replace('_', '-')} {getattr(config, name)}" for name in options)
    command = f"segmotion train weights --out DIR {given}"
    data = [
        f"{len(pool(out / 'exact'))} simulated worlds with exact trajectories; a tracker's errors were added afresh at every use.",
        f"{len(pool(out / 'tracked'))} simulated worlds rendered to video and tracked with the embedded DIS tracker.",
        f"{len(held_out)} more of the latter with other seeds for calibration and the measures below.",
        "Real video was never trained on.",
    ]
    write_card(
        target / "MODEL_CARD.md",
        config.model,
        calibration,
        data,
        command,
        _commit(),
        state.seconds / 3600,
        state.step,
        metrics,
    )
    return weights


def _commit() -> str:
    """Short id of the code's commit, or "unknown" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
