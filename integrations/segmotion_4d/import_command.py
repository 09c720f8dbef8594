"""`segmotion import`: starts from masks and tracks that were made elsewhere, and makes the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from segmotion_4d.posed_model import write_posed_model
from segmotion_4d.readers.depth_maps import DepthFormat, DepthKind, DepthMaps
from segmotion_4d.readers.mask_folder import MaskFolder, MaskFormat
from segmotion_4d.readers.poses import PosesFormat, read_poses
from segmotion_4d.readers.tapip3d_tracks import read_tracks
from segmotion_4d.writing import save_array
from segmotion_plugin.clip import Clip
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import read_json, write_json
from segmotion_plugin.ingest import ingest, load_frames_json, source_key
from segmotion_plugin.mask_files import draw, write_masks
from segmotion_plugin.progress import Console, Meter
from segmotion_plugin.reconstruct.job import write_dataset
from segmotion_plugin.settings import MaskSettings, ReconstructSettings, fingerprint
from segmotion_plugin.tracks import TrackMotion, Tracks, save_tracks
from segmotion_plugin.workspace import FORMAT, Workspace

# Above this share of moving pixels the polarity was probably the other one.
_TOO_MUCH = 0.6


def import_results(
    source: Path,
    out: Path,
    *,
    masks: Path | None = None,
    masks_format: MaskFormat | None = None,
    tracks: Path | None = None,
    depth: Path | None = None,
    depth_format: DepthFormat | None = None,
    depth_kind: DepthKind = "depth",
    poses: Path | None = None,
    poses_format: PosesFormat | None = None,
    focal: float | None = None,
    settings: MaskSettings | None = None,
    reconstruct: bool = True,
) -> dict[str, Any]:
    """Make a processed folder from masks or tracks of other programs, and what they lack from the pipeline's own stages.

    Masks without tracks: the clip is tracked, and a track belongs to the object on which most of it lies. Tracks without masks: the
    pipeline tells which of them move and cuts the masks. Tracks of objects count as moving in every frame where masks came alone,
    since masks do not tell when an object rests. Depth is aligned to the model by its static points, image by image, as that of our
    own depth models is; given alone, masks and tracks are the pipeline's.

    Args:
        source: the video or folder of images.
        out: folder of the results.
        masks: folder of masks, one per frame.
        masks_format: what they mean: `colmap`, `nerfstudio`, `dynamic` or `davis`.
        tracks: npz of TAPIP3D or SpatialTrackerV2.
        depth: folder or file of depth maps, one per frame or image.
        depth_format: `npy`, `png16`, `monst3r`, `megasam` or `da3`.
        depth_kind: whether their values are depth or disparity, up to scale.
        poses: cameras found elsewhere; they take the place of the reconstruction.
        poses_format: `tum`, `monst3r`, `megasam`, `vggt`, `da3` or `pi3`.
        focal: focal length in pixels of the images, for `tum` and `pi3`.
        settings: as for `pipeline.masks`.
        reconstruct: find the cameras too.

    Returns:
        The report that is also written to `motion/report.json`.

    Raises:
        SegmotionError: input that does not fit together; `out` is left as it was, or is removed where it was new.
    """
    settings = settings or MaskSettings()
    settings.check()
    if masks is None and tracks is None and depth is None and poses is None:
        raise SegmotionError(
            "nothing to import: give --masks DIR with --masks-format, --tracks FILE, --depth DIR with --depth-format, "
            "--poses FILE with --poses-format, or several"
        )
    if (depth is None) != (depth_format is None):
        raise SegmotionError("--depth and --depth-format belong together")
    if (poses is None) != (poses_format is None):
        raise SegmotionError("--poses and --poses-format belong together")
    if (masks is None) != (masks_format is None):
        raise SegmotionError("--masks and --masks-format belong together: the polarity of masks cannot be told from looking at them")
    source, out = Path(source), Path(out)
    console, meter = Console(settings.quiet), Meter()
    frames_key = source_key(source, settings)
    posed = (poses, poses_format, focal) if poses is not None and poses_format is not None else None
    space = Workspace.create(out, source)
    with space.locked():
        _import(
            source, space, frames_key, masks, masks_format, tracks, (depth, depth_format, depth_kind), settings, console, meter, posed
        )
    if reconstruct and posed is None:
        from segmotion_plugin import pipeline

        return pipeline.reconstruct(out, quiet=settings.quiet)
    report = read_json(space.motion / "report.json")
    for warning in report["warnings"]:
        console.say(f"warning: {warning}")
    return report


def _import(
    source: Path,
    space: Workspace,
    frames_key: str,
    masks: Path | None,
    masks_format: MaskFormat | None,
    tracks: Path | None,
    depth: tuple[Path | None, DepthFormat | None, DepthKind],
    settings: MaskSettings,
    console: Console,
    meter: Meter,
    posed: tuple[Path, PosesFormat, float | None] | None = None,
) -> None:
    fresh = not space.state["stages"]
    try:
        with meter.measure("frames"):
            clip, warnings = ingest(source, space, settings, console)
        folder = MaskFolder(masks, masks_format, clip) if masks is not None and masks_format is not None else None
        given = read_tracks(tracks, len(clip), clip.width, clip.height) if tracks is not None else None
        maps = DepthMaps(depth[0], depth[1], depth[2], clip) if depth[0] is not None and depth[1] is not None else None
        cameras = read_poses(posed[0], posed[1], clip, posed[2]) if posed is not None else None
        disparity = [maps.disparity(k) for k in range(len(clip.names))] if maps is not None else []
        with meter.measure("masks and tracks"):
            space.forget("masks")
            frames, full, motion = _complete(clip, space, frames_key, settings, console, folder, given)
            summary = write_masks(space, clip, settings, console, frames, full, motion)
        if cameras is not None:
            work = space.staged("colmap") / "colmap" / "sparse" / "0"
            points = write_posed_model(work, space.out / "images", cameras, full, motion)
    except SegmotionError:
        if fresh:
            space.undo()
        raise
    if disparity:
        target = space.fresh("motion/disparity")
        for name, values in zip(clip.names, disparity, strict=True):
            save_array(target / f"{Path(name).stem}.npy", values)
    save_tracks(space.motion / "tracks.npz", full, motion, clip.width, clip.height)
    with meter.measure("pictures"):
        draw(space, clip.names, (clip.fps or 24.0) * len(clip.names) / len(clip), console, summary)
    warnings += folder.notes if folder else []
    if summary.moving_share > _TOO_MUCH:
        warnings.append(
            f"{100 * summary.moving_share:.0f} % of the pixels move: is the polarity of the masks the other one? "
            "colmap and nerfstudio masks are black where things move, dynamic ones white; look at motion/overview.png"
        )
    report: dict[str, Any] = {
        "format": FORMAT,
        "input": str(source),
        "imported": {
            "masks": str(masks or ""),
            "masks_format": masks_format or "",
            "tracks": str(tracks or ""),
            "depth": str(depth[0] or ""),
        },
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in asdict(settings).items()},
        "seed": settings.seed,
        "frames": len(clip),
        "images": len(clip.names),
        "size": [clip.width, clip.height],
        "work_size": list(clip.work_size),
        "shots": clip.shots,
        "masks": asdict(summary),
        "stages": meter.stages,
        "warnings": warnings,
    }
    if cameras is not None:
        with meter.measure("reconstruction"):
            report["reconstruction"] = _pose(space, len(cameras), points)
    write_json(space.motion / "report.json", report)
    space.finish("masks", fingerprint(frames_key, "imported"))
    space.listed()
    space.remove_work()
    space.forget("frames", "tracks", "features", "motion")


def _pose(space: Workspace, images: int, points: int) -> dict[str, Any]:
    """Make what a reconstruction makes around the staged model of given cameras: the `reconstruction` part of the report."""
    space.publish("colmap")
    figures: dict[str, Any] = {"status": "ok", "reason": "", "imported": True, "images_total": images, "images_registered": images}
    lifted = write_dataset(space.out, load_frames_json(space.out), ReconstructSettings().downscales)
    return figures | {"points": points, "tracks_3d": lifted}


def _complete(
    clip: Clip,
    space: Workspace,
    frames_key: str,
    settings: MaskSettings,
    console: Console,
    folder: MaskFolder | None,
    given: Tracks | None,
) -> tuple[Iterable[tuple[int, np.ndarray, np.ndarray]], Tracks, TrackMotion]:
    """Soft masks and object ids per image, tracks in the images' pixels, and their motion; what was not given is computed."""
    from segmotion_plugin.presets import resolve

    if folder is not None and given is not None:
        return _selected(folder, clip), given, motion_from_masks(given, folder)
    plan = resolve(settings)
    features = plan.describe(clip, space, fingerprint(frames_key, "imported", plan.semantics), console)
    own = plan.track(clip, space, features, settings, console)  # also leaves the flow that masks are cut with
    if folder is not None:
        tracks = _scaled(own, clip.scale)
        return _selected(folder, clip), tracks, motion_from_masks(tracks, folder)
    tracks = own if given is None else _scaled(given, (1 / clip.scale[0], 1 / clip.scale[1]))
    motion = plan.classify(clip, space, tracks, features, settings, console)
    frames = plan.segment(clip, space, tracks, motion, features, settings, console)
    given = _scaled(own, clip.scale) if given is None else given
    return frames, given, TrackMotion(given, motion.probability, motion.moving_flat, motion.object_id)


