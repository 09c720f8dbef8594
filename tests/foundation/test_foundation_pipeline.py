"""The foundation presets from a video to `transforms.json`, with tiny random models in the place of the published ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny
import torch
from hub_stand_in import stand_in_bootstapir, stand_in_cotracker

from segmotion_plugin import models, pipeline
from segmotion_plugin.clip import read_rgb
from segmotion_plugin.densify.sam2_package import Sam2Package
from segmotion_plugin.densify.sam2_transformers import Sam2Transformers
from segmotion_plugin.depth.depth_anything import DepthAnything
from segmotion_plugin.models import Loader
from segmotion_plugin.motion.seganymo import SegAnyMo
from segmotion_plugin.semantics.dinov2 import DinoV2, SegAnyMoFeatures
from segmotion_plugin.settings import MaskSettings, ReconstructSettings
from segmotion_plugin.simulation import render, scenes
from segmotion_plugin.trackers import base
from segmotion_plugin.trackers.base import SamplingOptions

NUM_FRAMES = 10


def _vit_b_channels(device: str) -> SegAnyMoFeatures:
    """Keys of the width that the paper's network takes."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=768, num_hidden_layers=1, num_attention_heads=12, image_size=70, patch_size=14, mlp_ratio=1)
    return SegAnyMoFeatures(Dinov2Model(config), device)


TINY: dict[str, Callable[[str], Any]] = {
    "cotracker3": lambda device: stand_in_cotracker(device),
    "bootstapir": lambda device: stand_in_bootstapir(device),
    "depth-anything-v2-small": lambda device: DepthAnything(tiny.depth_anything(), device, short_side=70),
    "dinov2-small": lambda device: DinoV2(tiny.dinov2(), device, long_side=140),
    "dinov2-base-keys": _vit_b_channels,
    "seganymo": lambda device: SegAnyMo(),
    "sam2": lambda device: Sam2Package(tiny.sam2_package(), device),
    "sam2-transformers": lambda device: Sam2Transformers(tiny.sam2_transformers(), device),
}


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    few = SamplingOptions(num_tracks=400)
    monkeypatch.setattr(base, "SamplingOptions", lambda: few)
    for name, build in TINY.items():
        monkeypatch.setitem(models.LOADERS, name, Loader(lambda settings, device, build=build: build(device)))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    for number, frame in enumerate(render(scenes.build("walker", seed=2, num_frames=NUM_FRAMES, width=256, height=144)).frames):
        cv2.imwrite(str(folder / f"{number:03d}.png"), frame[..., ::-1])
    return folder


