"""Tokens of the motion model: what a track does within a window of frames, next to what the rest of the scene does.

A window has `WINDOW` frames; a token covers one track over `PATCH` frames. Every token lists, for frame pairs of several
strides, the displacement and the geometry channels of `geometry.pair_geometry`: in pixels at a reference size, relative to the
pair's median, and relative to the window's median for that stride.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segmotion_plugin.motion.geometry import (
    REFERENCE_DIAGONAL,
    FitOptions,
    masked_median,
    normalise,
    pair_geometry,
)

WINDOW = 24
PATCH = 4
PATCHES = WINDOW // PATCH
PAIR_CHANNELS = 12

# Stride -> starts of its pairs. Long strides see slow motion, short ones tell when it happens.
_STARTS = {1: range(0, 23), 2: range(0, 21, 2), 4: range(0, 20, 2), 8: range(0, 16, 4), 16: range(0, 8, 4)}
PAIRS = [(start, start + stride) for stride, starts in _STARTS.items() for start in starts]


def _slots() -> np.ndarray:
    """PATCHES×S indices into PAIRS (len(PAIRS) = none): which pairs a token lists, in which place."""
    place = {pair: k for k, pair in enumerate(PAIRS)}
    wanted = [(offset, offset + 1) for offset in range(PATCH)]
    wanted += [(0, 2), (2, 4), (0, 4), (2, 6), (0, 8), (-8, 0), (0, 16), (-16, 0)]
    table = [[place.get((PATCH * p + i, PATCH * p + j), len(PAIRS)) for i, j in wanted] for p in range(PATCHES)]
    return np.array(table)


SLOTS = _slots()
TOKEN_CHANNELS = SLOTS.shape[1] * PAIR_CHANNELS + 2 * PATCH
GEOMETRY_CHANNELS = tuple(range(3, PAIR_CHANNELS))
"""The pair channels that come from fitted models (for the ablation); 0 to 2 are validity and displacement."""


@dataclass
class WindowTokens:
    """B windows of N tracks, ready for the model (L = `PATCHES`).

    Attributes:
        tokens: B×N×L×`TOKEN_CHANNELS`.
        position: B×N×L×2, mean visible position per patch, normalised.
        visible: B×N×L bool, seen at all in the patch; hidden tokens are never attended to.
        frame_visible: B×N×`WINDOW` bool.
        depth: B×N×L×3 (level, change over the patch, known) or None.
    """

    tokens: Tensor
    position: Tensor
    visible: Tensor
    frame_visible: Tensor
    depth: Tensor | None = None

    def to(self, device: str | torch.device) -> WindowTokens:
        """The same on another device."""
        depth = None if self.depth is None else self.depth.to(device)
        return WindowTokens(
            self.tokens.to(device),
            self.position.to(device),
            self.visible.to(device),
            self.frame_visible.to(device),
            depth,
        )


def _log(distance: Tensor) -> Tensor:
    """Log distance in reference pixels, about −1.5 to 3."""
    return 0.5 * torch.log(distance + 0.05)


def _signed_log(displacement: Tensor) -> Tensor:
    return torch.asinh(displacement) * 0.5


def _window_median(values: Tensor, valid: Tensor) -> Tensor:
    """Per window and stride, the median over tracks and pairs, spread over the pairs: B×P×1 from B×P×N."""
    out = torch.empty_like(values[..., :1])
    first = 0
    for starts in _STARTS.values():
        last = first + len(starts)
        out[:, first:last, 0] = masked_median(values[:, first:last].flatten(1), valid[:, first:last].flatten(1))[
            :, None
        ]
        first = last
    return out


def window_tokens(
    xy: Tensor,
    visible: Tensor,
    confidence: Tensor,
    size: Tensor,
    options: FitOptions,
    generator: torch.Generator,
    depth: Tensor | None = None,
) -> WindowTokens:
    """Make the tokens of B windows.

    Args:
        xy: B×N×`WINDOW`×2 positions, pixels; anything where not visible.
        visible: B×N×`WINDOW` bool.
        confidence: B×N×`WINDOW` in [0, 1].
        size: B×2, (width, height) of the images, pixels.
        options: effort of the geometric fits; they use the first `options.max_points` tracks, so order tracks at random.
        generator: source of the fits' samples.
        depth: B×N×`WINDOW`, distance of the points along the view up to scale (NaN = unknown), or None.
    """
    batch, count, _ = visible.shape
    seen = visible.unsqueeze(-1)
    place = normalise(torch.where(seen, xy, torch.zeros_like(xy)).float(), size.float())
    place = torch.where(seen, place, torch.zeros_like(place))
    i = torch.tensor([p[0] for p in PAIRS], device=xy.device)
    j = torch.tensor([p[1] for p in PAIRS], device=xy.device)
    valid = (visible[..., i] & visible[..., j]).transpose(1, 2)  # B×P×N
    a, b = place[:, :, i].transpose(1, 2), place[:, :, j].transpose(1, 2)
    fitted = pair_geometry(a.flatten(0, 1), b.flatten(0, 1), valid.flatten(0, 1), options, generator)

    def shaped(values: Tensor) -> Tensor:
        return values.unflatten(0, (batch, len(PAIRS)))

    residual = shaped(fitted.residual)
    first, second = residual.norm(dim=-1), shaped(fitted.second)
    sampson, sampson_second = shaped(fitted.sampson), shaped(fitted.sampson_second)
    displacement = _signed_log((b - a) * (REFERENCE_DIAGONAL / 2))
    pair_median = masked_median(first, valid).unsqueeze(-1)
    channels = torch.stack(
        [
            torch.ones_like(first),
            *displacement.unbind(-1),
            *_signed_log(residual).unbind(-1),
            _log(first),
            _log(first) - _log(pair_median),
            _log(first) - _log(_window_median(first, valid)),
            _log(second),
            _log(sampson),
            _log(sampson) - _log(masked_median(sampson, valid).unsqueeze(-1)),
            _log(sampson_second),
        ],
        dim=-1,
    )
    channels = torch.where(valid.unsqueeze(-1), channels, torch.zeros_like(channels))
    channels = torch.cat([channels, torch.zeros_like(channels[:, :1])], dim=1)  # the pair that does not exist
    slots = torch.as_tensor(SLOTS, device=xy.device)
    listed = channels[:, slots].permute(0, 3, 1, 2, 4).flatten(3)  # B×N×L×(S·12)

    patch_visible = visible.unflatten(-1, (PATCHES, PATCH))
    patch_confidence = torch.where(visible, confidence.float(), torch.zeros_like(confidence, dtype=torch.float32))
    patch_confidence = patch_confidence.unflatten(-1, (PATCHES, PATCH))
    tokens = torch.cat([listed, patch_visible.float(), patch_confidence], dim=-1)
    seen_count = patch_visible.sum(-1, keepdim=True)
    position = place.unflatten(2, (PATCHES, PATCH)).sum(3) / seen_count.clamp_min(1)
    return WindowTokens(
        tokens=tokens,
        position=position,
        visible=patch_visible.any(-1),
        frame_visible=visible,
        depth=None if depth is None else _depth_channels(depth, visible),
    )


def _depth_channels(depth: Tensor, visible: Tensor) -> Tensor:
    """B×N×L×3 from B×N×W depths: log depth against the frame's median, its change over the patch, known."""
    known = visible & torch.isfinite(depth) & (depth > 0)
    log = torch.where(known, depth, torch.ones_like(depth)).float().log()
    median = masked_median(log.transpose(1, 2), known.transpose(1, 2)).unsqueeze(1)
    level = torch.where(known, log - median, torch.zeros_like(log))
    spread = masked_median(level.abs().flatten(1), known.flatten(1)).clamp_min(0.05)[:, None, None]
    level = (level / (2 * spread)).clamp(-4, 4).unflatten(-1, (PATCHES, PATCH))
    patch_known = known.unflatten(-1, (PATCHES, PATCH))
    mean = level.sum(-1) / patch_known.sum(-1).clamp_min(1)
    both = patch_known[..., 0] & patch_known[..., -1]
    change = torch.where(both, level[..., -1] - level[..., 0], torch.zeros_like(mean))
    return torch.stack([mean, 4 * change, patch_known.any(-1).float()], dim=-1)


def relation_features(features: np.ndarray, dimensions: int = 32) -> np.ndarray:
    """Semantic features as the model compares them: centred, reduced by PCA, half whitened.

    The model only sees inner products of these, so any rotation of them, and thus any feature extractor, is as good as another.
    Singular values are taken to the power 1/2 (full whitening would blow up noise, none lets one direction rule); the mean
    square length is 1.

    Args:
        features: N×D, one vector per track; rows with NaN count as unknown and become 0.
        dimensions: size of the result.

    Returns:
        N×`dimensions` float32.
    """
    features = np.asarray(features, dtype=np.float64)
    known = np.isfinite(features).all(axis=1)
    out = np.zeros((len(features), dimensions), np.float32)
    if known.sum() < 2:
        return out
    centred = features[known] - features[known].mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    values, vectors = values[::-1][:dimensions], vectors[:, ::-1][:, :dimensions]
    if values[0] <= 1e-12:
        return out
    projected = centred @ vectors / np.maximum(values, 1e-6 * values[0]) ** 0.25
    projected /= np.sqrt((projected**2).sum(axis=1).mean()) + 1e-12
    out[np.flatnonzero(known), : projected.shape[1]] = projected
    return out