def _scaled(tracks: Tracks, scale: tuple[float, float]) -> Tracks:
    """The same tracks with their positions times (x, y)."""
    return Tracks(
        tracks.first,
        tracks.offset,
        tracks.xy_flat * np.array(scale, np.float32),
        tracks.visible_flat,
        tracks.confidence_flat,
        tracks.query_frame,
        tracks.num_frames,
    )


def _selected(folder: MaskFolder, clip: Clip) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    for frame in clip.selected.tolist():
        labels = folder.labels(frame)
        yield frame, (labels > 0).astype(np.float32), labels


def motion_from_masks(tracks: Tracks, folder: MaskFolder) -> TrackMotion:
    """Give every track the object on which at least half of its visible positions lie.

    The probability is the share of its positions on objects, and its object counts as moving wherever the track is.
    """
    votes = np.zeros((len(tracks), 256), np.int32)
    for frame, labels in folder:
        ids, xy = tracks.observations_at(frame)
        column = np.clip(np.floor(xy[:, 0]).astype(int), 0, labels.shape[1] - 1)
        row = np.clip(np.floor(xy[:, 1]).astype(int), 0, labels.shape[0] - 1)
        np.add.at(votes, (ids, labels[row, column]), 1)
    total = np.maximum(votes.sum(axis=1), 1)
    share = votes[:, 1:].sum(axis=1) / total
    object_id = np.where(share >= 0.5, votes[:, 1:].argmax(axis=1) + 1, 0)
    return TrackMotion(tracks, share, np.repeat(object_id > 0, tracks.length), object_id)


