"""The reconstruction of a processed folder: COLMAP on what the masks leave, then nerfstudio's files and 3D tracks beside it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.ingest import load_frames_json
from segmotion_plugin.mask_files import check_image_masks
from segmotion_plugin.progress import Console
from segmotion_plugin.reading import FramesFile
from segmotion_plugin.settings import CameraModel, ReconstructSettings
from segmotion_plugin.workspace import Workspace

_STEPS = {"features": "images", "matches": "pairs", "mapping": "images"}


def reconstruct_folder(
    space: Workspace, settings: ReconstructSettings, console: Console, *, unmasked: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Find the cameras of a folder made by `pipeline.masks`.

    Writes `colmap/database.db`, `colmap/sparse/0`, `sparse_pc.ply`, downscaled copies, `transforms.json` and, where tracks are,
    `motion/tracks_3d.npz`. Where no reconstruction is possible none of these is left from an earlier try.

    Returns:
        The `reconstruction` part of the report (status, reason, figures) and warnings.
    """
    from segmotion_plugin.reconstruct import sfm
    from segmotion_plugin.reconstruct.shot import SfmOptions

    out = space.out
    frames = load_frames_json(out)
    names = [entry["name"] for entry in frames["images"]]
    check_image_masks(out, names)
    video = all(entry["source"] == frames["images"][0]["source"] for entry in frames["images"])
    ordered = video or len(frames["shots"]) < len(names)
    options = SfmOptions(
        camera_model=_camera_model(settings.camera_model, frames.get("pixel_aspect", 1.0)),
        mapper=settings.mapper,
        matching=settings.matching,
        ordered=ordered,
        # Shots of a video are different places until shown otherwise; a folder of images is one place with jumps in it.
        groups=_groups(frames) if video else None,
        threads=settings.threads,
    )
    progress = _Bars(console)
    with progress:
        work = space.staged("colmap") / "colmap"
        result = sfm.reconstruct(out / "images", None if unmasked else out / "colmap_masks", work, options, progress.update)
    if result.status != "ok":
        shutil.rmtree(work / "sparse", ignore_errors=True)
    space.publish("colmap")
    figures = result.to_dict()
    warnings = list(result.warnings)
    if result.status != "ok":
        warnings.append(f"no reconstruction: {result.reason}. The masks are kept; there is no transforms.json.")
        return figures, warnings
    share = result.images_registered / result.images_total
    if share < 0.8:
        warnings.append(f"only {result.images_registered} of {result.images_total} images were registered")
    figures["tracks_3d"] = write_dataset(out, frames, settings.downscales)
    return figures, warnings


def _camera_model(wanted: CameraModel, pixel_aspect: float) -> CameraModel:
    """A model with a focal length for each axis where pixels are not square and the wanted one has only one."""
    if pixel_aspect == 1.0 or wanted == "PINHOLE":
        return wanted
    return "PINHOLE" if wanted == "SIMPLE_PINHOLE" else "OPENCV"


def load_cameras(out: Path) -> Cameras | None:
    """Cameras of a reconstructed folder, in frame order; None where there is no reconstruction.

    Raises:
        SegmotionError: a model that is damaged, or of a camera that `Cameras` cannot hold.
    """
    entries = load_frames_json(out)["images"]
    return _cameras(Path(out) / "colmap" / "sparse" / "0", [e["name"] for e in entries], [e["frame"] for e in entries])


def cameras_with_masks(images: Path, masks: Path | None, work: Path, quiet: bool = True, max_runs: int = 4) -> Cameras | None:
    """Cameras of a plain folder of images with COLMAP keep masks, or with none; None where no reconstruction is possible.

    `max_runs` bounds the mapper's runs: 1 does what COLMAP does by itself.
    """
    from segmotion_plugin.reconstruct import sfm
    from segmotion_plugin.reconstruct.shot import SfmOptions

    with _Bars(Console(quiet)) as progress:
        result = sfm.reconstruct(images, masks, work, SfmOptions(max_runs=max_runs), progress.update)
    return _cameras(work / "sparse" / "0", sfm.image_names(images)) if result.status == "ok" else None


def _cameras(model: Path, names: list[str], frames: list[int] | None = None) -> Cameras | None:
    from segmotion_plugin.reconstruct.mapping import cameras_from_reconstruction
    from segmotion_plugin.reconstruct.model_files import read_model

    if not (model / "images.bin").is_file():
        return None
    return cameras_from_reconstruction(read_model(model), names, frames)


def _groups(frames: FramesFile) -> list[list[str]]:
    groups: list[list[str]] = [[] for _ in frames["shots"]]
    stops = np.array([stop for _, stop in frames["shots"]])
    for entry in frames["images"]:
        groups[int(np.searchsorted(stops, entry["frame"], side="right"))].append(entry["name"])
    return [group for group in groups if group]


def write_dataset(out: Path, frames: FramesFile, downscales: int) -> dict[str, Any]:
    """Write `transforms.json`, `sparse_pc.ply`, downscaled copies and `motion/tracks_3d.npz` of a reconstructed folder.

    Args:
        out: the folder.
        frames: its `motion/frames.json`.
        downscales: how many times images and masks are halved.

    Returns:
        What the lifting of the tracks says, for the report.
    """
    from segmotion_plugin.reconstruct.lifting import lift_folder
    from segmotion_plugin.reconstruct.nerfstudio_dataset import write

    times = {entry["name"]: entry["time"] for entry in frames["images"] if entry["time"] is not None}
    write(out, out / "colmap" / "sparse" / "0", times=times or None, downscales=downscales)
    if not (out / "motion" / "tracks.npz").is_file():
        return {"status": "none", "reason": "the folder has no tracks"}
    try:
        return lift_folder(out)
    except SegmotionError as error:
        return {"status": "none", "reason": str(error)}


class _Bars:
    """One progress bar per step of the reconstruction."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._step = ""
        self._open: Any = None
        self._advance: Any = None

    def update(self, step: str, done: int, total: int) -> None:
        """Show how far a step is."""
        if step != self._step:
            self._close()
            self._open = self._console.bar(step, total, _STEPS.get(step, "steps"))
            self._advance = self._open.__enter__()
            self._step = step
        self._advance(done)

    def _close(self) -> None:
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
