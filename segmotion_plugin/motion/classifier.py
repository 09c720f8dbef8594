"""Which tracks move in the world: the trained model, and the geometric baselines it has to beat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.motion.cluster_channels import POOLED
from segmotion_plugin.motion.cluster_model import DEFAULT_WEIGHTS, ClusterModel, second_look
from segmotion_plugin.motion.features import PAIR_CHANNELS, PATCH, SLOTS, relation_features
from segmotion_plugin.motion.geometry import FitOptions
from segmotion_plugin.motion.model import TrajectoryTransformer, load_weights
from segmotion_plugin.motion.resting_camera import unmistakable
from segmotion_plugin.motion.sweep import Pictures
from segmotion_plugin.motion.windows import KEYS, ClipWindow, Merger, clip_windows, plan
from segmotion_plugin.parallel import in_order, one_thread_each
from segmotion_plugin.tracks import TrackMotion, Tracks

THRESHOLD = 0.5
"""A track with at least this (calibrated) probability moves."""

SHARPNESS = 0.5
_FIT = FitOptions()
# Shift of the logit from sensitivity 0 (few false alarms) to 1 (few misses).
_SENSITIVITY_RANGE = 4.0
# Log odds above which a track that goes on before a resting camera is in doubt, and those that it has then.
_DENIED, _CERTAIN = -1.5, 2.5
# Logistic curves of the geometric fallback: log residual over the window's median, and log residual in pixels.
_RELATIVE_SLOPE, _RELATIVE_LEVEL, _ABSOLUTE_LEVEL = 4.0, 0.9, 0.1


def classify(
    tracks: Tracks,
    image_size: tuple[int, int],
    *,
    features: np.ndarray | None = None,
    depth: np.ndarray | None = None,
    pictures: Pictures | None = None,
    sensitivity: float = 0.5,
    weights: Path | str | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> TrackMotion:
    """Say for every track how probable it is that its surface moves in the world, and when.

    Args:
        tracks: N tracks over T frames.
        image_size: (width, height) of the images that the tracks are measured in, pixels.
        features: N×D semantic features of any extractor, one vector per track (NaN rows = unknown), or None.
        depth: M distances along the view, one per observation of the tracks (in the order of `tracks.xy_flat`), up to one
            unknown scale per frame; NaN = unknown. Or None.
        pictures: the T images, in the pixels of the tracks; with them the second look at small movers sees more.
        sensitivity: 0 to 1; 0.5 is calibrated, more finds more.
        weights: a safetensors file; the shipped weights when absent.
        seed: chooses which tracks serve as keys; the same seed gives the same result.
        device: "cpu", "cuda", "mps".
        progress: called with the share done, 0 to 1.

    Returns:
        Probabilities, flags per frame, and object ids all 0 (grouping is another stage). A track moves when its probability is
        at least `THRESHOLD`.

    Raises:
        SegmotionError: tracks, sizes, features, depth or weights that do not fit; the message names what was expected.
    """
    _check(tracks, image_size, features, depth, sensitivity)
    model, calibration = load_weights(None if weights is None else Path(weights), device)
    pairs = PairMeans(len(tracks))
    track, frame = merged_logits(
        model, tracks, image_size, features=features, depth=depth, seed=seed, device=device, progress=progress, pairs=pairs
    )
    track = calibration.track_slope * track + calibration.track_bias
    second = DEFAULT_WEIGHTS if weights is None else Path(weights).with_name(DEFAULT_WEIGHTS.name)
    added = np.zeros(len(tracks))
    # Weights that were trained elsewhere have a cluster model of their own beside them, or none.
    if weights is None or second.is_file():
        added = second_look(ClusterModel.load(second), tracks, track, pairs.means(), image_size, pictures)
    sure = (track + added > _DENIED) & unmistakable(tracks, image_size)
    added = np.where(sure, np.maximum(added, _CERTAIN - track), added)
    shift = _SENSITIVITY_RANGE * (sensitivity - 0.5)
    frame = calibration.frame_slope * frame + calibration.frame_bias + np.maximum(added, 0)[tracks.track_flat]
    return _motion(tracks, track + added + shift, frame + shift)


def merged_logits(
    model: TrajectoryTransformer,
    tracks: Tracks,
    image_size: tuple[int, int],
    *,
    features: np.ndarray | None = None,
    depth: np.ndarray | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[float], None] | None = None,
    pairs: PairMeans | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """N track logits and M frame logits of a model, merged over all windows, before calibration.

    Arguments as of `classify`; `pairs` collects the geometry channels on the way.
    """
    relations = None
    if features is not None and model.config.semantics != "none":
        relations = torch.from_numpy(relation_features(features, model.config.semantic_size)).to(device)

    def judge(window: ClipWindow) -> tuple[np.ndarray, np.ndarray]:
        semantics = None if relations is None else relations[torch.from_numpy(window.ids).to(device)][None]
        with torch.inference_mode():
            track_logit, frame_logit = model(window.tokens, semantics, KEYS)
        return track_logit[0].float().cpu().numpy(), frame_logit[0].float().cpu().numpy()

    return _merged(tracks, image_size, depth, seed, device, SHARPNESS, judge, progress, pairs)


def classify_geometric(
    tracks: Tracks,
    image_size: tuple[int, int],
    *,
    features: np.ndarray | None = None,
    depth: np.ndarray | None = None,
    pictures: Pictures | None = None,
    sensitivity: float = 0.5,
    weights: Path | str | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> TrackMotion:
    """The same question answered by geometry alone: residual to the dominant homography, relative and absolute.

    Takes what `classify` takes so that either can be chosen by name; features, depth, pictures and weights are not used.

    Raises:
        SegmotionError: as `classify`.
    """
    _check(tracks, image_size, features, depth, sensitivity)

    def judge(window: ClipWindow) -> tuple[np.ndarray, np.ndarray]:
        values = pair_values(window)
        level = np.minimum(
            values["homography / median"] - _RELATIVE_LEVEL,
            values["homography"] - _ABSOLUTE_LEVEL,
        )
        by_patch = np.full((len(level), SLOTS.shape[0]), -10.0)
        known = np.isfinite(level)
        count = known.sum(axis=2)
        total = np.where(known, level, 0).sum(axis=2)
        by_patch[count > 0] = _RELATIVE_SLOPE * total[count > 0] / count[count > 0]
        mean = _RELATIVE_SLOPE * total.sum(axis=1) / np.maximum(count.sum(axis=1), 1)
        return np.where(count.any(axis=1), mean, -10.0), np.repeat(by_patch, PATCH, axis=1)

    track, frame = _merged(tracks, image_size, depth, seed, device, 0.0, judge, progress)
    shift = _SENSITIVITY_RANGE * (sensitivity - 0.5)
    return _motion(tracks, track + shift, frame + shift)


def pair_values(window: ClipWindow) -> dict[str, np.ndarray]:
    """Geometry channels of a window by name, each n×L×S (patch, frame pair), NaN where the pair does not exist."""
    tokens = window.tokens.tokens[0].cpu().numpy()[..., : SLOTS.shape[1] * PAIR_CHANNELS]
    pairs = tokens.reshape(*tokens.shape[:2], SLOTS.shape[1], PAIR_CHANNELS)
    missing = pairs[..., 0] == 0
    named = {"homography": 5, "homography / median": 7, "sampson": 9, "sampson / median": 10}
    return {name: np.where(missing, np.nan, pairs[..., channel]) for name, channel in named.items()}


class PairMeans:
    """Means of the geometry channels of every track over its pairs of frames, collected window by window.

    Args:
        count: N tracks.
    """

    def __init__(self, count: int) -> None:
        self._count = np.zeros(count)
        self._total: dict[str, np.ndarray] = {}

    def add(self, window: ClipWindow) -> None:
        """Take in the pairs of a window."""
        values = pair_values(window)
        self._count[window.ids] += np.isfinite(values["homography"]).sum(axis=(1, 2))
        for name, value in values.items():
            total = self._total.setdefault(name, np.zeros(len(self._count)))
            total[window.ids] += np.nansum(value, axis=(1, 2))

    def means(self, unknown: float = np.nan) -> dict[str, np.ndarray]:
        """N means of log residuals by channel."""
        return {
            name: np.where(self._count > 0, self._total.get(name, 0.0) / np.maximum(self._count, 1), unknown)
            for name in POOLED
        }


def geometric_scores(tracks: Tracks, image_size: tuple[int, int], seed: int = 0) -> dict[str, np.ndarray]:
    """Scores (N, larger = more likely moving) of single geometric baselines, the mean log residual over a track's pairs."""
    _check(tracks, image_size, None, None, 0.5)
    pairs = PairMeans(len(tracks))
    for window in clip_windows(tracks, image_size, None, seed, "cpu", _FIT):
        pairs.add(window)
    scores = pairs.means(unknown=-10.0)
    scores["both / median"] = scores["homography / median"] + scores["sampson / median"]
    return scores


