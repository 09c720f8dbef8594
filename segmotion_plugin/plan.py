"""Which models a run uses, stage by stage, and how each stage is called."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from segmotion_plugin.clip import Clip
from segmotion_plugin.parallel import in_order, one_thread_each
from segmotion_plugin.progress import Console
from segmotion_plugin.rawstore import RawStore
from segmotion_plugin.settings import MaskSettings
from segmotion_plugin.tracks import TrackMotion, Tracks
from segmotion_plugin.workspace import Workspace

_NEIGHBOURS = 0.04  # share of the longer side up to which tracks are neighbours


@dataclass
class Plan:
    """The stages of a run, by name; each method is one stage."""

    preset: str
    tracker: str
    depth: str
    semantics: str
    motion: str
    masks: str
    device: str
    weights_id: str = "shipped"
    warnings: list[str] = field(default_factory=list, init=False)
    """What a stage has to say to the user; the report tells it."""

    def names(self) -> dict[str, str]:
        """What is written into the report."""
        return {
            "preset": self.preset,
            "tracker": self.tracker,
            "depth": self.depth,
            "semantics": self.semantics,
            "motion": self.motion,
            "masks": self.masks,
            "device": self.device,
        }

    def track(self, clip: Clip, space: Workspace, features: RawStore, settings: MaskSettings, console: Console) -> Tracks:
        """Track points; the embedded tracker also leaves the flow of every pair for the masks."""
        from segmotion_plugin.trackers import dis
        from segmotion_plugin.trackers.flow import FlowStore

        width, height = clip.work_size
        store = FlowStore(space.work / "flow.raw", width, height)
        with console.bar("tracks", len(clip)) as update, one_thread_each():
            enlarged = max(1.0, 1 / clip.scale[0])
            tracks = dis.track(clip.frames, clip.shots, enlarged=enlarged, features=features, flow_store=store, progress=update)
        store.close()
        return tracks

    def describe(self, clip: Clip, space: Workspace, key: str, console: Console) -> RawStore:
        """Backbone features of every frame, projected to 64 whitened channels."""
        from segmotion_plugin.semantics.efficientnet import EfficientNetLite0, Projection

        path = space.work / "features.raw"
        store_shape = (*EfficientNetLite0.output_shape(*clip.work_size), Projection.CHANNELS)
        if space.done("features", key) and path.is_file():
            stored = RawStore(path, store_shape, np.float16)
            if len(stored) >= len(clip):
                return stored
            stored.close()
        space.forget("features")
        path.unlink(missing_ok=True)
        network = EfficientNetLite0()
        fit_frames = Projection.fit_frames(len(clip))
        with one_thread_each():
            fit = dict(zip(fit_frames, in_order(lambda i: network(clip.frames[i]), fit_frames), strict=True))
            projection = Projection(fit.values())
            store = RawStore(path, store_shape, np.float16)

            def described(index: int) -> np.ndarray:
                known = fit.pop(index, None)
                return projection(network(clip.frames[index]) if known is None else known)

            with console.bar("features", len(clip)) as update:
                for index, features in enumerate(in_order(described, range(len(clip)))):
                    store[index] = features
                    update(index + 1)
        store.flush()
        space.finish("features", key)
        return store

    def classify(
        self, clip: Clip, space: Workspace, tracks: Tracks, features: RawStore, settings: MaskSettings, console: Console
    ) -> TrackMotion:
        """Tell which tracks move; what of them is one object is told after the masks."""
        from segmotion_plugin.motion import classifier

        # Maps of a depth model that ran here before would not belong to these masks.
        shutil.rmtree(space.motion / "disparity", ignore_errors=True)
        judge = classifier.classify_geometric if self.motion == "geometric" else classifier.classify
        described = features_of_tracks(tracks, features, clip.work_size)
        with console.bar("motion", 100, "%") as update, one_thread_each():
            motion = judge(
                tracks,
                clip.work_size,
                features=described,
                pictures=clip.frames,
                sensitivity=settings.sensitivity,
                seed=settings.seed,
                device=self.device,
                progress=lambda share: update(round(100 * share)),
            )
        return motion

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
        """Soft masks and object ids of the selected frames, at half the working size.

        The masks of all frames come first: which parts of them hang together over time tells which tracks are one object. The objects
        found so are written to `motion`.
        """
        from segmotion_plugin.densify.dense import densify
        from segmotion_plugin.densify.labels import labelled, moving_in_masks, parts_under
        from segmotion_plugin.densify.objects import group
        from segmotion_plugin.trackers.flow import FlowStore

        flow = FlowStore(space.work / "flow.raw", *clip.work_size)
        width, height = clip.work_size
        path = space.work / "soft.raw"
        path.unlink(missing_ok=True)
        store = RawStore(path, ((height + 1) // 2, (width + 1) // 2), np.uint8)
        frames = densify(clip, tracks, motion.probability, flow, features, seed=settings.seed, frames=clip.selected)
        with one_thread_each():
            with console.bar("segments", len(clip.selected)) as update:
                for done, (frame, soft) in enumerate(frames, start=1):
                    store[frame] = np.round(255 * soft)
                    update(done)
            part, seen = parts_under(tracks, ((frame, store[frame] > 127) for frame in clip.selected.tolist()))
            dynamic = moving_in_masks(tracks, motion.probability, part, seen)
            described = features_of_tracks(tracks, features, clip.work_size)
            radius = _NEIGHBOURS * max(clip.work_size)
            size = clip.work_size
            motion.object_id[:] = group(tracks, dynamic, clip.shots, radius=radius, size=size, features=described, patch=part)
        return labelled(tracks, motion.object_id, store, clip.selected.tolist())


def features_of_tracks(tracks: Tracks, features: RawStore, size: tuple[int, int]) -> np.ndarray:
    """N×C features of the tracks, each at its query frame. `size` is (width, height) of the frames the tracks are measured in."""
    from segmotion_plugin.trackers.dis import sample

    result = np.full((len(tracks), features.shape[-1]), np.nan, np.float32)
    query = np.clip(tracks.query_frame, tracks.first, tracks.first + tracks.length - 1)
    position = tracks.xy_flat[tracks.offset[:-1] + query - tracks.first]
    scale = np.array([features.shape[1] / size[0], features.shape[0] / size[1]], np.float32)
    for frame in np.unique(query).tolist():
        here = np.flatnonzero((query == frame) & np.isfinite(position[:, 0]))
        result[here] = sample(features[frame], position[here] * scale)
    return result
