"""CoTracker3 (Karaev et al., "CoTracker3: Simpler and Better Point Tracking by Pseudo-Labelling Real Videos", 2024).

Code and weights are CC-BY-NC-4.0, so nothing of them is part of this package: the code comes from a local checkout, from an installed
package `cotracker`, or through `torch.hub` at a pinned commit; the weights are loaded here, never by that code.
"""

from __future__ import annotations

import os
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np

from segmotion_plugin.devices import chunk_size, in_chunks, inference, resolve_device
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.trackers.base import PointTracks
from segmotion_plugin.weights import announce, file_of, load_into

REPOSITORY = "facebookresearch/co-tracker"
COMMIT = "82e02e8029753ad4ef13cf06be7f4fc5facdda4d"
# Memory per point and frame inside the model: four levels of 49 x 49 correlations in single precision, and copies of them.
_BYTES_PER_OBSERVATION = 4 * 49 * 49 * 4 * 3


class CoTracker3:
    """CoTracker3 behind the `WindowTracker` protocol.

    Args:
        predictor: what the repository's hub entry `cotracker3_offline` or `cotracker3_online` returns: called with a video
            1×T×3×H×W float 0..255 and queries 1×N×3 as (t, x, y), it gives tracks 1×T×N×2 and visibility 1×T×N.
        online: the predictor is the online one, which takes the video in chunks and tracks forward only.
        device: name of the device.
        half: half precision on CUDA.
    """

    def __init__(self, predictor: Any, online: bool = False, device: str = "auto", half: bool = True) -> None:
        self.device = resolve_device(device)
        self.predictor = predictor.to(self.device).eval()
        self.online, self.half = online, half
        self.name = "cotracker3-online" if online else "cotracker3"
        self.window = 240 if online else 60  # the offline model was trained on up to 60 frames
        self._chunk = 10**9

    @classmethod
    def load(
        cls,
        online: bool = False,
        *,
        source: str | Path | None = None,
        weights: str | Path | None = None,
        weights_dir: str | Path | None = None,
        device: str = "auto",
    ) -> CoTracker3:
        """Build the model and load its weights.

        Args:
            online: the online model.
            source: a local checkout of facebookresearch/co-tracker; otherwise an installed `cotracker`, otherwise torch.hub.
            weights: a file of weights; otherwise the published ones are found or downloaded.
            weights_dir: folder to look for them first.
            device: name of the device.

        Raises:
            SegmotionError: no code, no weights, wrong weights, or no such device.
        """
        resolve_device(device)
        key = "cotracker3-online" if online else "cotracker3-offline"
        path = Path(weights) if weights is not None else file_of(key, weights_dir)
        predictor = build_predictor(online, source)
        load_into(getattr(predictor, "model", predictor), path, "CoTracker3 (" + ("online" if online else "offline") + ")")
        announce(key)
        return cls(predictor, online, device)

    def track_points(self, frames: np.ndarray, queries: np.ndarray) -> PointTracks:
        """As `WindowTracker.track_points`. Points are tracked in chunks that fit the memory; features are computed once."""
        import torch

        count, length = len(queries), len(frames)
        video = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device).permute(0, 3, 1, 2)[None].float()
        asked = torch.from_numpy(queries.astype(np.float32)).to(self.device)[None].clone()
        asked[..., 1:] -= 0.5  # the model counts pixels from the centre of the first
        memory = _Remembered.attach(self.predictor)

        def run(part: slice) -> tuple[np.ndarray, np.ndarray]:
            memory.rewind()
            with inference(self.device, self.half):
                follow = self._online if self.online else self._offline
                xy, seen = follow(video, asked[:, part])
            seen = seen[..., 0] if seen.ndim == 4 else seen
            return xy[0].float().cpu().numpy().transpose(1, 0, 2), seen[0].float().cpu().numpy().T

        try:
            size = chunk_size(self.device, _BYTES_PER_OBSERVATION * length, min(count, self._chunk))
            parts = in_chunks(run, count, size, "CoTracker3")
        finally:
            memory.detach()
        self._chunk = max(len(part[0]) for part in parts)
        xy = np.concatenate([part[0] for part in parts]) + np.float32(0.5)
        seen = np.concatenate([part[1] for part in parts])
        if self.online:
            xy[np.arange(length)[None] < queries[:, :1]] = np.nan
        visible = (seen > 0.5) & np.isfinite(xy).all(axis=2)
        return PointTracks(xy, visible, seen, seen)

    def _offline(self, video: Any, queries: Any) -> tuple[Any, Any]:
        return self.predictor(video, queries=queries)

    def _online(self, video: Any, queries: Any) -> tuple[Any, Any]:
        step, length = self.predictor.step, video.shape[1]
        self.predictor(video_chunk=video[:, : 2 * step], is_first_step=True, queries=queries)
        found = None
        for begin in range(0, max(1, length - step), step):
            found = self.predictor(video_chunk=video[:, begin : begin + 2 * step])
        assert found is not None  # the range has at least one element
        return found


