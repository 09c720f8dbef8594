"""The training loop: windows of stored clips in, averaged weights out; resumable."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import atomic_path
from segmotion_plugin.motion.geometry import FitOptions
from segmotion_plugin.motion.model import ModelConfig, TrajectoryTransformer
from segmotion_plugin.training.clips import TrainingClip, pool
from segmotion_plugin.training.dataset import Batch, Sample, collate, draw_sample

_FIT = FitOptions(hypotheses=24, refinements=2, max_points=160)


@dataclass
class TrainConfig:
    """Train the motion model on simulated worlds.

    Attributes:
        out: folder for clips, checkpoints, the curve and the exported weights.
        steps: optimiser steps of the first phase.
        fine_steps: steps of the second phase, mostly on rendered and tracked clips, at a third of the learning rate.
        batch: windows per step.
        tracks: most tracks per window; each batch draws its own number.
        learning_rate: peak of the schedule (warm-up, then cosine to a tenth).
        exact_clips: clips with exact trajectories to make.
        tracked_clips: clips to render and track.
        tracked_share: share of the windows drawn from rendered and tracked clips once there are some.
        fine_tracked_share: the same in the second phase.
        held_out: rendered and tracked clips kept apart, for calibration and the model card.
        checkpoint_minutes: minutes between checkpoints.
        seed: of everything random; held-out seeds follow after the training seeds.
        threads: of torch.
        export: where the weights go when done; inside `out` when absent.
        model: shape of the model.
    """

    out: Path = Path("training")
    steps: int = 5000
    fine_steps: int = 2500
    batch: int = 6
    tracks: int = 320
    learning_rate: float = 1.5e-3
    exact_clips: int = 2000
    tracked_clips: int = 400
    tracked_share: float = 0.4
    fine_tracked_share: float = 0.6
    held_out: int = 48
    checkpoint_minutes: float = 5.0
    seed: int = 0
    threads: int = 1
    export: Path | None = None
    model: ModelConfig = field(default_factory=ModelConfig)


class ClipPool:
    """Draws windows from folders of stored clips; folders may grow meanwhile.

    Args:
        exact: folder of exact clips.
        tracked: folder of rendered and tracked clips.
        tracked_share: share of windows from the latter.
        rng: source of randomness.
    """

    _LOOK_EVERY = 500
    _WINDOWS_PER_CLIP = 3

    def __init__(self, exact: Path, tracked: Path, tracked_share: float, rng: np.random.Generator) -> None:
        self._folders = {"exact": exact, "tracked": tracked}
        self.tracked_share, self._rng = tracked_share, rng
        self._paths: dict[str, list[Path]] = {}
        self._open: dict[str, tuple[TrainingClip, int]] = {}
        self._drawn = 0

    def _clip(self) -> TrainingClip:
        if self._drawn % self._LOOK_EVERY == 0:
            self._paths = {name: pool(folder) for name, folder in self._folders.items()}
        self._drawn += 1
        source = "tracked" if self._paths["tracked"] and self._rng.random() < self.tracked_share else "exact"
        if not self._paths[source]:
            source = "tracked" if source == "exact" else "exact"
        paths = self._paths[source]
        if not paths:
            raise SegmotionError(f"{self._folders['exact']}: no training clips here; make some first")
        clip, uses = self._open.get(source, (None, 0))
        if clip is None or uses >= self._WINDOWS_PER_CLIP:
            clip, uses = TrainingClip.load(paths[self._rng.integers(len(paths))]), 0
        self._open[source] = (clip, uses + 1)
        return clip

    def samples(self, batch: int, tracks: int, semantic_size: int) -> list[Sample]:
        """Windows of one batch; all have depth and semantics or none has."""
        count = int(np.exp(self._rng.uniform(np.log(tracks / 3), np.log(tracks))))
        use_depth, use_semantics = self._rng.random() < 0.35, self._rng.random() < 0.65
        found: list[Sample] = []
        while len(found) < batch:
            sample = draw_sample(self._clip(), self._rng, count, use_depth, use_semantics, semantic_size)
            if sample is not None:
                found.append(sample)
        return found

    def batches(self, batch: int, tracks: int, semantic_size: int, seed: int) -> Iterator[Batch]:
        """Batches without end."""
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield collate(self.samples(batch, tracks, semantic_size), _FIT, generator)


def loss_of(track_logit: Tensor, frame_logit: Tensor, batch: Batch) -> Tensor:
    """Cross entropy of both outputs, every window counting the same, tracks by their weights."""
    weight = batch.weight
    smooth = batch.moves * 0.98 + 0.01
    track = F.binary_cross_entropy_with_logits(track_logit, smooth, reduction="none")
    track_loss = ((track * weight).sum(1) / weight.sum(1).clamp_min(1)).mean()
    frame_weight = batch.window.frame_visible * weight.unsqueeze(-1)
    frame = F.binary_cross_entropy_with_logits(frame_logit, batch.moving * 0.98 + 0.01, reduction="none")
    frame_loss = ((frame * frame_weight).sum((1, 2)) / frame_weight.sum((1, 2)).clamp_min(1)).mean()
    return track_loss + 0.5 * frame_loss


def learning_rate(step: int, config: TrainConfig) -> float:
    """Warm-up over 200 steps, then cosine to a twentieth of the peak; the second phase starts at a third of the peak."""
    if step < config.steps:
        peak, share = config.learning_rate * min(1.0, (step + 1) / 200), step / config.steps
    else:
        peak, share = config.learning_rate / 3, min(1.0, (step - config.steps) / max(1, config.fine_steps))
    return peak * (0.05 + 0.475 * (1 + math.cos(math.pi * share)))


@dataclass
class State:
    """What a checkpoint holds besides tensors."""

    step: int = 0
    seconds: float = 0.0


def save_checkpoint(path: Path, model: TrajectoryTransformer, average: dict[str, Tensor], optimiser: torch.optim.Optimizer,
                    state: State) -> None:  # fmt: skip
    """Write plain tensors and numbers, loadable with ``weights_only=True``."""
    content = {
        "model": model.state_dict(),
        "average": average,
        "optimiser": optimiser.state_dict(),
        "step": state.step,
        "seconds": state.seconds,
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def load_checkpoint(path: Path, model: TrajectoryTransformer, optimiser: torch.optim.Optimizer | None
                    ) -> tuple[dict[str, Tensor], State]:  # fmt: skip
    """Continue from a checkpoint; returns the averaged weights and the state.

    Raises:
        SegmotionError: a checkpoint of another model.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    try:
        model.load_state_dict(content["model"])
    except RuntimeError:
        raise SegmotionError(f"{path}: a checkpoint of a model of another shape; choose another --out") from None
    if optimiser is not None:
        optimiser.load_state_dict(content["optimiser"])
    return content["average"], State(content["step"], content["seconds"])


