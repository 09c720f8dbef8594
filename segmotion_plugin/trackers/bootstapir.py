"""BootsTAPIR (Doersch et al., "BootsTAP: Bootstrapped Training for Tracking-Any-Point", 2024), the tracker of the SegAnyMo paper.

The PyTorch port is taken from a local checkout of google-deepmind/tapnet (Apache-2.0); it is not on PyPI without JAX.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from segmotion_plugin.devices import chunk_size, in_chunks, inference, resolve_device
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.trackers.base import PointTracks
from segmotion_plugin.weights import announce, file_of, load_into

# The resolution that the model was trained at; both sides.
RESOLUTION = 256
_BYTES_PER_OBSERVATION = 40_000
# Points whose cost volumes are computed at once, the default of the model's own forward pass; it ranges over the points in such steps.
_QUERY_CHUNK = 64


class BootsTAPIR:
    """BootsTAPIR behind the `WindowTracker` protocol.

    Args:
        model: `TAPIR(pyramid_level=1)` of tapnet's `torch/tapir_model.py`.
        device: name of the device.
        half: half precision on CUDA.
    """

    name = "bootstapir"
    window = 100

    def __init__(self, model: Any, device: str = "auto", half: bool = True) -> None:
        self.device = resolve_device(device)
        self.model = model.to(self.device).eval()
        self.half = half

    @classmethod
    def load(
        cls,
        *,
        source: str | Path | None,
        weights: str | Path | None = None,
        weights_dir: str | Path | None = None,
        device: str = "auto",
    ) -> BootsTAPIR:
        """Build the model from a checkout of tapnet and load its weights.

        Raises:
            SegmotionError: no checkout, a package that it needs is missing, no or wrong weights, or no such device.
        """
        resolve_device(device)
        model = build_model(source)
        path = Path(weights) if weights is not None else file_of("bootstapir", weights_dir)
        load_into(model, path, "BootsTAPIR v2")
        announce("bootstapir")
        return cls(model, device)

    def track_points(self, frames: np.ndarray, queries: np.ndarray) -> PointTracks:
        """As `WindowTracker.track_points`. The pyramid of features is computed once for all points."""
        import cv2
        import torch

        height, width = frames.shape[1:3]
        scale = np.array([RESOLUTION / width, RESOLUTION / height], np.float32)
        small = np.stack([cv2.resize(frame, (RESOLUTION, RESOLUTION), interpolation=cv2.INTER_AREA) for frame in frames])
        video = torch.from_numpy(small).to(self.device)[None].float() / 255 * 2 - 1  # 1×T×256×256×3
        # The model's raster begins at the corner of the first pixel, as ours does.
        points = np.stack([queries[:, 0], queries[:, 2] * scale[1], queries[:, 1] * scale[0]], axis=1).astype(np.float32)
        asked = torch.from_numpy(points).to(self.device)[None]  # 1×N×3 as (t, y, x)
        with inference(self.device, self.half):
            grids = self.model.get_feature_grids(video, False)

        def run(part: slice) -> tuple[np.ndarray, ...]:
            with inference(self.device, self.half):
                features = self.model.get_query_features(video, False, asked[:, part], grids)
                out = self.model.estimate_trajectories(video.shape[-3:-1], False, grids, features, asked[:, part], _QUERY_CHUNK)
                every = self.model.num_pips_iter
                # The estimates after each pass over the resolutions are averaged, as in the model's own forward pass.
                found = (
                    torch.stack(out[name][every::every]).float().mean(dim=0)[0] for name in ("tracks", "occlusion", "expected_dist")
                )
                tracks, occlusion, distance = found
                return tuple(t.cpu().numpy() for t in (tracks, 1 - torch.sigmoid(occlusion), 1 - torch.sigmoid(distance)))

        size = chunk_size(self.device, _BYTES_PER_OBSERVATION * len(frames), min(256, len(queries)))
        parts = in_chunks(run, len(queries), size, "BootsTAPIR")
        xy, visibility, confidence = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        xy = (xy / scale).astype(np.float32)
        rows, at = np.arange(len(queries)), queries[:, 0].astype(np.int64)
        xy[rows, at] = queries[:, 1:]
        visible = visibility * confidence > 0.5
        # What is neither surely visible nor surely hidden has no confidence (the paper's reading of the two outputs).
        settled = visible | ((1 - visibility) * confidence > 0.5)
        return PointTracks(xy, visible, visibility, np.where(settled, confidence, np.float32(0)))


def checkout(source: str | Path | None) -> Path:
    """The folder of a local checkout of tapnet.

    Raises:
        SegmotionError: none was given, or it is none.
    """
    clone = "git clone https://github.com/google-deepmind/tapnet (Apache-2.0)"
    if source is None:
        raise SegmotionError(f"bootstapir needs a local checkout of tapnet: {clone}, then --tracker-source FOLDER")
    folder = Path(source)
    if not (folder / "tapnet" / "torch" / "tapir_model.py").is_file():
        raise SegmotionError(f"{folder}: no checkout of tapnet (there is no tapnet/torch/tapir_model.py); {clone}")
    return folder


def build_model(source: str | Path | None) -> Any:
    """The network of a tapnet checkout, with random weights.

    Raises:
        SegmotionError: no such checkout, or a package it needs is missing.
    """
    folder = checkout(source)
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("tapnet.torch.tapir_model").TAPIR(pyramid_level=1)
    except ImportError as error:
        raise SegmotionError(
            f"{folder}: tapnet needs a package that is not installed ({error}); try pip install dm-tree einshape"
        ) from None
    finally:
        sys.path.remove(str(folder))
