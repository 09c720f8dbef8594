"""Structure from motion on what the masks leave: features, matches, several mapper runs, the best model refined.

A focal length prior decides whether COLMAP's mapper ends in the right model, and a wrong model may register every
image as well. So features and matches are computed once, the mapper runs with more than one prior, every model is
refined with a robust loss, and the runs are judged by the matches that all share and by whether they agree.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segmotion_plugin.clip import IMAGE_SUFFIXES, natural_key
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.reconstruct import database as db
from segmotion_plugin.reconstruct.shot import SfmOptions, Shot, ShotResult

# Images that keep less than this share of their pixels, or have fewer keypoints, deserve a warning.
LITTLE_KEEP = 0.15
FEW_KEYPOINTS = 50


@dataclass
class SfmResult:
    """What came of a reconstruction; the numbers describe the model in `sparse/0`.

    Attributes:
        status: "ok", or "none" where no reconstruction is possible (no model is written then).
        reason: what that means, in words; empty for "ok".
        images_total: images given.
        images_registered: images with a pose in `sparse/0`.
        names: their names, in order.
        reprojection_error: mean over points, pixels.
        points: number of 3D points.
        track_length: mean number of images that see a point.
        angle_deg: median over points of the widest triangulation angle.
        focal: (fx, fy) in pixels.
        camera_model: COLMAP's name of it.
        agreement: trajectory difference between the two best runs as a fraction of the path; None after a single run.
        keypoints: keypoints in the database, all images.
        keypoints_in_masks: how many of them lie in masked pixels (0 unless something is broken).
        keypoints_dropped: estimate of those that the masks removed, from a few images detected without masks.
        shots: the outcome of every shot; `sparse/0` is the one with the most registered images.
        models: folder of every model, of those shots that have one; each has its own world frame.
        seconds: per step.
        warnings: what a person should know.
    """

    status: str
    reason: str
    images_total: int
    images_registered: int = 0
    names: list[str] = field(default_factory=list)
    reprojection_error: float = 0.0
    points: int = 0
    track_length: float = 0.0
    angle_deg: float = 0.0
    focal: tuple[float, float] | None = None
    camera_model: str = ""
    agreement: float | None = None
    keypoints: int = 0
    keypoints_in_masks: int = 0
    keypoints_dropped: int = 0
    shots: list[ShotResult] = field(default_factory=list)
    models: list[Path] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a report; paths become their last two parts."""
        values = dataclasses.asdict(self)
        values["models"] = ["/".join(path.parts[-2:]) for path in self.models]
        return values


def reconstruct(
    image_dir: Path,
    colmap_mask_dir: Path | None,
    work_dir: Path,
    options: SfmOptions | None = None,
    progress: db.Progress | None = None,
) -> SfmResult:
    """Find the cameras of a folder of images, with masked pixels left out.

    Args:
        image_dir: images of one size.
        colmap_mask_dir: keep masks `<image name>.png` (0 = leave out), one for every image; None for no masks.
        work_dir: gets `database.db` (made anew) and `sparse/0`, `sparse/1`, … (replaced; absent without a model).
        options: see `SfmOptions`.
        progress: called with the step ("features", "matches", "mapping"), how much is done and how much there is.

    Raises:
        SegmotionError: no images, images of different sizes, or masks that are missing or of a wrong size.
    """
    options = options or SfmOptions()
    image_dir, work_dir = Path(image_dir), Path(work_dir)
    groups = options.groups or [image_names(image_dir)]
    names = [name for group in groups for name in group]
    width, height = _common_size(image_dir, names)
    shares = None if colmap_mask_dir is None else db.check_masks(image_dir, names, Path(colmap_mask_dir))
    work_dir.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(work_dir / "sparse", ignore_errors=True)
    result = SfmResult("none", "", len(names))
    clock = _Clock(result.seconds)

    path = work_dir / "database.db"
    # Masks are applied after detection, so what moves uses up keypoints: the more is masked, the more are asked for.
    kept = 1.0 if shares is None else max(float(shares.mean()), 0.25)
    max_features = round(options.max_features / kept)
    flat = options.camera_model in ("PINHOLE", "SIMPLE_PINHOLE")
    with clock.step("features"):
        db.extract(
            path,
            image_dir,
            names,
            colmap_mask_dir,
            camera_model="SIMPLE_PINHOLE" if flat else "SIMPLE_RADIAL",
            max_features=max_features,
            threads=options.threads,
            seed=options.seed,
            progress=progress,
        )
        counts = db.keypoint_counts(path)
        result.keypoints = sum(counts.values())
        if colmap_mask_dir is not None and shares is not None:
            result.keypoints_in_masks = db.check_no_keypoint_masked(path, Path(colmap_mask_dir))
            result.keypoints_dropped = db.estimate_dropped(path, image_dir, names, shares, max_features)
            _warn_of_masks(result, shares, counts)
    with clock.step("matches"):
        pairs: list[tuple[str, str]] = []
        for group in groups:
            matching = db.choose_matching(len(group), options.matching, options.ordered)
            pairs += [(group[i], group[j]) for i, j in db.pairs_of(len(group), matching, options.overlap)]
        db.match(path, pairs, threads=options.threads, seed=options.seed, progress=progress)

    with clock.step("mapping"):
        shots = []
        for group in groups:
            shot = Shot(path, image_dir, group, work_dir / "mapping", options, (width, height), progress)
            shots.append((shot.solve(), shot))
        result.shots = [outcome for outcome, _ in shots]
        # Shots without a common view have no common world: the largest is the result, the others stand beside it.
        good = sorted((s for s in shots if s[0].status == "ok"), key=lambda s: -len(s[0].names))
        for number, (_, shot) in enumerate(good):
            result.models.append(shot.write(work_dir / "sparse" / str(number)))
    if not good:
        result.reason = max(result.shots, key=lambda shot: shot.images).reason
        return result
    _describe(result, *good[0])
    return result


