"""nerfacto and splatfacto with metrics over static pixels, and a pipeline with a place for the viewer panel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from nerfstudio.models.nerfacto import NerfactoModel, NerfactoModelConfig
from nerfstudio.models.splatfacto import SplatfactoModel, SplatfactoModelConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig

from segmotion_nerfstudio.checkpoints import allow_checkpoint_types
from segmotion_nerfstudio.metrics import OptionalLpips, masked_metrics

allow_checkpoint_types()


@contextmanager
def _optional_lpips() -> Iterator[None]:
    """nerfstudio's models import LPIPS while they are built; let them find the optional one meanwhile."""
    from torchmetrics.image import lpip

    real = lpip.LearnedPerceptualImagePatchSimilarity
    OptionalLpips.kind = real
    lpip.LearnedPerceptualImagePatchSimilarity = OptionalLpips  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        lpip.LearnedPerceptualImagePatchSimilarity = real  # type: ignore[misc]


class _MaskedEvaluation:
    """Replaces the image metrics of a model by those over kept pixels; whole-image ones stay as `*_all`."""

    lpips: Any

    def populate_modules(self) -> None:
        """Build the model; LPIPS is left out where its network cannot be had."""
        with _optional_lpips():
            super().populate_modules()  # type: ignore[misc]

    def get_image_metrics_and_images(
        self, outputs: dict[str, torch.Tensor], batch: dict[str, torch.Tensor]
    ) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        """Metrics and pictures of one evaluation image.

        Returns:
            psnr, ssim, lpips over the pixels that the batch's mask keeps, the same over the whole image as psnr_all …, the share
            of kept pixels as `kept`; and nerfstudio's pictures.
        """
        whole, pictures = super().get_image_metrics_and_images(outputs, batch)  # type: ignore[misc]
        truth, predicted = pictures["img"].chunk(2, dim=1)  # both models put them side by side
        kept = masked_metrics(truth, predicted, batch.get("mask"), self.lpips.metric)
        result = dict(kept)
        for name, value in whole.items():
            if name != "lpips" or self.lpips.metric is not None:
                result[f"{name}_all"] = value
        return result, pictures


@dataclass
class SegmotionNerfactoModelConfig(NerfactoModelConfig):
    """nerfacto with metrics over static pixels."""

    _target: type = field(default_factory=lambda: SegmotionNerfactoModel)


class SegmotionNerfactoModel(_MaskedEvaluation, NerfactoModel):
    """nerfacto with metrics over static pixels."""


@dataclass
class SegmotionSplatfactoModelConfig(SplatfactoModelConfig):
    """splatfacto with metrics over static pixels."""

    _target: type = field(default_factory=lambda: SegmotionSplatfactoModel)


class SegmotionSplatfactoModel(_MaskedEvaluation, SplatfactoModel):
    """splatfacto with metrics over static pixels."""


@dataclass
class SegmotionPipelineConfig(VanillaPipelineConfig):
    """nerfstudio's pipeline with the motion panel in its viewer."""

    _target: type = field(default_factory=lambda: SegmotionPipeline)


class SegmotionPipeline(VanillaPipeline):
    """nerfstudio's pipeline with the motion panel: its viewer gathers controls from attributes of the pipeline whose names do not
    begin with `_`."""

    def __init__(self, config: SegmotionPipelineConfig, *arguments: Any, **named: Any) -> None:
        super().__init__(config, *arguments, **named)
        from segmotion_nerfstudio.panel import motion_panel

        self.motion_panel = motion_panel(self)
