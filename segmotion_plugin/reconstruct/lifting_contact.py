"""How far moving objects stand, told from the static world around them: where they touch it, or what they hide and what hides them.

An object gets one distance per frame: that of an upright plane, facing the camera, in which its tracks are placed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from segmotion_plugin.cameras import Cameras

_CLOSE = 0.12  # of the image diagonal: static points so near to a contact describe the surface there
_LEAST_AREA = 12  # pixels
_CARRIED = 0.15  # standard deviation of the logarithm of the ratio of two distances, where one object seems to carry the other
# How near an object may be where nothing tells, as a share of the depth of what it hides: seen whole, or cut off by the picture.
_NEAREST, _NEAREST_CUT = 0.35, 0.12


@dataclass(frozen=True)
class Ground:
    """A plane that objects stand on: normal · x = offset, the normal (unit) pointing up; `tolerance` is its thickness."""

    normal: np.ndarray
    offset: float
    tolerance: float


@dataclass(frozen=True)
class Static:
    """The static world as one image has it.

    Attributes:
        points: M×3 world points.
        xy: M×2 pixels.
        depth: M depths along the optical axis.
        visible: M bool, known to be visible in this image.
    """

    points: np.ndarray
    xy: np.ndarray
    depth: np.ndarray
    visible: np.ndarray


def upward(cameras: Cameras) -> np.ndarray:
    """Unit world direction that points up in most pictures: against the mean of the cameras' y axes."""
    down = cameras.cam_from_world[:, 1, :3].mean(axis=0)
    return -down / max(float(np.linalg.norm(down)), 1e-12)


def find_ground(
    cameras: Cameras, points: np.ndarray, rng: np.random.Generator, tolerance: float = 0.015
) -> Ground | None:
    """The best supported plane below the cameras whose normal is within 30° of up, by random triples.

    Args:
        cameras: the poses.
        points: M×3 static world points.
        rng: draws the hypotheses.
        tolerance: thickness of the plane as a share of the median distance from the cameras to the points.

    Returns:
        None where less than a tenth of the points lie in such a plane.
    """
    if len(points) < 12:
        return None
    if len(points) > 4000:
        points = points[rng.permutation(len(points))[:4000]]
    centers = cameras.centers()
    thickness = tolerance * float(np.median(np.linalg.norm(points - np.median(centers, axis=0), axis=1)))
    up = upward(cameras)
    planes = _hypotheses(points, up, 600, np.cos(np.radians(30)), rng)
    below = np.median(centers @ planes[:, :3].T - planes[:, 3], axis=0) > 2 * thickness
    planes = planes[below]
    if not len(planes):
        return None
    # Truncated squares (MSAC, Torr and Zisserman 2000) tell the plane of the ground from tilted ones that also catch other points.
    cost = np.minimum((points @ planes[:, :3].T - planes[:, 3]) ** 2, thickness**2).sum(axis=0)
    best = planes[int(np.argmin(cost))]
    for _ in range(3):
        inside = np.abs(points @ best[:3] - best[3]) < thickness
        if inside.sum() < max(12, 0.1 * len(points)):
            return None
        best = _fitted(points[inside], up)
    return Ground(best[:3], float(best[3]), thickness)


