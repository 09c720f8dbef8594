"""What a real camera adds to an ideal picture: changing gain, sensor noise, compression."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from segmotion_plugin.simulation.world import Effects


def gain(effects: Effects, frame: int) -> float:
    """Slowly changing exposure, a factor near one."""
    rng = np.random.default_rng([effects.seed, 1])
    waves, phases = rng.uniform(0.02, 0.2, 3), rng.uniform(0, 2 * np.pi, 3)
    return float(np.exp(effects.exposure * np.sqrt(2 / 3) * np.sin(waves * frame + phases).sum()))


def develop(image: NDArray[np.floating], effects: Effects, frame: int) -> NDArray[np.uint8]:
    """Applies gain, noise and compression to an ideal picture.

    Args:
        image: H x W x 3 in 0..255, RGB.
        effects: Their strengths.
        frame: Frame number; seeds the noise.

    Returns:
        H x W x 3 uint8.
    """
    if effects.exposure:
        image = image * np.float32(gain(effects, frame))
    if effects.noise:
        rng = np.random.default_rng([effects.seed, 2, frame])
        image = image + np.float32(effects.noise) * rng.standard_normal(image.shape, dtype=np.float32)
    out = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    if effects.jpeg_quality:
        written, data = cv2.imencode(".jpg", out[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, effects.jpeg_quality])
        if not written:
            raise RuntimeError("OpenCV could not compress a rendered frame")
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if decoded is None:
            raise RuntimeError("OpenCV could not read back a frame that it compressed")
        out = np.ascontiguousarray(decoded[..., ::-1]).astype(np.uint8, copy=False)
    return out
