"""Epipolar baseline, after RoMo (Goli et al., "RoMo: Robust Motion Segmentation Improves Structure from Motion", ICCV 2025).

For every pair of neighbouring frames a fundamental matrix is fitted robustly to optical flow. Pixels whose Sampson error is large
beside the mean length of the flow are likely dynamic, those with next to none likely static. From these sparse labels a
classifier is trained on the clip itself, on features of a frozen backbone; it labels every pixel. The fundamental matrix is then
fitted again on what it calls static, and the labels and the classifier are made anew.

Where the paper uses RAFT, SAM2 features and SAM2 masks, this uses DIS flow, EfficientNet-Lite0 features (or colour, texture and
position), and the classifier's probability at feature resolution: what runs without a GPU or a download.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from segmotion_plugin.clip import read_rgb
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.trackers.dis import sample
from segmotion_plugin.trackers.flow import DisFlow

_GRID = 4
"""Working pixels between the points at which flow is judged."""
_FIT_POINTS = 600
"""Matches that a fundamental matrix is fitted to."""


@dataclass(frozen=True)
class Options:
    """Settings of the epipolar baseline.

    Attributes:
        dynamic: a squared Sampson error (px²) above this multiple of the pair's mean flow length (px) is likely dynamic.
        static: one below this multiple is likely static.
        iterations: rounds of fitting, labelling and training.
        long_side: working width or height at most, for flow and features.
        features: `efficientnet`, or `colour` (colour, texture and position; no network).
        samples: labelled points of each kind to train on, per clip.
        ridge: weight of the squared coefficients in the classifier's loss.
        seed: of the sampling.
    """

    dynamic: float = 1.0
    static: float = 0.01
    iterations: int = 2
    long_side: int = 432
    features: str = "efficientnet"
    samples: int = 20_000
    ridge: float = 1e-3
    seed: int = 0


def epipolar_masks(frames: Sequence[Path | np.ndarray], options: Options | None = None) -> Iterator[np.ndarray]:
    """Motion masks of a clip.

    Args:
        frames: T image files, or T arrays H×W×3 uint8 RGB.
        options: see `Options`.

    Yields:
        T masks H×W uint8, 1 where the world moves.

    Raises:
        SegmotionError: fewer than two frames, or an unknown kind of features.
    """
    options = options or Options()
    if len(frames) < 2:
        raise SegmotionError(f"the epipolar baseline needs two frames or more, got {len(frames)}")
    rng = np.random.default_rng(options.seed)
    motions = _motions(frames, options)
    shape = _small(frames[0], options.long_side).shape
    features = _features(frames, options, shape)
    grid = _grid_points(shape)
    flat = [feature.reshape(-1, feature.shape[-1]) for feature in features]
    static = [np.ones(len(grid), dtype=bool) for _ in frames]
    probability = [np.zeros(len(grid), dtype=np.float32) for _ in frames]
    for _ in range(options.iterations):
        evidence = _evidence(motions, grid, static, options)
        classifier = _train(flat, evidence, options, rng)
        if classifier is None:  # no pixel is likely dynamic: nothing moves
            probability = [np.zeros(len(grid), dtype=np.float32) for _ in frames]
            break
        probability = [classifier(feature) for feature in flat]
        static = [values < 0.5 for values in probability]
    for frame, values in zip(frames, probability, strict=True):
        height, width = _load(frame).shape[:2]
        full = cv2.resize(values.reshape(_grid_shape(shape)), (width, height), interpolation=cv2.INTER_CUBIC)
        yield (full > 0.5).astype(np.uint8)


def fundamental_matrix(first: np.ndarray, second: np.ndarray) -> np.ndarray | None:
    """Robust fundamental matrix (3×3, x₂ᵀ F x₁ = 0) of n×2 matches by MAGSAC++, or None where none can be found.

    Barath et al., "MAGSAC++, a fast, reliable and accurate robust estimator", CVPR 2020, as OpenCV has it (deterministic).
    """
    if len(first) < 15:
        return None
    try:
        matrix, _ = cv2.findFundamentalMat(
            first.astype(np.float64), second.astype(np.float64), cv2.USAC_MAGSAC, 1.0, 0.999, 2000
        )
    except cv2.error:  # degenerate samples make some versions fail
        return None
    return matrix if matrix is not None and matrix.shape == (3, 3) else None


def squared_sampson_error(matrix: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """First-order squared distance (n, px²) of n×2 matches to a fundamental matrix (Hartley and Zisserman, eq. 11.9)."""
    p = np.concatenate([first, np.ones((len(first), 1))], axis=1)
    q = np.concatenate([second, np.ones((len(second), 1))], axis=1)
    line_second, line_first = p @ matrix.T, q @ matrix
    gradient = (line_second[:, :2] ** 2).sum(axis=1) + (line_first[:, :2] ** 2).sum(axis=1)
    return (q * line_second).sum(axis=1) ** 2 / np.maximum(gradient, 1e-20)


class LogisticRegression:
    """Ridge logistic regression on standardised inputs, both classes of equal weight, by Newton steps."""

    def __init__(self, inputs: np.ndarray, positive: np.ndarray, ridge: float, steps: int = 12) -> None:
        """Fit to n×C inputs and n bool labels."""
        inputs = inputs.astype(np.float64)
        self.mean, self.scale = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6
        design = self._design(inputs)
        share = positive.mean()
        weight = np.where(positive, 0.5 / max(share, 1e-9), 0.5 / max(1 - share, 1e-9)) / len(inputs)
        penalty = np.full(design.shape[1], ridge)
        penalty[-1] = 1e-9
        coefficients = np.zeros(design.shape[1])
        for _ in range(steps):
            probability = _sigmoid(design @ coefficients)
            gradient = design.T @ (weight * (probability - positive)) + penalty * coefficients
            curvature = weight * np.maximum(probability * (1 - probability), 1e-6)
            step = np.linalg.solve((design * curvature[:, None]).T @ design + np.diag(penalty), gradient)
            coefficients -= step
            if np.abs(step).max() < 1e-6:
                break
        self.coefficients = coefficients

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """n float32 probabilities of being positive."""
        return _sigmoid(self._design(inputs) @ self.coefficients).astype(np.float32)

    def _design(self, inputs: np.ndarray) -> np.ndarray:
        return np.concatenate([(inputs - self.mean) / self.scale, np.ones((len(inputs), 1))], axis=1)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -50, 50)))


def _load(frame: Path | np.ndarray) -> np.ndarray:
    return frame if isinstance(frame, np.ndarray) else read_rgb(frame)


def _small(frame: Path | np.ndarray, long_side: int) -> np.ndarray:
    image = _load(frame)
    factor = min(1.0, long_side / max(image.shape[:2]))
    if factor == 1.0:
        return np.ascontiguousarray(image)
    size = (max(16, round(image.shape[1] * factor)), max(16, round(image.shape[0] * factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


@dataclass(frozen=True)
class _Motion:
    """Flow of one frame's grid points: n×2 displacements in working pixels, and n bool where they can be trusted."""

    step: np.ndarray
    trusted: np.ndarray


