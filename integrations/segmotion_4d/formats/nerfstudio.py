"""A nerfstudio dataset.

    DEST/
      images/, images_2/, images_4/ …   hard links
      masks/, masks_2/, masks_4/ …      keep: 255 = static, 0 = moving; sizes as those of the images
      transforms.json                   every frame carries mask_path; camera_to_world, OpenGL axes (x right, y up, z back)
      sparse_pc.ply                     points in the same world
      colmap/sparse/0/                  the COLMAP model

Loader: nerfstudio's `nerfstudio-data` dataparser (`ns-train METHOD --data DEST`).
"""

from __future__ import annotations

from pathlib import Path

from segmotion_4d.source import Processed
from segmotion_4d.spec import Format
from segmotion_4d.writing import link
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import read_json


def _write(source: Processed, dest: Path) -> list[str]:
    path = source.out / "transforms.json"
    if not path.is_file():
        raise SegmotionError(f"{path}: missing; make it with 'segmotion reconstruct {source.out}'")
    frames = read_json(path)["frames"]
    names = {image.name for image in source.images}
    for frame in frames:
        if Path(frame["file_path"]).name not in names:
            raise SegmotionError(
                f"{path}: {frame['file_path']} is none of the images; make it again with 'segmotion reconstruct {source.out}'"
            )
        if "mask_path" not in frame:
            raise SegmotionError(
                f"{path}: {frame['file_path']} has no mask_path; make it again with 'segmotion reconstruct {source.out}'"
            )
    for folder in sorted(source.out.iterdir()):
        base, _, scale = folder.name.partition("_")
        if folder.is_dir() and base in ("images", "masks") and (not scale or scale.isdigit()):
            for file in source.steps(folder.name, sorted(p for p in folder.iterdir() if p.is_file())):
                link(file, dest / folder.name / file.name)
    for file in (path, source.out / "sparse_pc.ply", *sorted(source.model_path.glob("*.bin"))):
        if file.is_file():
            link(file, dest / file.relative_to(source.out))
    return source.notes_on_poses("are not in transforms.json; their pictures and masks are there")


FORMAT = Format(
    "nerfstudio",
    "nerfstudio-data dataparser",
    "keep: 255 = static, 0 = moving",
    ("masks", "poses"),
    _write,
    "used for training",
    "ns-train segmotion-splatfacto --data DEST",
)
