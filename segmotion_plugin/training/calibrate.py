"""Held-out clips: calibration of the merged logits, and scores of classifiers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from segmotion_plugin.evaluation.tracks import track_scores
from segmotion_plugin.motion.classifier import merged_logits
from segmotion_plugin.motion.model import Calibration, TrajectoryTransformer
from segmotion_plugin.tracks import Tracks
from segmotion_plugin.training.clips import TrainingClip

_SMOOTHING = 0.02


@dataclass
class LabelledClip:
    """Tracks with known truth.

    Attributes:
        name: of the clip; clips of one kind share what stands before the last slash.
        tracks: N tracks.
        size: (width, height).
        truth: N ints, > 0 on movers, -1 unknown.
        moving: M bool, moving at the frame, by observation.
        features: N×D semantic features or None.
        depth: M depths by observation or None.
    """

    name: str
    tracks: Tracks
    size: tuple[int, int]
    truth: np.ndarray
    moving: np.ndarray | None
    features: np.ndarray | None = None
    depth: np.ndarray | None = None

    @classmethod
    def from_training(cls, path: Path) -> LabelledClip:
        """A stored tracked clip as a test clip."""
        return cls.from_clip(path.stem, TrainingClip.load(path))

    @classmethod
    def from_clip(cls, name: str, clip: TrainingClip) -> LabelledClip:
        """A tracked clip as a test clip."""
        tracks = Tracks.from_dense(clip.xy, clip.visible, clip.confidence.astype(np.float32), clip.start)
        at = (tracks.track_flat, tracks.frame_flat)
        return cls(
            name=name,
            tracks=tracks,
            size=(int(clip.size[0]), int(clip.size[1])),
            truth=np.any(clip.moving, axis=1).astype(np.int32),
            moving=clip.moving[at],
            features=clip.features.astype(np.float32) if clip.features.shape[1] else None,
            depth=clip.depth[at].astype(np.float32),
        )


Scorer = Callable[[LabelledClip], np.ndarray]


def scores(clips: Iterable[LabelledClip], scorer: Scorer, threshold: float = 0.5) -> dict[str, dict[str, float]]:
    """`evaluation.tracks.track_scores` of a scorer (clip -> N scores), by clip."""
    return {clip.name: track_scores(scorer(clip), clip.truth, threshold) for clip in clips}


def averages(table: dict[str, dict[str, float]]) -> dict[str, float]:
    """Mean over clips with movers of AUC, F1 and best F1; over the others, the share of tracks called moving."""
    moving = [row for row in table.values() if row["tracks_on_movers"] > 0]
    still = [row for row in table.values() if row["tracks_on_movers"] == 0]
    out = {
        key: float(np.nanmean([row[key] for row in moving]))
        for key in ("track_AUC", "track_F1", "track_best_F1")
        if moving
    }
    if still:
        out["static_called_moving"] = float(np.mean([row["tracks_called_moving"] for row in still]))
    return out


def calibrate(model: TrajectoryTransformer, clips: list[LabelledClip], seed: int = 0) -> Calibration:
    """Slope and bias for both outputs by logistic regression on merged logits of held-out clips.

    Half of the clips are judged with semantic features, half without; every clip weighs the same.
    """
    track_part, frame_part = [], []
    for number, clip in enumerate(clips):
        features = clip.features if number % 2 else None
        track, frame = merged_logits(model, clip.tracks, clip.size, features=features, seed=seed)
        known = clip.truth >= 0
        positive = clip.truth[known] > 0
        track_part.append((track[known], positive, np.full(len(positive), 1 / max(1, len(positive)))))
        if clip.moving is not None:
            frame_part.append((frame, clip.moving, np.full(len(frame), 1 / max(1, len(frame)))))
    track_slope, track_bias = _logistic(track_part)
    frame_slope, frame_bias = _logistic(frame_part) if frame_part else (1.0, 0.0)
    return Calibration(track_slope, track_bias, frame_slope, frame_bias)


def _logistic(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Weighted logistic regression of one variable, smoothed targets; the slope stays positive."""
    x, y, w = (torch.from_numpy(np.concatenate(part).astype(np.float64)) for part in zip(*parts, strict=True))
    y = y * (1 - 2 * _SMOOTHING) + _SMOOTHING
    parameters = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([parameters], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        logit = parameters[0].exp() * x + parameters[1]
        loss = (torch.nn.functional.binary_cross_entropy_with_logits(logit, y, reduction="none") * w).sum() / w.sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    slope, bias = parameters.detach().tolist()
    return float(np.exp(slope)), float(bias)