def test_the_foundation_preset_runs_from_images_to_cameras(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = pipeline.run(images, out, MaskSettings(preset="foundation", device="cpu", quiet=True, work_size=256))
    assert report["plan"]["tracker"] == "cotracker3" and report["plan"]["masks"] == "sam2"
    transforms = json.loads((out / "transforms.json").read_text())
    assert len(transforms["frames"]) >= NUM_FRAMES - 2
    for frame in transforms["frames"]:
        keep = cv2.imread(str(out / frame["mask_path"]), cv2.IMREAD_UNCHANGED)
        assert keep.shape == (144, 256) and set(np.unique(keep)) <= {0, 255}
    with np.load(out / "motion" / "tracks.npz") as tracks:
        assert tracks["xy"].shape[1] == NUM_FRAMES and np.isfinite(tracks["probability"]).all()
    model = TINY["depth-anything-v2-small"]("cpu")
    for name in sorted(path.stem for path in (out / "images").iterdir()):
        kept = np.load(out / "motion" / "disparity" / f"{name}.npy")
        assert kept.shape == (144, 256) and kept.dtype == np.float16
        np.testing.assert_allclose(kept, model.predict(read_rgb(out / "images" / f"{name}.png")[None])[0], rtol=2e-3, atol=1e-3)


def test_the_depth_of_a_model_is_kept_for_the_images_and_brought_to_the_scale_of_the_cameras(images: Path, tmp_path: Path) -> None:
    out, truth = tmp_path / "out", render(scenes.build("walker", seed=2, num_frames=NUM_FRAMES, width=256, height=144))
    seen: list[int] = []

    class True3D:
        """Disparity up to a scale and a shift, as such models give it; knows a frame by its content."""

        def predict(self, frames: np.ndarray) -> np.ndarray:
            small = [cv2.resize(f, (256, 144), interpolation=cv2.INTER_AREA).astype(int) for f in frames]
            ids = [int(np.argmin([np.abs(f - t).mean() for t in truth.frames])) for f in small]
            seen.extend(ids)
            disparity = (3 / truth.depth[ids] + 0.2).astype(np.float32)
            return np.stack([cv2.resize(d, frames.shape[2:0:-1], interpolation=cv2.INTER_NEAREST) for d in disparity])

    chosen = {"preset": "builtin", "depth": "depth-anything-v2-small", "motion": "geometric", "every": 2, "keep_work": True}
    settings = MaskSettings(device="cpu", quiet=True, **chosen)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.LOADERS, "depth-anything-v2-small", Loader(lambda settings, device: True3D()))
        pipeline.masks(images, out, settings)
        assert seen == [0, 2, 4, 6, 8]  # this classifier wants no depth, so only images are looked at
        pipeline.masks(images, out, replace(settings, every=1))
        assert seen[5:] == list(range(NUM_FRAMES))
        pipeline.masks(images, out, replace(settings, every=1, sensitivity=0.4))
        assert len(seen) == 5 + NUM_FRAMES
    assert len(list((out / "motion" / "disparity").iterdir())) == NUM_FRAMES
    assert pipeline.reconstruct(out, ReconstructSettings(threads=1), quiet=True)["reconstruction"]["tracks_3d"]["status"] == "ok"
    ratios = []
    for k, path in enumerate(sorted((out / "motion" / "depth").iterdir())):
        depth = np.load(path)
        assert depth.shape == (144, 256)
        ratios.append(depth[::4, ::4] / truth.depth[k, ::4, ::4])
    ratio = np.array(ratios)[truth.labels[:, ::4, ::4] == 0]
    ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
    assert len(ratios) == NUM_FRAMES and np.median(np.abs(ratio / np.median(ratio) - 1)) < 0.1
    pipeline.masks(images, out, replace(settings, depth="none", tracker="cotracker3", keep_work=False))
    assert not (out / "motion" / "disparity").exists()


@pytest.mark.parametrize(
    "choice",
    [
        {"preset": "seganymo"},
        {"preset": "builtin", "masks": "sam2-transformers"},
        {"preset": "builtin", "tracker": "cotracker3"},
    ],
    ids=["seganymo", "sam2-alone", "cotracker-alone"],
)
def test_presets_and_mixtures_give_masks_for_every_image(images: Path, tmp_path: Path, choice: dict[str, str]) -> None:
    out = tmp_path / "out"
    report = pipeline.masks(images, out, MaskSettings(device="cpu", quiet=True, **choice))  # type: ignore[arg-type]
    for stage, name in choice.items():
        assert report["plan"][stage] == name
    assert len(list((out / "masks").glob("*.png"))) == NUM_FRAMES


class FindsNothing:
    """A segmenter whose masks are all empty."""

    def open(self, frames: Any) -> None:
        self.shape = frames[0].shape[:2]

    def click(self, frame: int, xy: np.ndarray, positive: np.ndarray) -> np.ndarray:
        return np.zeros(self.shape, bool)

    def propagate(self, prompts: Any, start: int, stop: int) -> Any:
        raise AssertionError("there is no mask to follow")


def test_where_the_segmenter_finds_nothing_movers_stay_masked_and_the_report_says_so(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(models.LOADERS, "sam2", Loader(lambda settings, device: FindsNothing()))
    settings = MaskSettings(preset="builtin", masks="sam2", device="cpu", quiet=True, work_size=256)
    report = pipeline.masks(images, tmp_path / "out", settings)
    assert any("sam2 found no object" in warning for warning in report["warnings"])
    assert report["masks"]["moving_tracks"] > 0 and report["masks"]["moving_share"] > 0.05
