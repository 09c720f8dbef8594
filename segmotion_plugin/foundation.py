"""The stages of a run in which foundation models take part; the others are the embedded ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segmotion_plugin.clip import Clip
from segmotion_plugin.models import LOADERS
from segmotion_plugin.plan import Plan, features_of_tracks
from segmotion_plugin.progress import Console
from segmotion_plugin.rawstore import RawStore
from segmotion_plugin.settings import MaskSettings, fingerprint
from segmotion_plugin.tracks import TrackMotion, Tracks
from segmotion_plugin.workspace import Workspace

# The authors of SegAnyMo follow only points whose tracker is this sure, once the network has spoken.
_SEGANYMO_CONFIDENCE = 0.9
_DISC = 0.012  # radius of the discs around tracks, as a share of the longer side: neighbouring tracks lie about so far apart


@dataclass
class FoundationPlan(Plan):
    """A plan with at least one stage that is not embedded; the others are the embedded ones."""

    def track(self, clip: Clip, space: Workspace, features: RawStore, settings: MaskSettings, console: Console) -> Tracks:
        """Track points. Where the graph cut makes the masks, the flow it needs is left as by the embedded tracker."""
        if self.tracker == "dis":
            return super().track(clip, space, features, settings, console)
        from segmotion_plugin.trackers.base import track_clip

        model = LOADERS[self.tracker].load(settings, self.device)
        if self.masks == "graph-cut":
            super().track(clip, space, features, settings, console)
        with console.bar("tracks", len(clip)) as update:
            tracks = track_clip(model, FrameRange(clip), clip.shots, seed=settings.seed, progress=update)
        store = RawStore(space.work / "visibility.raw", (max(1, len(tracks.visibility_flat)),), np.float16)
        store[0] = tracks.visibility_flat
        store.close()
        return tracks

    def describe(self, clip: Clip, space: Workspace, key: str, console: Console) -> RawStore:
        """Embedded features where a stage wants them; an empty store otherwise."""
        if self.masks == "graph-cut" or self.tracker == "dis" or self.semantics == "efficientnet-lite0":
            return super().describe(clip, space, key, console)
        return RawStore(space.work / "features.raw", (1, 1, 1), np.float16)

    def classify(
        self, clip: Clip, space: Workspace, tracks: Tracks, features: RawStore, settings: MaskSettings, console: Console
    ) -> TrackMotion:
        """Tell which tracks move, with the semantics and the depth of this plan; group them by likeness of motion."""
        from segmotion_plugin.densify.objects import group
        from segmotion_plugin.motion import classifier

        described = self._semantics(clip, tracks, features, settings, console)
        if self.motion == "seganymo":
            motion = self._seganymo(clip, space, tracks, described, settings, console)
        else:
            judge = classifier.classify_geometric if self.motion == "geometric" else classifier.classify
            depth = None
            if self.depth in LOADERS and self.motion == "transformer":
                from segmotion_plugin.depth.base import depth_of_tracks

                depth = depth_of_tracks(self._disparity(clip, space, settings, console), tracks)
            with console.bar("motion", 100, "%") as update:
                motion = judge(
                    tracks,
                    clip.work_size,
                    features=described,
                    depth=depth,
                    pictures=clip.frames,
                    sensitivity=settings.sensitivity,
                    seed=settings.seed,
                    device=self.device,
                    progress=lambda share: update(round(100 * share)),
                )
        dynamic = motion.probability >= classifier.THRESHOLD
        radius = 0.04 * max(clip.work_size)
        motion.object_id = group(tracks, dynamic, clip.shots, radius=radius, size=clip.work_size, features=described)
        return motion

    def _disparity(
        self, clip: Clip, space: Workspace, settings: MaskSettings, console: Console, selected_only: bool = False
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Disparity of every frame, or of the selected ones; those of the selected ones are left in `motion/disparity`."""
        from segmotion_plugin.depth.base import predict_clip, write_disparity

        space.forget("disparity")
        folder = space.fresh("motion/disparity")
        stems = {frame: Path(name).stem for frame, name in zip(clip.selected.tolist(), clip.names, strict=True)}
        chosen = list(stems) if selected_only else range(len(clip))
        model = LOADERS[self.depth].load(settings, self.device)
        with console.bar("depth", len(chosen)) as update:
            for frame, disparity in predict_clip(model, FrameRange(clip), chosen, progress=update):
                if frame in stems:
                    write_disparity(folder, stems[frame], _no_larger(disparity, clip.width, clip.height))
                yield frame, disparity
        space.finish("disparity", self._disparity_key(space))

    def _disparity_key(self, space: Workspace) -> str:
        return fingerprint(space.state["stages"].get("images"), self.depth)

    def _provide_disparity(self, clip: Clip, space: Workspace, settings: MaskSettings, console: Console) -> None:
        """Leave the depth model's maps of the selected frames for what comes after the masks, and none of an earlier run's."""
        if self.depth not in LOADERS:
            space.forget("disparity")
            shutil.rmtree(space.motion / "disparity", ignore_errors=True)
        elif not (space.done("disparity", self._disparity_key(space)) and (space.motion / "disparity").is_dir()):
            for _ in self._disparity(clip, space, settings, console, selected_only=True):
                pass

    def _semantics(
        self, clip: Clip, tracks: Tracks, features: RawStore, settings: MaskSettings, console: Console
    ) -> np.ndarray | None:
        if self.semantics == "none":
            return None
        if self.semantics not in LOADERS:
            return features_of_tracks(tracks, features, clip.work_size)
        from segmotion_plugin.semantics.base import features_at, query_positions

        network = LOADERS[self.semantics].load(settings, self.device)
        with console.bar("semantics", len(np.unique(query_positions(tracks)[0]))) as update:
            return features_at(network, FrameRange(clip), tracks, update)

    def _seganymo(
        self, clip: Clip, space: Workspace, tracks: Tracks, described: np.ndarray | None, settings: MaskSettings, console: Console
    ) -> TrackMotion:
        from segmotion_plugin.motion.seganymo_classifier import authors_depth, classify_seganymo

        assert described is not None  # `resolve` gives this network its own semantics
        width, height = clip.work_size
        maps = RawStore(space.work / "depth.raw", (height, width), np.uint8)
        for frame, disparity in self._disparity(clip, space, settings, console):
            maps[frame] = authors_depth(disparity)
        visibility = None
        path = space.work / "visibility.raw"
        if self.tracker != "dis" and path.is_file():
            visibility = np.asarray(RawStore(path, (len(tracks.xy_flat),), np.float16)[0])
        network = LOADERS["seganymo"].load(settings, self.device)
        with console.bar("motion", 100, "%") as update:
            return classify_seganymo(
                network,
                tracks,
                clip.work_size,
                features=described,
                depth=maps,  # type: ignore[arg-type]
                shots=clip.shots,
                visibility=visibility,
                sensitivity=settings.sensitivity,
                seed=settings.seed,
                progress=lambda share: update(round(100 * share)),
            )

    def segment(
        self,
        clip: Clip,
        space: Workspace,
        tracks: Tracks,
        motion: TrackMotion,
        features: RawStore,
        settings: MaskSettings,
        console: Console,
    ) -> Iterable[tuple[int, np.ndarray, np.ndarray]]:
        """Soft masks and object ids of the selected frames at working size; the objects of the tracks are written to `motion`."""
        self._provide_disparity(clip, space, settings, console)
        if self.masks not in LOADERS:
            return super().segment(clip, space, tracks, motion, features, settings, console)
        if self.motion == "seganymo":
            sure = tracks.confidence_flat > _SEGANYMO_CONFIDENCE
            parts = (tracks.visible_flat & sure, tracks.confidence_flat, tracks.query_frame, tracks.num_frames)
            tracks = Tracks(tracks.first, tracks.offset, tracks.xy_flat, *parts)
        return self._prompted(clip, tracks, motion, settings, console)

    def _prompted(
        self, clip: Clip, tracks: Tracks, motion: TrackMotion, settings: MaskSettings, console: Console
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        from segmotion_plugin.densify.prompting import segment_objects
        from segmotion_plugin.motion.classifier import THRESHOLD

        dynamic = motion.probability >= THRESHOLD
        grouped, motion.object_id = motion.object_id, np.zeros(len(tracks), np.int32)
        segmenter = LOADERS[self.masks].load(settings, self.device) if dynamic.any() else None
        selected, count = set(clip.selected.tolist()), 0
        width, height = clip.work_size
        for start, stop in clip.shots:
            ids, part = tracks_of_shot(tracks, start, stop)
            masks, around = None, False
            if segmenter is not None and dynamic[ids].any():
                found, masks = segment_objects(FrameRange(clip, start, stop), part, dynamic[ids], segmenter)
                around = not (found > 0).any()
                if around:
                    self.warnings.append(
                        f"{self.masks} found no object at {int(dynamic[ids].sum())} moving tracks, frames {start} to {stop - 1}: "
                        "masks there are drawn around the tracks; --masks graph-cut draws them along edges"
                    )
                    _, found = np.unique(np.where(dynamic[ids], np.maximum(grouped[ids], 1), 0), return_inverse=True)
                    found += int(dynamic[ids].all())
                motion.object_id[ids] = np.where(found > 0, found + count, 0)
            for frame in range(start, stop):
                if frame not in selected:
                    continue
                labels = masks.labels(frame - start) if masks is not None else np.zeros((height, width), np.uint8)
                if around:
                    labels = drawn_around(part, found, frame - start, (width, height))
                labels = np.where(labels > 0, labels + np.uint8(count), 0).astype(np.uint8)
                yield frame, (labels > 0).astype(np.float32), grown(labels)
            count = int(motion.object_id.max(initial=0))


class FrameRange(Sequence[np.ndarray]):
    """Frames [start, stop) of a clip, all by default, read when asked for."""

    def __init__(self, clip: Clip, start: int = 0, stop: int | None = None) -> None:
        self.frames, self.start, self.stop = clip.frames, start, len(clip) if stop is None else stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.frames[self.start + index]


def tracks_of_shot(tracks: Tracks, start: int, stop: int) -> tuple[np.ndarray, Tracks]:
    """Tracks that live in frames [start, stop), with the frames counted from there; no track crosses a cut."""
    ids = np.flatnonzero((tracks.first >= start) & (tracks.first + tracks.length <= stop) & (tracks.length > 0))
    part = tracks.select(ids)
    part.first -= start
    part.query_frame -= start
    part.num_frames = stop - start
    return ids, part


def drawn_around(tracks: Tracks, object_id: np.ndarray, frame: int, size: tuple[int, int]) -> np.ndarray:
    """H×W uint8 object ids of discs around the tracks of objects, as large as tracks lie apart, with gaps between them closed.

    Args:
        tracks: N tracks.
        object_id: N, 0 = static.
        frame: index.
        size: (width, height).
    """
    import cv2

    labels = np.zeros(size[::-1], np.uint8)
    radius = max(2, round(_DISC * max(size)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    ids, xy = tracks.observations_at(frame)
    for one in np.unique(object_id[object_id > 0]).tolist():
        disc = np.zeros_like(labels)
        for x, y in np.floor(xy[object_id[ids] == one]).astype(int).tolist():
            cv2.circle(disc, (x, y), radius, 1, -1)
        labels[cv2.morphologyEx(disc, cv2.MORPH_CLOSE, kernel) > 0] = one
    return labels


def grown(labels: np.ndarray) -> np.ndarray:
    """Object ids carried two pixels beyond their borders, so that enlarging them leaves no gap."""
    import cv2

    return np.where(labels > 0, labels, cv2.dilate(labels, np.ones((5, 5), np.uint8)))


def _no_larger(disparity: np.ndarray, width: int, height: int) -> np.ndarray:
    """An h×w map at the images' size where it is larger (small images are enlarged to be worked on)."""
    import cv2

    if disparity.shape[1] <= width:
        return disparity
    return cv2.resize(disparity.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
