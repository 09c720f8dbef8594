"""Which tracks move, according to the released SegAnyMo network: inputs as the authors' code prepares them, an honest verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.tracks import TrackMotion, Tracks

WINDOW = 100
"""Frames judged at once; the network was trained on clips up to this length."""

MAX_TRACKS = 5000
"""Tracks judged at once, as in the paper."""

_LADDER = (0.95, 0.93, 0.90, 0.85, 0.80, 0.75, 0.70)
_LADDER_LONG = (0.99, 0.98, 0.97, 0.96, 0.95)
_LONG = 300  # frames from which on the second ladder holds
_ENOUGH = 10  # tracks that must pass a rung
_SENSITIVITY_RANGE = 4.0  # shift of the logit from sensitivity 0 to 1


def classify_seganymo(
    model: object,
    tracks: Tracks,
    image_size: tuple[int, int],
    *,
    features: np.ndarray,
    depth: Sequence[np.ndarray],
    shots: Sequence[tuple[int, int]] | None = None,
    visibility: np.ndarray | None = None,
    sensitivity: float = 0.5,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> TrackMotion:
    """Run the network over a clip.

    Long clips are judged in windows of `WINDOW` frames that overlap by half, and more than `MAX_TRACKS` tracks in random parts; a
    track's probability is the mean over the windows, weighted by the frames in which it was seen there.

    Args:
        model: a `SegAnyMo`.
        tracks: N tracks over T frames.
        image_size: (width, height) of the images that the tracks are measured in, pixels.
        features: N×768 DINO features (`SegAnyMoFeatures`), one vector per track.
        depth: T maps H×W uint8 as `authors_depth` gives them.
        shots: half-open frame ranges that are judged apart; one shot when absent.
        visibility: M probabilities of being visible, by observation; the flags of the tracks when absent.
        sensitivity: 0 to 1; 0.5 leaves the network's output as it is.
        seed: divides the tracks when there are too many.
        progress: called with the share done, 0 to 1.

    Returns:
        Probabilities mapped so that 0.5 is the threshold that the ladder chose; what moves is taken to move at every visible frame,
        for the network has no word per frame. Object ids are 0.

    Raises:
        SegmotionError: features or depth that do not fit the tracks.
    """
    if features.shape != (len(tracks), 768):
        raise SegmotionError(f"SegAnyMo needs {len(tracks)}×768 features, got {features.shape}")
    rng = np.random.default_rng(seed)
    total, weight = np.zeros(len(tracks)), np.zeros(len(tracks))
    shown = tracks.visible_flat.astype(np.float32) if visibility is None else np.asarray(visibility, np.float32)
    windows = [w for shot in shots or [(0, tracks.num_frames)] for w in _windows(*shot)]
    for done, (start, stop) in enumerate(windows, start=1):
        maps = np.stack([np.asarray(depth[t], np.float32) / 255 for t in range(start, stop)], axis=-1)[None, None]
        window = tracks.window(start, stop)
        order = rng.permutation(len(window.ids))
        for part in np.array_split(order, -(-len(order) // MAX_TRACKS)) if len(order) else []:
            ids = window.ids[part]
            inputs = network_inputs(tracks, ids, (start, stop), image_size, shown)
            dino = np.nan_to_num(features[ids]).T[None, :, :, None].astype(np.float32)
            probability = model(**inputs, depth=maps, dino=dino)[0, 0].cpu().numpy()  # type: ignore[operator]
            seen = window.visible[part].sum(axis=1)
            total[ids] += probability * seen
            weight[ids] += seen
        if progress is not None:
            progress(done / len(windows))
    probability = total / np.maximum(weight, 1)
    logit = np.log(np.clip(probability, 1e-7, 1 - 1e-7) / np.clip(1 - probability, 1e-7, 1))
    probability = 1 / (1 + np.exp(-(logit + _SENSITIVITY_RANGE * (sensitivity - 0.5))))
    probability[weight == 0] = 0
    threshold = ladder(probability, tracks.num_frames)
    mapped = np.where(
        probability < threshold, 0.5 * probability / threshold, 0.5 + 0.5 * (probability - threshold) / (1 - threshold)
    ).astype(np.float32)
    moving = (mapped >= 0.5)[tracks.track_flat] & tracks.visible_flat
    return TrackMotion(tracks, mapped, moving, np.zeros(len(tracks), np.int32))


def _windows(start: int, stop: int) -> list[tuple[int, int]]:
    """Overlapping frame ranges that cover [start, stop)."""
    starts = range(start, max(start + 1, stop - WINDOW // 2), WINDOW // 2)
    return [(begin, min(begin + WINDOW, stop)) for begin in starts]


def ladder(probability: np.ndarray, num_frames: int) -> float:
    """The threshold: the first of the paper's that ten tracks pass, or the lowest.

    The authors' code declares the three best tracks moving when too few pass the lowest; here nothing moves then, or as few as pass.
    """
    rungs = _LADDER_LONG if num_frames > _LONG else _LADDER
    return next((rung for rung in rungs if (probability >= rung).sum() >= _ENOUGH), rungs[-1])


def network_inputs(
    tracks: Tracks, ids: np.ndarray, frames: tuple[int, int], image_size: tuple[int, int], visibility: np.ndarray
) -> dict[str, np.ndarray]:
    """The inputs `traj`, `mask`, `visib_value` and `confi_value` of some tracks over frames [start, stop).

    Outside its run a track keeps its nearest known position, hidden and without confidence.
    """
    start, stop = frames
    grid = np.arange(start, stop)
    first, last = tracks.first[ids].astype(np.int64), tracks.first[ids] + tracks.length[ids] - 1
    rows = tracks.offset[ids][:, None] + np.clip(grid[None], first[:, None], last[:, None]) - first[:, None]  # n×L
    inside = (grid[None] >= first[:, None]) & (grid[None] <= last[:, None])
    xy = np.nan_to_num(tracks.xy_flat[rows])
    # Their positions count from the centre of the first pixel.
    normalised = np.clip((xy - 0.5) / np.array(image_size, np.float32) * 2 - 1, -1, 1)
    hidden = ~(inside & tracks.visible_flat[rows])
    return {
        "traj": normalised.transpose(2, 0, 1)[None].astype(np.float32),
        "mask": hidden[None, None].astype(np.float32),
        "visib_value": np.where(inside, visibility[rows], 0)[None, None].astype(np.float32),
        "confi_value": np.where(inside, tracks.confidence_flat[rows], 0)[None, None].astype(np.float32),
    }


def authors_depth(disparity: np.ndarray) -> np.ndarray:
    """A disparity map as the network saw it in training, mistake included: H×W uint8 0 or 255 nearly everywhere.

    Their code stores 16 bits and reads 8, where everything above 255 of 65535 is cut to 255; then the map is stretched to [0, 1].
    What is left is a mask of the farthest 0.4 % of the range. The released weights were fitted to that.
    """
    low, high = float(disparity.min()), float(disparity.max())
    sixteen = ((disparity - low) / max(high - low, 1e-12) * 65535).astype(np.uint16)
    cut = np.minimum(sixteen, 255).astype(np.float32)
    return ((cut - cut.min()) / max(float(cut.max() - cut.min()), 1e-12) * 255).astype(np.uint8)
