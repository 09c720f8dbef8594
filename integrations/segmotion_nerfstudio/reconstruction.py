"""Cameras of a nerfstudio dataset: COLMAP's binary or pycolmap, on what the masks leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from segmotion_colmap.binary import ColmapBinary, registered_images
from segmotion_colmap.database import image_names, masked_keypoints
from segmotion_colmap.intrinsics import MAPPED_AS, read_intrinsics, write_intrinsics

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import read_json, write_json

_CAMERA_MODELS = {
    "perspective": "OPENCV",
    "fisheye": "OPENCV_FISHEYE",
    "pinhole": "PINHOLE",
    "simple_pinhole": "SIMPLE_PINHOLE",
}
# Up to this many images every pair is matched when the user leaves the choice to us.
_EXHAUSTIVE_UP_TO = 24


def camera_model(camera_type: str) -> str:
    """COLMAP's name of a camera type of ns-process-data."""
    return _CAMERA_MODELS[camera_type]


def matching_method(chosen: str, images: int, ordered: bool) -> str:
    """`auto` resolved: every pair of small or unordered sets, neighbours of sequences."""
    if chosen != "auto":
        return chosen
    return "exhaustive" if images <= _EXHAUSTIVE_UP_TO or not ordered else "sequential"


def with_binary(
    binary: ColmapBinary,
    images: Path,
    masks: Path,
    colmap: Path,
    *,
    camera_type: str,
    matching: str,
    refine: bool,
    gpu: bool,
    verbose: bool,
    vocabulary_tree: Callable[[], Path],
) -> dict[str, Any]:
    """Run COLMAP with one mask per image, in the steps of ns-process-data. Returns figures for the report.

    Raises:
        SegmotionError: a step failed, no model was found, or keypoints lie in masked pixels.
    """
    from segmotion_plugin.reconstruct.database import image_size, pixel_tolerance

    colmap.mkdir(parents=True, exist_ok=True)
    database, sparse = colmap / "database.db", colmap / "sparse"
    wanted = camera_model(camera_type)
    binary.extract(database, images, camera_model=MAPPED_AS.get(wanted, wanted), mask_dir=masks, gpu=gpu, verbose=verbose)
    inside = masked_keypoints(database, masks)
    if inside:
        raise SegmotionError(f"{database}: {sum(inside.values())} keypoints lie in masked pixels; this COLMAP did not read the masks")
    tree = vocabulary_tree() if matching == "vocab_tree" and not binary.own_vocabulary_tree else None
    # COLMAP's 4 pixels are meant for large photos: in small pictures they let nearly every pair pass as planar.
    tolerance = min(pixel_tolerance(*image_size(images / name)) for name in image_names(database))
    scaled = tolerance if tolerance < pixel_tolerance(1600, 1600) else None
    binary.match(database, matching, gpu=gpu, tree=tree, tolerance=scaled, verbose=verbose)
    models = binary.map(database, images, sparse, tolerance=scaled, verbose=verbose)
    write_intrinsics(sparse / "0", read_intrinsics(sparse / "0").expanded())
    refined = refine and binary.refine(sparse / "0", verbose=verbose)
    return {
        "status": "ok",
        "tool": f"COLMAP {binary.version[0]}.{binary.version[1]}",
        "images_registered": registered_images(sparse / "0"),
        "models_found": models,
        "intrinsics_refined": refined,
        "keypoints_in_masks": 0,
    }


def with_pycolmap(
    images: Path, masks: Path | None, colmap: Path, *, camera_type: str, matching: str, ordered: bool, names: list[str] | None = None
) -> dict[str, Any]:
    """Run pycolmap; needs no COLMAP binary. Returns figures for the report.

    Args:
        images: the images.
        masks: keep masks `<image name>.png`; None for none.
        colmap: gets `database.db` and `sparse/0`.
        camera_type: as ns-process-data calls it.
        matching: auto, exhaustive, sequential; vocab_tree is taken for auto.
        ordered: the images follow each other.
        names: images to take, in order; all in natural order when absent.

    Raises:
        SegmotionError: no model was found; the message says why.
    """
    from segmotion_plugin.reconstruct import sfm
    from segmotion_plugin.reconstruct.shot import SfmOptions

    options = SfmOptions(camera_model=camera_model(camera_type), ordered=ordered)  # type: ignore[arg-type]
    options.matching = matching if matching in ("exhaustive", "sequential") else "auto"  # type: ignore[assignment]
    options.groups = None if names is None else [names]
    result = sfm.reconstruct(images, masks, colmap, options)
    if result.status != "ok":
        raise SegmotionError(f"{images}: no reconstruction: {result.reason}\nThe masks are kept; look at motion/overview.png.")
    return {"tool": "pycolmap", **result.to_dict()}


def record(out: Path, figures: dict[str, Any]) -> None:
    """Write the figures into `motion/report.json`, and lift the tracks to 3D where there are any."""
    if (out / "motion" / "tracks.npz").is_file():
        from segmotion_plugin.reconstruct.lifting import lift_folder

        try:
            figures["tracks_3d"] = lift_folder(out)
        except SegmotionError as error:
            figures["tracks_3d"] = {"status": "none", "reason": str(error)}
    path = out / "motion" / "report.json"
    report = read_json(path) if path.is_file() else {"warnings": []}
    report["reconstruction"] = figures
    write_json(path, report)
