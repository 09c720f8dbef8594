"""From soft masks to object ids per pixel."""

from __future__ import annotations

import cv2
import numpy as np


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