def image_names(image_dir: Path) -> list[str]:
    """Names of the images in a folder, in natural order.

    Raises:
        SegmotionError: the folder is missing, or has no images.
    """
    if not Path(image_dir).is_dir():
        raise SegmotionError(f"{image_dir}: no such folder of images")
    names = [
        p.name for p in Path(image_dir).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
    ]
    if not names:
        raise SegmotionError(f"{image_dir}: no images in this folder")
    return sorted(names, key=natural_key)


class _Clock:
    """Seconds per step."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds, self.name, self.began = seconds, "", 0.0

    def step(self, name: str) -> _Clock:
        self.name = name
        return self

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.name] = round(time.perf_counter() - self.began, 3)


def _common_size(image_dir: Path, names: Sequence[str]) -> tuple[int, int]:
    sizes = {name: db.image_size(image_dir / name) for name in names}
    first = next(iter(sizes))
    other = next((name for name, size in sizes.items() if size != sizes[first]), None)
    if other is not None:
        raise SegmotionError(
            f"{image_dir / other}: {sizes[other][0]}×{sizes[other][1]} pixels, but {first} has "
            f"{sizes[first][0]}×{sizes[first][1]}\nall images must be of one size, because they share one camera"
        )
    return sizes[first]


def _warn_of_masks(result: SfmResult, shares: np.ndarray, counts: dict[str, int]) -> None:
    if result.keypoints_in_masks:
        result.warnings.append(
            f"{result.keypoints_in_masks} keypoints lie in masked pixels: the masks did not reach COLMAP"
        )
    little = int(np.count_nonzero(shares < LITTLE_KEEP))
    if little:
        result.warnings.append(f"{little} of {len(shares)} images keep less than {LITTLE_KEEP:.0%} of their pixels")
    empty = sum(count < FEW_KEYPOINTS for count in counts.values())
    if empty:
        result.warnings.append(f"{empty} of {len(counts)} images have fewer than {FEW_KEYPOINTS} keypoints")


def _describe(result: SfmResult, outcome: ShotResult, shot: Shot) -> None:
    model, cameras = shot.model, shot.final_cameras
    result.status = "ok"
    result.images_registered, result.names = len(cameras), cameras.names
    result.reprojection_error = float(model.compute_mean_reprojection_error())
    result.points = int(model.num_points3D())
    result.track_length = float(model.compute_mean_track_length())
    result.angle_deg = outcome.candidates[outcome.chosen].angle_deg
    result.focal, result.camera_model = cameras.focal, cameras.model
    result.agreement = outcome.agreement
    result.warnings += outcome.warnings
    apart = sum(other.images for other in result.shots) - outcome.images
    if apart:
        result.warnings.append(
            f"{apart} images belong to {len(result.shots) - 1} other shots; those with a model of their own are in "
            "sparse/1 and on, each in its own world frame"
        )