def _motions(frames: Sequence[Path | np.ndarray], options: Options) -> list[list[_Motion]]:
    """Per frame the motion of its grid points to the frame before and after; trusted where the way back leads home."""
    found: list[list[_Motion]] = [[] for _ in frames]
    grey = cv2.cvtColor(_small(frames[0], options.long_side), cv2.COLOR_RGB2GRAY)
    engine = DisFlow(grey.shape[1], grey.shape[0])
    for t in range(len(frames) - 1):
        following = cv2.cvtColor(_small(frames[t + 1], options.long_side), cv2.COLOR_RGB2GRAY)
        forward, backward = engine(grey, following), engine(following, grey)
        for frame, flow, back in ((t, forward, backward), (t + 1, backward, forward)):
            grid = _grid_points(flow.shape)
            step = sample(flow, grid)
            target = grid + step
            home = sample(back, target)
            inside = ((target >= 0) & (target < [flow.shape[1], flow.shape[0]])).all(axis=1)
            miss = ((step + home) ** 2).sum(axis=1)
            found[frame].append(_Motion(step, inside & (miss < 0.5 + 0.01 * (step**2 + home**2).sum(axis=1))))
        grey = following
    return found


def _grid_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    return max(2, shape[0] // _GRID), max(2, shape[1] // _GRID)


def _grid_points(shape: tuple[int, ...]) -> np.ndarray:
    """n×2 positions of the grid's cell centres in working pixels (centre of the top-left pixel = (0.5, 0.5))."""
    rows, columns = _grid_shape(shape)
    x, y = np.meshgrid((np.arange(columns) + 0.5) * shape[1] / columns, (np.arange(rows) + 0.5) * shape[0] / rows)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def _evidence(
    motions: Sequence[Sequence[_Motion]], grid: np.ndarray, static: Sequence[np.ndarray], options: Options
) -> list[np.ndarray]:
    """Sparse labels of every frame's grid points: 1 likely dynamic, -1 likely static, 0 unknown."""
    labels = []
    for around, still in zip(motions, static, strict=True):
        dynamic = np.zeros(len(grid), dtype=bool)
        fits, judged = np.ones(len(grid), dtype=bool), np.zeros(len(grid), dtype=bool)
        for motion in around:
            length = float(np.linalg.norm(motion.step, axis=1).mean())
            chosen = np.flatnonzero(still & motion.trusted)
            chosen = chosen[np.linspace(0, len(chosen) - 1, min(_FIT_POINTS, len(chosen))).astype(int)]
            target = grid + motion.step
            matrix = fundamental_matrix(grid[chosen], target[chosen]) if length > 1e-3 else None
            if matrix is None:
                continue
            error = squared_sampson_error(matrix, grid, target)
            dynamic |= motion.trusted & (error > options.dynamic * length)
            fits &= ~motion.trusted | (error < options.static * length)
            judged |= motion.trusted
        labels.append(dynamic.astype(np.int8) - (judged & fits & ~dynamic).astype(np.int8))
    return labels


def _train(
    features: Sequence[np.ndarray], evidence: Sequence[np.ndarray], options: Options, rng: np.random.Generator
) -> Callable[[np.ndarray], np.ndarray] | None:
    """The clip's classifier; None when one kind of label is missing.

    It learns from both kinds with equal weight. Its odds are then moved half-way (in logarithms) towards how often the labels
    occur: without that it calls too much dynamic, with the full ratio too little, as likely dynamic pixels are the sparser labels.
    """
    frame = np.concatenate([np.full(len(label), t) for t, label in enumerate(evidence)])
    point = np.concatenate([np.arange(len(label)) for label in evidence])
    label = np.concatenate(list(evidence))
    picked, counts = [], []
    for kind in (1, -1):
        rows = np.flatnonzero(label == kind)
        if len(rows) < 20:
            return None
        counts.append(len(rows))
        picked.append(rng.choice(rows, min(options.samples, len(rows)), replace=False))
    rows = np.sort(np.concatenate(picked))
    inputs = np.stack([features[t][i] for t, i in zip(frame[rows], point[rows], strict=True)])
    classifier = LogisticRegression(inputs, label[rows] > 0, options.ridge)
    classifier.coefficients[-1] += 0.5 * np.log(counts[0] / counts[1])
    return classifier


def _features(frames: Sequence[Path | np.ndarray], options: Options, shape: tuple[int, ...]) -> list[np.ndarray]:
    """T features rows×columns×C float16 at the grid points."""
    rows, columns = _grid_shape(shape)
    x, y = np.meshgrid(np.linspace(-1, 1, columns), np.linspace(-1, 1, rows))
    position = np.stack([x, y, x * x, y * y, x * y], axis=-1)
    if options.features == "efficientnet":
        from segmotion_plugin.semantics.efficientnet import EfficientNetLite0, Projection

        network = EfficientNetLite0()
        raw = [network(_small(frame, 2 * options.long_side)).astype(np.float16) for frame in frames]
        project = Projection(raw[index] for index in Projection.fit_frames(len(raw)))
        deep = [cv2.resize(project(values.astype(np.float32)), (columns, rows)) for values in raw]
    elif options.features == "colour":
        deep = [np.zeros((rows, columns, 0), np.float32) for _ in frames]
    else:
        raise SegmotionError(f"features must be 'efficientnet' or 'colour', got {options.features!r}")
    return [
        np.concatenate([values, _colour(_small(frame, options.long_side), rows, columns), position], axis=-1).astype(np.float16)
        for frame, values in zip(frames, deep, strict=True)
    ]


def _colour(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Mean Lab colour, its squares, and the local contrast of each grid cell: rows×columns×7."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32) / 255.0
    mean = cv2.resize(lab, (columns, rows), interpolation=cv2.INTER_AREA)
    square = cv2.resize(lab[..., :1] ** 2, (columns, rows), interpolation=cv2.INTER_AREA).reshape(rows, columns, 1)
    contrast = np.sqrt(np.maximum(square - mean[..., :1] ** 2, 0))
    return np.concatenate([mean, mean**2, contrast], axis=-1)
