"""The main job: calls the stages in order, stores each result, and resumes from what is stored. Nothing else knows the order."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segmotion_plugin.clip import Clip
from segmotion_plugin.densify.agreement import MaskVotes
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import read_json, write_json, write_npz
from segmotion_plugin.ingest import ingest
from segmotion_plugin.mask_files import MaskSummary, write_masks
from segmotion_plugin.progress import Console, Meter
from segmotion_plugin.reading import read_arrays
from segmotion_plugin.settings import MaskSettings, ReconstructSettings, check_dilate, fingerprint
from segmotion_plugin.tracks import TrackMotion, Tracks, save_tracks
from segmotion_plugin.workspace import FORMAT, Workspace

if TYPE_CHECKING:
    from segmotion_plugin.plan import Plan

# Raise when a change of the code makes stored results of a stage stale.
_VERSIONS = {"tracks": 7, "features": 1, "motion": 13}

_NOTHING_FOLLOWED = (
    "no point could be followed from one image to the next, so nothing is known about what moves and nothing is masked; "
    "photos of a place show motion only where they follow each other like frames of a video"
)


def masks(source: Path, out: Path, settings: MaskSettings | None = None) -> dict[str, Any]:
    """Find what moves: `images/`, `masks/`, `colmap_masks/` and `motion/` of the folder that DESIGN's contracts describe.

    Args:
        source: a video file or a folder of images.
        out: folder of the results; made where missing, resumed where it is of the same input.
        settings: see `MaskSettings`.

    Returns:
        The report that is also written to `motion/report.json`.

    Raises:
        SegmotionError: input or settings that cannot be used.
    """
    settings = settings or MaskSettings()
    settings.check()
    source, out = Path(source), Path(out)
    console, meter = Console(settings.quiet), Meter()
    from segmotion_plugin.presets import resolve

    plan = resolve(settings)
    from segmotion_plugin.ingest import source_key

    frames_key = source_key(source, settings)
    space = Workspace.create(out, source)
    with space.locked():
        return _masks(source, frames_key, space, settings, plan, console, meter)


def _masks(
    source: Path, frames_key: str, space: Workspace, settings: MaskSettings, plan: Plan, console: Console, meter: Meter
) -> dict[str, Any]:
    with meter.measure("frames"):
        clip, warnings = ingest(source, space, settings, console)
    space.forget("masks")
    keys = {"features": fingerprint(frames_key, _VERSIONS["features"], plan.semantics)}
    # Far motion is followed with the features.
    keys["tracks"] = fingerprint(frames_key, _VERSIONS["tracks"], plan.tracker, settings.seed, keys["features"])
    keys["motion"] = fingerprint(
        keys["tracks"],
        keys["features"],
        _VERSIONS["motion"],
        plan.motion,
        plan.depth,
        settings.sensitivity,
        settings.seed,
        plan.weights_id,
    )
    if plan.masks == "none":
        (space.motion / "tracks.npz").unlink(missing_ok=True)  # of a run that had masks
        with meter.measure("masks"):
            summary = write_masks(space, clip, settings, console, None)
    else:
        with meter.measure("features"):
            features = plan.describe(clip, space, keys["features"], console)
        with meter.measure("tracks"):
            tracks = _stored_tracks(space, keys["tracks"], lambda: plan.track(clip, space, features, settings, console))
        followed = len(tracks) >= 2 and bool(tracks.visible_flat.any())
        if not followed:
            warnings.append(_NOTHING_FOLLOWED)
        with meter.measure("motion"):
            motion = _stored_motion(
                space,
                keys["motion"],
                tracks,
                lambda: plan.classify(clip, space, tracks, features, settings, console) if followed else TrackMotion.static(tracks),
            )
        with meter.measure("masks"):
            frames = plan.segment(clip, space, tracks, motion, features, settings, console) if followed else None
            votes = MaskVotes(tracks, clip.scale)
            summary = write_masks(space, clip, settings, console, frames, tracks, motion, votes)
            motion = votes.agree(motion)
        with meter.measure("track file"):
            save_tracks(space.motion / "tracks.npz", tracks.scaled(clip.scale), motion, clip.width, clip.height)
    with meter.measure("pictures"):
        from segmotion_plugin.mask_files import draw

        draw(space, clip.names, (clip.fps or 24.0) * len(clip.names) / len(clip), console, summary)
    report = _report(source, settings, plan.names(), clip, meter, summary, warnings + plan.warnings)
    if (space.out / "transforms.json").is_file():  # images and masks came out as they were
        before = read_json(space.motion / "report.json")
        report |= {key: before[key] for key in ("reconstruction", "reconstruction_warnings", "refinement") if key in before}
    write_json(space.motion / "report.json", report)
    space.finish("masks", keys["motion"])
    space.listed()
    if not settings.keep_work:
        space.remove_work()
        space.forget("frames", "tracks", "features", "motion")
    _tell(console, space, report)
    return report


def reconstruct(
    out: Path,
    settings: ReconstructSettings | None = None,
    *,
    extra_masks: Path | None = None,
    dilate: float | None = None,
    unmasked: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Find the cameras of a folder that `masks` made, with what moves left out: `colmap/`, `sparse_pc.ply`, `transforms.json`.

    Args:
        out: the folder.
        settings: see `ReconstructSettings`.
        extra_masks: folder of keep masks (0 = leave out) to combine with ours before the reconstruction.
        dilate: pixels by which keep masks are grown around what moves; as they are when absent.
        unmasked: leave the masks out of the reconstruction (for comparison); `masks/` stays as it is.
        quiet: no progress bars.

    Returns:
        The report, with `reconstruction: {status, reason, …}`. Where no reconstruction is possible the status is not "ok", masks are
        kept and there is no `transforms.json`.
    """
    settings = settings or ReconstructSettings()
    settings.check()
    check_dilate(dilate)
    space = Workspace.open(Path(out), write=True)
    with space.locked():
        return _reconstruct(space, settings, extra_masks, dilate, unmasked, Console(quiet))


