"""Testing what was called moving against the poses: what triangulates over wide angles as well as the static world does is static.

Two views cannot always tell a near still thing before a wall from one that moves. Cameras found without it can: a still point
has one place in the world from which it is seen in all images, a moving one has none.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.extra_masks import ExtraMasks, combine_alpha
from segmotion_plugin.files import write_npz, write_png
from segmotion_plugin.ingest import load_frames_json
from segmotion_plugin.mask_files import draw, summarise
from segmotion_plugin.masks import MotionMasks, keep_from_labels, read_grey, write_keep
from segmotion_plugin.progress import Console
from segmotion_plugin.reconstruct.job import load_cameras, reconstruct_folder, write_dataset
from segmotion_plugin.reconstruct.lifting_triangulate import observations, triangulate
from segmotion_plugin.settings import MaskSettings, ReconstructSettings
from segmotion_plugin.tracks import TrackMotion, Tracks, load_tracks
from segmotion_plugin.workspace import Workspace

Result = tuple[dict[str, Any], list[str]]

# Rays of a track must spread at least so far to say anything, degrees.
_LEAST_ANGLE = 3.0
# Quantile of the static tracks' errors up to which a track counts as explained, and bounds of it as shares of the longer side.
_EXPLAINED = 0.9
_LIMITS = (0.001, 0.003)
# An object is static when this share of its observations is on tracks that can be tested, and this share of those is explained.
_TESTABLE, _CONSISTENT = 0.3, 0.6
_FEWEST_STATIC = 50
_STATIC_PROBABILITY = 0.02
# Share of the pixels that has to become free for another reconstruction to be worth its time: of all images, and of those without
# a pose.
_WORTH, _WORTH_UNREGISTERED = 0.02, 0.005


@dataclass(frozen=True)
class Verdict:
    """What the poses say about an object.

    Attributes:
        object_id: 1, 2, …
        testable: share of its observations on tracks with enough parallax.
        consistent: share of these on tracks that one place in the world explains.
        static: whether the object does not move.
    """

    object_id: int
    testable: float
    consistent: float
    static: bool


def judge_objects(tracks: Tracks, motion: TrackMotion, cameras: Cameras) -> list[Verdict]:
    """Test every object against the poses.

    Args:
        tracks: in pixels of the cameras' images.
        motion: of these tracks; tracks of no object count as the static world.
        cameras: found without the objects.

    Returns:
        One verdict per object; none where the static world is too poor to compare with.
    """
    seen = observations(tracks, cameras)
    anything = dict(max_error=np.inf, min_parallax=0.0, max_relative_sigma=np.inf)
    found = triangulate(cameras, seen, len(tracks), **anything)
    usable = np.isfinite(found.error) & (found.parallax >= _LEAST_ANGLE)
    still = usable & (motion.object_id == 0)
    if still.sum() < _FEWEST_STATIC:
        return []
    low, high = (share * max(cameras.width, cameras.height) for share in _LIMITS)
    limit = float(np.clip(np.quantile(found.error[still], _EXPLAINED), low, high))
    explained = usable & (found.error <= limit) & np.isfinite(found.xyz[:, 0])
    weight = np.bincount(seen.track[seen.visible], minlength=len(tracks)).astype(np.float64)
    verdicts = []
    for object_id in np.unique(motion.object_id[motion.object_id > 0]).tolist():
        own = weight * (motion.object_id == object_id)
        testable = float((own * usable).sum() / max(own.sum(), 1.0))
        consistent = float((own * explained).sum() / max((own * usable).sum(), 1.0))
        static = testable >= _TESTABLE and consistent >= _CONSISTENT
        verdicts.append(Verdict(object_id, round(testable, 3), round(consistent, 3), static))
    return verdicts


def refine(
    space: Workspace,
    settings: ReconstructSettings,
    report: dict[str, Any],
    result: Result,
    console: Console,
    *,
    extra_masks: Path | None = None,
    dilate: float | None = None,
) -> Result:
    """Unmask what the cameras show to be static, and find the cameras again where that frees much.

    Only pixels that a dropped object masked become free; what else `masks/` holds (painted by hand, or of extra masks given earlier)
    stays. Another reconstruction takes as long as the first, and where all images have their poses a few more static pixels
    change these by less than two runs differ. So it is made only where the images gained much, or where those without a pose
    gained something: the freed pixels may be what these lack.

    Args:
        space: a folder with masks, tracks and a reconstruction.
        settings: `refine` rounds at most.
        report: of the folder; its figures of the masks are brought up to date, and the verdicts are added.
        result: what the reconstruction said (figures, warnings).
        console: where progress is shown.
        extra_masks: as of `pipeline.reconstruct`.
        dilate: as of `pipeline.reconstruct`.

    Returns:
        The result that now holds.
    """
    chosen = report.get("settings", {})
    if chosen.get("rest") == "keep":
        return result  # the keep masks then depend on when objects move; they are left as they were made
    if extra_masks is None and chosen.get("extra_masks"):
        extra_masks = Path(chosen["extra_masks"])
    if dilate is None:
        dilate = chosen.get("dilate")
    frames = load_frames_json(space.out)
    names = [entry["name"] for entry in frames["images"]]
    extra = None
    if extra_masks is not None and extra_masks.is_dir():
        extra = ExtraMasks(extra_masks, names, [entry["source"] for entry in frames["images"]])
    for _ in range(settings.refine):
        cameras = load_cameras(space.out)
        if result[0]["status"] != "ok" or cameras is None:
            break
        tracks, motion, _ = load_tracks(space.motion / "tracks.npz")
        verdicts = judge_objects(tracks, motion, cameras)
        report["refinement"] = [asdict(verdict) for verdict in verdicts]
        dropped = [verdict.object_id for verdict in verdicts if verdict.static]
        if not dropped:
            break
        radius = MaskSettings(dilate=dilate).dilation(cameras.width, cameras.height)
        space.redraws()
        freed = _unmask(space, names, dropped, radius, extra)
        _call_static(space.motion / "tracks.npz", dropped)
        tracks, motion, _ = load_tracks(space.motion / "tracks.npz")
        summary = summarise(space, names, tracks, motion)
        report["masks"] = asdict(summary)
        draw(space, names, (frames["fps"] or 24.0) * len(names) / frames["frame_count"], console, summary)
        if not worth_repeating(freed, np.isin(names, cameras.names)):
            figures, warnings = result
            return {**figures, "tracks_3d": write_dataset(space.out, frames, settings.downscales)}, warnings
        result = reconstruct_folder(space, settings, console)
    return result


def worth_repeating(freed: np.ndarray, registered: np.ndarray) -> bool:
    """Whether pixels that became free call for another reconstruction.

    Args:
        freed: N, share of each image's pixels.
        registered: N bool, whether the image has a pose.
    """
    lacking = freed[~registered]
    return bool(freed.mean() >= _WORTH or (len(lacking) and lacking.mean() >= _WORTH_UNREGISTERED))


def _unmask(space: Workspace, names: list[str], dropped: list[int], radius: float, extra: ExtraMasks | None) -> np.ndarray:
    """Take objects out of `motion/objects/`, and out of the keep masks the pixels that they alone masked, grown by `radius`.

    Returns:
        N, share of each image's pixels that became free.
    """
    freed = np.zeros(len(names))
    for k, (name, labels) in enumerate(zip(names, MotionMasks(space.motion / "objects", names), strict=True)):
        if not np.isin(labels, dropped).any():
            continue
        left = np.where(np.isin(labels, dropped), np.uint8(0), labels)
        before = read_grey(space.out / "masks" / f"{Path(name).stem}.png")
        alone = (keep_from_labels(labels, radius) == 0) & (keep_from_labels(left, radius) > 0)
        keep = combine_alpha(space.out / "images" / name, np.where(alone, np.uint8(255), before))
        if extra is not None:
            keep = extra.combine(name, keep)
        freed[k] = np.mean((keep > 0) & (before == 0))
        # Object ids last: when this is cut short, the next refinement finds the object once more and frees the same pixels.
        write_keep(space.out, name, keep)
        write_png(space.motion / "objects" / f"{Path(name).stem}.png", left)
    return freed


def _call_static(path: Path, dropped: list[int]) -> None:
    """Make the tracks of objects part of the static world; all else in the file stays (`track_index` counts over the whole clip)."""
    with np.load(path, allow_pickle=False) as data:
        arrays = {key: data[key] for key in data.files}
    static = np.isin(arrays["object_id"], dropped)
    arrays["probability"][static] = np.minimum(arrays["probability"][static], _STATIC_PROBABILITY)
    arrays["object_id"][static] = 0
    if "moving" in arrays:
        arrays["moving"][static] = False
    write_npz(path, **arrays)
