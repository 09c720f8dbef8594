"""Cameras from tracks alone, for asking whether other tracks are rigid with the world; not for reconstruction.

A few hundred tracks that seem static are adjusted together with the cameras of some key frames and one focal length. Every track has
one unknown, its inverse depth in the view of its anchor, as in Yu and Gallup, "3D Reconstruction from Accidental Motion" (CVPR
2014); that needs no pair of views to begin with. It is begun twice, from a flat wall and from ground that comes nearer towards the
lower border, since from a wall alone it often ends with depths turned inside out; the better end is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from segmotion_plugin.motion.clusters import Block

_KEYS = 12  # key frames of a block
_MOST = 300  # tracks that are adjusted
_FEWEST = 30
_SEEN = 3  # key frames in which they must be seen
_SEEMS_STATIC = (-1.0, 0.0)  # logits below which tracks are taken for static; the second where the first leaves too few
_GRID = (16, 9)  # cells over which they are spread
_FOCAL = 1.0  # first guess, over the longer side
_FOCAL_DEVIATION = 0.3  # of its logarithm
_DEPTH_PRIOR = 0.02  # pixels (of an image 854 wide) per unit of inverse depth, the median being 1
_COARSE, _FINE = (16.0, 8.0, 4.0), (4.0, 2.0, 1.0)  # scales of the robust loss, same pixels
_COARSE_STEPS, _FINE_STEPS = 4, 6  # at each of them
_POSE_STEPS = (8.0, 8.0, 8.0, 2.0, 2.0, 2.0, 2.0, 2.0)  # scales while frames between the key frames are placed
_LEAST_POSE = 8  # tracks that place a frame
_NEAREST = 1e-3  # depth in front of a camera, below which a projection is cut


@dataclass(frozen=True)
class RigidCameras:
    """Pinhole cameras of consecutive frames with one focal length; +z forward, unknown scale.

    Attributes:
        start: first frame.
        focal: pixels.
        center: 2, principal point, pixels; the middle of the image.
        rotation: F×3×3, of camera from world.
        translation: F×3.
        known: F bool, enough tracks placed the frame.
    """

    start: int
    focal: float
    center: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    known: np.ndarray


def solve(block: Block, logit: np.ndarray) -> RigidCameras | None:
    """Cameras of the frames of a block; None where too few tracks seem static for long enough.

    Args:
        block: the tracks.
        logit: N log odds that a track moves.
    """
    frames = np.unique(np.linspace(block.start, block.stop - 1, min(_KEYS, block.stop - block.start)).round().astype(int))
    ids, visible, xy = _chosen(block, logit, frames)
    if len(ids) < _FEWEST:
        return None
    center = block.size / 2
    ends = []
    for ground in (0.0, 1.5):
        adjustment = _Adjustment(xy - center, visible, block.unit, _FOCAL * float(block.size.max()))
        height = adjustment.anchor_xy[:, 1] / block.size[1]
        adjustment.inverse_depth = np.clip(1 + ground * height, 0.1, None)
        error = adjustment.run(_COARSE, _COARSE_STEPS, fixed_focal=True)
        ends.append((float(np.log1p((error / (2 * block.unit)) ** 2).sum()), adjustment))
    adjustment = min(ends, key=lambda end: end[0])[1]
    adjustment.run(_FINE, _FINE_STEPS, fixed_focal=False)
    return _placed(block, ids, frames, center, adjustment)


def _chosen(block: Block, logit: np.ndarray, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids n of tracks that seem static, spread over the image, n×K flags that key frames show them, and n×K×2 positions there."""
    everyone = np.flatnonzero(block.observations >= _SEEN)
    at = [block.position(everyone, int(frame)) for frame in frames]
    xy, visible = np.stack([part[0] for part in at], axis=1), np.stack([part[1] for part in at], axis=1)
    seen = visible.sum(axis=1)
    kept = np.zeros(0, int)
    for bound in _SEEMS_STATIC:
        kept = np.flatnonzero((seen >= _SEEN) & (logit[everyone] < bound))
        if len(kept) >= _FEWEST:
            break
    middle = (np.cumsum(visible[kept], axis=1) > seen[kept, None] // 2).argmax(axis=1)
    cell = np.clip(xy[kept, middle] * _GRID / block.size, 0, np.array(_GRID) - 1).astype(int)
    cell = cell[:, 0] + _GRID[0] * cell[:, 1]
    # In every cell those seen longest come first; ties go by place, so that the order of the tracks does not matter.
    order = np.lexsort((*xy[kept, middle].T, -seen[kept], cell))
    rank = np.arange(len(order)) - np.searchsorted(cell[order], cell[order])
    kept = kept[order[np.argsort(rank, kind="stable")][:_MOST]]
    return everyone[kept], visible[kept], np.where(visible[kept][..., None], xy[kept], 0.0)


class _Adjustment:
    """Bundle adjustment of n tracks in K views by Levenberg and Marquardt's method with Cauchy's loss.

    Args:
        xy: n×K×2 positions from the principal point, pixels.
        visible: n×K, at least two of every track.
        unit: pixels per pixel of an image 854 wide.
        focal: first guess, pixels.
    """

    def __init__(self, xy: np.ndarray, visible: np.ndarray, unit: float, focal: float) -> None:
        self.unit, self.focal, self.guess = unit, focal, focal
        views = visible.shape[1]
        middle = (visible * np.arange(views)).sum(axis=1) / visible.sum(axis=1)
        self.anchor = np.where(visible, np.abs(np.arange(views) - middle[:, None]), np.inf).argmin(axis=1)
        self.anchor_xy = xy[np.arange(len(xy)), self.anchor]
        track, view = np.nonzero(visible)
        other = view != self.anchor[track]
        self.track, self.view = track[other], view[other]
        self.home = self.anchor[self.track]
        self.xy = xy[self.track, self.view]
        self.begin = np.flatnonzero(np.diff(self.track, prepend=-1))  # observations are sorted by track, each has some
        self.reference = views // 2
        self.rotation = _turns(xy, visible, focal, self.reference)
        self.translation = np.zeros((views, 3))
        self.inverse_depth = np.ones(len(xy))

    def rays(self) -> np.ndarray:
        """n×3 directions in the anchors' views, z = 1."""
        return np.concatenate([self.anchor_xy / self.focal, np.ones((len(self.anchor_xy), 1))], axis=1)

    def _projected(self) -> tuple[np.ndarray, ...]:
        """Per observation: position, what turns its anchor's view into its own, the point times inverse depth before and after."""
        inverse = self.inverse_depth[self.track][:, None]
        turn = self.rotation[self.view] @ self.rotation[self.home].transpose(0, 2, 1)
        before = self.rays()[self.track] - inverse * self.translation[self.home]
        turned = np.einsum("mij,mj->mi", turn, before)
        point = turned + inverse * self.translation[self.view]
        return *_projection(point, self.focal), turn, before, turned

    def error(self) -> np.ndarray:
        """Distances in pixels of all observations but the anchors'."""
        return np.linalg.norm(self._projected()[0] - self.xy, axis=1)

    def run(self, scales: tuple[float, ...], steps: int, fixed_focal: bool) -> np.ndarray:
        """Steps at falling scales of the loss; the final distances."""
        damping = 1e-3
        for scale in (s * self.unit for s in scales for _ in range(steps)):
            damping = self._step(scale, damping, fixed_focal)
            middle = float(np.median(self.inverse_depth))
            if middle > _NEAREST:  # the scale of the world is free
                self.inverse_depth, self.translation = self.inverse_depth / middle, self.translation * middle
        return self.error()

    def _step(self, scale: float, damping: float, fixed_focal: bool) -> float:
        """One step that lowers the loss, or none; the damping for the next."""
        position, depth, turn, before, turned = self._projected()
        rest = position - self.xy
        squared = (rest**2).sum(axis=1)
        weight = (1 / (1 + squared / scale**2))[:, None]
        inverse = self.inverse_depth[self.track][:, None, None]
        slope = _slope(position, depth, self.focal)
        back = slope @ turn
        by_view = np.concatenate([-slope @ _cross(turned), slope * inverse], axis=2)
        by_home = np.concatenate([back @ _cross(before), -back * inverse], axis=2)
        shift = self.translation[self.view] - np.einsum("mij,mj->mi", turn, self.translation[self.home])
        by_depth = np.einsum("mij,mj->mi", slope, shift)
        ray = self.rays()[self.track] * [1.0, 1.0, 0.0]
        columns = 6 * len(self.rotation) + 1  # the last is the logarithm of the focal length
        jacobian = np.zeros((len(rest), 2, columns))
        row, six = np.arange(len(rest))[:, None], np.arange(6)
        jacobian[row, :, 6 * self.view[:, None] + six] = by_view.transpose(0, 2, 1)
        jacobian[row, :, 6 * self.home[:, None] + six] = by_home.transpose(0, 2, 1)
        jacobian[:, :, -1] = position - np.einsum("mij,mj->mi", back, ray)
        weighted = (jacobian * weight[:, :, None]).reshape(-1, columns)
        normal = weighted.T @ jacobian.reshape(-1, columns)
        slant = weighted.T @ rest.reshape(-1)
        mixed = np.add.reduceat((jacobian * (by_depth * weight)[:, :, None]).sum(axis=1), self.begin)
        prior = (_DEPTH_PRIOR * self.unit) ** 2
        own = np.add.reduceat((by_depth**2 * weight).sum(axis=1), self.begin) + prior
        own_slant = np.add.reduceat((by_depth * rest * weight).sum(axis=1), self.begin) + prior * (self.inverse_depth - 1)
        firm = 0.002 * len(rest) * (self.unit / _FOCAL_DEVIATION) ** 2
        normal[-1, -1] += firm
        slant[-1] += firm * np.log(self.focal / self.guess)
        free = np.ones(columns, bool)
        free[6 * self.reference : 6 * self.reference + 6] = False
        free[-1] = not fixed_focal
        loss = np.log1p(squared / scale**2).sum()
        kept = self.rotation, self.translation, self.inverse_depth, self.focal
        while damping < 1e6:
            pivot = own * (1 + damping) + 1e-9
            reduced = normal + np.diag(damping * np.diag(normal) + 1e-9) - (mixed / pivot[:, None]).T @ mixed
            step = np.zeros(columns)
            step[free] = -np.linalg.solve(reduced[np.ix_(free, free)], (slant - mixed.T @ (own_slant / pivot))[free])
            pose = step[:-1].reshape(-1, 6)
            self.rotation = Rotation.from_rotvec(pose[:, :3]).as_matrix() @ kept[0]
            self.translation = kept[1] + pose[:, 3:]
            self.inverse_depth = np.maximum(kept[2] + np.clip(-(own_slant + mixed @ step) / pivot, -1, 1), 1e-4)
            self.focal = kept[3] * float(np.exp(np.clip(step[-1], -0.2, 0.2)))
            if np.log1p(self.error() ** 2 / scale**2).sum() < loss:
                return max(damping / 5, 1e-7)
            damping *= 10
        self.rotation, self.translation, self.inverse_depth, self.focal = kept
        return 1e-2


def _turns(xy: np.ndarray, visible: np.ndarray, focal: float, reference: int) -> np.ndarray:
    """K×3×3 rotations that best align the rays of neighbouring views (Kabsch, Acta Cryst. A32, 1976, made robust)."""
    rays = np.concatenate([xy / focal, np.ones((*xy.shape[:2], 1))], axis=2)
    rays /= np.linalg.norm(rays, axis=2, keepdims=True)
    turns = [np.eye(3)]
    for view in range(1, xy.shape[1]):
        both = visible[:, view - 1] & visible[:, view]
        before, after = rays[both, view - 1], rays[both, view]
        turn, weight = np.eye(3), np.ones(len(before))
        for _ in range(10 if len(before) >= 4 else 0):
            u, _, vt = np.linalg.svd((after * weight[:, None]).T @ before)
            turn = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
            gap = np.linalg.norm(before @ turn.T - after, axis=1)
            weight = 1 / (1 + (gap / max(1.5 * float(np.median(gap)), 1e-5)) ** 2)
        turns.append(turn @ turns[-1])
    stacked = np.stack(turns)
    return stacked @ stacked[reference].T


def _placed(block: Block, ids: np.ndarray, keys: np.ndarray, center: np.ndarray, adjustment: _Adjustment) -> RigidCameras:
    """Poses of all frames of the block: each begins at the nearest key frame's and is fitted to the adjusted tracks it shows."""
    frames = np.arange(block.start, block.stop)
    home = adjustment.anchor
    inverse = adjustment.inverse_depth
    local = adjustment.rays() - inverse[:, None] * adjustment.translation[home]
    points = np.einsum("nji,nj->ni", adjustment.rotation[home], local)  # times inverse depth
    nearest = np.abs(frames[:, None] - keys).argmin(axis=1)
    rotation, translation = adjustment.rotation[nearest], adjustment.translation[nearest]
    at = [block.position(ids, int(frame)) for frame in frames]
    when, which = np.nonzero(np.stack([part[1] for part in at]))
    xy = np.stack([part[0] for part in at])[when, which] - center
    count = np.bincount(when, minlength=len(frames))
    known = count >= _LEAST_POSE
    filled = np.flatnonzero(count)
    begin = (np.cumsum(count) - count)[filled]
    for scale in _POSE_STEPS:
        turned = np.einsum("mij,mj->mi", rotation[when], points[which])
        point = turned + inverse[which, None] * translation[when]
        position, depth = _projection(point, adjustment.focal)
        rest = position - xy
        slope = _slope(position, depth, adjustment.focal)
        jacobian = np.concatenate([-slope @ _cross(turned), slope * inverse[which, None, None]], axis=2)
        weight = 1 / (1 + (rest**2).sum(axis=1) / (scale * block.unit) ** 2)
        weighted = (jacobian * weight[:, None, None]).transpose(0, 2, 1)
        normal = np.add.reduceat(weighted @ jacobian, begin)
        slant = np.add.reduceat(weighted @ rest[..., None], begin)
        ridge = 1e-6 * np.trace(normal, axis1=1, axis2=2)[:, None, None] + 1e-9
        step = -np.linalg.solve(normal + ridge * np.eye(6), slant)[..., 0]
        rotation[filled] = Rotation.from_rotvec(step[:, :3]).as_matrix() @ rotation[filled]
        translation[filled] += step[:, 3:]
    return RigidCameras(block.start, adjustment.focal, center, rotation, translation, known)


def _projection(point: np.ndarray, focal: float) -> tuple[np.ndarray, np.ndarray]:
    """m×2 positions from the principal point in pixels, and m×1 depths in front of the camera, of m×3 points in its view."""
    depth = np.maximum(point[:, 2:], _NEAREST)
    return focal * point[:, :2] / depth, depth


def _slope(position: np.ndarray, depth: np.ndarray, focal: float) -> np.ndarray:
    """m×2×3 derivatives of projected positions by the points, see `_projection`."""
    slope = np.zeros((len(position), 2, 3))
    slope[:, 0, 0] = slope[:, 1, 1] = focal / depth[:, 0]
    slope[:, :, 2] = -position / depth
    return slope


def _cross(vectors: np.ndarray) -> np.ndarray:
    """m×3×3 matrices of cross products with m×3 vectors."""
    out = np.zeros((len(vectors), 3, 3))
    for row, column, source, sign in ((0, 1, 2, -1), (0, 2, 1, 1), (1, 0, 2, 1), (1, 2, 0, -1), (2, 0, 1, -1), (2, 1, 0, 1)):
        out[:, row, column] = sign * vectors[:, source]
    return out
