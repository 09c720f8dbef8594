"""nerfstudio's real viewer around a pipeline that renders a gradient instead of a trained scene."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.viewer.viewer import Viewer
from segmotion_nerfstudio.panel import motion_panel
from torch import nn


class _GradientModel(nn.Module):
    """Shades pixels by their place in the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.render_aabb = None
        self.device = torch.device("cpu")

    def get_outputs_for_camera(self, camera, obb_box=None):  # noqa: ANN001, ANN201
        height, width = int(camera.height[0]), int(camera.width[0])
        y, x = torch.meshgrid(torch.linspace(0, 0.4, height), torch.linspace(0, 0.4, width), indexing="ij")
        # The picture lies behind everything that is drawn.
        return {"rgb": torch.stack([x, y, torch.full_like(x, 0.2)], dim=-1), "depth": torch.full_like(x, 50.0)[..., None]}


class GradientPipeline(nn.Module):
    """What the viewer asks of a pipeline, with a real dataparser and our panel."""

    def __init__(self, data: Path) -> None:
        super().__init__()
        outputs = NerfstudioDataParserConfig(data=data, downscale_factor=1).setup().get_dataparser_outputs("train")
        self.datamanager = SimpleNamespace(
            includes_time=False,
            train_dataparser_outputs=outputs,
            train_dataset=InputDataset(outputs),
            eval_dataset=None,
            get_datapath=lambda: data,
        )
        self.model = _GradientModel()
        self.motion_panel = motion_panel(self)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")


def open_viewer(pipeline: GradientPipeline, folder: Path, port: int = 18500) -> Viewer:
    """Start nerfstudio's viewer on 127.0.0.1."""
    config = ViewerConfig(websocket_host="127.0.0.1", websocket_port=None, websocket_port_default=port, max_num_display_images=3)
    viewer = Viewer(config, log_filename=folder / "viewer" / "log.txt", datapath=folder, pipeline=pipeline)
    viewer.init_scene(pipeline.datamanager.train_dataset, train_state="completed")
    return viewer
