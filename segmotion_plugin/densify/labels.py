"""From soft masks to object ids per pixel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from segmotion_plugin.densify.agreement import MASK_WEIGHT
from segmotion_plugin.rawstore import RawStore
from segmotion_plugin.tracks import Tracks

_THRESHOLD = 0.5  # probability from which on a track that no mask saw moves


def enlarge(soft: np.ndarray, labels: np.ndarray, width: int, height: int) -> np.ndarray:
    """H×W uint8 object ids at the images' size from a soft mask and object ids at half the working size."""
    dynamic = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    ids = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.where(dynamic, np.maximum(ids, 1), 0).astype(np.uint8)


def assign_objects(dynamic: np.ndarray, xy: np.ndarray, object_id: np.ndarray) -> np.ndarray:
    """Give every dynamic pixel the object of the nearest dynamic track.

    Args:
        dynamic: h×w bool at half size.
        xy: n×2 positions of tracks at full working size.
        object_id: n, 0 = static.

    Returns:
        h×w uint8 object ids; where no track is seen, the commonest object of the clip (1).
    """
    labels = dynamic.astype(np.uint8)
    ids = np.unique(object_id[object_id > 0])
    if len(ids) == 0 or not dynamic.any():
        return labels
    if len(ids) == 1:
        return labels * np.uint8(ids[0])
    seeds = np.full(dynamic.shape, 255, np.uint8)
    best = np.zeros(dynamic.shape, np.float32) + np.inf
    for one in ids.tolist():
        points = (xy[object_id == one] / 2).astype(np.int64)
        seeds[:] = 1
        seeds[np.clip(points[:, 1], 0, dynamic.shape[0] - 1), np.clip(points[:, 0], 0, dynamic.shape[1] - 1)] = 0
        distance = cv2.distanceTransform(seeds, cv2.DIST_L2, cv2.DIST_MASK_5)
        nearer = distance < best
        labels[nearer & dynamic] = one
        best = np.minimum(best, distance)
    return labels


def parts_under(tracks: Tracks, masks: Iterable[tuple[int, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The parts of the masks that tracks lie in.

    Args:
        tracks: of M observations in working pixels.
        masks: (frame index, h×w bool mask of what moves at half size) of some frames.

    Returns:
        M, the connected part of its frame's mask that an observation lies in, −1 where in none or where the frame has no mask; and
        M bool, visible observations in frames that have a mask.
    """
    part, seen = np.full(len(tracks.xy_flat), -1), np.zeros(len(tracks.xy_flat), bool)
    for frame, mask in masks:
        _, found = cv2.connectedComponents(mask.astype(np.uint8))
        rows = tracks.rows_at(frame)
        column, row = (tracks.xy_flat[rows] / 2).astype(np.int64).T
        part[rows] = found[np.clip(row, 0, mask.shape[0] - 1), np.clip(column, 0, mask.shape[1] - 1)] - 1
        seen[rows] = True
    return part, seen


def moving_in_masks(tracks: Tracks, probability: np.ndarray, part: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """N bool: tracks that move by their probability and the masks together and lie in the masks most of the time.

    For `part` and `seen` see `parts_under`; tracks that no mask saw count by their probability.
    """
    visits = np.bincount(tracks.track_flat, seen, len(tracks))
    share = np.bincount(tracks.track_flat, part >= 0, len(tracks)) / np.maximum(visits, 1)
    prior = np.clip(probability.astype(np.float64), 1e-6, 1 - 1e-6)
    odds = np.log(prior / (1 - prior)) + MASK_WEIGHT * (2 * share - 1)
    return np.where(visits > 0, (odds > 0) & (share > 0.5), prior >= _THRESHOLD)


def labelled(
    tracks: Tracks, object_id: np.ndarray, soft: RawStore, frames: list[int]
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Soft masks with object ids, at half the working size.

    Args:
        tracks: N tracks in working pixels.
        object_id: N, 0 = static.
        soft: h×w uint8 soft masks by frame, 255 = moves.
        frames: the wanted ones.

    Yields:
        (frame index, h×w float32 soft mask (above 0.5 = moves), h×w uint8 object ids, also a little beyond the mask's border, so that
        both can be enlarged).
    """
    for frame in frames:
        mask = soft[frame].astype(np.float32) / 255
        ids, xy = tracks.observations_at(frame)
        yield frame, mask, assign_objects(cv2.dilate(mask, np.ones((5, 5))) > 0.5, xy, object_id[ids])
