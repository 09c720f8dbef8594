"""Masks on disk: writes objects and keep masks frame by frame, sums up what was masked, draws the pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segmotion_plugin.clip import Clip, read_rgb
from segmotion_plugin.densify.agreement import MaskVotes
from segmotion_plugin.densify.labels import enlarge
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.extra_masks import ExtraMasks, combine_alpha, read_alpha
from segmotion_plugin.files import write_png
from segmotion_plugin.ingest import load_frames_json
from segmotion_plugin.masks import MotionMasks, keep_from_labels, read_grey, write_keep
from segmotion_plugin.parallel import in_order
from segmotion_plugin.pictures import write_overlay_video, write_overview
from segmotion_plugin.progress import Console
from segmotion_plugin.settings import MaskSettings
from segmotion_plugin.tracks import TrackMotion, Tracks
from segmotion_plugin.workspace import Workspace

SoftFrames = Iterable[tuple[int, np.ndarray, np.ndarray]]


@dataclass
class MaskSummary:
    """What the masks hold.

    Attributes:
        moving_share: share of pixels on moving objects, before dilation.
        masked_share: share of pixels left out of the reconstruction, after dilation and with extra masks.
        share_by_image: moving share of every image.
        objects: per object id: images where it is seen and its mean share of their pixels.
        tracks: number of tracks.
        moving_tracks: number of tracks called moving.
        static_share: share of track observations that were taken for the static world; None without tracks.
        static_certainty: mean probability, over these, that they are static.
        alpha_images: images with wholly transparent pixels, which are left out of the reconstruction like those of extra masks.
        alpha_share: share of these pixels in these images.
    """

    moving_share: float = 0.0
    masked_share: float = 0.0
    share_by_image: list[float] = field(default_factory=list)
    objects: dict[str, dict[str, float]] = field(default_factory=dict)
    tracks: int = 0
    moving_tracks: int = 0
    static_share: float | None = None
    static_certainty: float | None = None
    alpha_images: int = 0
    alpha_share: float = 0.0


class _Tally:
    """Sums up the masks of the images, one after the other."""

    def __init__(self) -> None:
        self.moving: list[float] = []
        self.masked: list[float] = []
        self.area: dict[int, list[float]] = {}
        self.transparent: list[float] = []

    def add(self, labels: np.ndarray, keep: np.ndarray, alpha: np.ndarray | None) -> None:
        """H×W object ids, the keep mask that was made of them, and the image's alpha."""
        if alpha is not None and not alpha.all():
            self.transparent.append(float((alpha == 0).mean()))
        self.moving.append(float((labels > 0).mean()))
        self.masked.append(float((keep == 0).mean()))
        counts = np.bincount(labels.ravel(), minlength=1)
        for object_id in np.flatnonzero(counts[1:]) + 1:
            self.area.setdefault(int(object_id), []).append(float(counts[object_id]) / labels.size)

    def summary(self, tracks: Tracks | None, motion: TrackMotion | None) -> MaskSummary:
        """The figures of all images, and of the tracks where there are some."""
        summary = MaskSummary(
            moving_share=round(float(np.mean(self.moving)), 5),
            masked_share=round(float(np.mean(self.masked)), 5),
            share_by_image=[round(share, 5) for share in self.moving],
            objects={str(k): {"images": len(v), "mean_share": round(float(np.mean(v)), 5)} for k, v in sorted(self.area.items())},
        )
        if self.transparent:
            summary.alpha_images, summary.alpha_share = len(self.transparent), round(float(np.mean(self.transparent)), 5)
        if tracks is not None and motion is not None:
            summary.tracks, summary.moving_tracks = len(tracks), int((motion.object_id > 0).sum())
            static = motion.object_id == 0
            seen = tracks.length.astype(np.float64)
            summary.static_share = round(float(seen[static].sum() / max(seen.sum(), 1)), 4)
            if static.any():
                summary.static_certainty = round(float(np.average(1 - motion.probability[static], weights=seen[static])), 4)
        return summary


