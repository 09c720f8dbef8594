"""SAM 2.1 (Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024) through the package `sam2`.

The wheel `rf-sam-2` installs it; it lacks the compiled hole filling of the original, which is left out here.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segmotion_plugin.densify.sam2_frames import STALE, NormalisedFrames, passes, resized
from segmotion_plugin.densify.segmenter import MaskPrompt
from segmotion_plugin.devices import inference, resolve_device
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.weights import announce, file_of, load_into

_CONFIGS = {"tiny": "t", "small": "s", "base-plus": "b+", "large": "l"}
# What the publishers' video predictor sets beside the file of the model, without the hole filling.
_OVERRIDES = [
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_delta=0.05",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=0.98",
    "++model.binarize_mask_from_pts_for_mem_enc=true",
]
# Frames whose features are kept for clicks.
_CACHED_FRAMES = 4


class Sam2Package:
    """A `SAM2VideoPredictor` behind the `Segmenter` protocol.

    Frames are read when they are needed and forgotten after; memory does not grow with the length of the clip.

    Args:
        model: the predictor.
        device: name of the device.
    """

    def __init__(self, model: Any, device: str = "auto") -> None:
        self.device = resolve_device(device)
        self.model = model.to(self.device).eval()
        self.frames: Sequence[np.ndarray] = []
        self._clicked: OrderedDict[int, Any] = OrderedDict()

    @classmethod
    def load(
        cls, size: str = "large", *, weights: str | Path | None = None, weights_dir: str | Path | None = None, device: str = "auto"
    ) -> Sam2Package:
        """Load published weights of SAM 2.1.

        Args:
            size: tiny, small, base-plus or large.
            weights: a checkpoint of that size; otherwise the published one is found or downloaded.
            weights_dir: folder to look for it first.
            device: name of the device.

        Raises:
            SegmotionError: the package or the weights are missing, or there is no such device.
        """
        resolve_device(device)
        model = build_model(size)
        path = Path(weights) if weights is not None else file_of(f"sam2.1-{size}", weights_dir)
        load_into(model, path, f"SAM 2.1 ({size})", key="model")
        if weights is None:
            announce(f"sam2.1-{size}")
        return cls(model, device)

    def open(self, frames: Sequence[np.ndarray]) -> None:
        """As `Segmenter.open`."""
        self.frames = frames
        self._clicked.clear()

    def click(self, frame: int, xy: np.ndarray, positive: np.ndarray) -> np.ndarray:
        """As `Segmenter.click`: of the three masks for a single point the one that the model rates best."""
        from sam2.sam2_image_predictor import SAM2ImagePredictor

        with inference(self.device, wide=True):
            if frame not in self._clicked:
                predictor = SAM2ImagePredictor(self.model)
                # It assumes an input of 1024 pixels; a model built for another size has other feature maps.
                predictor._bb_feat_sizes = [(self.model.image_size // stride,) * 2 for stride in (4, 8, 16)]
                predictor.set_image(np.ascontiguousarray(self.frames[frame]))
                self._clicked[frame] = predictor
                while len(self._clicked) > _CACHED_FRAMES:
                    self._clicked.popitem(last=False)
            # The model adds half of its own pixels to every point.
            height, width = self.frames[frame].shape[:2]
            shift = 0.5 * np.array([width, height], np.float32) / self.model.image_size
            masks, scores, _ = self._clicked[frame].predict(
                np.asarray(xy, np.float32) - shift, np.asarray(positive, np.int32), multimask_output=len(xy) == 1
            )
        return masks[int(np.argmax(scores))] > 0

    def propagate(self, prompts: Sequence[MaskPrompt], start: int, stop: int) -> Iterator[tuple[int, dict[int, np.ndarray]]]:
        """As `Segmenter.propagate`: forward from the earliest prompt, then backward from it."""
        inside = [prompt for prompt in prompts if start <= prompt.frame < stop]
        if not inside:
            return
        # What clicks have cached is not needed any more, and the propagation wants the memory.
        self._clicked.clear()
        height, width = self.frames[start].shape[:2]
        frames = NormalisedFrames(self.frames, start, stop, self.model.image_size)
        with inference(self.device, wide=True), _lazy_video(frames, height, width):
            state = self.model.init_state("", offload_video_to_cpu=True)
            for prompt in inside:
                self.model.add_new_mask(state, prompt.frame - start, prompt.object_id, np.ascontiguousarray(prompt.dynamic, bool))
        for first, reverse in passes([prompt.frame - start for prompt in inside]):
            steps = self.model.propagate_in_video(state, start_frame_idx=first, reverse=reverse)
            while True:
                # Not `with` around a `yield`: the mode would leak to whoever reads the masks.
                with inference(self.device, wide=True), _quiet():
                    item = next(steps, None)
                if item is None:
                    break
                frame, ids, logits = item
                if reverse and frame == first:
                    continue
                scores = logits[:, 0].float().cpu().numpy()
                _forget(state, frame)
                yield frame + start, {int(k): resized(score, height, width) for k, score in zip(ids, scores, strict=True)}


def build_model(size: str = "large", overrides: Sequence[str] = ()) -> Any:
    """A SAM 2.1 video predictor with random weights; `overrides` are those of hydra.

    Raises:
        SegmotionError: the package `sam2` is missing, or there is no such size.
    """
    if size not in _CONFIGS:
        raise SegmotionError(f"SAM 2.1 comes in {', '.join(_CONFIGS)}; there is no '{size}'")
    try:
        from sam2.build_sam import build_sam2_video_predictor
    except ImportError:
        raise SegmotionError("SAM 2.1 needs the package sam2: pip install rf-sam-2 (or '.[foundation]')") from None
    config = f"configs/sam2.1/sam2.1_hiera_{_CONFIGS[size]}.yaml"
    return build_sam2_video_predictor(
        config, None, device="cpu", apply_postprocessing=False, hydra_overrides_extra=[*_OVERRIDES, *overrides]
    )


@contextlib.contextmanager
def _lazy_video(frames: NormalisedFrames, height: int, width: int) -> Iterator[None]:
    """Let `init_state` see frames that are read one at a time, where it would decode a whole video into memory."""
    from sam2 import sam2_video_predictor as module

    original = module.load_video_frames
    module.load_video_frames = lambda **_: (frames, height, width)
    try:
        yield
    finally:
        module.load_video_frames = original


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the predictor's own progress bar."""
    from sam2 import sam2_video_predictor as module

    original = module.tqdm
    module.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        module.tqdm = original


def _forget(state: dict[str, Any], frame: int) -> None:
    """Drop memories that the model cannot look back to any more; those of prompted frames stay."""
    for outputs in state["output_dict_per_obj"].values():
        memories = outputs["non_cond_frame_outputs"]
        for old in [t for t in memories if abs(t - frame) > STALE]:
            del memories[old]
