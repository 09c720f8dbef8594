"""Masks at working size from labelled tracks: appearance learned per clip, evidence of the tracks themselves, a cut per frame."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import numpy as np

from segmotion_plugin.boxes import box_around
from segmotion_plugin.clip import Clip
from segmotion_plugin.densify.appearance import (
    COLOUR_CHANNELS,
    POSITION_CHANNELS,
    Samples,
    colour_inputs,
    fit_logistic,
    position_inputs,
    scaled_lab,
)
from segmotion_plugin.densify.background import NEAR, Background
from segmotion_plugin.densify.colours import draw_again
from segmotion_plugin.densify.cut import cut, edge_weight
from segmotion_plugin.densify.explain import HALO, KEPT, PROVEN, Explainer, Recent, Seen, follow, regions, splat
from segmotion_plugin.densify.options import DenseOptions
from segmotion_plugin.densify.scattered import half_pixels, mean_around
from segmotion_plugin.parallel import THREADS, in_order
from segmotion_plugin.rawstore import RawStore
from segmotion_plugin.trackers.dis import sample
from segmotion_plugin.trackers.flow import FlowStore
from segmotion_plugin.tracks import Tracks

_STEPS = 32.0  # in which log odds of 1 are stored
_MOST_SAMPLES = 150_000  # that the whole clip's model is fitted to: those of some 120 frames
_BEYOND = 16  # pixels around the evidence for motion in which the cut is solved


class Densifier:
    """Per-pixel logit and segmentation of every frame of one shot.

    Args:
        clip: the frames.
        shot: half-open frame range.
        tracks: N tracks.
        probability: N, that a track moves.
        flow: stored flows of the clip.
        features: T arrays fh×fw×C of projected backbone features.
        options: constants.
        seed: chooses the sample points.
    """

    def __init__(
        self,
        clip: Clip,
        shot: tuple[int, int],
        tracks: Tracks,
        probability: np.ndarray,
        flow: FlowStore,
        features: RawStore | np.ndarray,
        options: DenseOptions | None = None,
        seed: int = 0,
    ) -> None:
        self.clip, self.shot, self.tracks, self.flow, self.features, self.seed = clip, shot, tracks, flow, features, seed
        self.width, self.height = clip.work_size
        self.w, self.h = (self.width + 1) // 2, (self.height + 1) // 2
        self.options = (options or DenseOptions()).scaled(max(self.w, self.h) / 640)
        self.probability = _sharpened(probability, self.options.sharpness)
        self.channels = features[shot[0]].shape[-1]
        x, y = np.meshgrid((np.arange(self.w) + 0.5) / self.w * 2 - 1, (np.arange(self.h) + 0.5) / self.h * 2 - 1)
        self._position = position_inputs(x, y).astype(np.float32)
        self._half, self._tracks_at = Recent(self._halved, KEPT), Recent(self._observed, KEPT)
        self._explainer = Explainer(self._half, flow.read, self._tracks_at, shot)
        self._background = Background(self._half, self._explainer.image, self._tracks_at, shot, self.options.background)
        self._looked: dict[int, bytes] = {}
        self._evidence_of: dict[int, Future[np.ndarray]] = {}
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(max_workers=THREADS)
        self._samples = Samples.joined(list(self._threads.map(self._sampled, range(*shot))))
        self._model = fit_logistic(self._samples.thinned(_MOST_SAMPLES), ridge=self.options.ridge)

    def _halved(self, frame: int) -> np.ndarray:
        return cv2.resize(self.clip.frames[frame], (self.w, self.h), interpolation=cv2.INTER_AREA)

    def _observed(self, frame: int) -> Seen:
        ids, xy = self.tracks.observations_at(frame)
        return ids, xy, self.probability[ids]

    def _look(self, frame: int) -> np.ndarray:
        """What explains the picture, 2×h×w int8.

        First, PROVEN where only the flow explains it, HALO beside that, 0 elsewhere; second, the log odds that a pixel shows
        something else than the still world, in steps of 1 / `_STEPS`.
        """
        options, shape, found = self.options, (self.h, self.w), np.zeros((2, self.h, self.w), np.int8)
        _, xy, probability = self._tracks_at(frame)
        near = splat(xy[probability > 0.5], shape, 6)
        if not near.any():
            return found
        # One pixel more than what can be halo or proven, so that all of that has its still neighbours in the box.
        box = box_around(near, 1)
        compared = self._explainer(frame, box)
        if compared is not None:
            found[0][box] = regions(
                *compared,
                near[box],
                self._explainer.image(frame)[box],
                told=options.told,
                least_apart=options.apart,
                closing=options.closing,
                halo_width=options.halo_width,
                alike=options.alike,
            )
        box = box_around(near, NEAR + options.colours.reach)
        found[1][box] = np.round(_STEPS * self._background(frame, box))
        return found

    def _remember(self, frame: int) -> None:
        """Look at a frame and keep what was found: it is asked for again when the frame is drawn, a whole clip later."""
        self._looked[frame] = zlib.compress(self._look(frame).tobytes(), 1)

    def _recall(self, frame: int) -> np.ndarray:
        """2×h×w int8, see `_look`."""
        return np.frombuffer(zlib.decompress(self._looked[frame]), np.int8).reshape(2, self.h, self.w)

    def _labels(self, frame: int, region: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions, probabilities and weights of the tracks at a frame; for `region` see `_look`."""
        _, xy, probability = self._tracks_at(frame)
        weight = np.abs(2 * probability - 1)
        row, column = half_pixels(xy, (self.h, self.w))
        in_halo = (region[row, column] == HALO) & (probability > 0.5)
        return xy, probability, np.where(in_halo, self.options.halo * weight, weight)

    def _pixel_labels(self, region: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions, labels and weights of pixels in proven regions and in halos.

        Tracks are scarce and wrong in the halo; these pixels teach the appearance model where the object ends.
        """
        rows, columns = np.nonzero(region)
        pick = rng.permutation(len(rows))[: self.options.pixels_per_frame]
        rows, columns = rows[pick], columns[pick]
        xy = np.stack([2 * columns + 1.0, 2 * rows + 1.0], axis=1).astype(np.float32)
        label = (region[rows, columns] == PROVEN).astype(np.float32)
        return xy, label, np.full(len(xy), self.options.pixel_weight, np.float32)

    def _sampled(self, frame: int) -> Samples:
        """Look at a frame, and take some of its tracks and pixels to learn from."""
        self._remember(frame)
        rng = np.random.default_rng((self.seed, frame))  # frames are sampled side by side
        region = self._recall(frame)[0]
        xy, probability, trust = self._labels(frame, region)
        pick = rng.permutation(len(xy))[: self.options.samples_per_frame]
        tracks = xy[pick], (probability[pick] > 0.5).astype(np.float32), trust[pick]
        xy, label, trust = (np.concatenate(parts) for parts in zip(tracks, self._pixel_labels(region, rng), strict=True))
        features = np.asarray(self.features[frame], np.float32)
        size = np.array([features.shape[1] / self.width, features.shape[0] / self.height])
        colour = colour_inputs(sample(scaled_lab(self._half(frame)), xy / 2))
        place = position_inputs(xy[:, 0] / self.width * 2 - 1, xy[:, 1] / self.height * 2 - 1)
        inputs = np.concatenate([sample(features, xy * size), colour, place], axis=1).astype(np.float32)
        return Samples(inputs, label, trust, np.full(len(xy), frame))

    def appearance(self, frame: int) -> np.ndarray:
        """h×w logit that a pixel looks like what moves."""
        options = self.options
        near = np.abs(self._samples.frame - frame) <= options.local_frames
        fade = np.exp(-0.5 * ((self._samples.frame[near] - frame) / (0.75 * options.local_frames)) ** 2)
        local = Samples(
            self._samples.inputs[near], self._samples.target[near], self._samples.weight[near] * fade, self._samples.frame[near]
        )
        weights = fit_logistic(local, prior=self._model, ridge=options.local_ridge, steps=4)
        c = self.channels
        coarse = np.asarray(self.features[frame], np.float32) @ weights[:c]
        score = cv2.resize(coarse, (self.w, self.h), interpolation=cv2.INTER_LINEAR)
        score = score + colour_inputs(scaled_lab(self._half(frame))) @ weights[c : c + COLOUR_CHANNELS]
        c += COLOUR_CHANNELS
        score = score + self._position @ weights[c : c + POSITION_CHANNELS] + weights[-1]
        return np.clip(score, -options.limit, options.limit).astype(np.float32)

    def support(self, frame: int, region: np.ndarray) -> np.ndarray:
        """h×w in [-1, 1]: the mean label of the tracks around a pixel, 0 where there is none; for `region` see `_look`."""
        xy, probability, weight = self._labels(frame, region)
        shape, sigma = (self.h, self.w), self.options.reach
        label = weight * np.sign(probability - 0.5)
        return mean_around(*half_pixels(xy, shape), label, shape, sigma, 0.1 / (2 * np.pi * sigma**2))

    def _tell(self, frame: int) -> np.ndarray:
        options, region = self.options, self._recall(frame)[0]
        found = options.appearance * self.appearance(frame) + options.tracks * self.support(frame, region)
        return found + options.proof * (region == PROVEN) - options.against * (region == HALO)

    def evidence(self, frame: int) -> np.ndarray:
        """h×w logit that a pixel moves, from what this frame tells; neighbours in time ask as well, so it is kept for a while."""
        with self._lock:
            told = self._evidence_of.get(frame)
            asked_before = told is not None
            if told is None:
                told = self._evidence_of[frame] = Future()
        if not asked_before:
            try:
                told.set_result(self._tell(frame))
            except BaseException as error:
                told.set_exception(error)
        return told.result()

    def _forget(self, frame: int) -> None:
        """Drop what no frame from this one on asks for."""
        with self._lock:
            for old in [f for f in self._evidence_of if f < frame - self.options.memory]:
                del self._evidence_of[old]

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)

    def _remembered(self, frame: int) -> np.ndarray:
        """h×w evidence, averaged along the flow over frames before and after: what one frame misses, its neighbours know."""
        total, amount = self.evidence(frame).copy(), np.ones((self.h, self.w), np.float32)
        for direction in (1, -1):
            flow: np.ndarray | None = None
            home = np.ones((self.h, self.w), np.float32)
            for age in range(1, self.options.memory + 1):
                other = frame + direction * age
                if not self.shot[0] <= other < self.shot[1]:
                    break
                pair = self.flow.read(min(other, other - direction))
                there, back = (pair[0], pair[1]) if direction > 0 else (pair[1], pair[0])
                step = there if flow is None else follow(there, flow)
                returned = follow(back, step if flow is None else flow + step)
                home = home * (_squared(step + returned) < 0.5 + 0.02 * (_squared(step) + _squared(returned)))
                flow = step if flow is None else flow + step
                weight = home * self.options.fade**age
                total += weight * follow(self.evidence(other), flow)
                amount += weight
        return total / amount

    def segment(self, frame: int) -> np.ndarray:
        """h×w soft segmentation (above 0.5 = moves) at half size."""
        options, image, evidence = self.options, self._half(frame), self._remembered(frame)
        soft = np.zeros((self.h, self.w), np.float32)
        if not (evidence > 0).any():
            return soft
        weight_x, weight_y = edge_weight(image, options.border)
        # Beyond the box around all evidence for motion the segmentation would only cost (exactly so at one price everywhere).
        box = box_around(evidence > 0, _BEYOND)
        soft[box] = cut(evidence[box], weight_x[box], weight_y[box], None, options.steps)
        unlike = self._recall(frame)[1] / np.float32(_STEPS)
        return draw_again(image, evidence, unlike, soft, (weight_x, weight_y), options.steps, options.colours)

    def segments(self, frames: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Soft segmentations of ascending frames, of which `THREADS` are drawn at a time."""
        try:
            for frame, soft in zip(frames, in_order(self.segment, frames, self._threads), strict=True):
                yield frame, soft
                self._forget(frame)
        finally:
            self.close()


def _squared(field: np.ndarray) -> np.ndarray:
    """h×w squared lengths of h×w×2 vectors (numpy takes several times as long to reduce an axis of length 2)."""
    return field[..., 0] ** 2 + field[..., 1] ** 2


def _sharpened(probability: np.ndarray, factor: float) -> np.ndarray:
    """N float32 probabilities with their log odds multiplied."""
    odds = np.clip(probability.astype(np.float64), 1e-6, 1 - 1e-6)
    return (1 / (1 + ((1 - odds) / odds) ** factor)).astype(np.float32)


def densify(
    clip: Clip,
    tracks: Tracks,
    probability: np.ndarray,
    flow: FlowStore,
    features: RawStore | np.ndarray,
    options: DenseOptions | None = None,
    seed: int = 0,
    frames: np.ndarray | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Soft masks of the wanted frames, at half the working size.

    Yields:
        (frame index, h×w float32 soft mask (above 0.5 = moves)). A shot without a dynamic track gives empty masks.
    """
    wanted = set((frames if frames is not None else np.arange(len(clip))).tolist())
    h, w = (clip.work_size[1] + 1) // 2, (clip.work_size[0] + 1) // 2
    for shot in clip.shots:
        inside = sorted(f for f in wanted if shot[0] <= f < shot[1])
        active = (probability > 0.5) & (tracks.first >= shot[0]) & (tracks.first < shot[1])
        densifier = Densifier(clip, shot, tracks, probability, flow, features, options, seed) if inside and active.any() else None
        if densifier is None:
            yield from ((frame, np.zeros((h, w), np.float32)) for frame in inside)
        else:
            yield from densifier.segments(inside)
