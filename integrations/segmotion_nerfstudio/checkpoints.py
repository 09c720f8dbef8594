"""nerfstudio's own checkpoints under torch 2.6 and later, which loads weights only."""

from __future__ import annotations

from typing import Any


def allow_checkpoint_types() -> None:
    """Let `torch.load` read the NumPy scalars that nerfstudio 1.1.5 stores with schedulers and optimizers.

    Exactly these types are allowed (`torch.serialization.add_safe_globals`); anything else in a checkpoint still raises, so that no
    file can run code. Does nothing before torch 2.4, which loads without this list.
    """
    import numpy as np
    import torch

    if not hasattr(torch.serialization, "add_safe_globals"):
        return
    scalar: Any = np.float64(0).__reduce__()[0]  # numpy's multiarray.scalar, wherever this version keeps it
    # NumPy 2 calls the module numpy._core, files of NumPy 1 name numpy.core; both mean this function.
    names: list[Any] = [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]
    kinds: list[Any] = [np.dtype, *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "b1"))]
    try:
        torch.serialization.add_safe_globals([*names, *kinds])
    except (TypeError, ValueError):  # torch 2.4 and 2.5 take no (type, name) pairs, and do not load weights only by default
        torch.serialization.add_safe_globals([scalar, *kinds])
