"""Iterative prompting against an oracle on simulated label videos, beside the rules of the paper's code.

    python -m segmotion_plugin.densify.prompting_benchmark --worlds 100

Every world has 1 to 5 movers and as many parked decoys, passing in front of each other; tracks are sampled on everything, a few are
labelled wrongly. The oracle is exact, or merges touching objects, returns parts and misses.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from segmotion_plugin.densify.oracle import OracleSegmenter
from segmotion_plugin.densify.prompting import segment_objects
from segmotion_plugin.densify.segmenter import MaskPrompt
from segmotion_plugin.tracks import Tracks


@dataclass
class LabelWorld:
    """A label video with its tracks.

    Attributes:
        labels: T×H×W uint8; 1..movers move, higher ones are parked, 0 is background.
        movers: number of moving objects.
        tracks: N tracks.
        dynamic: N bool, labelled as moving (a few wrongly).
        segment: N int, true segment of each track.
    """

    labels: np.ndarray
    movers: int
    tracks: Tracks
    dynamic: np.ndarray
    segment: np.ndarray


def make_world(seed: int, num_frames: int = 24, height: int = 72, width: int = 108, num_tracks: int = 1000) -> LabelWorld:
    """Ellipses and boxes in layers under a panning camera, 1 to 5 of them moving, with exact tracks.

    Every mover is at least 2 % of the visible time-space in area, so that it can be found at all.
    """
    for attempt in range(100):
        world = _draw(np.random.default_rng([seed, attempt]), num_frames, height, width, num_tracks)
        shown = [(world.labels == k).sum(axis=(1, 2)) for k in range(1, world.movers + 1)]
        sampled = [(world.segment == k).sum() for k in range(1, world.movers + 1)]
        if min(area.mean() for area in shown) > 0.01 * height * width and min(sampled) >= 8:
            return world
    raise RuntimeError(f"no world for seed {seed}")


def _draw(rng: np.random.Generator, num_frames: int, height: int, width: int, num_tracks: int) -> LabelWorld:
    movers = int(rng.integers(1, 6))
    count = 2 * movers
    size = np.array([width, height])
    centre = rng.uniform(0.1, 0.9, (count, 2)) * size
    radius = rng.uniform(0.07, 0.17, (count, 2)) * height
    boxes = rng.random(count) < 0.5
    speed = rng.uniform(0.15, 0.6, count) * height / num_frames
    angle = rng.uniform(0, 2 * np.pi, count)
    velocity = np.where(np.arange(count)[:, None] < movers, np.stack([np.cos(angle), np.sin(angle)], 1) * speed[:, None], 0.0)
    pan = np.cumsum(rng.normal(0, 0.3, (num_frames, 2)), axis=0)
    order = rng.permutation(count)  # the last is nearest to the camera
    time_axis = np.arange(num_frames)[:, None] - num_frames / 2
    path = centre[:, None] + velocity[:, None] * time_axis + pan  # count×T×2

    y, x = np.mgrid[:height, :width] + 0.5
    labels = np.zeros((num_frames, height, width), np.uint8)
    for frame in range(num_frames):
        for k in order:
            u, v = (x - path[k, frame, 0]) / radius[k, 0], (y - path[k, frame, 1]) / radius[k, 1]
            inside = np.maximum(np.abs(u), np.abs(v)) < 1 if boxes[k] else u**2 + v**2 < 1
            labels[frame][inside] = k + 1

    query = rng.integers(0, num_frames, num_tracks)
    start = rng.uniform(0, 1, (num_tracks, 2)) * size
    segment = labels[query, start[:, 1].astype(int), start[:, 0].astype(int)].astype(np.int64)
    anchor = np.concatenate([np.broadcast_to(pan, (1, num_frames, 2)), path])[segment]  # N×T×2
    xy = start[:, None] + anchor - anchor[np.arange(num_tracks), query][:, None] + rng.normal(0, 0.15, anchor.shape)
    column, row = np.floor(xy).astype(int).transpose(2, 0, 1)
    framed = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    under = labels[np.arange(num_frames), row.clip(0, height - 1), column.clip(0, width - 1)]
    visible = framed & (under == segment[:, None])
    dynamic = (segment >= 1) & (segment <= movers)
    dynamic ^= rng.random(num_tracks) < 0.02
    tracks = Tracks.from_dense(np.where(framed[..., None], xy, np.nan), visible, None, query)
    return LabelWorld(labels, movers, tracks, dynamic, segment)


def paper_rules(world: LabelWorld, segmenter: OracleSegmenter) -> np.ndarray:
    """The rules of the paper's code (grouping, prompts per object, merging of pairs); returns T×H×W uint8 labels."""
    import cv2

    num_frames, height, width = world.labels.shape
    segmenter.open([])
    kernel = 2 * round(9 * height / 480) + 1  # they dilate by three times a 6×6 kernel at 480 lines
    pool = world.dynamic.copy()
    take_all = pool.sum() <= 5
    stored: list[tuple[int, np.ndarray]] = []
    for _ in range(min(max(len(range(0, num_frames, 16)), 5), 10)):
        if not pool.any() or (pool.sum() < 6 and not take_all):
            break
        counts = np.array([pool[world.tracks.observations_at(t)[0]].sum() for t in range(num_frames)])
        top = np.sort(np.argsort(-counts, kind="stable")[: max(1, int(0.2 * num_frames))])
        frame = int(top[len(top) // 2])
        frame = frame if counts[frame] else int(counts.argmax())
        if not counts[frame]:
            break
        ids, xy = world.tracks.observations_at(frame)
        ids, xy = ids[pool[ids]], xy[pool[ids]]
        mask = segmenter.click(frame, xy[[_medoid(xy)]], np.ones(1, bool))
        grown = cv2.dilate(mask.astype(np.uint8), np.ones((kernel, kernel), np.uint8)) > 0
        column, row = np.floor(xy).astype(int).T
        near, inside = grown[row, column], mask[row, column]
        if (inside.any() and near.sum() >= 6) or take_all:
            stored.append((frame, ids[inside]))
        if not near.any():
            near[_medoid(xy)] = True  # their loop would ask the same question again
        pool[ids[near]] = False
    union = np.zeros((len(stored), num_frames, height, width), bool)
    for number, (first, ids) in enumerate(stored):
        prompts = []
        for frame in dict.fromkeys([first, *range(0, num_frames, 16)]):
            seen, xy = world.tracks.observations_at(frame)
            xy = xy[np.isin(seen, ids)]
            if not len(xy):
                continue
            mask = segmenter.click(frame, xy[[_medoid(xy)]], np.ones(1, bool))
            column, row = np.floor(xy).astype(int).T
            if mask[row, column].mean() < 0.7:
                distance = np.linalg.norm(xy - xy.mean(axis=0), axis=1)
                chosen = np.unique([int(distance.argmin()), *np.argsort(-distance, kind="stable")[:2].tolist()])
                mask = segmenter.click(frame, xy[chosen], np.ones(len(chosen), bool))
            prompts.append(MaskPrompt(1, frame, mask))
        for frame, scores in segmenter.propagate(prompts, 0, num_frames):
            union[number, frame] = scores[1] > 0 if scores else False
    group = np.arange(len(stored))
    for i in range(len(stored)):
        for j in range(i + 1, len(stored)):
            shared = (union[i] & union[j]).sum(axis=(1, 2))
            area = [union[n].sum(axis=(1, 2)) for n in (i, j)]
            same = (shared > 0.9 * (area[0] + area[1] - shared)) | (shared >= 0.9 * np.minimum(*area))
            if ((shared > 0) & same).mean() >= 0.3:
                group[j] = min(group[j], group[i])
    labels = np.zeros_like(world.labels)
    for number, name in reversed(list(enumerate(np.unique(group)))):
        labels[union[group == name].any(axis=0)] = number + 1
    return labels


def _medoid(xy: np.ndarray) -> int:
    return int(np.argmin(np.linalg.norm(xy[:, None] - xy[None], axis=2).sum(axis=1)))


def our_rules(world: LabelWorld, segmenter: OracleSegmenter) -> np.ndarray:
    """`segment_objects` on a label world; returns T×H×W uint8 labels."""
    frames = [np.zeros((*world.labels.shape[1:], 3), np.uint8)] * len(world.labels)
    _, masks = segment_objects(frames, world.tracks, world.dynamic, segmenter)
    return np.stack([masks.labels(frame) for frame in range(len(frames))])


def score(world: LabelWorld, labels: np.ndarray) -> tuple[bool, float]:
    """Whether the number of objects is right, and the mean over the movers of the video IoU with the object assigned to each."""
    from scipy.optimize import linear_sum_assignment

    found = [k for k in range(1, int(labels.max()) + 1) if (labels == k).any()]
    iou = np.zeros((world.movers, max(1, len(found))))
    for i in range(world.movers):
        truth = world.labels == i + 1
        for j, k in enumerate(found):
            mask = labels == k
            iou[i, j] = (truth & mask).sum() / (truth | mask).sum()
    rows, columns = linear_sum_assignment(-iou)
    return len(found) == world.movers, float(iou[rows, columns].sum() / world.movers)


ORACLES: dict[str, dict[str, float]] = {"perfect": {}, "noisy": {"merge": 0.2, "part": 0.2, "miss": 0.1}}
RULES: dict[str, Callable[[LabelWorld, OracleSegmenter], np.ndarray]] = {"ours": our_rules, "paper": paper_rules}


def run(worlds: int, first_seed: int = 0) -> dict[tuple[str, str], tuple[float, float, float, float]]:
    """For each rule and oracle: share of worlds with the right count, mean IoU, clicks and seconds per world."""
    rows: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for seed in range(first_seed, first_seed + worlds):
        world = make_world(seed)
        for name, noise in ORACLES.items():
            for rule, function in RULES.items():
                oracle = OracleSegmenter(world.labels, seed, **noise)
                start = time.perf_counter()
                right, iou = score(world, function(world, oracle))
                rows.setdefault((rule, name), []).append((right, iou, oracle.clicks, time.perf_counter() - start))
    return {key: tuple(np.mean(values, axis=0).tolist()) for key, values in rows.items()}  # type: ignore[misc]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{'rules':8} {'oracle':8} {'count right':>11} {'mean IoU':>9} {'clicks':>7} {'seconds':>8}")
    for (rule, oracle), (right, iou, clicks, seconds) in run(options.worlds, options.first_seed).items():
        print(f"{rule:8} {oracle:8} {100 * right:10.0f}% {iou:9.3f} {clicks:7.0f} {seconds:8.2f}")


if __name__ == "__main__":
    main()
