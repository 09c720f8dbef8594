"""How good a model is: what the matches say of it, how much parallax it stands on, whether two models agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.evaluation.poses import trajectory_error
from segmotion_plugin.reconstruct.mapping import MIN_POINTS

MIN_PAIR_MATCHES = 15
# A camera that stands still on a tripod moves matches by less than this part of the image's longer side.
STILL_SHIFT = 0.002
# COLMAP drops points whose rays meet at less than 1.5°. Where half of the rest lies just above that, noise made them.
MIN_MEDIAN_ANGLE_DEG = 1.6
# A model that was made with small angles on purpose (`mapping.NARROW_ANGLE_DEG`) has a smaller median.
MIN_MEDIAN_NARROW_DEG = 0.6
# Share of the matched keypoints that a real model explains with points; noise and rotation alone leave few.
MIN_EXPLAINED = 0.15
# A focal length outside of this range (over the longer side) is no lens that a video is taken with.
PLAUSIBLE_FOCAL = (0.35, 4.0)
# A pair is flat when one homography holds this share of its matches, at this part of the matching's inlier distance.
FLAT_SHARE = 0.9
FLAT_TOLERANCE = 1.0
# And it is a turn when rotations alone leave less than this part of it (noise leaves 0.2, little parallax 0.5).
TURN_TOLERANCE = 0.35


@dataclass
class PairMatches:
    """Verified matches of two images: names and M×2 pixel positions."""

    first: str
    second: str
    first_xy: np.ndarray
    second_xy: np.ndarray


def read_matches(database: Path, names: Sequence[str]) -> list[PairMatches]:
    """Verified matches of all pairs among `names` that have enough of them, in the order of the database."""
    wanted = set(names)
    found: list[PairMatches] = []
    with pycolmap.Database.open(database) as db:
        name_of = {image.image_id: image.name for image in db.read_all_images() if image.name in wanted}
        keypoints = {i: np.asarray(db.read_keypoints(i), dtype=np.float64)[:, :2] for i in name_of}
        pair_ids, geometries = db.read_two_view_geometries()
        for pair_id, geometry in zip(pair_ids, geometries, strict=True):
            a, b = pycolmap.pair_id_to_image_pair(pair_id)
            if a not in name_of or b not in name_of:
                continue
            index = np.asarray(geometry.inlier_matches)
            if len(index) >= MIN_PAIR_MATCHES:
                found.append(PairMatches(name_of[a], name_of[b], keypoints[a][index[:, 0]], keypoints[b][index[:, 1]]))
    return found


def epipolar_error(matches: Sequence[PairMatches], cameras: Cameras, tolerance: float) -> float:
    """Root mean square Sampson distance in pixels of all verified matches under a model's poses, cut at `tolerance`.

    The matches are the same for every candidate, unlike the observations that a model kept for itself; matches of
    images that were not registered count with the full `tolerance`. Sampson distance: Hartley and Zisserman,
    "Multiple View Geometry" (2nd ed.), eq. 11.9, taken in undistorted image coordinates times the focal length.
    """
    position = {name: k for k, name in enumerate(cameras.names)}
    focal = float(np.sqrt(np.prod(cameras.focal)))
    rotation, translation = cameras.cam_from_world[:, :, :3], cameras.cam_from_world[:, :, 3]
    total, count = 0.0, 0
    for pair in matches:
        count += len(pair.first_xy)
        if pair.first not in position or pair.second not in position:
            total += tolerance**2 * len(pair.first_xy)
            continue
        a, b = position[pair.first], position[pair.second]
        turn = rotation[b] @ rotation[a].T
        shift = translation[b] - turn @ translation[a]
        shift = shift / max(float(np.linalg.norm(shift)), 1e-12)
        cross = np.array([[0.0, -shift[2], shift[1]], [shift[2], 0.0, -shift[0]], [-shift[1], shift[0], 0.0]])
        essential = cross @ turn
        with np.errstate(all="ignore"):  # absurd distortion overflows; such matches count in full
            first, second = cameras.rays(pair.first_xy), cameras.rays(pair.second_xy)
            line, back = first @ essential.T, second @ essential
            slope = (line[:, :2] ** 2).sum(axis=1) + (back[:, :2] ** 2).sum(axis=1)
            squared = (second * line).sum(axis=1) ** 2 / np.maximum(slope, 1e-300) * focal**2
        total += float(np.minimum(np.nan_to_num(squared, nan=np.inf), tolerance**2).sum())
    return float(np.sqrt(total / count)) if count else tolerance


def triangulation_angle_deg(model: pycolmap.Reconstruction, sample: int = 2000) -> float:
    """Median over points of the widest angle between two of their rays, degrees (0 without points)."""
    centers = {image.image_id: image.projection_center() for image in model.images.values() if image.has_pose}
    points = list(model.points3D.values())
    angles: list[float] = []
    for point in points[:: max(1, len(points) // sample)]:
        rays = np.array([centers[element.image_id] for element in point.track.elements]) - point.xyz
        rays /= np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-12)
        angles.append(float(np.degrees(np.arccos(np.clip((rays @ rays.T).min(), -1.0, 1.0)))))
    return float(np.median(angles)) if angles else 0.0


def explained_share(model: pycolmap.Reconstruction, matches: Sequence[PairMatches]) -> float:
    """Observations of the model over the keypoints of its images that have a verified match."""
    registered = {image.name for image in model.images.values() if image.has_pose}
    spots: dict[str, set[tuple[float, float]]] = {name: set() for name in registered}
    for pair in matches:
        for name, xy in ((pair.first, pair.first_xy), (pair.second, pair.second_xy)):
            if name in spots:
                spots[name].update(map(tuple, xy.tolist()))
    total = sum(len(found) for found in spots.values())
    return model.compute_num_observations() / total if total else 0.0


def disagreement(a: Cameras, b: Cameras) -> float:
    """Trajectory difference of two models as a fraction of the path (infinite where they share no path)."""
    try:
        return trajectory_error(a, b).trajectory_fraction
    except SegmotionError:
        return float("inf")


def view_of(matches: Sequence[PairMatches], num_images: int, size: tuple[int, int], tolerance: float) -> str:
    """What the matches show of the camera's motion, before any mapping.

    Returns:
        "scattered" (too few images have matches), "still" (nothing shifts), "turn" (rotations alone explain the pairs
        with the largest shifts), "flat" (homographies do: a zoom or one plane) or "parallax".
    """
    import cv2

    if len({pair.first for pair in matches} | {pair.second for pair in matches}) < max(3, num_images // 10):
        return "scattered"
    shifts = [float(np.median(np.linalg.norm(pair.second_xy - pair.first_xy, axis=1))) for pair in matches]
    if float(np.quantile(shifts, 0.9)) < STILL_SHIFT * max(size):
        return "still"
    cv2.setRNGSeed(0)
    shares: list[float] = []
    fitted: list[tuple[np.ndarray, np.ndarray]] = []
    for k in np.argsort(shifts)[::-1][:20]:
        pair = matches[k]
        found, inliers = cv2.findHomography(pair.first_xy, pair.second_xy, cv2.RANSAC, FLAT_TOLERANCE * tolerance)
        if found is not None:
            inside = np.flatnonzero(inliers)
            chosen = inside[:: max(1, len(inside) // 200)]
            fitted.append((pair.first_xy[chosen], pair.second_xy[chosen]))
            shares.append(float(np.mean(inliers)))
    if not shares or float(np.median(shares)) <= FLAT_SHARE:
        return "parallax"
    return "turn" if _turns_only(fitted, size, TURN_TOLERANCE * tolerance) else "flat"


def _turns_only(pairs: Sequence[tuple[np.ndarray, np.ndarray]], size: tuple[int, int], limit: float) -> bool:
    """Whether a rotating camera explains matches, x₂ ~ K R K⁻¹ x₁, with one focal length that all pairs share.

    For every focal length of a grid each pair gets the rotation that best aligns its rays (Kabsch, Acta Cryst. A32,
    1976); the camera turns if some focal length leaves less than `limit` pixels (median over pairs of the median over
    matches).
    """
    center = np.array(size, dtype=np.float64) / 2.0
    best = np.inf
    for focal in max(size) * np.geomspace(*PLAUSIBLE_FOCAL, 40):
        gaps: list[float] = []
        for first_xy, second_xy in pairs:
            first, second = (
                np.concatenate([(xy - center) / focal, np.ones((len(xy), 1))], axis=1) for xy in (first_xy, second_xy)
            )
            unit_first = first / np.linalg.norm(first, axis=1, keepdims=True)
            unit_second = second / np.linalg.norm(second, axis=1, keepdims=True)
            u, _, vt = np.linalg.svd(unit_second.T @ unit_first)
            turned = first @ (u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt).T
            gap = focal * (turned[:, :2] / turned[:, 2:] - second[:, :2])
            gaps.append(float(np.median(np.linalg.norm(gap, axis=1))))
        best = min(best, float(np.median(gaps)))
    return best < limit


NO_MODEL = {
    "scattered": "too few images match each other: too little static texture is left, or the images do not overlap",
    "still": "the camera stands still: without a change of viewpoint there is nothing to triangulate",
    "turn": "no parallax: the camera only turns; a camera that moves sideways is needed",
    "flat": "hardly any parallax: the camera zooms, or what is static is one plane; a camera that moves sideways past "
    "things at several distances is needed",
    "collapsed": "hardly any parallax: the camera turns or zooms about one place, or sees far things only, so that any depth "
    "explains the matches; a camera that moves sideways past things at several distances is needed",
    "parallax": "the images match, but no set of poses explains the matches; more overlap or sharper images would help",
}


def least_median_angle(narrow: bool) -> float:
    """Median triangulation angle in degrees below which a model is not kept."""
    return MIN_MEDIAN_NARROW_DEG if narrow else MIN_MEDIAN_ANGLE_DEG


def weakness(
    model: pycolmap.Reconstruction, matches: Sequence[PairMatches], num_images: int, narrow: bool = False
) -> str | None:
    """Why a model is not worth keeping, in words; None for a model that stands on enough parallax and points."""
    registered = model.num_reg_images()
    if registered < max(3, 0.1 * num_images):
        return f"only {registered} of {num_images} images could be registered"
    angle, points = triangulation_angle_deg(model), model.num_points3D()
    share = explained_share(model, matches)
    if points < MIN_POINTS or angle < least_median_angle(narrow) or share < MIN_EXPLAINED:
        return (
            f"the model that COLMAP found is not reliable ({points} points, median triangulation angle {angle:.1f}°, "
            f"{share:.0%} of the matched keypoints explained)"
        )
    return None
