"""The real libraries' models cut down to a size that runs in milliseconds, with random weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def sam2_package(seed: int = 0) -> Any:
    """SAM 2.1 of the package `sam2`: one block per stage, 128 pixels."""
    from segmotion_plugin.densify.sam2_package import build_model

    torch.manual_seed(seed)
    attention = "model.memory_attention.layer"
    return build_model(
        "tiny",
        [
            "model.image_size=128",
            "model.image_encoder.trunk.embed_dim=8",
            "model.image_encoder.trunk.stages=[1,1,2,1]",
            "model.image_encoder.trunk.global_att_blocks=[3]",
            "model.image_encoder.neck.backbone_channel_list=[64,32,16,8]",
            "model.memory_attention.num_layers=1",
            f"{attention}.dim_feedforward=32",
            f"{attention}.self_attention.feat_sizes=[8,8]",
            f"{attention}.cross_attention.feat_sizes=[8,8]",
        ],
    ).eval()


def sam2_transformers(seed: int = 0) -> Any:
    """The same of transformers."""
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig

    torch.manual_seed(seed)
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


def dinov2(seed: int = 0) -> Any:
    """DINOv2 with two layers of 24 channels."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(seed)
    config = Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=70, patch_size=14)
    return Dinov2Model(config).eval()


def depth_anything(seed: int = 0) -> Any:
    """Depth Anything on a backbone of four layers."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    torch.manual_seed(seed)
    backbone = Dinov2Config(
        hidden_size=24,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=70,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=24,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8,
        head_hidden_size=8,
        patch_size=14,
    )
    return DepthAnythingForDepthEstimation(config).eval()


def frames(count: int, height: int = 48, width: int = 64, seed: int = 0) -> list[np.ndarray]:
    """Random frames H×W×3 uint8."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 255, (height, width, 3), np.uint8) for _ in range(count)]
