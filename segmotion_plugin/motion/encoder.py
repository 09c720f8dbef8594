"""Motion encoder: attention along time within each track, and across tracks within each time patch, in turn.

Follows the spatio-temporal trajectory attention of "Segment Any Motion in Videos" (CVPR 2025), with a temporal encoding,
separate weights for the two directions, and hidden points masked as keys in both.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention by the fused kernel: no map of queries × keys is kept.

    Args:
        width: of the embedding.
        heads: number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, keys: Tensor, key_mask: Tensor) -> Tensor:
        """Attend from x (B×Q×D) to keys (B×K×D); key_mask B×K is True where a key may be used."""
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(keys).chunk(2, dim=-1)
        key = key.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        value = value.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=usable_mask(key_mask)[:, None, None])
        return self.out(mixed.transpose(1, 2).flatten(2))


def usable_mask(key_mask: Tensor) -> Tensor:
    """The mask as it is, but all True in rows without any key (softmax over nothing is NaN; those outputs are not used)."""
    return key_mask | ~key_mask.any(-1, keepdim=True)


class FeedForward(nn.Sequential):
    """Two layers with GELU between."""

    def __init__(self, width: int, hidden: int, inputs: int | None = None) -> None:
        super().__init__(nn.Linear(inputs or width, hidden), nn.GELU(), nn.Linear(hidden, width))


def fourier(values: Tensor, octaves: int) -> Tensor:
    """sin and cos of π·2^k·values, k = 0 … octaves−1: …×C -> …×(2·octaves·C)."""
    frequency = math.pi * 2.0 ** torch.arange(octaves, device=values.device, dtype=values.dtype)
    angle = (values.unsqueeze(-1) * frequency).flatten(-2)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class EncoderLayer(nn.Module):
    """Attention along time, attention across tracks, feed-forward; each with a residual and norm before."""

    def __init__(self, width: int, heads: int, hidden: int, across: bool = True) -> None:
        super().__init__()
        self.time_norm, self.time = nn.LayerNorm(width), Attention(width, heads)
        self.track_norm = nn.LayerNorm(width) if across else None
        self.track = Attention(width, heads) if across else None
        self.feed_norm, self.feed = nn.LayerNorm(width), FeedForward(width, hidden)

    def forward(self, x: Tensor, visible: Tensor, keys: int) -> Tensor:
        """x B×N×L×D, visible B×N×L, the first `keys` tracks are attended to -> B×N×L×D."""
        batch, count, patches, _ = x.shape
        flat = self.time_norm(x).flatten(0, 1)
        x = x + self.time(flat, flat, visible.flatten(0, 1)).view_as(x)
        if self.track is not None and self.track_norm is not None:
            by_time = self.track_norm(x).transpose(1, 2).flatten(0, 1)  # (B·L)×N×D
            mask = visible.transpose(1, 2).flatten(0, 1)
            mixed = self.track(by_time, by_time[:, :keys], mask[:, :keys])
            x = x + mixed.view(batch, patches, count, -1).transpose(1, 2)
        return x + self.feed(self.feed_norm(x))


class MotionEncoder(nn.Module):
    """Tokens to embeddings.

    Args:
        channels: of a token.
        patches: L.
        width: D.
        heads: of every attention.
        hidden: width of the feed-forward parts.
        layers: number of layers.
        across_tracks: False leaves out the attention across tracks (ablation).
        temporal_encoding: False leaves out the encoding of time (ablation).
        extra: further channels per track given to the encoder (ablation: semantics fed here); 0 for none.
    """

    _OCTAVES = 4

    def __init__(
        self,
        channels: int,
        patches: int,
        width: int,
        heads: int,
        hidden: int,
        layers: int,
        across_tracks: bool = True,
        temporal_encoding: bool = True,
        extra: int = 0,
    ) -> None:
        super().__init__()
        inputs = channels + 2 + 4 * self._OCTAVES + extra
        self.embed = nn.Sequential(nn.Linear(inputs, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.depth = nn.Linear(3, width)
        self.depth_absent = nn.Parameter(torch.zeros(width))
        self.time = nn.Parameter(torch.randn(patches, width) * 0.1) if temporal_encoding else None
        self.layers = nn.ModuleList(EncoderLayer(width, heads, hidden, across_tracks) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        tokens: Tensor,
        position: Tensor,
        visible: Tensor,
        depth: Tensor | None,
        keys: int,
        extra: Tensor | None = None,
    ) -> Tensor:
        """B×N×L×C tokens -> B×N×L×D.

        Args:
            tokens: B×N×L×C.
            position: B×N×L×2, normalised.
            visible: B×N×L bool.
            depth: B×N×L×3, or None where not known.
            keys: the first so many tracks are attended to.
            extra: B×N×E, only with the `extra` option.
        """
        parts = [tokens, position, fourier(position, self._OCTAVES)]
        if extra is not None:
            parts.append(extra.unsqueeze(2).expand(-1, -1, tokens.shape[2], -1))
        x = self.embed(torch.cat(parts, dim=-1))
        if depth is None:
            x = x + self.depth_absent
        else:
            x = x + torch.where(depth[..., 2:] > 0, self.depth(depth), self.depth_absent)
        if self.time is not None:
            x = x + self.time
        for layer in self.layers:
            x = layer(x, visible, keys)
        return self.norm(x)
