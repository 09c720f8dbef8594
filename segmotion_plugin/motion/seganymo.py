"""The network of "Segment Any Motion in Videos" (SegAnyMo, Huang et al., CVPR 2025, arXiv 2503.22268).

A second motion classifier beside the package's own: parameter for parameter the one whose weights the authors released,
so that their checkpoint loads unchanged. Only the attention differs: it is computed by one fused kernel that never keeps
an N x N matrix, which takes 5,000 tracks of 100 frames from tens of gigabytes to a few hundred megabytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.motion.seganymo_layers import TRACK_CHUNK, Attention, DecoderBlock, TrajectoryTransformer

ArrayLike: TypeAlias = "np.ndarray | Tensor"

NUM_OCTAVES = 10
"""Octaves 2^0 .. 2^9 of the frequency encoding (no factor of pi)."""


class SegAnyMoOutput(NamedTuple):
    """Outputs of the three stages of the network for N tracks of L frames."""

    augmented: Tensor  # 1×88×N×L, per-observation input channels
    encoded: Tensor  # 1×16×N, motion embedding after pooling over time
    probability: Tensor  # 1×1×N, probability that the track is dynamic


class MotionEncoder(nn.Module):
    """Spatio-temporal trajectory attention (section 3.2 of the paper), pooled by the maximum over time."""

    def __init__(self, channels: int = 88, dim: int = 16) -> None:
        super().__init__()
        self.input_fc1 = nn.Conv2d(channels, dim, 1)
        self.fc2 = nn.Conv2d(dim, dim, 1)
        self.transformer_model = TrajectoryTransformer(dim)

    def tokens(self, augmented: Tensor) -> Tensor:
        """Map channels 1×88×N×L to tokens N×L×16."""
        return F.relu(self.fc2(F.relu(self.input_fc1(augmented))))[0].permute(1, 2, 0).contiguous()

    def forward(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Map tokens N×L×16 and hidden flags N×L to an embedding 1×16×N."""
        hidden = hidden.clone()
        # A track that is never visible keeps its first frame as a key, a frame without visible tracks keeps them all:
        # a softmax over nothing has no value. The first rule is the authors'; for the second their code has what torch makes of it:
        # 2.14 gives finite values or NaN, depending on the kind of attention and on gradients and batch_first.
        hidden[hidden.all(dim=1), 0] = False
        hidden[:, hidden.all(dim=0)] = False
        return self.transformer_model(tokens, ~hidden).amax(dim=1).T[None]


class _Embedding(nn.Module):
    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(channels, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.embedding(x)


class TracksDecoder(nn.Module):
    """Motion-semantic decoupled embedding (section 3.3): semantics enter only after attention, at the feed-forward."""

    def __init__(self, motion: int = 16, semantics: int = 768, dim: int = 128, heads: int = 8, depth: int = 4) -> None:
        super().__init__()
        self.embedding = _Embedding(motion, dim)
        self.encoders = nn.ModuleList(DecoderBlock(dim, heads, 512, semantics) for _ in range(depth))
        self.decoders = nn.ModuleList(DecoderBlock(dim, heads, 512, cross=True) for _ in range(depth))
        self.output_layer = nn.Linear(dim, 1)

    def forward(self, encoded: Tensor, dino: Tensor) -> Tensor:
        """Map motion 1×16×N and features 1×768×N×1 to probabilities 1×1×N."""
        motion = self.embedding(encoded.transpose(1, 2))  # 1×N×128
        semantics = dino.squeeze(-1).transpose(1, 2)  # 1×N×768
        memory = motion
        for block in self.encoders:
            memory = block(memory, semantics)
        x = motion
        for block in self.decoders:
            x = block(x, memory)
        return torch.sigmoid(self.output_layer(x)).transpose(1, 2)


class SegAnyMo(nn.Module):
    """The released classifier: 3,443,809 parameters, inference only.

    Args:
        fused: False computes attention plainly, with all its weights in memory (to compare with).
    """

    def __init__(self, fused: bool = True) -> None:
        super().__init__()
        self.joint_encoder = MotionEncoder()
        self.decoder = TracksDecoder()
        for module in self.modules():
            if isinstance(module, Attention):
                module.fused = fused
        self.eval()

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str = "cpu", fused: bool = True) -> SegAnyMo:
        """Load a file ``{'epoch', 'model_state_dict'}`` as the authors' training writes it.

        Raises:
            SegmotionError: The file is missing, damaged, holds code, or belongs to another network.
        """
        from segmotion_plugin.weights import load_into

        model = cls(fused=fused)
        load_into(model, path, "the SegAnyMo network", key="model_state_dict")
        return model.to(device).eval()

    def forward(
        self,
        traj: ArrayLike,
        mask: ArrayLike,
        depth: ArrayLike,
        visib_value: ArrayLike,
        confi_value: ArrayLike,
        dino: ArrayLike,
    ) -> Tensor:
        """Probability 1×1×N that each track is dynamic; the arguments are those of :meth:`outputs`.

        The 88 channels, five times the size of the tokens, are made for some tracks at a time and not kept.
        """
        xy, hidden, disparity, visible, confident, semantics = self._inputs(traj, mask, depth, visib_value, confi_value, dino)
        parts = [slice(start, start + TRACK_CHUNK) for start in range(0, xy.shape[2], TRACK_CHUNK)]
        with torch.no_grad():
            tokens = [
                self.joint_encoder.tokens(augment(xy[:, :, p], hidden[:, :, p], disparity, visible[:, :, p], confident[:, :, p]))
                for p in parts
            ]
            encoded = self.joint_encoder(torch.cat(tokens), hidden[0, 0] > 0.5)
            return self.decoder(encoded, semantics)

    @torch.no_grad()
    def outputs(
        self,
        traj: ArrayLike,
        mask: ArrayLike,
        depth: ArrayLike,
        visib_value: ArrayLike,
        confi_value: ArrayLike,
        dino: ArrayLike,
    ) -> SegAnyMoOutput:
        """Run the network and return the outputs of its three stages.

        Args:
            traj: 1×2×N×L, x and y in [-1, 1] (``x / W * 2 - 1``).
            mask: 1×1×N×L, 1 where the point is hidden.
            depth: 1×1×H×W×L, disparity in [0, 1] per frame.
            visib_value: 1×1×N×L, probability of being visible.
            confi_value: 1×1×N×L, confidence of the tracker.
            dino: 1×768×N×1, DINO features at the query frames.

        Raises:
            SegmotionError: The shapes do not belong together.
        """
        xy, hidden, disparity, visible, confident, semantics = self._inputs(traj, mask, depth, visib_value, confi_value, dino)
        augmented = augment(xy, hidden, disparity, visible, confident)
        encoded = self.joint_encoder(self.joint_encoder.tokens(augmented), hidden[0, 0] > 0.5)
        return SegAnyMoOutput(augmented, encoded, self.decoder(encoded, semantics))

    def _inputs(self, *arrays: ArrayLike) -> list[Tensor]:
        device = self.decoder.output_layer.weight.device
        inputs = [torch.as_tensor(array).to(device, torch.float32) for array in arrays]
        _check_shapes(*inputs)
        return inputs


