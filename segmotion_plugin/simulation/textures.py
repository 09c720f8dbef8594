"""Procedural textures: seeded tiles that repeat without seams, and prefiltered look-ups in them.

A tile is drawn once from a small :class:`Texture` description, so worlds that are never rendered cost nothing.
Look-ups are trilinear in a mip map (Williams, "Pyramidal parametrics", SIGGRAPH 1983), which keeps textures from
flickering when they recede.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Field = NDArray[np.float32]
Array = NDArray[np.floating]
_MARGIN = 2  # texels of wrapped border around each mip level


@dataclass(frozen=True)
class Texture:
    """Description of a tile.

    Attributes:
        kind: One of :data:`KINDS`.
        seed: Seed of the pattern.
        colors: Two or more RGB colours in 0..1 that the pattern mixes.
        period: Metres that the tile covers on the surface.
        contrast: Strength of the pattern; 0 gives a plain surface.
        size: Texels along a side, a power of two.
    """

    kind: str
    seed: int
    colors: tuple[tuple[float, float, float], ...]
    period: float = 2.0
    contrast: float = 1.0
    size: int = 512


def fractal_noise(
    rng: np.random.Generator, size: int, first: int, octaves: int, persistence: float = 0.6, stretch: int = 1
) -> Field:
    """Seamless value noise in about 0..1 (size x size).

    Args:
        rng: Source of randomness.
        size: Side of the tile.
        first: Grid cells along the side in the coarsest octave, a power of two.
        octaves: Number of octaves; each doubles the grid.
        persistence: Amplitude of an octave relative to the one before.
        stretch: Cells across for each cell along, for streaks.
    """
    total = np.zeros((size, size), np.float32)
    amplitude = 1.0
    for octave in range(octaves):
        rows, cols = min(first * 2**octave, size), min(max(1, first * stretch * 2**octave), size)
        grid = rng.random((rows, cols), dtype=np.float32) - 0.5
        pad = 3
        wrapped = np.pad(grid, pad, mode="wrap")
        step_y, step_x = size // rows, size // cols
        big = cv2.resize(wrapped, None, fx=step_x, fy=step_y, interpolation=cv2.INTER_CUBIC)
        y, x = pad * step_y, pad * step_x
        total += np.float32(amplitude) * big[y : y + size, x : x + size]
        amplitude *= persistence
    total -= total.mean()
    return np.clip(total / (4.5 * total.std() + 1e-6) + 0.5, 0, 1)


def _mix(weights: Field, colors: NDArray[np.float32]) -> Field:
    """Colours along a ramp: 0 gives the first, 1 the last."""
    position = np.clip(weights, 0, 1) * (len(colors) - 1)
    low = np.minimum(position.astype(np.int32), len(colors) - 2)
    part = (position - low)[..., None]
    return colors[low] * (1 - part) + colors[low + 1] * part


def _grid(size: int) -> tuple[Field, Field]:
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    across, down = np.meshgrid(axis, axis)
    return across.astype(np.float32, copy=False), down.astype(np.float32, copy=False)


def _noise(rng: np.random.Generator, size: int, colors: Field) -> Field:
    base = fractal_noise(rng, size, 4, 7, 0.72)
    fine = fractal_noise(rng, size, 64, 3, 0.8)
    return _mix(0.7 * base + 0.3 * fine, colors) * (0.75 + 0.5 * fine[..., None])


def _grass(rng: np.random.Generator, size: int, colors: Field) -> Field:
    blades = fractal_noise(rng, size, 32, 4, 0.85, 2)
    patches = fractal_noise(rng, size, 4, 5, 0.6)
    return _mix(0.55 * blades + 0.45 * patches, colors) * (0.55 + 0.9 * blades[..., None])


def _asphalt(rng: np.random.Generator, size: int, colors: Field) -> Field:
    speckle = fractal_noise(rng, size, size // 4, 3, 0.9)
    stains = fractal_noise(rng, size, 4, 5, 0.6)
    image = _mix(0.6 * stains + 0.4 * speckle, colors) * (0.8 + 0.4 * speckle[..., None])
    crack = np.abs(fractal_noise(rng, size, 4, 6, 0.6) - 0.5) < 0.006
    image[crack] *= 0.45
    return image


def _bricks(rng: np.random.Generator, size: int, colors: Field) -> Field:
    rows, cols = int(rng.choice([8, 16, 32])), int(rng.choice([4, 8, 16]))
    u, v = _grid(size)
    row = np.floor(v * rows).astype(int) % rows
    shifted = (u * cols + 0.5 * (row % 2)) % cols
    col = np.floor(shifted).astype(int) % cols
    tone = rng.random((rows, cols)).astype(np.float32)[row, col]
    along, across = np.abs(shifted % 1 - 0.5), np.abs((v * rows) % 1 - 0.5)
    mortar = (along > 0.5 - 0.04) | (across > 0.5 - 0.08)
    grain = fractal_noise(rng, size, 16, 5, 0.75)
    image = _mix(0.75 * tone + 0.25 * grain, colors[1:] if len(colors) > 2 else colors)
    image = np.where(mortar[..., None], colors[0], image)
    return image * (0.6 + 0.8 * grain[..., None])


def _checker(rng: np.random.Generator, size: int, colors: Field) -> Field:
    count = int(rng.choice([4, 8]))
    u, v = _grid(size)
    cell_u, cell_v = np.floor(u * count).astype(int), np.floor(v * count).astype(int)
    tone = 0.85 * ((cell_u + cell_v) % 2) + 0.15 * rng.random((count, count))[cell_v, cell_u]
    grain = fractal_noise(rng, size, 8, 6, 0.7)
    return _mix(tone.astype(np.float32), colors) * (0.65 + 0.7 * grain[..., None])


def _stripes(rng: np.random.Generator, size: int, colors: Field) -> Field:
    u, v = _grid(size)
    warp = 0.03 * fractal_noise(rng, size, 4, 4)
    phase = (v if rng.random() < 0.5 else u) * int(rng.integers(5, 14)) + 8 * warp
    grain = fractal_noise(rng, size, 16, 5, 0.8)
    tone = np.clip(0.5 + 2.5 * np.sin(2 * np.pi * phase), 0, 1)
    return _mix(0.8 * tone + 0.2 * grain, colors) * (0.6 + 0.8 * grain[..., None])


def _spots(rng: np.random.Generator, size: int, colors: Field) -> Field:
    field = fractal_noise(rng, size, 8, 3, 0.5)
    grain = fractal_noise(rng, size, 32, 4, 0.8)
    image = _mix(np.clip((field - 0.52) * 12 + 0.5, 0, 1), colors[[0, -1]])
    second = np.clip((fractal_noise(rng, size, 8, 2) - 0.66) * 14, 0, 1)[..., None]
    return (image * (1 - second) + colors[len(colors) // 2] * second) * (0.6 + 0.8 * grain[..., None])


def _wood(rng: np.random.Generator, size: int, colors: Field) -> Field:
    streaks = fractal_noise(rng, size, 2, 6, 0.8, 16)
    planks = int(rng.choice([4, 8]))
    u, _ = _grid(size)
    plank = np.floor(u * planks).astype(int)
    tone = rng.random(planks).astype(np.float32)[plank]
    image = _mix(0.6 * streaks + 0.4 * tone, colors) * (0.7 + 0.6 * streaks[..., None])
    image[(u * planks) % 1 < 0.02] *= 0.4
    return image


def _windows(rng: np.random.Generator, size: int, colors: Field) -> Field:
    rows, cols = int(rng.choice([4, 8])), int(rng.choice([4, 8]))
    u, v = _grid(size)
    x, y = (u * cols) % 1 - 0.5, (v * rows) % 1 - 0.5
    cell = np.floor(v * rows).astype(int) % rows, np.floor(u * cols).astype(int) % cols
    plaster = _mix(fractal_noise(rng, size, 8, 7, 0.75), colors[: max(2, len(colors) - 1)])
    shade = rng.random((rows, cols)).astype(np.float32)[
        cell
    ]  # blinds, curtains, reflections: no window is like another
    streaks = fractal_noise(rng, size, 16, 5, 0.7)
    pane = _mix(
        0.6 * shade + 0.4 * streaks, np.stack([colors[-1] * 0.15, colors[-1] * 0.5 + 0.2, colors[0] * 0.4 + 0.6])
    )
    width, height = rng.uniform(0.2, 0.32), rng.uniform(0.25, 0.36)
    inside = (np.abs(x) < width) & (np.abs(y) < height)
    frame = inside & ((np.abs(x) > width - 0.04) | (np.abs(y) > height - 0.04) | (np.abs(x) < 0.012))
    image = np.where(inside[..., None], pane, plaster * 0.95)
    return np.where(frame[..., None], colors[0] * 0.3 + 0.6, image)


def _poster(rng: np.random.Generator, size: int, colors: Field) -> Field:
    """Random shapes and letters: rich in corners, as posters, paint, prints and stickers are."""
    image = np.ascontiguousarray(_mix(fractal_noise(rng, size, 2, 5), colors[:2]) * 255).astype(np.uint8)
    unit = min(size, 512)  # larger tiles hold more shapes, not larger ones
    for _ in range(70 * (size // unit) ** 2):
        color = tuple(int(c) for c in 255 * np.clip(colors[rng.integers(len(colors))] * rng.uniform(0.5, 1.3), 0, 1))
        x, y = (int(c) for c in rng.integers(0, size, 2))
        radius = int(unit * rng.uniform(0.01, 0.09))
        kind = rng.integers(4)
        # Drawn at the four wrapped positions, so that the tile stays seamless.
        for shift in ((0, 0), (size, 0), (0, size), (size, size)):
            center = (x - shift[0] + (size if x < size // 2 else 0), y - shift[1] + (size if y < size // 2 else 0))
            if kind == 0:
                cv2.circle(image, center, radius, color, -1, cv2.LINE_AA)
            elif kind == 1:
                corner = (center[0] + int(radius * 1.7), center[1] + radius)
                cv2.rectangle(image, center, corner, color, -1)
            elif kind == 2:
                cv2.line(image, center, (center[0] + 2 * radius, center[1] - radius), color, max(2, radius // 6))
            else:
                letter = chr(65 + (x * 7 + y) % 26)
                cv2.putText(image, letter, center, cv2.FONT_HERSHEY_DUPLEX, radius / 14, color, 3, cv2.LINE_AA)
    grain = fractal_noise(rng, size, 32, 5 if size > 512 else 4, 0.8)
    return image.astype(np.float32) / 255 * (0.75 + 0.5 * grain[..., None])


def _mosaic(rng: np.random.Generator, size: int, colors: Field) -> Field:
    """Square stones of random colours and two sizes; every place looks different from every other."""
    tone = np.zeros((size, size), np.float32)
    fine = np.zeros((size, size), bool)
    for cells, chosen in ((32, np.ones((size, size), bool)), (64, fine)):
        block = max(1, size // cells)
        grid = np.kron(rng.random((cells, cells)), np.ones((block, block)))[:size, :size].astype(np.float32)
        tone[chosen] = grid[chosen]
        fine |= np.kron(rng.random((32, 32)) < 0.5, np.ones((size // 32, size // 32), bool))[:size, :size]
    grain = fractal_noise(rng, size, 32, 4, 0.8)
    return _mix(tone, colors) * (0.8 + 0.4 * grain[..., None])


def _foliage(rng: np.random.Generator, size: int, colors: Field) -> Field:
    leaves = fractal_noise(rng, size, 16, 4, 0.8)
    light = fractal_noise(rng, size, 16, 2, 0.6)
    gaps = np.clip((leaves - 0.35) * 8, 0.15, 1)[..., None]
    return _mix(0.5 * leaves + 0.5 * light, colors) * gaps * (0.6 + 0.8 * light[..., None])


def _plain(rng: np.random.Generator, size: int, colors: Field) -> Field:
    return _mix(0.5 + 0.12 * (fractal_noise(rng, size, 2, 4) - 0.5), colors)


_DRAW: dict[str, Callable[[np.random.Generator, int, Field], Field]] = {
    "noise": _noise,
    "grass": _grass,
    "asphalt": _asphalt,
    "bricks": _bricks,
    "checker": _checker,
    "stripes": _stripes,
    "spots": _spots,
    "wood": _wood,
    "windows": _windows,
    "poster": _poster,
    "mosaic": _mosaic,
    "foliage": _foliage,
    "plain": _plain,
}
KINDS = tuple(_DRAW)


def draw(texture: Texture) -> Image:
    """Draws the tile of a texture: size x size x 3, RGB."""
    rng = np.random.default_rng([texture.seed, KINDS.index(texture.kind)])
    colors = np.asarray(texture.colors, np.float32)
    image = _DRAW[texture.kind](rng, texture.size, colors)
    mean = image.mean(axis=(0, 1))
    image = mean + texture.contrast * (image - mean)
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)


class MipMap:
    """A tile with its pyramid, for prefiltered look-ups.

    Args:
        tile: Seamless image, S x S x 3, S a power of two.
    """

    def __init__(self, tile: Image) -> None:
        levels = [tile]
        while levels[-1].shape[0] > 2:
            half = cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            levels.append(half.astype(np.uint8, copy=False))
        widths = [level.shape[1] + 2 * _MARGIN for level in levels]
        atlas = np.zeros((tile.shape[0] + 2 * _MARGIN, sum(widths), 3), np.uint8)
        starts = np.concatenate([[0], np.cumsum(widths)[:-1]])
        for level, start in zip(levels, starts, strict=True):
            padded = np.pad(level, ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)), mode="wrap")
            atlas[: padded.shape[0], start : start + padded.shape[1]] = padded
        self.size = tile.shape[0]
        self._atlas = atlas
        self._starts = (starts + _MARGIN - 0.5).astype(np.float32)
        self._sizes = np.array([level.shape[0] for level in levels], np.float32)

    def sample(self, u: Array, v: Array, level: Array) -> Field:
        """Colours at texture coordinates.

        Args:
            u: n coordinates in tiles.
            v: n coordinates in tiles.
            level: n pyramid levels; 0 is the full tile, each further level halves it.

        Returns:
            n x 3 float32 in 0..255.
        """
        level = np.clip(level, 0, len(self._sizes) - 1.001).astype(np.float32)
        low = level.astype(np.int32)
        part = (level - low)[:, None]
        u, v = u - np.floor(u), v - np.floor(v)
        fine, coarse = self._level(u, v, low), self._level(u, v, low + 1)
        return np.add(fine * (1 - part), coarse * part)

    def _level(self, u: Array, v: Array, level: NDArray[np.int32]) -> Field:
        size = self._sizes[level]
        return gather(self._atlas, self._starts[level] + u * size, np.float32(_MARGIN - 0.5) + v * size)


def gather(image: Image, x: Array, y: Array) -> Field:
    """Bilinear look-ups in an image at n array positions (x along columns); returns n x channels float32."""
    count, row = len(x), 4096  # OpenCV's remap limits the sides of its output
    rows = -(-count // row)
    maps = np.zeros((2, rows * row), np.float32)
    maps[0, :count], maps[1, :count] = x, y
    found = cv2.remap(image, maps[0].reshape(rows, row), maps[1].reshape(rows, row), cv2.INTER_LINEAR)
    return found.reshape(rows * row, -1)[:count].astype(np.float32)
