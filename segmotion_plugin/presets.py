"""The presets that use foundation models, and any mixture of them with the embedded stages.

A stage is named on its own (`--tracker cotracker3 --masks graph-cut`); a preset names them all. Whatever a run needs is checked, and
downloaded where that is allowed, before the first frame is looked at.
"""

from __future__ import annotations

import importlib.util

from segmotion_plugin.devices import resolve_device
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.foundation import FoundationPlan
from segmotion_plugin.models import LOADERS, option
from segmotion_plugin.plan import Plan
from segmotion_plugin.settings import MaskSettings
from segmotion_plugin.weights import folder_of, load_state, status

PRESETS: dict[str, dict[str, str]] = {
    "builtin": {"tracker": "dis", "depth": "none", "semantics": "efficientnet-lite0", "motion": "transformer", "masks": "graph-cut"},
    "foundation": {
        "tracker": "cotracker3",
        "depth": "depth-anything-v2-small",
        "semantics": "dinov2-small",
        "motion": "transformer",
        "masks": "sam2",
    },
    "seganymo": {
        "tracker": "bootstapir",
        "depth": "depth-anything-v2-small",
        "semantics": "dinov2-base-keys",
        "motion": "seganymo",
        "masks": "sam2",
    },
}
"""Models of each preset, stage by stage."""

_TRACKERS = ("cotracker3", "cotracker3-online", "bootstapir")


def resolve(settings: MaskSettings) -> Plan:
    """The plan of a run: stages named one by one come first, then those of the preset.

    `auto` takes `foundation` where there is a CUDA device and everything it needs lies on this machine, otherwise `builtin`.

    Raises:
        SegmotionError: an unknown model, one whose package, code or weights are missing, or no such device.
    """
    device = resolve_device(settings.device)
    preset = settings.preset
    if preset == "auto":
        preset = "foundation" if device.type == "cuda" and not missing("foundation", settings) else "builtin"
    named = {stage: option(settings, stage) for stage in PRESETS[preset]}
    names = {stage: named[stage] or name for stage, name in PRESETS[preset].items()}
    if names["motion"] == "seganymo":
        # The network was trained on exactly these; anything else would be noise to it.
        for stage in ("semantics", "depth"):
            wanted = PRESETS["seganymo"][stage]
            if named[stage] not in (None, wanted):
                raise SegmotionError(f"the network of SegAnyMo needs --{stage} {wanted}, not {named[stage]}; leave it at auto")
            names[stage] = wanted
    for stage, name in names.items():
        if name not in LOADERS and name not in {PRESETS["builtin"][stage], "none", "geometric", "transformer"}:
            raise SegmotionError(f"no model is called '{name}' ({stage})")
    foundation = names["masks"] != "none" and any(name in LOADERS for name in names.values())
    if not foundation:
        return Plan(preset, device="cpu" if settings.device == "auto" else str(device), **names)
    for name in names.values():
        if name in LOADERS:
            _provide(name, settings)
    return FoundationPlan(preset, device=str(device), **names)


def needs(preset: str) -> list[str]:
    """Entries of the catalogue of weights that a preset uses."""
    return sorted({weights for name in PRESETS[preset].values() if name in LOADERS for weights in LOADERS[name].weights})


def missing(preset: str, settings: MaskSettings) -> list[str]:
    """What a preset needs and this machine lacks: packages, code and weights, in words."""
    loaders = {name: LOADERS[name] for name in PRESETS[preset].values() if name in LOADERS}
    here = {entry.weights.name for entry in status(settings.weights_dir) if entry.path is not None}
    lacking = []
    for name, loader in loaders.items():
        lacking += [f"package {package}" for package in loader.packages if importlib.util.find_spec(package) is None]
        lacking += [f"weights {weights}" for weights in _weights(name, settings) if weights not in here]
        if name.startswith("cotracker") and not _cotracker_code(settings):
            lacking.append("code of CoTracker3")
        if name == "bootstapir" and settings.tracker_source is None:
            lacking.append("checkout of tapnet (--tracker-source)")
    return sorted(set(lacking))


def _cotracker_code(settings: MaskSettings) -> bool:
    import torch

    from segmotion_plugin.trackers.cotracker import cached_code

    return (
        settings.tracker_source is not None
        or importlib.util.find_spec("cotracker") is not None
        or cached_code(torch.hub.get_dir()).is_dir()
    )


def _provide(name: str, settings: MaskSettings) -> None:
    loader = LOADERS[name]
    for package in loader.packages:
        if importlib.util.find_spec(package) is None:
            raise SegmotionError(f"'{name}' needs the package {package}: pip install 'segmotion-plugin[foundation]'")
    if loader.check is not None:
        loader.check(settings)
    if settings.tracker_weights is not None and name in _TRACKERS:
        load_state(settings.tracker_weights)  # says what is wrong with it
    for entry in _weights(name, settings):
        folder_of(entry, settings.weights_dir)


def _weights(name: str, settings: MaskSettings) -> tuple[str, ...]:
    """Entries of the catalogue that a model needs: of the size asked for, and none where the user gives a file."""
    weights = LOADERS[name].weights
    if name in _TRACKERS and settings.tracker_weights is not None:
        return ()
    return tuple(f"sam2.1-{option(settings, 'sam2_size') or 'large'}" for _ in weights) if name == "sam2" else weights
