"""What a processed folder holds: every part is read on demand, and a missing one is named with the command that makes it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import cv2
import numpy as np

from segmotion_plugin.cameras import Cameras
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import read_json
from segmotion_plugin.ingest import load_frames_json
from segmotion_plugin.masks import MotionMasks, read_grey
from segmotion_plugin.progress import Console
from segmotion_plugin.reading import UNREADABLE
from segmotion_plugin.tracks import TrackMotion, Tracks, load_tracks
from segmotion_plugin.workspace import Workspace

if TYPE_CHECKING:
    import pycolmap

    from segmotion_plugin.reconstruct.tracks_3d import Tracks3D

Need = Literal["masks", "poses", "depth", "tracks", "3D tracks"]
_Item = TypeVar("_Item")

# From here on a value in `motion/objects` is masked and yet no object: 254 what lies over the picture, 255 stuff that flows.
FIRST_RESERVED_ID = 254


@dataclass(frozen=True)
class ImageRecord:
    """One image of a processed folder and where it came from.

    Attributes:
        name: file name in `images/`.
        source: name of the source file (of the video, where the source is one).
        number: number of the frame in the source, counted from 0.
        frame: index of the frame in the clip, as tracks count.
        time: seconds, or None where the source does not tell.
    """

    name: str
    source: str
    number: int
    frame: int
    time: float | None

    @property
    def stem(self) -> str:
        """File name without its suffix."""
        return Path(self.name).stem


class Processed:
    """A folder made by `segmotion masks` or `segmotion run`.

    Attributes:
        out: the folder.
        images: its images in frame order.
        fps: frames per second of the source, or None.
        frame_count: frames of the clip (tracks cover all of them; images may be a selection).

    Raises:
        SegmotionError: it is no such folder, or its masks are incomplete.
    """

    def __init__(self, out: Path, console: Console | None = None) -> None:
        self.out = Path(out)
        self.console = console or Console(quiet=True)
        Workspace.open(self.out)
        frames = load_frames_json(self.out)
        self.fps: float | None = frames["fps"]
        self.frame_count: int = frames["frame_count"]
        self.images = [ImageRecord(e["name"], e["source"], e["number"], e["frame"], e["time"]) for e in frames["images"]]
        self._objects = MotionMasks(self.out / "motion" / "objects", [image.name for image in self.images])

    @property
    def title(self) -> str:
        """The folder's name, fit to be a file name on every system."""
        return re.sub(r"[^A-Za-z0-9_-]+", "-", self.out.resolve().name).strip("-") or "clip"

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """(width, height) of the images."""
        from PIL import Image

        with Image.open(self.image_path(0)) as image:
            return image.size

    def steps(self, title: str, items: Sequence[_Item]) -> Iterator[_Item]:
        """Go through items with a progress bar."""
        with self.console.bar(title, len(items), "files") as update:
            for done, item in enumerate(items, start=1):
                yield item
                update(done)

    # -- what is there --------------------------------------------------------------------------------------------

    def check(self, needs: Sequence[Need], format_name: str) -> None:
        """Raise SegmotionError naming everything that a format needs and this folder lacks, with the commands that make it."""
        lacking = [text for need in needs if (text := self.lacking(need))]
        if lacking:
            missing = "\n".join(f"  {text}" for text in lacking)
            raise SegmotionError(f"{self.out}: '{format_name}' needs more than this folder holds:\n{missing}")

    def lacking(self, need: Need) -> str | None:
        """What is missing of a part, with the command that makes it; None where the part is there."""
        motion = self.out / "motion"
        if need == "masks":
            for image in self.images:
                for path in (self.image_path_of(image), motion / "objects" / f"{image.stem}.png", self.keep_path_of(image)):
                    if not path.is_file():
                        return f"masks ({path} is missing): make them with 'segmotion masks {self._input} {self.out}'"
        if need == "tracks" and not (motion / "tracks.npz").is_file():
            return f"tracks: make them with 'segmotion masks {self._input} {self.out}'"
        if need == "poses" and not (self.model_path / "images.bin").is_file():
            reason = self._report.get("reconstruction", {}).get("reason")
            why = f" (the last reconstruction failed: {reason})" if reason else ""
            return f"poses{why}: make them with 'segmotion reconstruct {self.out}'"
        if need == "depth":
            wanted = self.posed if (self.model_path / "images.bin").is_file() else list(range(len(self.images)))
            lacking = sum(not self._depth_path(i).is_file() for i in wanted)
            if lacking and lacking < len(wanted):
                return (
                    f"depth of {lacking} of {len(wanted)} images (too few static points there to bring the depth model to scale): "
                    f"make more with 'segmotion reconstruct {self.out}'"
                )
            if lacking and any((motion / "disparity").glob("*.npy")):
                return f"depth (a depth model ran, and its maps are not yet in the poses' scale): 'segmotion reconstruct {self.out}'"
            if lacking:
                return (
                    "depth (motion/depth; the builtin preset makes none): make it with "
                    f"'segmotion run {self._input} {self.out} --preset foundation', or bring your own: 'segmotion import --depth'"
                )
        if need == "3D tracks" and not (motion / "tracks_3d.npz").is_file():
            return f"3D tracks: make them with 'segmotion reconstruct {self.out}'"
        return None

    @functools.cached_property
    def _report(self) -> dict:
        path = self.out / "motion" / "report.json"
        return read_json(path) if path.is_file() else {}

    @property
    def _input(self) -> str:
        return str(self._report.get("input", "INPUT"))

    # -- images and masks -----------------------------------------------------------------------------------------

    def image_path_of(self, image: ImageRecord) -> Path:
        """File of an image."""
        return self.out / "images" / image.name

    def image_path(self, index: int) -> Path:
        """File of image `index`."""
        return self.image_path_of(self.images[index])

    def keep_path_of(self, image: ImageRecord) -> Path:
        """File of an image's keep mask (255 = static), grown around what moves."""
        return self.out / "masks" / f"{image.stem}.png"

    def keep(self, index: int) -> np.ndarray:
        """H×W uint8 keep mask (255 = static) of image `index`."""
        return self._sized(read_grey(self.keep_path_of(self.images[index])), self.keep_path_of(self.images[index]))

    def labels(self, index: int) -> np.ndarray:
        """H×W uint8 object ids of image `index`; 0 = static, `FIRST_RESERVED_ID` and above: masked, but no object."""
        return self._sized(self._objects[index], self.out / "motion" / "objects" / f"{self.images[index].stem}.png")

    def _sized(self, mask: np.ndarray, path: Path) -> np.ndarray:
        width, height = self.size
        if mask.shape != (height, width):
            size = f"{mask.shape[1]}×{mask.shape[0]}"
            raise SegmotionError(f"{path}: {size} pixels, and the images have {width}×{height}; make the masks again")
        return mask

    @functools.cached_property
    def object_ids(self) -> list[int]:
        """Ids of the objects that any image shows, ascending; none of the reserved ones."""
        found = np.zeros(256, bool)
        for index in range(len(self.images)):
            found[np.unique(self.labels(index))] = True
        return [int(k) for k in np.flatnonzero(found[:FIRST_RESERVED_ID]) if k]

    # -- cameras, depth, tracks -----------------------------------------------------------------------------------

    @property
    def model_path(self) -> Path:
        """Folder of the COLMAP model."""
        return self.out / "colmap" / "sparse" / "0"

    @functools.cached_property
    def model(self) -> pycolmap.Reconstruction:
        """The COLMAP model."""
        from segmotion_plugin.reconstruct.model_files import read_model

        model = read_model(self.model_path)
        if len(model.cameras) != 1:
            raise SegmotionError(f"{self.model_path}: {len(model.cameras)} cameras; these formats hold clips of one camera")
        return model

    @functools.cached_property
    def cameras(self) -> Cameras:
        """Cameras of the images that the reconstruction found, in frame order."""
        from segmotion_plugin.reconstruct.mapping import cameras_from_reconstruction

        cameras = cameras_from_reconstruction(self.model, [i.name for i in self.images], [i.frame for i in self.images])
        if len(cameras) < 2:
            raise SegmotionError(
                f"{self.model_path}: only {len(cameras)} of the images in {self.out}/images has a pose; make the model again with "
                f"'segmotion reconstruct {self.out}'"
            )
        return cameras

    @functools.cached_property
    def posed(self) -> list[int]:
        """Indices of the images that have a pose; as many as `cameras`, in the same order."""
        position = {image.name: index for index, image in enumerate(self.images)}
        return [position[name] for name in self.cameras.names]

    def notes_on_poses(self, fate: str = "were left out: time runs on across the gaps") -> list[str]:
        """What to tell where some images have no pose; `fate` is what became of these."""
        left = len(self.images) - len(self.posed)
        return [f"{left} of {len(self.images)} images have no pose and {fate}"] if left else []

    @functools.cached_property
    def moving_points(self) -> set[int]:
        """Ids of the model's points that most of their images see on an object: no export's cloud holds them.

        There are some where masks changed after the reconstruction, or it was made without them.
        """
        on_object: dict[int, int] = {}
        position = {image.name: index for index, image in enumerate(self.images)}
        for image in self.model.images.values():
            seen = [(p.xy, p.point3D_id) for p in image.points2D if p.has_point3D()]
            if not seen or image.name not in position:
                continue
            labels = self.labels(position[image.name])
            height, width = labels.shape
            place = np.floor([xy for xy, _ in seen]).astype(np.int64)
            moving = labels[np.clip(place[:, 1], 0, height - 1), np.clip(place[:, 0], 0, width - 1)] > 0
            for row in np.flatnonzero(moving).tolist():
                on_object[seen[row][1]] = on_object.get(seen[row][1], 0) + 1
        points = self.model.points3D
        return {number for number, count in on_object.items() if 2 * count > points[number].track.length()}

    @functools.cached_property
    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Static points of the model: M×3 float64 positions and M×3 uint8 colours."""
        points = [point for number, point in self.model.points3D.items() if number not in self.moving_points]
        xyz = np.array([p.xyz for p in points], np.float64).reshape(-1, 3)
        return xyz, np.array([p.color for p in points], np.uint8).reshape(-1, 3)

    @functools.cached_property
    def depth_range(self) -> tuple[float, float]:
        """Depths (1 % and 99 %) at which the posed images see the static points, in the model's units."""
        xyz, _ = self.points
        some = range(0, len(self.cameras), max(1, len(self.cameras) // 20))
        depths = np.concatenate([self.cameras.project(xyz, k)[1] for k in some])
        seen = depths[depths > 0]
        if not len(seen):
            raise SegmotionError(
                f"{self.model_path}: no point of the model lies before a camera; make it again with 'segmotion reconstruct'"
            )
        near, far = np.quantile(seen, [0.01, 0.99])
        return float(near), float(far)

    def _depth_path(self, index: int) -> Path:
        return self.out / "motion" / "depth" / f"{self.images[index].stem}.npy"

    def depth(self, index: int) -> np.ndarray:
        """H×W float32 depth along the optical axis in the model's units; 0 where unknown (also for the sky).

        Maps of another size, as depth models make them, are brought to the images'.
        """
        path = self._depth_path(index)
        try:
            depth = np.load(path, allow_pickle=False)
        except UNREADABLE as error:
            raise SegmotionError(f"{path}: not a readable depth map ({error})") from None
        if depth.ndim != 2 or not depth.size or depth.dtype.kind != "f":
            raise SegmotionError(f"{path}: an array {depth.shape} of {depth.dtype} is no depth map; make the depth again")
        depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.nan).astype(np.float32)
        width, height = self.size
        if depth.shape != (height, width):
            # What is unknown stays so: it spreads by at most one pixel of the smaller map.
            depth = cv2.resize(depth, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.nan_to_num(depth, nan=0.0)

    @functools.cached_property
    def tracks(self) -> tuple[Tracks, TrackMotion]:
        """2D tracks in pixels of the images, over all frames of the clip, and what is known of their motion."""
        tracks, motion, _ = load_tracks(self.out / "motion" / "tracks.npz")
        return tracks, motion

    def tracks_3d(self) -> Tracks3D:
        """3D tracks over the posed images."""
        from segmotion_plugin.reconstruct.tracks_3d import load_tracks_3d

        tracks = load_tracks_3d(self.out / "motion" / "tracks_3d.npz")
        if tracks.frame_index.tolist() != self.cameras.frame_index.tolist():
            raise SegmotionError(
                f"{self.out}/motion/tracks_3d.npz belongs to another reconstruction; "
                f"make it again with 'segmotion reconstruct {self.out}'"
            )
        return tracks
