"""A street seen by a moving camera: ground, a wall, a pole and a ball, as exact tracks."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from segmotion_plugin.motion.clusters import Cluster
from segmotion_plugin.tracks import Tracks

SIZE = (640, 360)
FOCAL = 560.0
FRAMES = 24


def street(
    noise: float = 0.1, speed: float = 0.08, seed: int = 0, more: np.ndarray | None = None, walk: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Ground, a wall, a pole near the camera and a ball that rolls across, by a camera that goes sideways and turns a little.

    Further points may walk sideways.

    Returns:
        N×T×2 positions in pixels, and N kinds: 0 ground and wall, 1 pole, 2 ball, 3 further points that are given.
    """
    more = np.zeros((0, 3)) if more is None else more
    rng = np.random.default_rng(seed)
    ground = np.stack([rng.uniform(-8, 10, 260), np.full(260, 1.5), rng.uniform(4, 20, 260)], axis=1)
    wall = np.stack([rng.uniform(-12, 14, 200), rng.uniform(-5, 1.5, 200), np.full(200, 20.0)], axis=1)
    pole = np.stack([rng.uniform(-0.05, 0.05, 14), np.linspace(-1, 1.4, 14), np.full(14, 4.5)], axis=1)
    ball = np.array([1.0, 1.0, 8.0]) + rng.uniform(-0.3, 0.3, (14, 3))
    points = np.concatenate([ground, wall, pole, ball, more])
    kind = np.repeat([0, 1, 2, 3], [460, 14, 14, len(more)])
    time = np.arange(FRAMES)
    own = (kind == 2)[:, None] * np.array([0.0, -0.01, speed]) + (kind == 3)[:, None] * np.array([walk, 0.0, 0.0])
    place = points[:, None] + time[None, :, None] * own[:, None]
    center = np.stack([0.05 * time, 0.01 * np.sin(time), 0.02 * time], axis=1)
    turn = Rotation.from_rotvec(np.stack([0 * time, -0.003 * time, 0.001 * np.sin(time)], axis=1)).as_matrix()
    view = np.einsum("tij,ntj->nti", turn, place - center)
    xy = FOCAL * view[..., :2] / view[..., 2:] + np.array(SIZE) / 2
    return xy + rng.normal(0, noise, xy.shape), kind


def tracked(xy: np.ndarray, visible: np.ndarray | None = None) -> Tracks:
    inside = np.all((xy > 0) & (xy < SIZE), axis=2)
    return Tracks.from_dense(xy.astype(np.float32), inside if visible is None else inside & visible)


def whole(members: np.ndarray) -> Cluster:
    return Cluster(np.flatnonzero(members), 0.0, 1.0, int(members.sum()) * FRAMES, 0.01, 0, FRAMES - 1, FRAMES)
