"""Bringing tracks into agreement with the masks they led to.

Masks follow the edges in the pictures, tracks alone cannot: flow drags a rim of background along with an object, and single tracks are
misjudged. Where the pixels under a track were masked, or not, at most of the frames, that counts as further evidence about the track.
"""

from __future__ import annotations

import numpy as np

from segmotion_plugin.tracks import TrackMotion, Tracks

MASK_WEIGHT = 4.0
"""Log odds that a track gains when all its pixels are masked, and loses when none is."""
TRACK_WEIGHT = 1 / 3
"""What a track's own log odds count beside that: tracks that flow drags along with an outline are as sure as those within it."""


class MaskVotes:
    """Collects, frame by frame, what the masks say under the tracks.

    Args:
        tracks: N tracks in working pixels.
        scale: factors (x, y) from working pixels to the masks' pixels.
    """

    def __init__(self, tracks: Tracks, scale: tuple[float, float]) -> None:
        self._tracks, self._scale = tracks, np.array(scale)
        self._seen, self._masked = np.zeros(len(tracks)), np.zeros(len(tracks))
        self._pairs: list[np.ndarray] = []

    def add(self, frame: int, labels: np.ndarray) -> None:
        """Take in the H×W object ids of a frame (0 = static)."""
        ids, xy = self._tracks.observations_at(frame)
        column, row = np.floor(xy * self._scale).astype(np.int64).T
        inside = (column >= 0) & (row >= 0) & (column < labels.shape[1]) & (row < labels.shape[0])
        ids, found = ids[inside], labels[row[inside], column[inside]].astype(np.int64)
        self._seen[ids] += 1
        self._masked[ids] += found > 0
        self._pairs.append(np.stack([ids[found > 0], found[found > 0]], axis=1))

    def agree(self, motion: TrackMotion) -> TrackMotion:
        """The motion of the tracks with the masks as further evidence; tracks that no mask saw stay as they are.

        Tracks that now move belong to the object under them most often and move when most of that object's tracks do.
        """
        tracks = self._tracks
        share = self._masked / np.maximum(self._seen, 1)
        known = self._seen > 0
        prior = np.clip(motion.probability.astype(np.float64), 1e-6, 1 - 1e-6)
        own = np.log(prior / (1 - prior))
        logit = np.where(known, TRACK_WEIGHT * own + MASK_WEIGHT * (2 * share - 1), own)
        probability = (1 / (1 + np.exp(-logit))).astype(np.float32)
        moves = np.where(known, probability >= 0.5, motion.object_id > 0)
        object_id = np.where(moves, motion.object_id, 0).astype(np.int32)
        pairs = np.concatenate(self._pairs) if self._pairs else np.zeros((0, 2), np.int64)
        below = np.zeros((len(tracks), int(max(pairs[:, 1].max(initial=0), object_id.max(initial=0))) + 1), np.int32)
        np.add.at(below, (pairs[:, 0], pairs[:, 1]), 1)
        told = moves & below.any(axis=1)
        object_id[told] = below[told].argmax(axis=1)
        object_id[moves & (object_id == 0)] = 1
        fresh = moves & (motion.object_id == 0)
        moving = motion.moving_flat & moves[tracks.track_flat]
        if fresh.any():
            moving |= self._when_others_do(motion, object_id, fresh)
        return TrackMotion(tracks, probability, moving, object_id)

    def _when_others_do(self, motion: TrackMotion, object_id: np.ndarray, fresh: np.ndarray) -> np.ndarray:
        """M bool: visible observations of `fresh` tracks at frames in which most of their object's other tracks move."""
        tracks = self._tracks
        shape = (int(object_id.max()) + 1, tracks.num_frames)
        owner = object_id[tracks.track_flat]
        old = tracks.visible_flat & (owner > 0) & ~fresh[tracks.track_flat]
        total, active = np.zeros(shape), np.zeros(shape)
        np.add.at(total, (owner[old], tracks.frame_flat[old]), 1)
        np.add.at(active, (owner[old], tracks.frame_flat[old]), motion.moving_flat[old])
        most = 2 * active > total
        return fresh[tracks.track_flat] & tracks.visible_flat & most[owner, tracks.frame_flat]
