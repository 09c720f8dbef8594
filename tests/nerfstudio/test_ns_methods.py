"""The methods: metrics over kept pixels, training that masked pixels cannot reach, checkpoints that load, imports in both orders."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from nerfstudio.scripts import train
from nerfstudio.utils import eval_utils
from segmotion_nerfstudio import plugin
from segmotion_nerfstudio.checkpoints import allow_checkpoint_types
from segmotion_nerfstudio.metrics import OptionalLpips, masked_metrics
from segmotion_nerfstudio.models import SegmotionNerfactoModelConfig, SegmotionPipelineConfig, SegmotionSplatfactoModel
from support_processed import write_processed
from torchmetrics.functional.image.lpips import _NoTrainLpips

from segmotion_plugin.clip import read_rgb
from segmotion_plugin.files import write_png
from segmotion_plugin.masks import read_grey
from segmotion_plugin.simulation import render, scenes

INTEGRATIONS = Path(plugin.__file__).parents[1]


@pytest.fixture
def pictures() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    truth = torch.rand(64, 72, 3, generator=rng)
    predicted = (truth + 0.1 * torch.randn(truth.shape, generator=rng)).clamp(0, 1)
    keep = torch.zeros(64, 72, 1, dtype=torch.bool)
    keep[:, :40] = True
    return truth, predicted, keep


def test_metrics_do_not_see_masked_pixels(pictures):
    truth, predicted, keep = pictures
    lpips = SimpleNamespace(net=_NoTrainLpips(net="alex", pnet_rand=True))
    before = masked_metrics(truth, predicted, keep, lpips)
    predicted = torch.where(keep, predicted, torch.rand(predicted.shape))
    assert masked_metrics(truth, predicted, keep, lpips) == before
    assert before["kept"] == pytest.approx(40 / 72)
    error = float(((predicted - truth)[:, :40] ** 2).mean())
    assert before["psnr"] == pytest.approx(-10 * np.log10(error), abs=1e-4)
    assert set(before) == {"psnr", "ssim", "lpips", "kept"}


def test_metrics_without_a_mask_are_those_of_torchmetrics(pictures):
    from torchmetrics.functional import structural_similarity_index_measure
    from torchmetrics.functional.image import peak_signal_noise_ratio

    truth, predicted, keep = pictures
    network = _NoTrainLpips(net="alex", pnet_rand=True)
    found = masked_metrics(truth, predicted, None, SimpleNamespace(net=network))
    planes = [x.movedim(-1, 0)[None] for x in (predicted, truth)]
    assert found["psnr"] == pytest.approx(float(peak_signal_noise_ratio(*planes, data_range=1.0)), abs=1e-4)
    assert found["ssim"] == pytest.approx(float(structural_similarity_index_measure(*planes, data_range=1.0)), abs=0.01)
    assert found["lpips"] == pytest.approx(float(network(planes[1], planes[0], normalize=True)), rel=0.15)
    assert masked_metrics(truth, predicted, torch.zeros_like(keep)) == {"kept": 0.0}


def test_splatfacto_is_measured_over_kept_pixels(pictures, monkeypatch):
    truth, predicted, keep = pictures
    both = {"psnr": 1.0, "ssim": 0.5, "lpips": float("nan")}, {"img": torch.cat([truth, predicted], dim=1)}
    monkeypatch.setattr(SegmotionSplatfactoModel.__mro__[2], "get_image_metrics_and_images", lambda *_: both)
    model = object.__new__(SegmotionSplatfactoModel)
    torch.nn.Module.__init__(model)
    model.lpips = SimpleNamespace(metric=None)
    metrics, _ = model.get_image_metrics_and_images({}, {"mask": keep})
    assert metrics == {**masked_metrics(truth, predicted, keep), "psnr_all": 1.0, "ssim_all": 0.5}


def test_our_methods_are_nerfstudios_with_our_parts():
    from nerfstudio.configs.method_configs import method_configs

    for name, found in (("nerfacto", plugin.segmotion_nerfacto.config), ("splatfacto", plugin.segmotion_splatfacto.config)):
        stock = method_configs[name]
        assert found.method_name == f"segmotion-{name}" and isinstance(found.pipeline, SegmotionPipelineConfig)
        assert found.optimizers.keys() == stock.optimizers.keys() and found.max_num_iterations == stock.max_num_iterations
        assert type(found.pipeline.datamanager.dataparser).__name__ == "SegmotionDataParserConfig"
        ours, theirs = vars(found.pipeline.model), vars(stock.pipeline.model)
        assert {k: v for k, v in ours.items() if k != "_target"} == {k: v for k, v in theirs.items() if k != "_target"}
        assert issubclass(ours["_target"], theirs["_target"])
        dataparser = found.pipeline.datamanager.dataparser
        assert dataparser.load_3D_points == stock.pipeline.datamanager.dataparser.load_3D_points and dataparser.eval_mode == "auto"


@pytest.mark.parametrize("first", ["nerfstudio.configs.method_configs", "segmotion_nerfstudio.methods"])
def test_both_import_orders_find_the_methods(first):
    code = (
        f"import importlib; importlib.import_module({first!r})\n"
        "from segmotion_nerfstudio import plugin\n"
        "print(plugin.segmotion_nerfacto.config.method_name)\n"
        "from nerfstudio.configs.method_configs import all_methods\n"
        "print('segmotion-splatfacto' in all_methods)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(INTEGRATIONS), str(INTEGRATIONS.parent)])}
    environment["NERFSTUDIO_METHOD_CONFIGS"] = "segmotion-splatfacto=segmotion_nerfstudio.plugin:segmotion_splatfacto"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == ["segmotion-nerfacto", "True"]


@pytest.fixture
def offline(monkeypatch):
    """No network for AlexNet."""

    def unreachable(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    monkeypatch.setattr(OptionalLpips, "_told", False)


def tiny(data: Path, out: Path):
    """segmotion-nerfacto, small enough for a test."""
    config = copy.deepcopy(plugin.segmotion_nerfacto.config)
    config.output_dir, config.data, config.vis, config.timestamp = out, data, "tensorboard", "run"
    config.max_num_iterations, config.steps_per_save, config.mixed_precision = 5, 5, False
    config.steps_per_eval_batch = config.steps_per_eval_image = config.steps_per_eval_all_images = 0
    config.machine.device_type = "cpu"
    config.pipeline.datamanager.train_num_rays_per_batch = 64
    model: SegmotionNerfactoModelConfig = config.pipeline.model
    model.implementation, model.num_levels, model.log2_hashmap_size, model.max_res = "torch", 4, 10, 64
    model.num_proposal_samples_per_ray, model.num_nerf_samples_per_ray = (16, 8), 8
    model.proposal_net_args_list = [{"hidden_dim": 8, "log2_hashmap_size": 8, "num_levels": 2, "max_res": 32, "use_linear": False}]
    model.use_same_proposal_network = True
    return config


def test_masked_pixels_never_reach_training_and_checkpoints_load(tmp_path, offline, capsys, monkeypatch):
    clip = render(scenes.build("walker", seed=3, num_frames=6, width=64, height=48))
    write_processed(tmp_path / "plain", clip, None)
    shutil.copytree(tmp_path / "plain", tmp_path / "painted")
    rng = np.random.default_rng(0)
    for path in (tmp_path / "painted" / "images").iterdir():
        image, masked = read_rgb(path).copy(), read_grey(tmp_path / "painted" / "masks" / path.name) == 0
        assert masked.any()
        image[masked] = rng.integers(0, 255, (int(masked.sum()), 3))
        write_png(path, image)
    states, folders = [], []
    for name in ("plain", "painted"):
        config = tiny(tmp_path / name, tmp_path / "runs")
        train.main(config)
        folders.append(config.get_base_dir())
        states.append(torch.load(next((folders[-1] / "nerfstudio_models").glob("*.ckpt")), weights_only=True)["pipeline"])
    assert "LPIPS is left out" in capsys.readouterr().out
    assert states[0].keys() == states[1].keys() and not any("lpips" in key for key in states[0])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])

    # as the entry point of the installed package does
    monkeypatch.setitem(eval_utils.all_methods, "segmotion-nerfacto", plugin.segmotion_nerfacto.config)
    _, pipeline, _, step = eval_utils.eval_setup(folders[0] / "config.yml")
    metrics = pipeline.get_average_eval_image_metrics()
    assert step == 4 and 0 < metrics["kept"] < 1
    assert np.isfinite([metrics[name] for name in ("psnr", "ssim", "psnr_all", "ssim_all")]).all()
    assert "lpips" not in metrics and "lpips_all" not in metrics


def test_checkpoints_that_hold_code_are_still_refused(tmp_path):
    allow_checkpoint_types()
    torch.save({"lr": np.float64(0.1), "path": Path("x")}, tmp_path / "bad.ckpt")
    with pytest.raises(Exception, match="[Ww]eights.only"):
        torch.load(tmp_path / "bad.ckpt", weights_only=True)
    torch.save({"lr": np.float64(0.1), "step": np.int64(3)}, tmp_path / "good.ckpt")
    assert torch.load(tmp_path / "good.ckpt", weights_only=True)["lr"] == 0.1