def write_masks(
    space: Workspace,
    clip: Clip,
    settings: MaskSettings,
    console: Console,
    frames: SoftFrames | None,
    tracks: Tracks | None = None,
    motion: TrackMotion | None = None,
    votes: MaskVotes | None = None,
) -> MaskSummary:
    """Write `masks/`, `colmap_masks/` and `motion/objects/` for every image; `frames` None masks nothing.

    `votes` is shown every mask; the summary then tells of the tracks in agreement with them.
    """
    sources = [clip.source[i].name for i in clip.selected]
    extra = ExtraMasks(settings.extra_masks, clip.names, sources) if settings.extra_masks else None
    folders = ("masks", "colmap_masks", "motion/objects")
    fresh = space.staged(*folders)
    name_of = dict(zip(clip.selected.tolist(), clip.names, strict=True))
    radius = settings.dilation(clip.width, clip.height)
    tally = _Tally()
    empty = np.zeros((clip.height, clip.width), np.uint8)
    everything: SoftFrames = ((f, empty, empty) for f in name_of) if frames is None else frames

    def written(item: tuple[int, np.ndarray, np.ndarray]) -> tuple[int, np.ndarray, np.ndarray, np.ndarray | None]:
        frame, soft, small = item
        labels = empty if frames is None else enlarge(soft, small, clip.width, clip.height)
        write_png(fresh / "motion" / "objects" / f"{Path(name_of[frame]).stem}.png", labels)
        masking = labels
        if settings.rest == "keep" and tracks is not None and motion is not None:
            masking = np.where(np.isin(labels, _resting(frame, tracks, motion)), np.uint8(0), labels)
        keep = keep_from_labels(masking, radius)
        if extra is not None:
            keep = extra.combine(name_of[frame], keep)
        alpha = read_alpha(space.out / "images" / name_of[frame])
        if alpha is not None:
            keep = np.where(alpha > 0, keep, np.uint8(0))
        write_keep(fresh, name_of[frame], keep)
        return frame, labels, keep, alpha

    with console.bar("masks", len(clip.names)) as update:
        for done, (frame, labels, keep, alpha) in enumerate(in_order(written, everything), start=1):
            tally.add(labels, keep, alpha)
            if votes is not None:
                votes.add(frame, labels)
            update(done)
    space.publish(*folders)
    if votes is not None and motion is not None:
        motion = votes.agree(motion)
    return tally.summary(tracks, motion)


def rewrite_keep(space: Workspace, extra_masks: Path | None, dilate: float | None) -> None:
    """Make the keep masks of a folder anew from its object masks, with another dilation or with extra masks."""
    entries = load_frames_json(space.out)["images"]
    names = [entry["name"] for entry in entries]
    objects = MotionMasks(space.motion / "objects", names)
    extra = ExtraMasks(extra_masks, names, [entry["source"] for entry in entries]) if extra_masks is not None else None
    space.drop_derived()
    space.redraws()
    for index, name in enumerate(names):
        if dilate is None:
            keep = read_grey(space.out / "masks" / f"{Path(name).stem}.png")
        else:
            keep = objects.keep(index, dilate)
        keep = combine_alpha(space.out / "images" / name, keep)
        write_keep(space.out, name, keep if extra is None else extra.combine(name, keep))


def summarise(space: Workspace, names: list[str], tracks: Tracks, motion: TrackMotion) -> MaskSummary:
    """What the masks in a folder hold, read from its files."""
    tally = _Tally()
    for name, labels in zip(names, MotionMasks(space.motion / "objects", names), strict=True):
        tally.add(labels, read_grey(space.out / "masks" / f"{Path(name).stem}.png"), read_alpha(space.out / "images" / name))
    return tally.summary(tracks, motion)


def draw(space: Workspace, names: list[str], rate: float, console: Console, summary: MaskSummary) -> None:
    """Write `motion/overview.png` and `motion/overlay.mp4`; `rate` is the images' number per second."""
    objects = MotionMasks(space.motion / "objects", names)
    picks = np.unique(np.round(np.linspace(0, len(names) - 1, 8)).astype(int)).tolist()
    sheet = [(f"{names[i]}  {100 * summary.share_by_image[i]:.1f} % moves", _image(space, names[i]), objects[i]) for i in picks]
    title = f"{len(names)} images, {len(summary.objects)} moving object(s), {100 * summary.moving_share:.1f} % of the pixels move"
    write_overview(space.motion / "overview.png", sheet, title)

    height, width = sheet[0][1].shape[:2]

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        import cv2

        scale = min(1.0, 1280 / max(width, height))
        size = (round(width * scale), round(height * scale))
        for name, labels in zip(names, objects, strict=True):
            image = cv2.resize(_image(space, name), size, interpolation=cv2.INTER_AREA)
            yield image, cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)

    with console.bar("overlay", len(names)) as update:
        write_overlay_video(space.motion / "overlay.mp4", pairs(), rate, update)


def _image(space: Workspace, name: str) -> np.ndarray:
    return read_rgb(space.out / "images" / name)


def _resting(frame: int, tracks: Tracks, motion: TrackMotion) -> np.ndarray:
    """The objects of which less than a fifth of the visible tracks move at a frame."""
    rows = tracks.rows_at(frame)
    owner, moving = motion.object_id[np.searchsorted(tracks.offset, rows, side="right") - 1], motion.moving_flat[rows]
    total = np.bincount(owner, minlength=1)
    active = np.bincount(owner, moving, minlength=len(total))
    rest = (total > 0) & (active < 0.2 * total)
    return np.flatnonzero(rest[1:]) + 1


def check_image_masks(out: Path, names: list[str]) -> None:
    """Raise SegmotionError unless every image has its keep mask in `colmap_masks/` (COLMAP drops or unmasks images without one)."""
    for name in names:
        if not (Path(out) / "colmap_masks" / f"{name}.png").is_file():
            raise SegmotionError(f"{out}/colmap_masks/{name}.png: missing; make the masks again with 'segmotion masks'")