def _merged(
    tracks: Tracks,
    image_size: tuple[int, int],
    depth: np.ndarray | None,
    seed: int,
    device: str,
    sharpness: float,
    judge: Callable[[ClipWindow], tuple[np.ndarray, np.ndarray]],
    progress: Callable[[float], None] | None,
    pairs: PairMeans | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Run `judge` on every window, some side by side; N track logits and M frame logits. `pairs` collects what it will."""
    merger = Merger(tracks, sharpness)
    number = sum(len(plan(stop - start)) for start, stop in tracks.stretches())
    if depth is not None:
        depth = np.asarray(depth, np.float32)
    windows = clip_windows(tracks, image_size, depth, seed, device, _FIT)
    with one_thread_each():
        for done, (window, logits) in enumerate(in_order(lambda window: (window, judge(window)), windows), start=1):
            merger.add(window, *logits)
            if pairs is not None:
                pairs.add(window)
            if progress is not None:
                progress(done / number)
    return merger.result()


def _motion(tracks: Tracks, track_logit: np.ndarray, frame_logit: np.ndarray) -> TrackMotion:
    probability = 1 / (1 + np.exp(-np.clip(track_logit, -30, 30)))
    moves = probability >= THRESHOLD
    moving = (frame_logit >= 0) & moves[tracks.track_flat] & tracks.visible_flat
    return TrackMotion(tracks, probability, moving, np.zeros(len(tracks), np.int32))


def _check(
    tracks: Tracks,
    image_size: tuple[int, int],
    features: np.ndarray | None,
    depth: np.ndarray | None,
    sensitivity: float,
) -> None:
    """Raise a SegmotionError for what cannot be classified."""
    if len(tracks) < 2:
        raise SegmotionError(f"motion is judged against other tracks: expected at least 2 tracks, got {len(tracks)}")
    if tracks.num_frames < 2:
        raise SegmotionError(f"motion needs time: expected tracks over at least 2 frames, got {tracks.num_frames}")
    if not tracks.visible_flat.any():
        raise SegmotionError("no track is visible at any frame; expected visible observations")
    if not np.isfinite(tracks.xy_flat[tracks.visible_flat]).all():
        raise SegmotionError("a visible observation has a position that is not finite (NaN); hide it or drop the track")
    if len(image_size) != 2 or not all(np.isfinite(v) and v > 0 for v in image_size):
        raise SegmotionError(f"image_size must be (width, height) in pixels, got {image_size}")
    if features is not None and (np.ndim(features) != 2 or len(features) != len(tracks)):
        raise SegmotionError(f"features must be N×D with N = {len(tracks)} tracks, got shape {np.shape(features)}")
    if depth is not None and np.shape(depth) != (len(tracks.xy_flat),):
        raise SegmotionError(
            f"depth must hold one value for each of {len(tracks.xy_flat)} observations, got {np.shape(depth)}"
        )
    if not 0 <= sensitivity <= 1:
        raise SegmotionError(f"sensitivity must be between 0 and 1, got {sensitivity}")