def optimise(
    config: TrainConfig,
    exact: Path,
    tracked: Path,
    checkpoint: Path,
    report: bool = True,
    initial: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Run the optimiser through both phases, from the checkpoint if there is one. Returns the averaged weights.

    Args:
        config: of the training.
        exact: folder of exact clips.
        tracked: folder of tracked clips.
        checkpoint: file to resume from and write to; its curve is written beside it.
        report: print a line now and then.
        initial: weights to begin with; parts of another name or shape begin at random. All do when absent.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    model = TrajectoryTransformer(config.model)
    if initial is not None:
        own = model.state_dict()
        shared = {key: value for key, value in initial.items() if key in own and own[key].shape == value.shape}
        model.load_state_dict(shared, strict=False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.02, betas=(0.9, 0.98))
    average, state = {key: value.clone() for key, value in model.state_dict().items()}, State()
    if checkpoint.exists():
        average, state = load_checkpoint(checkpoint, model, optimiser)
    rng = np.random.default_rng([config.seed, state.step])
    source = ClipPool(exact, tracked, config.tracked_share, rng)
    batches = source.batches(config.batch, config.tracks, config.model.semantic_size, config.seed + state.step)
    last = config.steps + config.fine_steps
    curve_path = checkpoint.with_suffix(".csv")
    begun, saved, recent = time.monotonic() - state.seconds, time.monotonic(), []
    model.train()
    while state.step < last:
        source.tracked_share = config.tracked_share if state.step < config.steps else config.fine_tracked_share
        batch = next(batches)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(state.step, config)
        track_logit, frame_logit = model(batch.window, batch.semantics)
        loss = loss_of(track_logit, frame_logit, batch)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        state.step += 1
        decay = min(0.998, 1 - 1 / (state.step + 1))
        with torch.no_grad():
            for key, value in model.state_dict().items():
                average[key].lerp_(value, 1 - decay)
        recent.append(loss.item())
        state.seconds = time.monotonic() - begun
        if len(recent) == 50 or state.step == last:
            with open(curve_path, "a", newline="") as handle:
                csv.writer(handle).writerow([state.step, f"{np.mean(recent):.5f}", f"{state.seconds:.0f}"])
            if report and state.step % 200 == 0:
                print(
                    f"step {state.step}/{last}  loss {np.mean(recent):.4f}  {state.seconds / 60:.1f} min",
                    flush=True,
                )
            recent = []
        if time.monotonic() - saved > 60 * config.checkpoint_minutes or state.step == last:
            save_checkpoint(checkpoint, model, average, optimiser, state)
            saved = time.monotonic()
    return average
