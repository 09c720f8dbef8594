"""`segmotion-nerfacto` and `segmotion-splatfacto`: nerfstudio's own methods with our dataparser, model and pipeline."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nerfstudio.plugins.types import MethodSpecification


def nerfacto() -> MethodSpecification:
    """nerfacto on what stands still."""
    from segmotion_nerfstudio.models import SegmotionNerfactoModelConfig

    return _specification("nerfacto", SegmotionNerfactoModelConfig, "nerfacto on the static world, with metrics over static pixels.")


def splatfacto() -> MethodSpecification:
    """splatfacto on what stands still."""
    from segmotion_nerfstudio.models import SegmotionSplatfactoModelConfig

    return _specification(
        "splatfacto", SegmotionSplatfactoModelConfig, "splatfacto on the static world, with metrics over static pixels."
    )


def _specification(stock: str, model: type, description: str) -> MethodSpecification:
    from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManagerConfig
    from nerfstudio.data.datamanagers.parallel_datamanager import ParallelDataManagerConfig
    from nerfstudio.plugins.types import MethodSpecification

    from segmotion_nerfstudio.dataparser import SegmotionDataParserConfig
    from segmotion_nerfstudio.models import SegmotionPipelineConfig

    config = copy.deepcopy(_stock_methods()[stock])
    config.method_name = f"segmotion-{stock}"
    manager = config.pipeline.datamanager
    if isinstance(manager, ParallelDataManagerConfig):
        # Its worker processes draw pixels with seeds of their own, so that no training could be repeated.
        manager = _as(VanillaDataManagerConfig, manager)
    manager.dataparser = _as(SegmotionDataParserConfig, manager.dataparser)
    config.pipeline = SegmotionPipelineConfig(datamanager=manager, model=_as(model, config.pipeline.model))
    return MethodSpecification(config=config, description=description)


def _stock_methods() -> dict[str, Any]:
    """nerfstudio's methods. While `nerfstudio.configs.method_configs` is being imported (which is when it asks for ours), its table is
    complete already, but the module is not: so it is taken from `sys.modules` where it is there."""
    loading = sys.modules.get("nerfstudio.configs.method_configs") or importlib.import_module("nerfstudio.configs.method_configs")
    return loading.method_configs


def _as(kind: type, config: Any) -> Any:
    """A config of a related class with the values of those fields that both have; `_target` and defaults that differ on purpose
    (the dataparser's evaluation split) are the new class's."""
    own = {f.name for f in dataclasses.fields(kind) if f.init} - {"_target", "eval_mode"}
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name in own}
    return kind(**values)