class Placement:
    """Distances of one object at the K registered frames.

    Attributes:
        facing: K×3 unit world directions; the object stands in the plane where (x - camera centre) · facing = distance.
        log_distance: K, natural logarithm of the distance; NaN where nothing is known.
        sigma: K, standard deviation of the logarithm.
        above: K int, the moving object that borders the lowest part of this one, and so may carry or hide it; 0 = none.
    """

    def __init__(self, cameras: Cameras) -> None:
        self.facing = cameras.cam_from_world[:, 2, :3].copy()
        self.log_distance = np.full(len(cameras), np.nan)
        self.sigma = np.full(len(cameras), np.nan)
        self.above = np.zeros(len(cameras), np.int64)

    def touch(
        self,
        cameras: Cameras,
        k: int,
        mask: np.ndarray,
        others: np.ndarray,
        ground: Ground | None,
        static: Static,
        rng: np.random.Generator,
    ) -> None:
        """Place the object at image k where its lowest visible boundary meets the static surface, if it does.

        Args:
            cameras: the poses.
            k: which of them.
            mask: H×W bool, the object at the size of the images.
            others: H×W ids of other moving objects, 0 elsewhere.
            ground: the plane of the whole clip, where there is one.
            static: the static points as image k has them.
            rng: draws plane hypotheses where the ground is not flat.
        """
        up = upward(cameras) if ground is None else ground.normal
        self.facing[k] = _upright(cameras, k, up)
        foot = lowest_point(cameras, k, mask, up)
        if foot is None:
            return
        self.above[k] = _neighbour(foot, mask, others)
        if self.above[k]:
            return
        reach = _CLOSE * float(np.hypot(cameras.width, cameras.height))
        near = (static.depth > 0) & (np.linalg.norm(static.xy - foot, axis=1) < reach)
        plane = _surface(static.points[near], static.xy[near] - foot, static.depth[near], ground, up, rng)
        if plane is None:
            return
        rays = cameras.rays(np.stack([foot, foot + (0, 1.0)])) @ cameras.cam_from_world[k, :, :3]
        center = cameras.centers()[k]
        with np.errstate(divide="ignore"):
            along = (plane[3] - center @ plane[:3]) / (rays @ plane[:3])
        if not (np.isfinite(along).all() and (along > 0).all()) or _foot_is_hidden(static, foot, float(along[0]), 0.25 * reach):
            return
        distance = float(rays[0] @ self.facing[k]) * float(along[0])
        if distance > 0:
            self.log_distance[k] = np.log(distance)
            self.sigma[k] = 0.03 + abs(np.log(along[1] / along[0])) * max(1.0, cameras.width / 500)

    def squeeze(
        self, cameras: Cameras, k: int, mask: np.ndarray, ground: Ground | None, static: Static, hidden_xy: np.ndarray
    ) -> None:
        """Place the object at image k at the geometric mean of the depths of what it hides and of what hides it.

        What it hides is also the ground at its lowest pixels. Where nothing hides it, it may be nearer than all else.

        Args:
            cameras: the poses.
            k: which of them.
            mask: H×W bool, the object at the size of the images.
            ground: the plane of the whole clip, where there is one.
            static: the static points as image k has them.
            hidden_xy: m×2 pixels where tracks of the object are hidden.
        """
        self.facing[k] = cameras.cam_from_world[k, 2, :3]
        size = np.array([cameras.width, cameras.height])
        inside = (static.depth > 0) & (static.xy >= 0).all(axis=1) & (static.xy < size).all(axis=1)
        if not inside.any():
            return
        cells = np.floor(static.xy[inside]).astype(np.int64)
        behind = static.depth[inside][mask[cells[:, 1], cells[:, 0]]]
        far = float(np.quantile(behind, 0.15)) if len(behind) else float(np.quantile(static.depth[inside], 0.9))
        far = min(far, _ground_depth(cameras, k, mask, ground))
        near = min(0.8 * float(np.quantile(static.depth[inside], 0.05)), (_NEAREST_CUT if mask[-1].any() else _NEAREST) * far)
        shown = static.visible & inside & (static.depth < far)
        if len(hidden_xy) and shown.any():
            apart = np.linalg.norm(static.xy[shown][:, None] - hidden_xy[None], axis=2).min(axis=1)
            occluders = static.depth[shown][apart < 0.03 * float(np.hypot(*size))]
            if len(occluders) >= 3:
                near = float(np.median(occluders))
        near = min(near, 0.95 * far)  # the two may contradict each other by noise
        self.log_distance[k] = 0.5 * (np.log(near) + np.log(far))
        self.sigma[k] = np.log(far / near) / np.sqrt(12.0)  # of a uniform distribution between the two


    def carried(self, cameras: Cameras, placed: dict[int, Placement]) -> Placement:
        """This object where those stand that border its lowest part, as a rider on a horse: unknown where none of `placed` does."""
        result = Placement(cameras)
        for k, other in placed.items():
            rows = self.above == k
            result.facing[rows], result.log_distance[rows] = other.facing[rows], other.log_distance[rows]
            result.sigma[rows] = np.hypot(other.sigma[rows], _CARRIED)
        return result


def _upright(cameras: Cameras, k: int, up: np.ndarray) -> np.ndarray:
    """Normal of upright planes square to the view of camera k; along the view itself where that looks steeply down or up."""
    view = cameras.cam_from_world[k, 2, :3]
    level = view - (view @ up) * up
    length = float(np.linalg.norm(level))
    return view if length < 0.7 else level / length


