"""Every model that is not embedded, by the name of its stage's option, and how it comes to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from segmotion_plugin.devices import resolve_device
from segmotion_plugin.settings import MaskSettings


@dataclass(frozen=True)
class Loader:
    """How a model comes to be.

    Attributes:
        load: makes it from the settings and the name of the device.
        weights: entries of the catalogue that it needs.
        packages: importable names that it needs.
        check: raises SegmotionError for settings that cannot work, before anything is loaded.
    """

    load: Callable[[MaskSettings, str], Any]
    weights: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    check: Callable[[MaskSettings], object] | None = None


def _cotracker(online: bool) -> Callable[[MaskSettings, str], Any]:
    def load(settings: MaskSettings, device: str) -> Any:
        from segmotion_plugin.trackers.cotracker import CoTracker3

        source, weights = settings.tracker_source, option(settings, "tracker_weights")
        return CoTracker3.load(online, source=source, weights=weights, weights_dir=settings.weights_dir, device=device)

    return load


def _bootstapir(settings: MaskSettings, device: str) -> Any:
    from segmotion_plugin.trackers.bootstapir import BootsTAPIR

    source, weights = settings.tracker_source, option(settings, "tracker_weights")
    return BootsTAPIR.load(source=source, weights=weights, weights_dir=settings.weights_dir, device=device)


def _check_cotracker(settings: MaskSettings) -> object:
    from segmotion_plugin.trackers.cotracker import checkout

    return None if settings.tracker_source is None else checkout(settings.tracker_source)


def _check_bootstapir(settings: MaskSettings) -> object:
    from segmotion_plugin.trackers.bootstapir import checkout

    return checkout(settings.tracker_source)


def _depth(name: str) -> Callable[[MaskSettings, str], Any]:
    def load(settings: MaskSettings, device: str) -> Any:
        from segmotion_plugin.depth.depth_anything import DepthAnything

        return DepthAnything.load(name, weights_dir=settings.weights_dir, device=device)

    return load


def _dinov2(name: str) -> Callable[[MaskSettings, str], Any]:
    def load(settings: MaskSettings, device: str) -> Any:
        from segmotion_plugin.semantics.dinov2 import DinoV2

        return DinoV2.load(name, weights_dir=settings.weights_dir, device=device)

    return load


def _dinov2_keys(settings: MaskSettings, device: str) -> Any:
    from segmotion_plugin.semantics.dinov2 import SegAnyMoFeatures

    return SegAnyMoFeatures.load(weights_dir=settings.weights_dir, device=device)


def _seganymo(settings: MaskSettings, device: str) -> Any:
    from segmotion_plugin.motion.seganymo import SegAnyMo
    from segmotion_plugin.weights import announce, file_of

    announce("seganymo")
    return SegAnyMo.from_checkpoint(file_of("seganymo", settings.weights_dir), device=str(resolve_device(device)))


def _sam2(settings: MaskSettings, device: str) -> Any:
    from segmotion_plugin.densify.sam2_package import Sam2Package

    return Sam2Package.load(option(settings, "sam2_size") or "large", weights_dir=settings.weights_dir, device=device)


def _sam2_transformers(settings: MaskSettings, device: str) -> Any:
    from segmotion_plugin.densify.sam2_transformers import Sam2Transformers

    return Sam2Transformers.load(weights_dir=settings.weights_dir, device=device)


LOADERS: dict[str, Loader] = {
    "cotracker3": Loader(_cotracker(online=False), ("cotracker3-offline",), check=_check_cotracker),
    "cotracker3-online": Loader(_cotracker(online=True), ("cotracker3-online",), check=_check_cotracker),
    "bootstapir": Loader(_bootstapir, ("bootstapir",), check=_check_bootstapir),
    "depth-anything-v2-small": Loader(_depth("depth-anything-v2-small"), ("depth-anything-v2-small",), ("transformers",)),
    "depth-anything-v2-large": Loader(_depth("depth-anything-v2-large"), ("depth-anything-v2-large",), ("transformers",)),
    "dinov2-small": Loader(_dinov2("dinov2-small"), ("dinov2-small",), ("transformers",)),
    "dinov2-base": Loader(_dinov2("dinov2-base"), ("dinov2-base",), ("transformers",)),
    "dinov2-base-keys": Loader(_dinov2_keys, ("dinov2-base",), ("transformers",)),
    "seganymo": Loader(_seganymo, ("seganymo",)),
    "sam2": Loader(_sam2, ("sam2.1-large",), ("sam2",)),
    "sam2-transformers": Loader(_sam2_transformers, ("sam2.1-large-transformers",), ("transformers",)),
}


def option(settings: MaskSettings, name: str) -> Any:
    """The value of a setting, None where it is `auto` or not offered."""
    value = getattr(settings, name, None)
    return None if value in (None, "auto") else value
