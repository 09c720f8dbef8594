"""What nerfstudio's entry points name; built when asked for, so that importing this module costs nothing and cannot fail.

nerfstudio loads entry points without catching errors, and loads those of methods while it is itself half imported
(`discover_methods()` runs inside `nerfstudio.configs.method_configs`). So nothing of nerfstudio is imported here before an attribute
is asked for, and whatever goes wrong then costs the user our entry alone: nerfstudio skips an entry that is no specification.
"""

from __future__ import annotations

import sys
from typing import Any

_BUILDERS = {
    "segmotion_data": ("segmotion_nerfstudio.dataparser", "specification"),
    "segmotion_nerfacto": ("segmotion_nerfstudio.methods", "nerfacto"),
    "segmotion_splatfacto": ("segmotion_nerfstudio.methods", "splatfacto"),
}
_built: dict[str, Any] = {}


def __getattr__(name: str) -> Any:
    if name not in _BUILDERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _built:
        import importlib

        module, builder = _BUILDERS[name]
        try:
            _built[name] = getattr(importlib.import_module(module), builder)()
        except Exception as error:  # noqa: BLE001 - a broken plug-in must not break ns-train
            print(f"Segmotion: {name.replace('_', '-')} is not available ({type(error).__name__}: {error})", file=sys.stderr)
            return None
    return _built[name]