def augment(traj: Tensor, mask: Tensor, depth: Tensor, visib_value: Tensor, confi_value: Tensor) -> Tensor:
    """Channels 1×88×N×L of every observation, in the order of the released weights.

    These are the frequency encoding of the position (42), that of the displacement to the next frame (42), the depth,
    its change, the visibility and the confidence. A displacement is zero when the later point is hidden and in the last frame.
    """
    disparity = sample_depth(traj, depth)
    seen = 1 - mask[..., 1:]
    step = F.pad((traj[..., 1:] - traj[..., :-1]) * seen, (0, 1))
    change = F.pad((disparity[..., 1:] - disparity[..., :-1]) * seen, (0, 1))
    return torch.cat((encode_frequencies(traj), encode_frequencies(step), disparity, change, visib_value, confi_value), 1)


def encode_frequencies(values: Tensor) -> Tensor:
    """Encode 1×2×N×L as 1×42×N×L: the values, then for each octave the sines of both and the cosines of both."""
    parts = [values]
    for octave in range(NUM_OCTAVES):
        parts += [torch.sin(values * 2.0**octave), torch.cos(values * 2.0**octave)]
    return torch.cat(parts, dim=1)


def sample_depth(traj: Tensor, depth: Tensor) -> Tensor:
    """Depth 1×1×N×L under the tracks, looked up as the authors' code does, mistake included.

    Their look-up treats coordinates in [-1, 1] as if they lay in [0, 1]: the flat index ``int(y H) W + int(x W)``, cut to
    the image. All points of the upper half read pixel 0, and the lower half is read at doubled offsets. The released
    weights were fitted to these values, so they are reproduced exactly; the package's own model reads depth correctly.
    """
    height, width, frames = depth.shape[2:]
    # Truncation toward zero, not rounding down: negative offsets near the centre read from it.
    index = (traj[0, 1] * height).long() * width + (traj[0, 0] * width).long()  # N×L
    index = index.clamp(0, height * width - 1)
    return torch.gather(depth[0, 0].reshape(-1, frames), 0, index)[None, None]


def _check_shapes(traj: Tensor, mask: Tensor, depth: Tensor, visible: Tensor, confident: Tensor, dino: Tensor) -> None:
    if traj.ndim != 4 or traj.shape[:2] != (1, 2):
        raise SegmotionError(f"traj must be 1×2×N×L (one clip at a time), got {tuple(traj.shape)}")
    tracks, frames = traj.shape[2:]
    expected = {
        "mask": (mask, (1, 1, tracks, frames)),
        "visib_value": (visible, (1, 1, tracks, frames)),
        "confi_value": (confident, (1, 1, tracks, frames)),
        "dino": (dino, (1, 768, tracks, 1)),
        "depth": (depth, (1, 1, *depth.shape[2:4], frames)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise SegmotionError(f"{name} must have shape {shape} to fit traj {tuple(traj.shape)}, got {tuple(tensor.shape)}")
