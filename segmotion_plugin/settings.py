"""Settings of the main job, shared by the commands and the Python API."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segmotion_plugin.errors import SegmotionError

CameraModel = Literal["OPENCV", "SIMPLE_RADIAL", "PINHOLE", "SIMPLE_PINHOLE", "RADIAL"]
_MOST_DILATE = 1000.0  # pixels: more than any mask is wrong by, and less than what takes minutes to grow


@dataclass
class MaskSettings:
    """How what moves is found."""

    preset: Literal["auto", "builtin", "foundation", "seganymo"] = "auto"
    """auto takes foundation where CUDA and the weights are at hand, otherwise builtin (nothing is downloaded)."""
    tracker: Literal["auto", "dis", "cotracker3", "cotracker3-online", "bootstapir"] = "auto"
    """Point tracker; auto is the preset's."""
    depth: Literal["auto", "none", "depth-anything-v2-small", "depth-anything-v2-large"] = "auto"
    """Monocular depth; auto is the preset's (builtin needs none)."""
    semantics: Literal["auto", "efficientnet-lite0", "dinov2-small", "dinov2-base", "none"] = "auto"
    """Features that tell what looks alike; auto is the preset's."""
    motion: Literal["auto", "transformer", "geometric", "seganymo"] = "auto"
    """Classifier that tells which tracks move; auto is the preset's."""
    masks: Literal["auto", "graph-cut", "sam2", "sam2-transformers", "none"] = "auto"
    """How tracks become pixels; none masks nothing (the unmasked reconstruction, for comparison)."""
    sensitivity: float = 0.5
    """Between 0 and 1: higher masks more (what moves weakly too), lower masks less."""
    rest: Literal["mask", "keep"] = "mask"
    """Objects that move at some time of the clip are masked while they rest, too; keep leaves them unmasked then."""
    dilate: float | None = None
    """Pixels by which keep masks are grown around what moves; by default 0.5 % of the longer image side."""
    extra_masks: Path | None = None
    """Folder of your own masks (0 = leave out), named like the images or the source files; combined with ours."""
    every: int = 1
    """Take every N-th frame as an image; motion is measured at the full frame rate all the same."""
    target_frames: int | None = None
    """Take about this many frames as images, evenly spread (overrides --every)."""
    fps: float | None = None
    """Frames per second of an image folder, for time stamps."""
    unordered: bool = False
    """The images are a photo set, not a sequence: each is its own shot, matched exhaustively."""
    work_size: int = 1152
    """Longer side of the frames that motion is measured on, in pixels; smaller images are enlarged towards it, to twice their size at
    most. Images and masks keep their own size."""
    device: str = "auto"
    """auto, cpu or cuda."""
    tracker_source: Path | None = None
    """Local checkout of the tracker's repository (cotracker3, bootstapir)."""
    tracker_weights: Path | None = None
    """Weight file of the tracker (with --tracker-source)."""
    sam2_size: Literal["tiny", "small", "base-plus", "large"] = "large"
    """Size of SAM 2.1."""
    weights_dir: Path | None = None
    """Folder with weight files placed by hand."""
    seed: int = 0
    """Seed of everything random."""
    keep_work: bool = False
    """Keep the intermediate files (OUT/.segmotion) after success."""
    quiet: bool = False
    """No progress bars."""

    def check(self) -> None:
        """Raise SegmotionError for values out of range."""
        if not 0.0 <= self.sensitivity <= 1.0:
            raise SegmotionError(f"--sensitivity {self.sensitivity}: must lie between 0 and 1")
        if self.every < 1:
            raise SegmotionError(f"--every {self.every}: must be 1 or more")
        if self.target_frames is not None and self.target_frames < 2:
            raise SegmotionError(f"--target-frames {self.target_frames}: must be 2 or more")
        check_dilate(self.dilate)
        if not 128 <= self.work_size <= 8192:
            raise SegmotionError(f"--work-size {self.work_size}: must lie between 128 and 8192")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise SegmotionError(f"--fps {self.fps}: must be above 0")
        if self.extra_masks is not None and not Path(self.extra_masks).is_dir():
            raise SegmotionError(f"{self.extra_masks}: no such folder (--extra-masks)")

    def dilation(self, width: int, height: int) -> float:
        """Pixels of dilation for images of this size."""
        return 0.005 * max(width, height) if self.dilate is None else float(self.dilate)


@dataclass
class ReconstructSettings:
    """How cameras are found with COLMAP."""

    mapper: Literal["incremental", "global"] = "incremental"
    """COLMAP's incremental mapper, or its global one (faster on long sequences)."""
    camera_model: CameraModel = "SIMPLE_RADIAL"
    """One camera of this model is shared by all images (OPENCV for lenses with strong or uneven distortion)."""
    matching: Literal["auto", "sequential", "exhaustive"] = "auto"
    """auto: sequential for sequences, exhaustive for small or unordered sets."""
    threads: int = -1
    """Threads of COLMAP; -1 takes all cores. Results repeat exactly with 1."""
    refine: int = 1
    """Rounds in which what was called moving is tested against the cameras: objects that one place in the world explains are static
    after all and unmasked, and the cameras are found again where that frees much; 0 is off."""
    downscales: int = 3
    """How many times images and masks are halved for nerfstudio (images_2, images_4, images_8)."""

    def check(self) -> None:
        """Raise SegmotionError for values out of range."""
        for name, value, least, most in (("downscales", self.downscales, 0, 8), ("refine", self.refine, 0, 10)):
            if not least <= value <= most:
                raise SegmotionError(f"--{name} {value}: must lie between {least} and {most}")
        if self.threads != -1 and self.threads < 1:
            raise SegmotionError(f"--threads {self.threads}: must be 1 or more, or -1 for all cores")


def check_dilate(dilate: float | None) -> None:
    """Raise SegmotionError for a number of pixels that masks cannot be grown by."""
    if dilate is not None and not 0 <= dilate <= _MOST_DILATE:
        raise SegmotionError(f"--dilate {dilate}: must lie between 0 and {_MOST_DILATE:.0f} pixels")


def fingerprint(*parts: object) -> str:
    """Short hash of settings, to tell whether a stored result belongs to them."""

    def plain(item: object) -> object:
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            return dataclasses.asdict(item)
        return str(item)

    return hashlib.sha256(json.dumps(parts, default=plain, sort_keys=True).encode()).hexdigest()[:16]
