"""Tracks decoder with motion-semantic decoupling.

Two streams run side by side. The motion stream alone makes queries and keys; the fused stream reads, with those same attention
weights, values, semantic features, and what the motion stream knows. So semantics never decide who attends to whom (Segment Any
Motion in Videos, section 3.3). They enter as relations: inner products of a track's own feature with the mean feature each
head gathered. Relations do not change when all features are rotated, so no class is learned, only likeness.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmotion_plugin.motion.encoder import FeedForward, usable_mask


class DecoderBlock(nn.Module):
    """One block of both streams.

    Args:
        width: D of both streams.
        heads: number of heads.
        hidden: width of the feed-forward parts.
        across: False leaves every track to itself (ablation).
    """

    def __init__(self, width: int, heads: int, hidden: int, across: bool = True) -> None:
        super().__init__()
        self.heads, self.across = heads, across
        self.motion_norm, self.fused_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.motion_value, self.fused_value = nn.Linear(width, width), nn.Linear(width, width)
        self.motion_out, self.fused_out = nn.Linear(width, width), nn.Linear(width, width)
        self.motion_feed_norm, self.motion_feed = nn.LayerNorm(width), FeedForward(width, hidden)
        self.relation = nn.Linear(2 * heads, width)
        self.relation_absent = nn.Parameter(torch.zeros(width))
        self.fused_feed_norm = nn.LayerNorm(2 * width)
        self.fused_feed = FeedForward(width, hidden, inputs=3 * width)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def query_key(self, motion: Tensor, keys: int) -> tuple[Tensor, Tensor]:
        """Queries B×H×N×d and keys B×H×K×d; functions of the motion stream only."""
        x = self.motion_norm(motion)
        return self._split(self.query(x)), self._split(self.key(x[:, :keys]))

    def forward(self, motion: Tensor, fused: Tensor, semantics: Tensor | None, mask: Tensor, keys: int) -> tuple[Tensor, Tensor]:
        """Both streams, B×N×D each, after this block.

        Args:
            motion: B×N×D.
            fused: B×N×D.
            semantics: B×N×S relation features (all zeros = unknown), or None.
            mask: B×N, tracks that may be attended to.
            keys: the first so many tracks are attended to.
        """
        keys = keys if self.across else motion.shape[1]
        query, key = self.query_key(motion, keys)
        normed, fused_normed = self.motion_norm(motion)[:, :keys], self.fused_norm(fused)[:, :keys]
        values = [self._split(self.motion_value(normed)), self._split(self.fused_value(fused_normed))]
        head_width = values[0].shape[-1]
        if semantics is not None:
            values.append(semantics[:, None, :keys].expand(-1, self.heads, -1, -1))
        mixed = torch.cat(values, dim=-1)
        if self.across:
            attention_mask = usable_mask(mask[:, :keys])[:, None, None]
            # The fused kernel wants queries as wide as values; zeros add nothing to their products with keys.
            wider = (0, mixed.shape[-1] - query.shape[-1])
            query, key, scale = F.pad(query, wider), F.pad(key, wider), query.shape[-1] ** -0.5
            mixed = F.scaled_dot_product_attention(query, key, mixed, attn_mask=attention_mask, scale=scale)
        gathered_motion = mixed[..., :head_width].transpose(1, 2).flatten(2)
        gathered_fused = mixed[..., head_width : 2 * head_width].transpose(1, 2).flatten(2)
        if semantics is None:
            relation = self.relation_absent.expand_as(fused)
        else:
            mean = mixed[..., 2 * head_width :]  # B×H×N×S
            own = semantics.unsqueeze(1)
            likeness = torch.cat([(own * mean).sum(-1), mean.square().sum(-1)], dim=1).transpose(1, 2)
            known = semantics.square().sum(-1, keepdim=True) > 0
            relation = torch.where(known, self.relation(likeness), self.relation_absent)
        motion = motion + self.motion_out(gathered_motion)
        motion = motion + self.motion_feed(self.motion_feed_norm(motion))
        fused = fused + self.fused_out(gathered_fused)
        inputs = torch.cat([self.fused_feed_norm(torch.cat([fused, motion], dim=-1)), relation], dim=-1)
        return motion, fused + self.fused_feed(inputs)


class TracksDecoder(nn.Module):
    """Embeddings of tracks to logits.

    Args:
        width: D.
        heads: of the attention.
        hidden: width of the feed-forward parts.
        blocks: number of blocks.
        frames: frames per token, each with its own logit.
        across: False leaves every track to itself (ablation).
    """

    def __init__(self, width: int, heads: int, hidden: int, blocks: int, frames: int, across: bool = True) -> None:
        super().__init__()
        self.pool = nn.Linear(2 * width + 1, width)
        self.blocks = nn.ModuleList(DecoderBlock(width, heads, hidden, across) for _ in range(blocks))
        self.track_head = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, 1))
        self.token_part, self.track_part = nn.Linear(width, width), nn.Linear(2 * width, width)
        self.frame_head = nn.Linear(width, frames)

    def embed(self, encoded: Tensor, visible: Tensor) -> Tensor:
        """Pool B×N×L×D over the visible patches -> B×N×D."""
        shown = visible.unsqueeze(-1)
        highest = encoded.masked_fill(~shown, -1e4).amax(2)
        highest = torch.where(shown.any(2), highest, torch.zeros_like(highest))
        count = shown.sum(2)
        mean = (encoded * shown).sum(2) / count.clamp_min(1)
        return self.pool(torch.cat([highest, mean, count / visible.shape[-1]], dim=-1))

    def forward(self, encoded: Tensor, visible: Tensor, semantics: Tensor | None, keys: int) -> tuple[Tensor, Tensor]:
        """Logits B×N (moves in the window) and B×N×(L·frames) (moves at the frame).

        Args:
            encoded: B×N×L×D from the encoder.
            visible: B×N×L bool.
            semantics: B×N×S relation features, or None.
            keys: the first so many tracks are attended to.
        """
        motion = self.embed(encoded, visible)
        fused = motion
        mask = visible.any(-1)
        for block in self.blocks:
            motion, fused = block(motion, fused, semantics, mask, keys)
        both = torch.cat([fused, motion], dim=-1)
        track = self.track_head(both).squeeze(-1)
        frame = self.frame_head(F.gelu(self.token_part(encoded) + self.track_part(both).unsqueeze(2)))
        return track, frame.flatten(2)