@dataclass
class Import:
    """Start from masks or tracks that were made elsewhere (SegAnyMo, GMOS, GeoMotion, SAM 2, TAPIP3D, your own) and make the rest."""

    input: tyro.conf.Positional[Path]
    """The video or folder of images that they belong to."""
    out: tyro.conf.Positional[Path]
    """Folder of the results (new, empty, or of an earlier run)."""
    masks: Path | None = None
    """Folder of masks, one per frame, by name or in order."""
    masks_format: MaskFormat | None = None
    """colmap, nerfstudio: black where things move; dynamic: white where things move; davis: object ids."""
    tracks: Path | None = None
    """npz of TAPIP3D or SpatialTrackerV2, over all frames of the input."""
    depth: Path | None = None
    """Folder (or npz file) of depth maps, one per frame or image; relative or metric."""
    depth_format: DepthFormat | None = None
    """npy or png16: one file per frame; monst3r, megasam, da3: as these programs leave them."""
    depth_kind: DepthKind = "depth"
    """Of npy and png16: whether larger is farther (depth) or nearer (disparity)."""
    poses: Path | None = None
    """Cameras found elsewhere, one per frame or image; they take the place of the reconstruction."""
    poses_format: PosesFormat | None = None
    """tum: trajectory file; monst3r: its output folder; megasam, vggt, da3, pi3: npz."""
    focal: float | None = None
    """Focal length in pixels of the images, for tum and pi3."""
    every: int = 1
    """Take every N-th frame as an image."""
    fps: float | None = None
    """Frames per second of an image folder, for time stamps."""
    dilate: float | None = None
    """Pixels by which keep masks are grown around what moves; by default 0.5 % of the longer image side."""
    reconstruct: bool = True
    """Find the cameras too."""
    seed: int = 0
    """Seed of everything random."""
    quiet: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """No progress bars."""

    def main(self) -> int:
        """Run it."""
        settings = MaskSettings(every=self.every, fps=self.fps, dilate=self.dilate, seed=self.seed, quiet=self.quiet)
        import_results(
            self.input,
            self.out,
            masks=self.masks,
            masks_format=self.masks_format,
            tracks=self.tracks,
            depth=self.depth,
            depth_format=self.depth_format,
            depth_kind=self.depth_kind,
            poses=self.poses,
            poses_format=self.poses_format,
            focal=self.focal,
            settings=settings,
            reconstruct=self.reconstruct,
        )
        return 0
