"""Training clips with a real tracker's errors: worlds rendered to video, tracked, and labelled by what lies under each point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segmotion_plugin.ingest import at_working_size, working_size
from segmotion_plugin.settings import MaskSettings
from segmotion_plugin.simulation.primitives import STUFF
from segmotion_plugin.simulation.render import SimulatedClip, render
from segmotion_plugin.simulation.still_life import still_life
from segmotion_plugin.trackers.dis import sample, track
from segmotion_plugin.tracks import Tracks
from segmotion_plugin.training.clips import TrainingClip, hurried, parked, random_scene, sped_up

_SIZES = ((384, 216), (427, 240), (480, 270))
_SIZE_SHARES = (0.55, 0.35, 0.1)
_MOST_TRACKS = 3000
_FEATURE_EVERY = 6
_NAMED_SHARE = 0.45
_STILL_NAMED_SHARE = 0.4  # of the static ones that were worlds with movers
_STILL_SHARE = 0.25  # static worlds, often under a fast camera: parallax is what is most easily taken for motion
_SPED_UP_SHARE = 0.2  # of the others: movers so fast that the tracker loses much of them


def tracked_clip(seed: int, most_tracks: int = _MOST_TRACKS) -> TrainingClip:
    """Render the world of a seed, track it, and label the tracks."""
    rng = np.random.default_rng(seed)
    size = _SIZES[rng.choice(len(_SIZES), p=_SIZE_SHARES)]
    frames = int(rng.choice([24, 28, 32, 40]))
    if rng.random() < _STILL_SHARE:
        step = int(rng.choice([1, 2, 3, 4]))
        kind = rng.random()
        if kind < 0.4:
            world = still_life(rng, frames, *size)
        else:
            moving = random_scene(rng, frames * step, size, _STILL_NAMED_SHARE)
            world = parked(moving, int(rng.integers(frames * step)), step) if kind < 0.7 else hurried(moving, step)
    elif rng.random() < _SPED_UP_SHARE:
        step = int(rng.choice([2, 3, 4]))
        world = sped_up(random_scene(rng, frames * step, size, _NAMED_SHARE), step)
    else:
        world = random_scene(rng, frames, size, _NAMED_SHARE)
    clip = render(world)
    return labelled(clip, *described_tracks(list(clip.frames), rng, most_tracks))


def described_tracks(frames: Sequence[np.ndarray], rng: np.random.Generator, most_tracks: int) -> tuple[Tracks, np.ndarray]:
    """Track frames and describe the tracks at the working size of the masks' settings, as the pipeline does.

    Args:
        frames: T images H×W×3 uint8 RGB.
        rng: chooses the tracks that are kept.
        most_tracks: number kept.

    Returns:
        N tracks in pixels of `frames`, and their features N×D float16; NaN where none was read.
    """
    from segmotion_plugin.semantics.efficientnet import EfficientNetLite0, Projection

    network = EfficientNetLite0()
    height, width = frames[0].shape[:2]
    size = working_size(width, height, MaskSettings().work_size)
    working = [at_working_size(frame, size) for frame in frames]
    described = [network(frame) for frame in working]
    projection = Projection(described[index] for index in Projection.fit_frames(len(described)))
    tracks = track(working, enlarged=max(1.0, size[0] / width), features=[projection(features) for features in described])
    if len(tracks) > most_tracks:
        tracks = tracks.select(np.sort(rng.permutation(len(tracks))[:most_tracks]))
    features = track_features(described, size, tracks)
    return tracks.scaled((width / size[0], height / size[1])), features


def labelled_tracks(clip: SimulatedClip) -> tuple[Tracks, np.ndarray, np.ndarray]:
    """All tracks that the embedded tracker finds in a rendered clip.

    Returns:
        N tracks in pixels of the clip, their features N×D, and N shares of their observations that lie on a mover.
    """
    tracks, features = described_tracks(list(clip.frames), np.random.default_rng(0), len(clip.frames) * clip.labels[0].size)
    under = clip.labels[_pixels_under(clip, tracks)]
    on_object = (under > 0) & (under != STUFF)
    return tracks, features, np.bincount(tracks.track_flat, weights=on_object, minlength=len(tracks)) / tracks.length


def _pixels_under(clip: SimulatedClip, tracks: Tracks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frame, row and column of the pixels under the M observations."""
    height, width = clip.labels.shape[1:]
    column = np.clip(np.floor(tracks.xy_flat[:, 0]).astype(int), 0, width - 1)
    row = np.clip(np.floor(tracks.xy_flat[:, 1]).astype(int), 0, height - 1)
    return tracks.frame_flat, row, column


def labelled(clip: SimulatedClip, tracks: Tracks, features: np.ndarray) -> TrainingClip:
    """Label tracks by the object under the point in most frames, as masks of real clips would.

    Args:
        clip: the rendered clip.
        tracks: N tracks found in its frames.
        features: N×D of the tracks.
    """
    owner, at = tracks.track_flat, _pixels_under(clip, tracks)
    under = clip.labels[at]
    on_stuff = np.bincount(owner, weights=under == STUFF, minlength=len(tracks))
    on_object = np.bincount(owner, weights=under > 0, minlength=len(tracks)) - on_stuff
    mover, stuff = 2 * on_object > tracks.length, 2 * on_stuff > tracks.length
    of_object = np.where(under == STUFF, 0, under)
    moving = clip.moving[at[0], of_object] & mover[owner] | stuff[owner]
    depth = np.minimum(clip.depth[at], 6e4).astype(np.float16)
    return TrainingClip(
        size=np.array(clip.labels.shape[:0:-1]),
        exact=np.array(0),
        xy=tracks.xy,
        visible=tracks.visible,
        confidence=tracks.dense(tracks.confidence_flat, np.float16(0)),
        depth=tracks.dense(depth, np.float16(np.nan)),
        moving=tracks.dense(moving, False),
        apparent=np.full((len(tracks), tracks.num_frames), np.nan, np.float16),
        surface=np.where(mover | stuff, _most_frequent(owner, under, len(tracks)), 0).astype(np.int32),
        kind=np.full(len(tracks), -1, np.int32),
        start=tracks.first,
        features=features,
        stuff=stuff,
    )


def _most_frequent(owner: np.ndarray, label: np.ndarray, count: int) -> np.ndarray:
    votes = np.zeros((count, 256), np.int32)
    np.add.at(votes, (owner, label), 1)
    return votes[:, 1:].argmax(axis=1) + 1


def track_features(described: Sequence[np.ndarray], size: tuple[int, int], tracks: Tracks, every: int = _FEATURE_EVERY) -> np.ndarray:
    """Features N×D float16 of every track, read at every so many frames; NaN where it lived in between.

    Args:
        described: T arrays h×w×D of features.
        size: (width, height) of the pixels of the tracks.
        tracks: N tracks.
        every: frames from one reading to the next.
    """
    rows, columns, channels = described[0].shape
    features = np.full((len(tracks), channels), np.nan, np.float16)
    for frame in range(0, tracks.num_frames, every):
        ids, xy = tracks.observations_at(frame)
        fresh = np.isnan(features[ids, 0])
        scale = np.array([columns / size[0], rows / size[1]])
        features[ids[fresh]] = sample(described[frame], xy[fresh] * scale).astype(np.float16)
    return features
