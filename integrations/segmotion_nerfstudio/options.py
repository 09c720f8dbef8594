"""The flags that `--motion-mask` brings to `ns-process-data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.settings import MaskSettings


@dataclass
class MotionMaskOptions:
    """Flags of the motion masks; mixed into nerfstudio's own dataclasses."""

    motion_mask: bool = False
    """Find what moves in the world, keep it out of the reconstruction, and write a mask for every frame."""
    motion_mask_preset: Literal["auto", "builtin", "foundation", "seganymo"] = "auto"
    """Models that find the motion. auto takes foundation where CUDA and the weights are at hand, otherwise builtin
    (nothing is downloaded)."""
    motion_mask_classifier: Literal["auto", "transformer", "geometric", "seganymo"] = "auto"
    """What tells moving tracks from static ones. auto is the preset's."""
    motion_mask_method: Literal["auto", "graph-cut", "sam2", "sam2-transformers", "none"] = "auto"
    """How tracks become pixels. none finds nothing by itself, so that only the masks of --motion-mask-extra count."""
    motion_mask_sensitivity: float = 0.5
    """Between 0 and 1: higher masks more (what moves weakly too), lower masks less."""
    motion_mask_dilate: float | None = None
    """Pixels by which masks are grown around what moves. By default 0.5 % of the longer image side."""
    motion_mask_extra: Path | None = None
    """Folder with masks of your own (black is left out), named like the frames or the source images. They are combined with
    the motion masks."""
    motion_mask_order: Literal["auto", "sequence", "unordered"] = "auto"
    """Whether the images follow each other in time. auto looks whether neighbours show the same picture moved a little.
    Videos always do."""
    motion_mask_device: str = "auto"
    """auto, cpu or cuda."""
    motion_mask_weights_dir: Path | None = None
    """Folder with weight files placed by hand."""
    motion_mask_tracker_source: Path | None = None
    """Local checkout of the tracker's repository, where the preset needs one (seganymo: google-deepmind/tapnet)."""
    motion_mask_tracker_weights: Path | None = None
    """Weight file of the tracker."""
    motion_mask_seed: int = 0
    """Seed of everything random in the motion masks."""

    def mask_settings(self, target_frames: int | None = None, unordered: bool = False) -> MaskSettings:
        """The settings of the mask pipeline. Extra masks are left out: they are joined by the names of the dataset."""
        settings = MaskSettings(
            preset=self.motion_mask_preset,
            motion=self.motion_mask_classifier,
            masks=self.motion_mask_method,
            sensitivity=self.motion_mask_sensitivity,
            dilate=self.motion_mask_dilate,
            target_frames=target_frames,
            unordered=unordered,
            device=self.motion_mask_device,
            weights_dir=self.motion_mask_weights_dir,
            tracker_source=self.motion_mask_tracker_source,
            tracker_weights=self.motion_mask_tracker_weights,
            seed=self.motion_mask_seed,
        )
        try:
            settings.check()
        except SegmotionError as error:
            raise SegmotionError(str(error).replace("--", "--motion-mask-", 1)) from None
        if self.motion_mask_extra is not None and not self.motion_mask_extra.is_dir():
            raise SegmotionError(f"{self.motion_mask_extra}: no such folder (--motion-mask-extra)")
        return settings
