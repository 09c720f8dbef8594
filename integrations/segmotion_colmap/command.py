"""`segmotion colmap`: masks for COLMAP projects."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.settings import MaskSettings


@dataclass
class Masks:
    """Keep masks for a folder of images (sub-folders too), named as every COLMAP version reads them."""

    images: tyro.conf.Positional[Path]
    """Folder of images: COLMAP's image_path."""
    masks: tyro.conf.Positional[Path]
    """Folder of the masks: COLMAP's ImageReader.mask_path."""
    order: Literal["auto", "sequence", "unordered"] = "auto"
    """Whether the images of a folder follow each other in time; auto looks whether neighbours show the same picture moved a little."""
    overwrite: bool = False
    """Replace masks that this command made there; nothing else is ever replaced."""
    motion_dir: Path | None = None
    """Folder for tracks, object ids, report and overview of every clip."""
    mask: Annotated[MaskSettings, tyro.conf.arg(name="")] = field(default_factory=MaskSettings)

    def main(self) -> int:
        """Run it."""
        from segmotion_colmap.images import write_image_masks

        if self.mask.every != 1 or self.mask.target_frames is not None:
            raise SegmotionError("COLMAP needs a mask for every image; --every and --target-frames are for videos ('segmotion masks')")
        done = write_image_masks(
            self.images, self.masks, self.mask, order=self.order, overwrite=self.overwrite, motion=self.motion_dir
        )
        for warning in done.warnings:
            print(f"warning: {warning}")
        print(f"{len(done.names)} masks in {self.masks}, {100 * sum(done.masked_share) / len(done.names):.1f} % of the pixels masked")
        folders = f"--image_path {shlex.quote(str(self.images))} --ImageReader.mask_path {shlex.quote(str(self.masks))}"
        print(f"next: colmap feature_extractor --database_path database.db {folders}")
        print(
            "(into a new database: COLMAP keeps the features of images that it knows; 'segmotion colmap filter' mends one that exists)"
        )
        return 0


@dataclass
class Filter:
    """Take the keypoints in masked pixels out of a database that exists, without extracting and matching again."""

    database: tyro.conf.Positional[Path]
    """COLMAP's database."""
    masks: tyro.conf.Positional[Path]
    """Folder of keep masks, one <image name>.png for every image."""
    output: Path | None = None
    """The new database; the old one is left as it is."""
    in_place: bool = False
    """Replace the database instead."""
    matches: Literal["keep", "drop"] = "keep"
    """Keep the matches between keypoints that stay (two-view geometries are estimated anew), or drop all so that you match again."""
    verify: Literal["auto", "colmap", "pycolmap", "none"] = "auto"
    """What estimates the two-view geometries: auto is pycolmap for databases of COLMAP 4, the COLMAP binary for older ones."""
    colmap_cmd: str = "colmap"
    """How to call the COLMAP executable."""

    def main(self) -> int:
        """Run it."""
        from segmotion_colmap.database import filter_database

        if (self.output is None) == (not self.in_place):
            raise SegmotionError("give either --output DATABASE or --in-place")
        output = self.database if self.output is None else self.output
        if not self.in_place and output.exists():
            raise SegmotionError(f"{output}: exists already; give another --output, or --in-place to replace the input")
        done = filter_database(self.database, self.masks, output, matches=self.matches, verify=self.verify, colmap_cmd=self.colmap_cmd)
        print(f"{output}: {done.dropped} of {done.keypoints} keypoints in {done.images} images lay in masked pixels and are gone")
        print(f"{done.matches_dropped} of {done.matches} matches in {done.pairs} image pairs went with them")
        if done.emptied:
            print(f"warning: {len(done.emptied)} image(s) have fewer than 50 keypoints left, {done.emptied[0]} first")
        if self.matches == "drop":
            print("next: run COLMAP's matcher, then the mapper")
        elif done.verified_with:
            print(f"two-view geometries estimated anew with {done.verified_with}; next: run COLMAP's mapper")
        else:
            print("next: run COLMAP's matcher (it verifies the matches that are there), then the mapper")
        return 0


@dataclass
class Check:
    """Count the keypoints of a database that lie in masked pixels. Exit status 1 when there are any."""

    database: tyro.conf.Positional[Path]
    """COLMAP's database."""
    masks: tyro.conf.Positional[Path]
    """Folder of keep masks, one <image name>.png for every image."""

    def main(self) -> int:
        """Run it."""
        from segmotion_colmap.database import keypoints, masked_keypoints

        total = sum(len(xy) for xy in keypoints(self.database).values())
        found = masked_keypoints(self.database, self.masks)
        print(f"{sum(found.values())} of {total} keypoints lie in masked pixels")
        for name, count in found.items():
            print(f"  {name}: {count}")
        if found:
            print("the masks did not reach COLMAP: extract anew into a new database, or run 'segmotion colmap filter'")
        return 1 if found else 0


@dataclass
class Undistort:
    """Keep masks for the images that `colmap image_undistorter` writes (it leaves masks behind)."""

    model: tyro.conf.Positional[Path]
    """Sparse model with the distorted cameras (sparse/0)."""
    masks: tyro.conf.Positional[Path]
    """Folder of keep masks of the distorted images."""
    output: tyro.conf.Positional[Path]
    """Folder of the new masks: COLMAP's StereoFusion.mask_path."""
    undistorted: Path | None = None
    """Model that image_undistorter wrote (dense/sparse); without it, its default options are assumed."""
    overwrite: bool = False
    """Replace masks that this command made there."""

    def main(self) -> int:
        """Run it."""
        from segmotion_colmap.undistort import undistort_masks
        from segmotion_plugin.ownership import staged_folder

        with staged_folder(self.output, self.overwrite) as folder:
            names = undistort_masks(self.model, self.masks, folder, self.undistorted)
        print(f"{len(names)} masks in {self.output}")
        print(f"next: colmap stereo_fusion … --StereoFusion.mask_path {shlex.quote(str(self.output))}")
        return 0


Command = (
    Annotated[Masks, tyro.conf.subcommand("masks")]
    | Annotated[Filter, tyro.conf.subcommand("filter")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Undistort, tyro.conf.subcommand("undistort")]
)
