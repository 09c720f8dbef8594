"""From stored clips to batches: a random window, a tracker's noise, augmentation, targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segmotion_plugin.motion.features import WINDOW, WindowTokens, relation_features, window_tokens
from segmotion_plugin.motion.geometry import FitOptions
from segmotion_plugin.motion.salience import keys_first, unexplained
from segmotion_plugin.training.clips import TrainingClip
from segmotion_plugin.training.noise import tracker_noise

_PROTOTYPE_SIZE = 64
# Own motion of less than this many pixels (at diagonal 1000) over four frames cannot be seen: such tracks carry no loss.
_UNSEEN = 0.3
# Noise is made with more tracks than are kept: the halo needs neighbours.
_NOISE_TRACKS = 800
# In so many exact windows all movers are left out: a static world under a camera that often moves far between frames.
_STILL_SHARE = 0.3
# So many windows take a part of their tracks among those that stand out, as keys are taken at inference.
_SALIENT_SHARE = 0.6
_EVEN_TRACKS = 0.6
# Tracks on a mover weigh (static / its own tracks)^_LIFT, at most _MOST_LIFT: small movers are lost otherwise.
_LIFT, _MOST_LIFT = 0.4, 10.0


@dataclass
class Sample:
    """One window of n tracks, before tokens are made (W = `WINDOW`).

    Attributes:
        size: (width, height).
        xy: n×W×2 float32.
        visible: n×W bool.
        confidence: n×W float32.
        depth: n×W float32 or None.
        semantics: n×S relation features or None.
        moves: n float32 target, moves within the window.
        moving: n×W float32 target, moves at the frame.
        weight: n float32 of the track's loss.
    """

    size: tuple[float, float]
    xy: np.ndarray
    visible: np.ndarray
    confidence: np.ndarray
    depth: np.ndarray | None
    semantics: np.ndarray | None
    moves: np.ndarray
    moving: np.ndarray
    weight: np.ndarray


@dataclass
class Batch:
    """B samples of N tracks each (short ones padded with hidden tracks).

    Attributes:
        window: tokens.
        semantics: B×N×S or None.
        moves: B×N.
        moving: B×N×W.
        weight: B×N, 0 for padding.
    """

    window: WindowTokens
    semantics: Tensor | None
    moves: Tensor
    moving: Tensor
    weight: Tensor


def draw_sample(
    clip: TrainingClip, rng: np.random.Generator, count: int, use_depth: bool, use_semantics: bool, semantic_size: int
) -> Sample | None:
    """A random, augmented window of at most `count` tracks; None when too few tracks are seen in it."""
    frames = clip.visible.shape[1]
    width, height = (float(v) for v in clip.size)
    diagonal = float(np.hypot(width, height))
    still = bool(clip.exact) and rng.random() < _STILL_SHARE
    stride = int(rng.choice([1, 2, 3, 5, 8], p=[0.2] * 5 if still else [0.55, 0.2, 0.2, 0.05, 0]))
    stride = max(1, min(stride, frames // 10))
    columns = min(WINDOW, -(-frames // stride))
    if rng.random() < 0.1:
        columns = int(rng.integers(min(8, columns), columns + 1))
    first = int(rng.integers(0, frames - (columns - 1) * stride))
    picked = first + stride * np.arange(columns)
    xy, visible, depth = clip.xy[:, picked], clip.visible[:, picked], clip.depth[:, picked].astype(np.float32)
    confidence, moving = clip.confidence[:, picked].astype(np.float32), clip.moving[:, picked]
    rows = np.flatnonzero((visible & np.isfinite(xy).all(axis=2)).sum(axis=1) >= 2)
    if still:
        rows = rows[~clip.moving[rows].any(axis=1)]
    rows = rng.permutation(rows)[: max(_NOISE_TRACKS, count) if clip.exact else None]
    if clip.exact:
        start = np.ceil((clip.start[rows] - first) / stride).astype(int)
        noisy = tracker_noise(xy[rows], visible[rows], depth[rows], clip.surface[rows], start, rng, diagonal)
        xy, visible, confidence = noisy.xy, noisy.visible, noisy.confidence
    else:
        xy, visible, confidence = xy[rows], visible[rows], confidence[rows]
    depth, moving = depth[rows], moving[rows] & visible
    xy, visible, (width, height) = _crop(xy, visible, (width, height), rng)
    kept = np.flatnonzero(visible.sum(axis=1) >= 2)
    if len(kept) < 16:
        return None
    kept = rng.permutation(kept)
    if rng.random() < _SALIENT_SHARE:
        score = unexplained(xy[kept], visible[kept], (width, height))
        kept = kept[keys_first(score, np.arange(len(kept)), int(_EVEN_TRACKS * count))]
    kept = kept[:count]
    rows, xy, visible, confidence = rows[kept], xy[kept], visible[kept], confidence[kept]
    depth, moving = depth[kept], moving[kept] & visible
    apparent = np.nan_to_num(clip.apparent[rows][:, picked].astype(np.float32), nan=10.0) * stride
    seen = np.where(visible, apparent, 0).max(axis=1) > _UNSEEN * diagonal / 1000
    moves = moving.any(axis=1)
    if rng.random() < 0.5:
        xy[..., 0] = width - xy[..., 0]
    if rng.random() < 0.1:
        xy[..., 1] = height - xy[..., 1]
    if rng.random() < 0.3:
        xy, visible, confidence, moving, depth = (v[:, ::-1] for v in (xy, visible, confidence, moving, depth))
    return Sample(
        size=(width, height),
        xy=_pad(xy, 0.0),
        visible=_pad(visible, False),
        confidence=_pad(confidence, 0.0),
        depth=_pad(monocular(depth, clip.surface[rows], rng), np.nan) if use_depth else None,
        semantics=_semantics(clip, rows, rng, semantic_size) if use_semantics else None,
        moves=moves.astype(np.float32),
        moving=_pad(moving, False).astype(np.float32),
        weight=(seen | ~moves) * _lift(moves, np.zeros(len(rows), np.int32) if clip.exact else clip.surface[rows]),
    )


def _lift(moves: np.ndarray, group: np.ndarray) -> np.ndarray:
    """n float32 loss weights: 1 for static tracks, more for those of movers (told apart by `group`) that are few."""
    out = np.ones(len(moves), np.float32)
    _, owner, count = np.unique(group[moves], return_inverse=True, return_counts=True)
    out[moves] = np.clip(((~moves).sum() / np.maximum(count, 1)) ** _LIFT, 1.0, _MOST_LIFT)[owner]
    return out


def _crop(
    xy: np.ndarray, visible: np.ndarray, size: tuple[float, float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Zoom into a random part of the image, sometimes with another aspect."""
    width, height = size
    if rng.random() < 0.5:
        return xy.copy(), visible, size
    share = rng.uniform(0.55, 1.0, 2) if rng.random() < 0.3 else np.full(2, rng.uniform(0.55, 1.0))
    extent = share * (width, height)
    corner = rng.random(2) * (np.array([width, height]) - extent)
    moved = xy - corner.astype(np.float32)
    with np.errstate(invalid="ignore"):
        inside = (moved >= 0).all(axis=2) & (moved < extent).all(axis=2)
    return moved, visible & inside, (float(extent[0]), float(extent[1]))


