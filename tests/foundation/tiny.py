"""The real libraries' models cut down to a size that runs in milliseconds, with random weights, and frames for them."""

from __future__ import annotations

import numpy as np

from segmotion_plugin.random_models import depth_anything, dinov2, sam2_package, sam2_transformers

__all__ = ["depth_anything", "dinov2", "frames", "sam2_package", "sam2_transformers"]


def frames(count: int, height: int = 48, width: int = 64, seed: int = 0) -> list[np.ndarray]:
    """Random frames H×W×3 uint8."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 255, (height, width, 3), np.uint8) for _ in range(count)]