class _Remembered:
    """Keeps the features of a video while its points are tracked chunk by chunk.

    The network computes them from the video alone, in the same order for every chunk, so the first chunk's are replayed.
    """

    def __init__(self, model: Any | None) -> None:
        self.model = model
        self.features: list[Any] = []
        self.next = 0
        if model is not None:
            self.compute = model.fnet.forward
            model.fnet.forward = self._forward

    @classmethod
    def attach(cls, predictor: Any) -> _Remembered:
        model = getattr(predictor, "model", None)
        return cls(model if hasattr(model, "fnet") else None)

    def _forward(self, images: Any) -> Any:
        if self.next == len(self.features):
            self.features.append(self.compute(images))
        self.next += 1
        return self.features[self.next - 1]

    def rewind(self) -> None:
        self.next = 0

    def detach(self) -> None:
        if self.model is not None:
            del self.model.fnet.forward
        self.features.clear()


def cached_code(hub: str | Path) -> Path:
    """Where `torch.hub` keeps the pinned commit."""
    return Path(hub) / f"{REPOSITORY.replace('/', '_')}_{COMMIT}"


def checkout(source: str | Path) -> Path:
    """The folder of a local checkout.

    Raises:
        SegmotionError: it is none.
    """
    folder = Path(source)
    if not (folder / "hubconf.py").is_file():
        raise SegmotionError(f"{folder}: no checkout of {REPOSITORY} (there is no hubconf.py); give its top folder (--tracker-source)")
    return folder


def build_predictor(online: bool = False, source: str | Path | None = None) -> Any:
    """The repository's predictor with random weights.

    Raises:
        SegmotionError: the code cannot be found or had.
    """
    import torch

    entry = "cotracker3_online" if online else "cotracker3_offline"
    if source is not None:
        return torch.hub.load(str(checkout(source)), entry, source="local", pretrained=False)
    try:
        from cotracker import predictor as installed  # type: ignore[import-not-found]
    except ImportError:
        pass
    else:
        if online:
            return installed.CoTrackerOnlinePredictor(checkpoint=None, window_len=16, v2=False)
        return installed.CoTrackerPredictor(checkpoint=None, window_len=60, v2=False)
    cached = cached_code(torch.hub.get_dir())
    by_hand = f"By hand: git clone https://github.com/{REPOSITORY} (CC-BY-NC-4.0), then --tracker-source FOLDER."
    if not cached.is_dir() and os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}:
        raise SegmotionError(f"the code of CoTracker3 is not here, and HF_HUB_OFFLINE forbids the download.\n{by_hand}")
    try:
        return torch.hub.load(f"{REPOSITORY}:{COMMIT}", entry, pretrained=False, trust_repo=True, skip_validation=True, verbose=False)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise SegmotionError(f"the code of CoTracker3 could not be had through torch.hub ({error}).\n{by_hand}") from None
