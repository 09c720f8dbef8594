"""The foundation networks with random weights: of the published sizes, for benchmarks, and cut down, for tests and for growth.

Nothing is downloaded. What they predict means nothing; sizes, shapes, time and memory are those of the real architectures.
"""

from __future__ import annotations

from typing import Any

_SEED = 0


def sam2_package(size: str | None = None, seed: int = _SEED) -> Any:
    """SAM 2.1 of the package `sam2`: a published size (tiny, small, base-plus, large), or cut down to 128 pixels."""
    import torch

    from segmotion_plugin.densify.sam2_package import build_model

    torch.manual_seed(seed)
    if size is not None:
        return build_model(size).eval()
    attention = "model.memory_attention.layer"
    cut_down = [
        "model.image_size=128",
        "model.image_encoder.trunk.embed_dim=8",
        "model.image_encoder.trunk.stages=[1,1,2,1]",
        "model.image_encoder.trunk.global_att_blocks=[3]",
        "model.image_encoder.neck.backbone_channel_list=[64,32,16,8]",
        "model.memory_attention.num_layers=1",
        f"{attention}.dim_feedforward=32",
        f"{attention}.self_attention.feat_sizes=[8,8]",
        f"{attention}.cross_attention.feat_sizes=[8,8]",
    ]
    return build_model("tiny", cut_down).eval()


def sam2_transformers(size: str | None = None, seed: int = _SEED) -> Any:
    """SAM 2.1 of transformers: the published large one, or cut down to 128 pixels."""
    import torch
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig

    torch.manual_seed(seed)
    if size is not None:
        backbone = Sam2HieraDetConfig(
            hidden_size=144,
            num_attention_heads=2,
            blocks_per_stage=[2, 6, 36, 4],
            embed_dim_per_stage=[144, 288, 576, 1152],
            num_attention_heads_per_stage=[2, 4, 8, 16],
            global_attention_blocks=[23, 33, 43],
            window_positional_embedding_background_size=[7, 7],
            window_size_per_stage=[8, 4, 16, 8],
        )
        vision = Sam2VisionConfig(backbone_config=backbone, backbone_channel_list=[1152, 576, 288, 144])
        return Sam2VideoModel(Sam2VideoConfig(vision_config=vision)).eval()
    backbone = Sam2HieraDetConfig(
        hidden_size=8,
        num_attention_heads=1,
        image_size=[128, 128],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        global_attention_blocks=[3],
        window_size_per_stage=[8, 4, 14, 7],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8], backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]]
    )
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"image_size": 128},
        image_size=128,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[8, 8],
    )
    return Sam2VideoModel(config).eval()


def dinov2(size: str | None = None, seed: int = _SEED) -> Any:
    """DINOv2 of patch 14: `small`, `base`, or two layers of 24 channels."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(seed)
    if size is None:
        config = Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=70, patch_size=14)
    else:
        width = {"small": 384, "base": 768}[size]
        config = Dinov2Config(hidden_size=width, num_attention_heads=width // 64, image_size=518, patch_size=14)
    return Dinov2Model(config).eval()


def depth_anything(size: str | None = None, seed: int = _SEED) -> Any:
    """Depth Anything V2 `small`, or one on a backbone of four layers of 24 channels."""
    import torch
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    torch.manual_seed(seed)
    width, layers, heads, side = (24, 4, 2, 70) if size is None else (384, 12, 6, 518)
    stages = [f"stage{layers * quarter // 4}" for quarter in (1, 2, 3, 4)]
    backbone = Dinov2Config(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=side,
        patch_size=14,
        out_features=stages,  # type: ignore[call-arg]
        reshape_hidden_states=False,
    )
    neck = [8, 8, 16, 16] if size is None else [48, 96, 192, 384]
    fusion, head = (8, 8) if size is None else (64, 32)
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=width,
        neck_hidden_sizes=neck,
        fusion_hidden_size=fusion,
        head_hidden_size=head,
        patch_size=14,
    )
    return DepthAnythingForDepthEstimation(config).eval()