def _reconstruct(
    space: Workspace, settings: ReconstructSettings, extra_masks: Path | None, dilate: float | None, unmasked: bool, console: Console
) -> dict[str, Any]:
    from segmotion_plugin.reconstruct.job import reconstruct_folder

    meter = Meter()
    if extra_masks is not None or dilate is not None:
        from segmotion_plugin.mask_files import rewrite_keep

        with meter.measure("keep masks"):
            rewrite_keep(space, extra_masks, dilate)
    path = space.motion / "report.json"
    report = read_json(path) if path.is_file() else {"stages": {}, "warnings": []}
    with meter.measure("reconstruction"):
        result, warnings = reconstruct_folder(space, settings, console, unmasked=unmasked)
    if settings.refine and not unmasked and (space.motion / "tracks.npz").is_file():
        from segmotion_plugin.reconstruct.refine import refine

        with meter.measure("refinement"):
            result, warnings = refine(space, settings, report, (result, warnings), console, extra_masks=extra_masks, dilate=dilate)
    report["reconstruction"] = result
    report["warnings"] = [w for w in report.get("warnings", []) if w not in report.get("reconstruction_warnings", [])] + warnings
    report["reconstruction_warnings"] = warnings
    report.setdefault("stages", {}).update(meter.stages)
    write_json(path, report)
    space.listed()
    _tell(console, space, report)
    return report


def run(
    source: Path, out: Path, settings: MaskSettings | None = None, reconstruction: ReconstructSettings | None = None
) -> dict[str, Any]:
    """The main job: `masks`, then `reconstruct`. Returns the report."""
    settings = settings or MaskSettings()
    (reconstruction or ReconstructSettings()).check()  # before the masks, which take long
    masks(source, out, settings)
    return reconstruct(out, reconstruction, unmasked=settings.masks == "none", quiet=settings.quiet)


def _stored_tracks(space: Workspace, key: str, make) -> Tracks:  # noqa: ANN001
    path, flow = space.work / "tracks.npz", space.work / "flow.raw"
    stored = _stored(path) if space.done("tracks", key) and _bytes(flow) >= space.info("tracks").get("flow_bytes", 0) else {}
    if stored:
        flat = stored["xy"], stored["visible"], stored["confidence"]
        return Tracks(stored["first"], stored["offset"], *flat, stored["query"], int(stored["frames"]))
    space.forget("tracks", "motion")
    tracks = make()
    write_npz(
        path,
        first=tracks.first,
        offset=tracks.offset,
        xy=tracks.xy_flat,
        visible=tracks.visible_flat,
        confidence=tracks.confidence_flat,
        query=tracks.query_frame,
        frames=np.array(tracks.num_frames),
    )
    space.finish("tracks", key, {"flow_bytes": _bytes(flow)})
    return tracks


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _stored(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an intermediate file; none where it is missing or damaged, so that its stage is done anew."""
    try:
        return read_arrays(path, "intermediate file", "it is made anew")
    except SegmotionError:
        return {}


def _stored_motion(space: Workspace, key: str, tracks: Tracks, make) -> TrackMotion:  # noqa: ANN001
    path = space.work / "motion.npz"
    stored = _stored(path) if space.done("motion", key) else {}
    if stored:
        return TrackMotion(tracks, stored["probability"], stored["moving"], stored["object_id"])
    space.forget("motion")
    motion = make()
    write_npz(path, probability=motion.probability, moving=motion.moving_flat, object_id=motion.object_id)
    space.finish("motion", key)
    return motion


def _report(
    source: Path, settings: MaskSettings, plan: dict[str, str], clip: Clip, meter: Meter, summary: MaskSummary, warnings: list[str]
) -> dict[str, Any]:
    warnings = list(warnings)
    if summary.alpha_images:
        warnings.append(
            f"{summary.alpha_images} of {len(clip.names)} images are transparent in {100 * summary.alpha_share:.1f} % of their "
            "pixels: alpha 0 was taken for your own mask and is left out (save the images without alpha to keep all)"
        )
    if summary.masked_share > 0.6:
        warnings.append(
            f"{100 * summary.masked_share:.0f} % of the pixels are masked: "
            "look at motion/overview.png whether the world was taken for a mover"
        )
    if summary.static_share is not None and summary.static_share < 0.02:
        warnings.append("hardly any static track is left: the cameras cannot be found from so little of the world")
    return {
        "format": FORMAT,
        "segmotion": metadata.version("segmotion-plugin") if _installed() else "source",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("numpy", "opencv-python-headless", "torch", "pycolmap", "av")},
        "input": str(source),
        "settings": {k: (str(v) if isinstance(v, Path) else v) for k, v in asdict(settings).items()},
        "plan": plan,
        "seed": settings.seed,
        "frames": len(clip),
        "images": len(clip.names),
        "size": [clip.width, clip.height],
        "work_size": list(clip.work_size),
        "shots": clip.shots,
        "masks": asdict(summary),
        "stages": meter.stages,
        "seconds_per_frame": round(sum(s["seconds"] for s in meter.stages.values()) / len(clip), 4),
        "warnings": warnings,
    }


def _tell(console: Console, space: Workspace, report: dict[str, Any]) -> None:
    for warning in report["warnings"]:
        console.say(f"warning: {warning}")
    console.say(f"look at {space.motion / 'overview.png'}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _installed() -> bool:
    return _version("segmotion-plugin") is not None
