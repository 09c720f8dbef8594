"""Image metrics over the pixels that a mask keeps. nerfstudio's own are over the whole image, movers included."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor


def masked_metrics(truth: Tensor, predicted: Tensor, keep: Tensor | None, lpips: Any = None) -> dict[str, float]:
    """PSNR, SSIM and LPIPS over kept pixels.

    Masked pixels of the prediction are replaced by the truth, so that windows and receptive fields that reach into them see no
    difference there; SSIM and LPIPS are then averaged over the kept pixels of their maps.

    Args:
        truth: H×W×3 in 0..1.
        predicted: H×W×3.
        keep: H×W or H×W×1 bool; None keeps all.
        lpips: torchmetrics' LearnedPerceptualImagePatchSimilarity with normalize=True; None leaves LPIPS out.

    Returns:
        psnr, ssim, kept (share of pixels), and lpips where the network is there. No metrics when nothing is kept.
    """
    from torchmetrics.functional import structural_similarity_index_measure

    mask = torch.ones(truth.shape[:2], dtype=torch.bool, device=truth.device) if keep is None else keep.reshape(truth.shape[:2]).bool()
    mask = mask.to(truth.device)
    kept = float(mask.float().mean())
    if kept == 0.0:
        return {"kept": 0.0}
    predicted = predicted.to(truth.device).clamp(0, 1)
    composed = torch.where(mask[..., None], predicted, truth)
    error = ((composed - truth) ** 2)[mask].mean()
    planes = [x.movedim(-1, 0)[None] for x in (truth, composed)]
    _, similarity = structural_similarity_index_measure(planes[1], planes[0], data_range=1.0, return_full_image=True)
    result = {
        "psnr": float(-10.0 * torch.log10(error.clamp_min(1e-12))),
        "ssim": float(similarity[0].mean(0)[mask].mean()),
        "kept": kept,
    }
    if lpips is not None:
        result["lpips"] = float(_lpips_map(lpips, planes[0], planes[1])[mask].mean())
    return result


def _lpips_map(lpips: Any, truth: Tensor, predicted: Tensor) -> Tensor:
    """H×W map of LPIPS (Zhang et al., CVPR 2018): the layers' distances, each enlarged to the size of the image, summed."""
    network = lpips.net
    spatial = network.spatial
    network.spatial = True
    try:
        with torch.no_grad():
            return network(truth.clamp(0, 1), predicted.clamp(0, 1), normalize=True)[0, 0]
    finally:
        network.spatial = spatial


class OptionalLpips:
    """LPIPS that a model can do without: its network (AlexNet, downloaded by torchvision) may be out of reach.

    It is no `torch.nn.Module`, so that checkpoints are the same with and without it.

    Attributes:
        kind: torchmetrics' class, set while its name stands for this one.
        metric: the torchmetrics metric, or None.
    """

    kind: Any = None
    metric: Any = None
    _told = False

    def __init__(self, **settings: Any) -> None:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        kind = type(self).kind or LearnedPerceptualImagePatchSimilarity
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.metric = kind(**settings)
        except OSError as error:  # URLError, no cache folder, a cut-off file
            if not OptionalLpips._told:
                OptionalLpips._told = True
                print(
                    f"Segmotion: LPIPS is left out, because AlexNet could not be downloaded ({error}).\n"
                    "Place alexnet-owt-7be5be79.pth in TORCH_HOME/hub/checkpoints to have it."
                )

    def __call__(self, truth: Tensor, predicted: Tensor) -> Tensor:
        """LPIPS of 1×3×H×W images; NaN without the network."""
        if self.metric is None:
            return torch.tensor(float("nan"))
        return self.metric.to(truth.device)(truth, predicted.clamp(0, 1))
