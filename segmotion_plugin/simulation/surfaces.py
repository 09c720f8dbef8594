"""Seeded surface descriptions by material."""

from __future__ import annotations

import colorsys

import numpy as np

from segmotion_plugin.simulation.textures import Texture

Color = tuple[float, float, float]

# Pattern kinds, period in metres, contrast, and ranges of hue, saturation and value.
_MATERIALS: dict[str, tuple[tuple[str, ...], tuple[float, float], float, tuple[float, ...]]] = {
    "cloth": (("stripes", "checker", "spots", "poster", "noise"), (0.5, 0.9), 1.0, (0, 1, 0.3, 0.9, 0.35, 0.95)),
    "cloth_dark": (("noise", "stripes", "checker"), (0.35, 0.7), 1.0, (0, 1, 0.1, 0.6, 0.15, 0.55)),
    "skin": (("noise", "spots"), (0.3, 0.5), 0.7, (0.03, 0.08, 0.3, 0.6, 0.4, 0.9)),
    "hair": (("wood", "noise"), (0.25, 0.4), 1.0, (0.02, 0.12, 0.1, 0.6, 0.1, 0.4)),
    "fur": (("spots", "grass", "stripes", "noise"), (0.6, 1.2), 1.0, (0.04, 0.13, 0.1, 0.7, 0.2, 0.9)),
    "paint": (("poster", "noise", "stripes", "spots"), (1.2, 2.2), 0.8, (0, 1, 0.3, 0.95, 0.3, 0.95)),
    "print": (("poster", "checker", "spots", "stripes", "bricks"), (0.8, 1.8), 1.0, (0, 1, 0.2, 0.9, 0.3, 1.0)),
    "glass": (("noise", "poster"), (1.0, 2.0), 0.7, (0.5, 0.65, 0.1, 0.3, 0.15, 0.5)),
    "tyre": (("checker", "spots"), (0.4, 0.7), 1.0, (0, 1, 0, 0.1, 0.08, 0.6)),
    "lamp": (("plain", "noise"), (0.4, 0.6), 1.0, (0, 0.15, 0.2, 0.9, 0.7, 1.0)),
    "lawn": (("grass", "foliage", "noise"), (3.0, 6.0), 1.0, (0.18, 0.33, 0.3, 0.7, 0.2, 0.65)),
    "road": (("asphalt", "asphalt", "noise"), (3.0, 6.0), 1.0, (0.05, 0.15, 0, 0.12, 0.25, 0.7)),
    "paving": (("bricks", "checker"), (1.6, 3.5), 1.0, (0.03, 0.13, 0.05, 0.35, 0.35, 0.8)),
    "soil": (("noise", "spots", "asphalt"), (2.5, 6.0), 1.0, (0.05, 0.13, 0.15, 0.55, 0.3, 0.8)),
    "floor": (("wood", "checker", "spots"), (1.2, 3.0), 1.0, (0.04, 0.13, 0.15, 0.6, 0.3, 0.85)),
    "smooth": (("plain",), (3.0, 6.0), 1.0, (0, 1, 0, 0.25, 0.4, 0.9)),
    "facade": (("windows", "bricks", "windows", "poster"), (10.0, 14.0), 1.0, (0.02, 0.16, 0.1, 0.45, 0.45, 0.9)),
    "wallpaper": (("spots", "poster", "stripes", "noise", "bricks"), (1.2, 2.8), 0.9, (0, 1, 0.05, 0.5, 0.4, 0.95)),
    "poster": (("poster",), (0.8, 1.5), 1.0, (0, 1, 0.3, 1.0, 0.3, 1.0)),
    "banner": (("mosaic",), (2.6, 3.0), 1.2, (0, 1, 0.3, 1.0, 0.1, 1.0)),
    "bark": (("wood", "bricks", "noise"), (0.4, 0.9), 1.0, (0.04, 0.1, 0.15, 0.5, 0.2, 0.6)),
    "metal": (("noise", "stripes", "asphalt"), (0.3, 0.8), 0.8, (0, 1, 0, 0.5, 0.3, 0.9)),
    "leaves": (("foliage", "grass"), (0.7, 1.6), 1.0, (0.15, 0.36, 0.3, 0.85, 0.2, 0.75)),
    "stone": (("noise", "asphalt", "spots"), (0.8, 2.0), 1.0, (0.04, 0.15, 0.03, 0.25, 0.35, 0.8)),
    "hills": (("foliage", "noise", "grass"), (18.0, 40.0), 1.0, (0.12, 0.36, 0.15, 0.5, 0.25, 0.7)),
    "water": (("noise", "grass"), (2.0, 5.0), 0.8, (0.48, 0.6, 0.2, 0.6, 0.3, 0.8)),
    "smoke": (("noise",), (1.5, 3.0), 0.5, (0, 1, 0, 0.08, 0.5, 0.9)),
}
MATERIALS = tuple(_MATERIALS)


def surface(rng: np.random.Generator, material: str) -> Texture:
    """A random texture of a material.

    Args:
        rng: Source of randomness.
        material: One of :data:`MATERIALS`.
    """
    kinds, periods, contrast, (hue_low, hue_high, sat_low, sat_high, value_low, value_high) = _MATERIALS[material]
    hue = rng.uniform(hue_low, hue_high)
    colors: list[Color] = []
    for value in np.linspace(value_low, value_high, 3):
        shade = (hue + rng.normal(0, 0.015 + 0.2 * (hue_high - hue_low) * (rng.random() < 0.4))) % 1
        tone = float(np.clip(value + rng.normal(0, 0.08), 0.04, 1))
        colors.append(colorsys.hsv_to_rgb(shade, rng.uniform(sat_low, sat_high), tone))
    kind = kinds[rng.integers(len(kinds))]
    size = 1024 if material == "banner" else 512
    return Texture(kind, int(rng.integers(2**31)), tuple(colors), float(rng.uniform(*periods)), contrast, size)
