"""Depth Anything V2 (Yang et al., NeurIPS 2024) through transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from segmotion_plugin.devices import chunk_size, in_chunks, inference, resolve_device
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.pretrained import load_pretrained
from segmotion_plugin.weights import CATALOGUE, announce, folder_of

PATCH = 14
SHORT_SIDE = 518  # what the model was trained at
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class DepthAnything:
    """Depth Anything behind the `DepthModel` protocol: affine-invariant disparity.

    Args:
        model: a `DepthAnythingForDepthEstimation`.
        device: name of the device.
        short_side: pixels of the shorter image side inside the model.
        name: as on the command line.
    """

    def __init__(self, model: Any, device: str = "auto", short_side: int = SHORT_SIDE, name: str = "depth-anything-v2-small") -> None:
        self.device = resolve_device(device)
        self.model = model.to(self.device).eval()
        self.short_side, self.name = short_side, name

    @classmethod
    def load(
        cls, name: str = "depth-anything-v2-small", *, weights_dir: str | Path | None = None, device: str = "auto"
    ) -> DepthAnything:
        """Load published weights: a name of the catalogue, or a folder with config.json and model.safetensors.

        Raises:
            SegmotionError: transformers is missing, the weights are, or there is no such device.
        """
        resolve_device(device)
        known = [key for key, weights in CATALOGUE.items() if weights.purpose == "depth"]
        if name not in known and not Path(name).is_dir():
            raise SegmotionError(
                f"no depth model is called '{name}'; known are {', '.join(known)}, or give a folder with a transformers model"
            )
        folder = folder_of(name, weights_dir) if name in known else Path(name)
        model = load_pretrained("DepthAnythingForDepthEstimation", folder, "Depth Anything")
        if name in known:
            announce(name)
        return cls(model, device, name=name)

    def predict(self, frames: np.ndarray) -> np.ndarray:
        """Disparity t×H×W float32 of frames t×H×W×3 uint8 RGB, batched as the memory allows."""
        import torch
        import torch.nn.functional as F

        height, width = frames.shape[1:3]
        inner = inner_size(height, width, self.short_side)
        mean, std = (torch.tensor(values, device=self.device).view(1, 3, 1, 1) for values in (_MEAN, _STD))

        def run(part: slice) -> np.ndarray:
            images = torch.from_numpy(np.ascontiguousarray(frames[part])).to(self.device).permute(0, 3, 1, 2).float() / 255
            images = F.interpolate(images, inner, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
            with inference(self.device):
                disparity = self.model(pixel_values=(images - mean) / std).predicted_depth.float()
            disparity = F.interpolate(disparity[:, None], (height, width), mode="bicubic", align_corners=False)[:, 0]
            return disparity.cpu().numpy()

        # About 40 activations of the width of the image per pixel, measured on the small model.
        size = chunk_size(self.device, inner[0] * inner[1] * 4 * 400, min(8, len(frames)))
        return np.concatenate(in_chunks(run, len(frames), size, self.name))


def inner_size(height: int, width: int, short_side: int = SHORT_SIDE) -> tuple[int, int]:
    """Height and width inside the model: the shorter side as given, both multiples of the patch size, aspect ratio kept."""
    factor = short_side / min(height, width)
    return max(PATCH, round(height * factor / PATCH) * PATCH), max(PATCH, round(width * factor / PATCH) * PATCH)
