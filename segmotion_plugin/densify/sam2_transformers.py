"""SAM 2.1 (Ravi et al., 2024) through the `Sam2VideoModel` of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segmotion_plugin.densify.sam2_frames import STALE, NormalisedFrames, passes, resized
from segmotion_plugin.densify.segmenter import MaskPrompt
from segmotion_plugin.devices import inference, resolve_device
from segmotion_plugin.pretrained import load_pretrained
from segmotion_plugin.weights import announce, folder_of

_CACHED_FRAMES = 4


class Sam2Transformers:
    """A `Sam2VideoModel` behind the `Segmenter` protocol.

    Frames are read when they are needed and forgotten after; memory does not grow with the length of the clip.

    Args:
        model: the model.
        device: name of the device.
    """

    def __init__(self, model: Any, device: str = "auto") -> None:
        self.device = resolve_device(device)
        self.model = model.to(self.device).eval()
        size = model.config.prompt_encoder_config.image_size
        self.size = int(size if isinstance(size, int) else size[0])
        self.frames: Sequence[np.ndarray] = []
        self._session: Any = None

    @classmethod
    def load(
        cls, name: str = "sam2.1-large-transformers", *, weights_dir: str | Path | None = None, device: str = "auto"
    ) -> Sam2Transformers:
        """Load published weights, or a folder with a transformers model.

        Raises:
            SegmotionError: transformers is missing or too old, the weights are missing, or there is no such device.
        """
        resolve_device(device)
        local = Path(name).is_dir()
        folder = Path(name) if local else folder_of(name, weights_dir)
        model = load_pretrained("Sam2VideoModel", folder, "SAM 2.1")
        if not local:
            announce(name)
        return cls(model, device)

    def open(self, frames: Sequence[np.ndarray]) -> None:
        """As `Segmenter.open`."""
        self.frames = frames
        self._session = None

    def _new_session(self, start: int, stop: int, cached: int) -> Any:
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        height, width = self.frames[start].shape[:2]
        session = Sam2VideoInferenceSession(
            None, height, width, self.device, self.device, "cpu", self.model.dtype, max_vision_features_cache_size=cached
        )
        # The session only asks for the number of frames and for one at a time.
        session.processed_frames = NormalisedFrames(self.frames, start, stop, self.size)  # type: ignore[assignment]
        return session

    def click(self, frame: int, xy: np.ndarray, positive: np.ndarray) -> np.ndarray:
        """As `Segmenter.click`: of the three masks for a single point the one that the model rates best."""
        import torch

        if self._session is None:
            self._session = self._new_session(0, len(self.frames), _CACHED_FRAMES)
        session = self._session
        session.reset_tracking_data()
        height, width = self.frames[frame].shape[:2]
        # The model adds half of its own pixels to every point.
        points = torch.as_tensor(np.asarray(xy, np.float32)) * torch.tensor([self.size / width, self.size / height]) - 0.5
        labels = torch.as_tensor(np.asarray(positive, np.int32))
        index = session.obj_id_to_idx(1)
        session.add_point_inputs(index, frame, {"point_coords": points[None, None], "point_labels": labels[None, None]})
        session.obj_with_new_inputs = [1]
        with inference(self.device, wide=True):
            logits = self.model(session, frame_idx=frame, run_mem_encoder=False).pred_masks
        return resized(logits[0, 0].float().cpu().numpy(), height, width) > 0

    def propagate(self, prompts: Sequence[MaskPrompt], start: int, stop: int) -> Iterator[tuple[int, dict[int, np.ndarray]]]:
        """As `Segmenter.propagate`: forward from the earliest prompt, then backward from it."""
        inside = [prompt for prompt in prompts if start <= prompt.frame < stop]
        if not inside:
            return
        self._session = None
        session = self._new_session(start, stop, 1)
        height, width = self.frames[start].shape[:2]
        for at in sorted({prompt.frame for prompt in inside}):
            here = [prompt for prompt in inside if prompt.frame == at]
            self._give(session, at - start, here)
        for first, reverse in passes([prompt.frame - start for prompt in inside]):
            order = range(first - 1, -1, -1) if reverse else range(first, stop - start)
            for frame in order:
                with inference(self.device, wide=True):
                    output = self.model(session, frame_idx=frame, reverse=reverse)
                scores = output.pred_masks[:, 0].float().cpu().numpy()
                _forget(session, frame)
                yield frame + start, {int(k): resized(s, height, width) for k, s in zip(output.object_ids, scores, strict=True)}

    def _give(self, session: Any, frame: int, prompts: Sequence[MaskPrompt]) -> None:
        """Give the masks of one frame to the model and let it remember them.

        Objects get their place in the session with their first prompt: the model cannot run one that has none yet.
        """
        import torch
        import torch.nn.functional as F

        for prompt in prompts:
            mask = torch.from_numpy(np.ascontiguousarray(prompt.dynamic)).float()[None, None].to(self.device)
            mask = (F.interpolate(mask, (self.size, self.size), mode="bilinear", align_corners=False, antialias=True) >= 0.5).float()
            index = session.obj_id_to_idx(prompt.object_id)
            session.add_mask_inputs(index, frame, mask)
        session.obj_with_new_inputs = [prompt.object_id for prompt in prompts]
        with inference(self.device, wide=True):
            self.model(session, frame_idx=frame)


def _forget(session: Any, frame: int) -> None:
    """Drop memories that the model cannot look back to any more; those of prompted frames stay."""
    for outputs in session.output_dict_per_obj.values():
        memories = outputs["non_cond_frame_outputs"]
        for old in [t for t in memories if abs(t - frame) > STALE]:
            del memories[old]
