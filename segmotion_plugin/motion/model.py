"""The trajectory transformer: encoder, decoder, and its weights in a safetensors file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import atomic_path
from segmotion_plugin.motion.decoder import TracksDecoder
from segmotion_plugin.motion.encoder import MotionEncoder
from segmotion_plugin.motion.features import (
    GEOMETRY_CHANNELS,
    PAIR_CHANNELS,
    PATCH,
    PATCHES,
    SLOTS,
    TOKEN_CHANNELS,
    WindowTokens,
)

DEFAULT_WEIGHTS = Path(__file__).parent / "weights" / "trajectory_transformer.safetensors"


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a `TrajectoryTransformer`; stored with its weights.

    Attributes:
        width: of the embeddings.
        heads: of every attention.
        hidden: width of the feed-forward parts.
        layers: of the encoder.
        blocks: of the decoder.
        semantic_size: dimensions of the relation features.
        geometry: False blanks the channels that come from fitted models (ablation).
        across_tracks: False leaves out attention across tracks, in encoder and decoder (ablation).
        temporal_encoding: False leaves it out (ablation).
        semantics: "decoder" (after attention), "encoder" (the paper's warning, ablation) or "none".
        depth: False ignores depth (ablation).
    """

    width: int = 64
    heads: int = 4
    hidden: int = 160
    layers: int = 3
    blocks: int = 2
    semantic_size: int = 32
    geometry: bool = True
    across_tracks: bool = True
    temporal_encoding: bool = True
    semantics: str = "decoder"
    depth: bool = True


@dataclass(frozen=True)
class Calibration:
    """Maps raw logits to calibrated ones: ``slope * logit + bias``, for tracks and for frames; found on held-out clips.

    Attributes:
        track_slope: multiplies the track logit after the windows were merged.
        track_bias: added to it.
        frame_slope: the same for frame logits.
        frame_bias: the same for frame logits.
    """

    track_slope: float = 1.0
    track_bias: float = 0.0
    frame_slope: float = 1.0
    frame_bias: float = 0.0


class TrajectoryTransformer(nn.Module):
    """Says for every track of a window whether it moves in the world, and at which frames.

    Permuting the tracks permutes the outputs as long as the same tracks serve as keys; see `forward`.

    Args:
        config: shape.
    """

    def __init__(self, config: ModelConfig = ModelConfig()) -> None:  # noqa: B008 - frozen
        super().__init__()
        self.config = config
        extra = config.semantic_size if config.semantics == "encoder" else 0
        self.encoder = MotionEncoder(
            TOKEN_CHANNELS,
            PATCHES,
            config.width,
            config.heads,
            config.hidden,
            config.layers,
            config.across_tracks,
            config.temporal_encoding,
            extra,
        )
        self.decoder = TracksDecoder(config.width, config.heads, config.hidden, config.blocks, PATCH, config.across_tracks)
        usable = torch.ones(TOKEN_CHANNELS)
        if not config.geometry:
            for slot in range(SLOTS.shape[1]):
                usable[[slot * PAIR_CHANNELS + channel for channel in GEOMETRY_CHANNELS]] = 0
        self.usable: Tensor
        self.register_buffer("usable", usable, persistent=False)

    def forward(self, window: WindowTokens, semantics: Tensor | None = None, keys: int = 512) -> tuple[Tensor, Tensor]:
        """Logits of B windows of N tracks.

        Args:
            window: tokens of the tracks.
            semantics: B×N×S relation features (zeros = unknown), or None.
            keys: the first so many tracks are attended to, so order the tracks at random.

        Returns:
            B×N, moves within the window; B×N×W, moves at the frame.
        """
        depth = window.depth if self.config.depth else None
        extra = None
        if self.config.semantics == "encoder":
            blank = window.position.new_zeros(*window.position.shape[:2], self.config.semantic_size)
            extra = blank if semantics is None else semantics
        encoded = self.encoder(window.tokens * self.usable, window.position, window.visible, depth, keys, extra)
        likeness = semantics if self.config.semantics == "decoder" else None
        return self.decoder(encoded, window.visible, likeness, keys)


def save_weights(path: Path, model: TrajectoryTransformer, calibration: Calibration) -> None:
    """Write the model's tensors, shape and calibration as safetensors."""
    from safetensors.torch import save_file

    metadata = {"config": json.dumps(asdict(model.config)), "calibration": json.dumps(asdict(calibration))}
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, str(temporary), metadata=metadata)


def load_weights(path: Path | None = None, device: str = "cpu") -> tuple[TrajectoryTransformer, Calibration]:
    """Read a model written by `save_weights`; the shipped one when no path is given.

    Raises:
        SegmotionError: no such file, not a safetensors file, or its tensors do not fit this model.
    """
    from safetensors import SafetensorError, safe_open

    path = DEFAULT_WEIGHTS if path is None else Path(path)
    if not path.is_file():
        raise SegmotionError(f"{path}: no weights of the motion model here; train them with 'segmotion train'")
    try:
        with safe_open(str(path), framework="pt") as archive:
            metadata = archive.metadata() or {}
            state = {key: archive.get_tensor(key) for key in archive.keys()}
    except (SafetensorError, OSError) as error:
        raise SegmotionError(f"{path}: not a readable safetensors file ({error})") from None
    try:
        config = ModelConfig(**json.loads(metadata["config"]))
        calibration = Calibration(**json.loads(metadata["calibration"]))
    except (KeyError, TypeError, ValueError):
        raise SegmotionError(f"{path}: not weights of the trajectory transformer (its metadata lacks 'config')") from None
    model = TrajectoryTransformer(config)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    if expected != found:
        key = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))[0]
        raise SegmotionError(f"{path}: tensor '{key}' should have shape {expected.get(key)}, got {found.get(key)}")
    model.load_state_dict(state)
    return model.to(device).eval(), calibration
