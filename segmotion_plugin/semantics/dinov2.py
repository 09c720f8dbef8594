"""DINOv2 features (Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023) through transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from segmotion_plugin.devices import in_chunks, inference, resolve_device
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.pretrained import load_pretrained
from segmotion_plugin.weights import announce, folder_of

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class DinoV2:
    """Patch tokens after the last layer, D channels at a stride of 14 pixels.

    Args:
        model: a transformers `Dinov2Model`.
        device: name of the device.
        long_side: pixels of the longer image side inside the model.
    """

    nearest = False

    def __init__(self, model: Any, device: str = "auto", long_side: int = 672, name: str = "dinov2-small") -> None:
        self.device = resolve_device(device)
        self.model = model.to(self.device).eval()
        self.patch = int(model.config.patch_size)
        self.long_side, self.name = long_side, name

    @classmethod
    def load(cls, name: str = "dinov2-small", *, weights_dir: str | Path | None = None, device: str = "auto") -> DinoV2:
        """Load published weights.

        Raises:
            SegmotionError: transformers is missing, the weights are, or there is no such device.
        """
        return cls(load_model(name, weights_dir, device), device, name=name)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """As `Semantics`: h×w×D float32."""
        height, width = frame.shape[:2]
        factor = self.long_side / max(height, width)
        rows, columns = (max(1, round(side * factor / self.patch)) for side in (height, width))
        pixels = prepared(frame, rows * self.patch, columns * self.patch, self.device)

        def run(_: slice) -> np.ndarray:
            with inference(self.device):
                tokens = self.model(pixel_values=pixels).last_hidden_state
            return tokens[0, -rows * columns :].reshape(rows, columns, -1).float().cpu().numpy()

        return in_chunks(run, 1, 1, self.name)[0]


class SegAnyMoFeatures:
    """The features that the released SegAnyMo network was trained on, for ViT-B/14.

    They are the keys of the last block's attention, with the patches taken at a stride of 7 pixels instead of 14. Channel
    c = d * heads + head for dimension d of a head. The cell under a point is read, not interpolated.

    Args:
        model: a transformers `Dinov2Model` (ViT-B/14 for the released weights).
        device: name of the device.
    """

    name = "dinov2-base-keys"
    nearest = True
    stride = 7

    def __init__(self, model: Any, device: str = "auto") -> None:
        self.device = resolve_device(device)
        self.model = model.to(self.device).eval()
        self.patch, self.heads = int(model.config.patch_size), int(model.config.num_attention_heads)
        self.last = list(self.model.encoder.layer)[-1]
        # The name of the projection has changed between versions of transformers.
        found = [module for name, module in self.last.attention.named_modules() if name.split(".")[-1] in ("key", "k_proj")]
        if len(found) != 1:
            raise SegmotionError("this version of transformers names the keys of DINOv2's attention in a way that is not known here")
        self.key = found[0]

    @classmethod
    def load(cls, *, weights_dir: str | Path | None = None, device: str = "auto") -> SegAnyMoFeatures:
        """Load DINOv2 ViT-B/14.

        Raises:
            SegmotionError: transformers is missing, the weights are, or there is no such device.
        """
        return cls(load_model("dinov2-base", weights_dir, device), device)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """As `Semantics`: h×w×D float32, rounded to half precision as the authors' files are."""
        return in_chunks(lambda _: self._keys(frame), 1, 1, self.name)[0]

    def _keys(self, frame: np.ndarray) -> np.ndarray:
        import torch
        import torch.nn.functional as F

        # Up to the next multiple of the patch size.
        height, width = (-(-side // self.patch) * self.patch for side in frame.shape[:2])
        pixels = prepared(frame, height, width, self.device)
        keys: list[torch.Tensor] = []
        hook = self.key.register_forward_hook(lambda _module, _inputs, output: keys.append(output))
        try:
            with inference(self.device):
                embeddings = self.model.embeddings
                projection = embeddings.patch_embeddings.projection
                tokens = F.conv2d(pixels, projection.weight, projection.bias, stride=self.stride)
                rows, columns = tokens.shape[2:]
                tokens = torch.cat((embeddings.cls_token, tokens.flatten(2).transpose(1, 2)), dim=1)
                tokens = tokens + interpolated_positions(embeddings.position_embeddings, rows, columns)
                for layer in self.model.encoder.layer:
                    output = layer(tokens)
                    tokens = output[0] if isinstance(output, tuple) else output
        finally:
            hook.remove()
        grid = keys[-1][0, 1:].float().reshape(rows, columns, self.heads, -1).transpose(2, 3).flatten(2)
        return grid.cpu().numpy().astype(np.float16).astype(np.float32)


def interpolated_positions(positions: Any, rows: int, columns: int) -> Any:
    """Position embeddings 1×(1+S·S)×D resampled to a grid: 1×(1+rows·columns)×D.

    A tenth of a cell is added to the factor, as DINO's code does; the values differ slightly without it.
    """
    import torch
    import torch.nn.functional as F

    side = round((positions.shape[1] - 1) ** 0.5)
    grid = positions[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    factor = ((rows + 0.1) / side, (columns + 0.1) / side)
    grid = F.interpolate(grid, scale_factor=factor, mode="bicubic", align_corners=False, recompute_scale_factor=False)
    return torch.cat((positions[:, :1], grid.flatten(2).transpose(1, 2)), dim=1)


def prepared(frame: np.ndarray, height: int, width: int, device: Any) -> Any:
    """A frame H×W×3 uint8 as a normalised tensor 1×3×height×width."""
    import torch
    import torch.nn.functional as F

    pixels = torch.from_numpy(np.array(frame)).to(device).permute(2, 0, 1)[None].float() / 255
    if pixels.shape[2:] != (height, width):
        pixels = F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False, antialias=True)
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    return (pixels - mean) / std


def load_model(name: str, weights_dir: str | Path | None, device: str) -> Any:
    """A `Dinov2Model` of the catalogue.

    Raises:
        SegmotionError: transformers is missing, the weights are, or there is no such device.
    """
    resolve_device(device)
    model = load_pretrained("Dinov2Model", folder_of(name, weights_dir), "DINOv2")
    announce(name)
    return model