def monocular(depth: np.ndarray, surface: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Depth as a monocular network would tell it: unknown scale and shift of disparity, wrong by surface, time and point."""
    disparity = 1.0 / np.clip(depth, 0.1, 1e4)
    scale = np.median(disparity) + 1e-6
    _, ids = np.unique(surface, return_inverse=True)
    bias = rng.normal(0, rng.uniform(0.02, 0.25), ids.max() + 1)[ids][:, None]
    per_frame = rng.normal(0, 0.05, (1, depth.shape[1]))
    point = rng.normal(0, rng.uniform(0.01, 0.1), depth.shape)
    noisy = disparity / scale * np.exp(bias + per_frame + point) + rng.uniform(0, 0.3)
    return (1.0 / np.maximum(noisy, 1e-3)).astype(np.float32)


def _semantics(clip: TrainingClip, rows: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """Relation features: of the clip's real features, or of random prototypes that all things of a class share."""
    if clip.features.shape[1]:
        return relation_features(clip.features[rows].astype(np.float32), size)
    kinds, kind = np.unique(clip.kind[rows], return_inverse=True)
    surfaces, surface = np.unique(clip.surface[rows], return_inverse=True)
    features = rng.normal(size=(len(kinds), _PROTOTYPE_SIZE))[kind]
    features = features + rng.uniform(0.1, 0.6) * rng.normal(size=(len(surfaces), _PROTOTYPE_SIZE))[surface]
    features += rng.uniform(0.2, 1.2) * rng.normal(size=features.shape)
    # Features are read from coarse cells, so some hold a neighbour's content.
    mixed = rng.random(len(rows)) < 0.15
    other = rng.integers(0, len(rows), int(mixed.sum()))
    features[mixed] += rng.random((len(other), 1)) * (features[other] - features[mixed])
    return relation_features(features, size)


def _pad(values: np.ndarray, fill: float | bool) -> np.ndarray:
    missing = [(0, 0), (0, WINDOW - values.shape[1])] + [(0, 0)] * (values.ndim - 2)
    return np.pad(np.nan_to_num(values, nan=0.0) if values.ndim == 3 else values, missing, constant_values=fill)


def collate(samples: list[Sample], options: FitOptions, generator: torch.Generator) -> Batch:
    """Tokens and targets of samples that agree on having depth and semantics."""
    longest = max(len(s.moves) for s in samples)

    def stacked(name: str) -> Tensor:
        parts = []
        for sample in samples:
            value = getattr(sample, name)
            parts.append(np.pad(value, [(0, longest - len(value))] + [(0, 0)] * (value.ndim - 1)))
        return torch.from_numpy(np.ascontiguousarray(np.stack(parts)))

    window = window_tokens(
        stacked("xy"),
        stacked("visible"),
        stacked("confidence"),
        torch.tensor([s.size for s in samples], dtype=torch.float32),
        options,
        generator,
        stacked("depth") if samples[0].depth is not None else None,
    )
    return Batch(
        window=window,
        semantics=stacked("semantics") if samples[0].semantics is not None else None,
        moves=stacked("moves"),
        moving=stacked("moving"),
        weight=stacked("weight"),
    )