def lowest_point(cameras: Cameras, k: int, mask: np.ndarray, up: np.ndarray) -> np.ndarray | None:
    """Pixel where the lowest visible boundary of a mask is, "low" as the world has it; None where the picture cuts it off."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count < 2 or stats[1:, cv2.CC_STAT_AREA].max() < _LEAST_AREA:
        return None
    large = 1 + np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= 0.1 * stats[1:, cv2.CC_STAT_AREA].max())
    rows, columns = np.nonzero(np.isin(parts, large))
    pixels = np.stack([columns, rows], axis=1) + 0.5
    down = _down_in_picture(cameras, k, pixels.mean(axis=0), up)
    if down is None:
        return None
    fall = pixels @ down
    # Half a pixel further on the mask ends.
    foot = pixels[fall > fall.max() - 1.0].mean(axis=0) + 0.5 * down
    margin = 1.0 + 0.002 * max(mask.shape)
    limit = np.array([cameras.width, cameras.height]) - margin
    return None if (foot < margin).any() or (foot > limit).any() else foot


def _down_in_picture(cameras: Cameras, k: int, xy: np.ndarray, up: np.ndarray) -> np.ndarray | None:
    """Unit direction in the picture in which a point that falls in the world moves."""
    ray = cameras.rays(xy[None])[0]
    fall = cameras.cam_from_world[k, :, :3] @ -up
    moved = fall[:2] - ray[:2] * fall[2]
    length = float(np.linalg.norm(moved))
    return None if length < 1e-3 else moved / length


def _surface(
    points: np.ndarray,
    offset: np.ndarray,
    depth: np.ndarray,
    ground: Ground | None,
    up: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray | None:
    """Plane (normal, offset) of the static surface at a contact: the ground where the points around agree, else a fit to them."""
    lower = offset[:, 1] > -0.25 * np.abs(offset).max(initial=1.0)
    points, depth = points[lower], depth[lower]
    if ground is not None:
        height = np.abs(points @ ground.normal - ground.offset)
        if len(points) < 6 or (height < 2 * ground.tolerance).mean() >= 0.3:
            return np.append(ground.normal, ground.offset)
    if len(points) < 6:
        return None
    planes = _hypotheses(points, up, 100, np.cos(np.radians(40)), rng)
    if not len(planes):
        return None
    thickness = 0.015 * float(np.median(depth))
    inside = np.abs(points @ planes[:, :3].T - planes[:, 3]) < thickness
    best = int(np.argmax(inside.sum(axis=0)))
    if inside[:, best].sum() < max(6, 0.4 * len(points)):
        return None
    return _fitted(points[inside[:, best]], up)


def _ground_depth(cameras: Cameras, k: int, mask: np.ndarray, ground: Ground | None) -> float:
    """Depth of the ground at the lowest pixels of a mask, also where the picture cuts it off; infinite where there is none."""
    if ground is None:
        return np.inf
    rows, columns = np.nonzero(mask)
    pixels = np.stack([columns, rows], axis=1) + 0.5
    rays = cameras.rays(pixels) @ cameras.cam_from_world[k, :, :3]
    height = float(cameras.centers()[k] @ ground.normal) - ground.offset
    steepest = float((rays @ ground.normal).min())
    return height / -steepest if steepest < -1e-6 and height > 0 else np.inf


def _neighbour(foot: np.ndarray, mask: np.ndarray, others: np.ndarray) -> int:
    """The other mover that borders the lowest part of a mask most, and so may hide its contact; 0 where there is none."""
    column, row = int(foot[0]), int(foot[1])
    reach = max(2, round(0.01 * max(mask.shape)))
    around = others[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
    return int(np.bincount(around[around > 0]).argmax()) if around.any() else 0


def _foot_is_hidden(static: Static, foot: np.ndarray, depth: float, reach: float) -> bool:
    """Whether static points just below a supposed contact are far nearer than it: then they hide the true one."""
    below = static.visible & (static.xy[:, 1] > foot[1]) & (np.linalg.norm(static.xy - foot, axis=1) < reach)
    return bool(below.sum() >= 3 and np.median(static.depth[below]) < 0.75 * depth)


def _hypotheses(
    points: np.ndarray, up: np.ndarray, count: int, least_cosine: float, rng: np.random.Generator
) -> np.ndarray:
    """Planes (n×4: normal, offset) through random triples of points whose normal is near to up."""
    triples = points[rng.integers(0, len(points), (count, 3))]
    normal = np.cross(triples[:, 1] - triples[:, 0], triples[:, 2] - triples[:, 0])
    length = np.linalg.norm(normal, axis=1)
    usable = length > 1e-12
    normal = normal[usable] / length[usable, None]
    cosine = normal @ up
    normal *= np.where(cosine < 0, -1.0, 1.0)[:, None]
    planes = np.concatenate([normal, np.einsum("ij,ij->i", normal, triples[usable, 0])[:, None]], axis=1)
    return planes[np.abs(cosine) >= least_cosine]


def _fitted(points: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Least-squares plane of points, its normal turned up."""
    middle = points.mean(axis=0)
    normal = np.linalg.svd(points - middle, full_matrices=False)[2][2]
    normal = normal if normal @ up >= 0 else -normal
    return np.append(normal, normal @ middle)
