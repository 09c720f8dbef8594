"""Attention and the blocks of the SegAnyMo network, named as in the released checkpoint."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CPU_HEAD_WIDTH = 16
"""Heads narrower than one vector register are padded to this width on the CPU: the kernel is 1.6 times faster so."""

TRACK_CHUNK = 256
"""Tracks whose channels and temporal attention are computed at once; bounds the memory beside the tokens."""


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, fused: bool = True) -> Tensor:
    """Scaled dot-product attention.

    Args:
        query: B×H×Q×D.
        key: B×H×K×D.
        value: B×H×K×D.
        mask: boolean, broadcastable to B×H×Q×K, True where a key may be attended to.
        fused: False keeps the B×H×Q×K matrix of weights, as a plain implementation does (for comparison only).

    Returns:
        B×H×Q×D.
    """
    width = query.shape[-1]
    if not fused:
        scores = query @ key.transpose(-1, -2) / width**0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return torch.softmax(scores, dim=-1) @ value
    pad = CPU_HEAD_WIDTH - width if query.device.type == "cpu" and width < CPU_HEAD_WIDTH else 0
    if pad:
        query, key, value = (F.pad(tensor, (0, pad)) for tensor in (query, key, value))
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=width**-0.5)
    return out[..., :width] if pad else out


class Attention(nn.Module):
    """Multi-head attention with the parameter names of ``torch.nn.MultiheadAttention``."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.fused = True
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor, memory: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        """Attend from ``x`` (B×Q×C) to ``memory`` (B×K×C, default ``x``); ``keep`` (B×K) is True at usable keys."""
        q, k, v = self._project(x, x if memory is None else memory)
        out = attend(q, k, v, None if keep is None else keep[:, None, None, :], self.fused)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def across(self, x: Tensor, keep: Tensor) -> Tensor:
        """Self-attention over the first axis of ``x`` (N×L×C), frame by frame; ``keep`` is N×L.

        Hidden tracks are left out of the keys rather than masked: the sum is the same and there is less of it.
        """
        out = torch.empty_like(x)
        for frame in range(x.shape[1]):
            tokens = x[:, frame].unsqueeze(0)  # 1×N×C
            visible = keep[:, frame]
            out[:, frame] = self.forward(tokens, tokens if bool(visible.all()) else tokens[:, visible])[0]
        return out

    def _project(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        sources = (x, memory, memory)
        q, k, v = (
            F.linear(source, weight, bias).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for source, weight, bias in zip(sources, weights, biases, strict=True)
        )
        return q, k, v


class TrajectoryLayer(nn.Module):
    """One layer of the motion encoder: the same self-attention weights first along time, then across tracks.

    With ``cross`` it is a layer of the transformer's second half, which then attends along time to a memory.
    The order of the norms (the one after the second attention is ``norm3`` or ``norm4``) is the checkpoint's.
    """

    def __init__(self, dim: int, heads: int, hidden: int, cross: bool) -> None:
        super().__init__()
        self.self_attn = Attention(dim, heads)
        if cross:
            self.multihead_attn = Attention(dim, heads)
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        if cross:
            self.norm4 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, keep: Tensor, memory: Tensor | None = None) -> Tensor:
        """Map tokens ``x`` (N×L×C) given ``keep`` (N×L, True where visible) and, when crossing, ``memory`` (N×L×C)."""
        x = by_tracks(lambda p: self.norm1(x[p] + self.self_attn(x[p], keep=keep[p])), x)
        across = self.self_attn.across(x, keep)
        if memory is None:
            return by_tracks(lambda p: self._close(self.norm3(x[p] + across[p]), self.norm2), x)
        return by_tracks(lambda p: self._close_crossing(self.norm4(x[p] + across[p]), memory[p]), x)

    def _close_crossing(self, x: Tensor, memory: Tensor) -> Tensor:
        return self._close(self.norm2(x + self.multihead_attn(x, memory)), self.norm3)

    def _close(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        return norm(x + self.linear2(F.relu(self.linear1(x))))


def by_tracks(function: Callable[[slice], Tensor], like: Tensor) -> Tensor:
    """Apply a function that treats tracks independently to some of them at a time; the result has the shape of `like`."""
    out = torch.empty_like(like)
    for start in range(0, len(like), TRACK_CHUNK):
        part = slice(start, start + TRACK_CHUNK)
        out[part] = function(part)
    return out


class TrajectoryStack(nn.Module):
    """Layers followed by a norm: one half of the motion encoder's transformer."""

    def __init__(self, dim: int, heads: int, hidden: int, depth: int, cross: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TrajectoryLayer(dim, heads, hidden, cross) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, keep: Tensor, memory: Tensor | None = None) -> Tensor:
        """Map tokens N×L×C to N×L×C."""
        for layer in self.layers:
            x = layer(x, keep, memory)
        return self.norm(x)


class TrajectoryTransformer(nn.Module):
    """The two halves of the motion encoder's transformer, both fed with the same tokens."""

    def __init__(self, dim: int = 16, heads: int = 4, hidden: int = 64, depth: int = 2) -> None:
        super().__init__()
        self.encoder = TrajectoryStack(dim, heads, hidden, depth, cross=False)
        self.decoder = TrajectoryStack(dim, heads, hidden, depth, cross=True)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """Map tokens N×L×C to N×L×C; ``keep`` (N×L) is True at visible points."""
        return self.decoder(x, keep, self.encoder(x, keep))


class DecoderBlock(nn.Module):
    """A block of the tracks decoder: attention over tracks, then a feed-forward network that may see semantics.

    The two kinds of block differ in the names of their attention, which are those of the checkpoint.
    """

    def __init__(self, dim: int, heads: int, hidden: int, semantics: int = 0, cross: bool = False) -> None:
        super().__init__()
        if cross:
            self.self_attention = Attention(dim, heads)
            self.cross_attention = Attention(dim, heads)
            self.norm3 = nn.LayerNorm(dim)
        else:
            self.attention = Attention(dim, heads)
        self.ffn = nn.Sequential(nn.Linear(dim + semantics, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.cross = cross

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Map tokens 1×N×C; ``other`` is the semantics 1×N×S, or the memory 1×N×C of a crossing block."""
        if self.cross:
            x = self.norm1(x + self.self_attention(x))
            x = self.norm2(x + self.cross_attention(x, other))
            return self.norm3(x + self.ffn(x))
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.ffn(torch.cat((x, other), dim=-1)))
