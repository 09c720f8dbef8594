"""From dynamic tracks to object masks by iterative prompting of a promptable segmenter.

The plan is that of "Segment Any Motion in Videos" (section 3.4): take the frame where most dynamic tracks are visible, click one of
them, give the tracks inside the mask to that object, repeat with the rest; then follow every object through the clip. A single click
is often wrong, though (it merges neighbours, returns a part, or misses), and the tracks know it. So here

- an object is asked for at several frames, and a track belongs to it when most of the masks at which it is visible hold it;
- only masks that agree with the tracks prompt the propagation; one that swallows static tracks or tracks of others, or misses its own,
  is asked for again with points on what was wrong;
- after the propagation, masks that drifted off their tracks are prompted anew, duplicates are merged by union-find over their overlap
  in time, objects that stay inconsistent with their tracks are dropped, and an object is absent where all of its tracks are hidden.

All choices are deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from segmotion_plugin.densify.followed import FollowedMasks, duplicates, follow
from segmotion_plugin.densify.segmenter import MaskPrompt, Segmenter
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.tracks import Tracks


@dataclass(frozen=True)
class PromptingOptions:
    """Settings of the iterative prompting.

    Attributes:
        min_tracks: an object needs so many tracks.
        max_objects: the search ends there.
        votes: frames at which an object is asked for.
        key_frames: clicks fall on so many evenly spaced frames (more in clips longer than its square), so that features are shared.
        agreement: share of the own visible tracks that a mask must hold, and of the tracks inside it that must be its own.
        rounds: how often drifted masks are prompted anew.
        window: frames that are followed at once; bounds the memory of a segmenter on long clips.
    """

    min_tracks: int = 4
    max_objects: int = 20
    votes: int = 9
    key_frames: int = 16
    agreement: float = 0.7
    rounds: int = 2
    window: int = 240


@dataclass
class Grouping:
    """Dynamic tracks sorted into objects.

    Attributes:
        object_id: N int32, 0 where a track belongs to no object.
        prompts: verified masks, several per object.
    """

    object_id: np.ndarray
    prompts: list[MaskPrompt] = field(default_factory=list)

    @property
    def ids(self) -> list[int]:
        """Objects, ascending."""
        return sorted({prompt.object_id for prompt in self.prompts})


class Observations:
    """Visible tracks per frame and which of them a mask holds."""

    def __init__(self, tracks: Tracks, dynamic: np.ndarray) -> None:
        self.tracks = tracks
        self.dynamic = np.asarray(dynamic, bool)
        if self.dynamic.shape != (len(tracks),):
            raise SegmotionError(f"{len(tracks)} tracks need as many flags of being dynamic, got {self.dynamic.shape}")

    def at(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids (n) and positions (n×2) of the tracks visible at a frame."""
        return self.tracks.observations_at(frame)

    @staticmethod
    def inside(mask: np.ndarray, xy: np.ndarray) -> np.ndarray:
        """n bool, whether the pixel under each position is set; positions outside the image are not."""
        column, row = np.floor(xy).astype(np.int64).T
        ok = (column >= 0) & (column < mask.shape[1]) & (row >= 0) & (row < mask.shape[0])
        result = np.zeros(len(xy), bool)
        result[ok] = mask[row[ok], column[ok]]
        return result

    def agreement(self, mask: np.ndarray, frame: int, members: np.ndarray) -> tuple[float, float]:
        """Share of the visible members inside the mask, and share of members among the tracks inside it."""
        ids, xy = self.at(frame)
        inside, own = self.inside(mask, xy), members[ids]
        held = int((inside & own).sum())
        return held / max(1, int(own.sum())), held / max(1, int(inside.sum()))


def segment_objects(
    frames: Sequence[np.ndarray],
    tracks: Tracks,
    dynamic: np.ndarray,
    segmenter: Segmenter,
    options: PromptingOptions | None = None,
) -> tuple[np.ndarray, FollowedMasks]:
    """Masks of the objects that carry dynamic tracks.

    Args:
        frames: T frames H×W×3 uint8 RGB of one shot.
        tracks: long tracks over these frames, in their pixels.
        dynamic: N bool, tracks whose surface moves in the world.
        segmenter: the model that is prompted.
        options: settings.

    Returns:
        N int32 object of each track (0 where none), and the masks; `masks.labels(t)` gives H×W uint8.
    """
    options = options or PromptingOptions()
    observations = Observations(tracks, dynamic)
    height, width = frames[0].shape[:2]
    segmenter.open(frames)
    grouping = group_tracks(observations, segmenter, options)
    masks = FollowedMasks(len(frames), height, width)
    if not grouping.prompts:
        return grouping.object_id, masks
    for round_number in range(options.rounds + 1):
        masks = follow(grouping.prompts, segmenter, (len(frames), height, width), options.window)
        if round_number == options.rounds or not _prompt_where_drifted(observations, grouping, masks, segmenter, options):
            break
    object_id = _settle(observations, grouping, masks, options)
    return object_id, masks


def _settle(observations: Observations, grouping: Grouping, masks: FollowedMasks, options: PromptingOptions) -> np.ndarray:
    """Merge duplicates, drop objects that do not fit their tracks, hide absent ones; returns the object of every track."""
    merged = duplicates(masks)
    masks.rename({k: merged.get(k, k) for k in grouping.ids})
    table = np.array([merged.get(k, k) for k in range(max(grouping.ids) + 1)], np.int32)
    object_id = table[grouping.object_id]
    kept = [k for k in sorted(set(merged.values())) if _consistency(observations, masks, k, object_id == k) >= 0.5]
    masks.rename({k: kept.index(k) + 1 if k in kept else 0 for k in set(merged.values())})
    table = np.array([kept.index(k) + 1 if k in kept else 0 for k in range(len(table))], np.int32)
    object_id = _adopt(observations, masks, table[object_id], len(kept))
    for frame in range(masks.num_frames):
        masks.discard(frame, _absent(observations, object_id, frame, len(kept)))
    return object_id


def _consistency(observations: Observations, masks: FollowedMasks, k: int, members: np.ndarray) -> float:
    """Over all frames the smaller of: share of the visible members inside the mask, share of members among the tracks inside it."""
    held = own = within = 0
    for frame in range(masks.num_frames):
        ids, xy = observations.at(frame)
        inside = observations.inside(masks.mask(frame, k), xy)
        held += int((inside & members[ids]).sum())
        own += int(members[ids].sum())
        within += int(inside.sum())
    return min(held / max(1, own), held / max(1, within))


def _adopt(observations: Observations, masks: FollowedMasks, object_id: np.ndarray, count: int) -> np.ndarray:
    """Give dynamic tracks without an object to the one whose masks hold them most of the time."""
    held = np.zeros((len(object_id), count + 1), np.int32)
    for frame in range(masks.num_frames):
        ids, xy = observations.at(frame)
        orphan = (object_id[ids] == 0) & observations.dynamic[ids]
        labels = masks.labels(frame)
        for k in range(count + 1):
            held[ids[orphan], k] += observations.inside(labels == k, xy[orphan])
    best = held.argmax(axis=1)
    return np.where((object_id == 0) & observations.dynamic, best, object_id).astype(np.int32)


def _absent(observations: Observations, object_id: np.ndarray, frame: int, count: int) -> list[int]:
    """Objects whose tracks reach over a frame, and its neighbours, and are all hidden there.

    Where no track runs, the tracks do not know, and the segmenter decides.
    """
    tracks = observations.tracks
    running = (tracks.first <= frame) & (tracks.first + tracks.length > frame)
    known = np.bincount(object_id[running], minlength=count + 1) > 0
    for near in range(max(0, frame - 1), min(tracks.num_frames, frame + 2)):
        seen = np.bincount(object_id[observations.at(near)[0]], minlength=count + 1) > 0
        known &= ~seen
    return [k for k in range(1, count + 1) if known[k]]


def group_tracks(observations: Observations, segmenter: Segmenter, options: PromptingOptions) -> Grouping:
    """Sort dynamic tracks into objects, one object after the other."""
    object_id = np.zeros(len(observations.tracks), np.int32)
    grouping = Grouping(object_id)
    remaining = observations.dynamic.copy()
    num_frames = observations.tracks.num_frames
    grid = key_frames(num_frames, max(options.key_frames, num_frames // options.key_frames))
    attempts = 0
    while attempts < 3 * options.max_objects and len(grouping.ids) < options.max_objects:
        frame = _fullest(observations, remaining, grid)
        if frame is None or remaining.sum() < options.min_tracks:
            break
        ids, xy = observations.at(frame)
        seed, near = _core(xy, remaining[ids])
        if near.sum() < max(2, options.min_tracks // 2):
            # Scattered tracks, most likely labelled wrongly, are not worth a question.
            remaining[ids[near]] = False
            continue
        attempts += 1
        members, asked = _vote(observations, segmenter, remaining, frame, int(ids[seed]), grid, options)
        prompts = []
        if members.sum() >= options.min_tracks:
            number = len(grouping.ids) + 1
            for at, mask in asked.items():
                verified = _verified(observations, segmenter, at, mask, members, options.agreement)
                if verified is not None:
                    prompts.append(MaskPrompt(number, at, verified))
        remaining &= ~members
        remaining[ids[seed]] = False
        if prompts:
            grouping.prompts += prompts
            object_id[members] = prompts[0].object_id
        else:
            remaining[ids[near]] = False  # their neighbours would be asked the same question
    return grouping


def key_frames(num_frames: int, count: int) -> np.ndarray:
    """At most `count` evenly spaced frames, the first and last among them."""
    return np.unique(np.linspace(0, num_frames - 1, min(count, num_frames)).round().astype(np.int64))


def _fullest(observations: Observations, remaining: np.ndarray, grid: np.ndarray) -> int | None:
    counts = [int(remaining[observations.at(int(frame))[0]].sum()) for frame in grid]
    best = int(np.argmax(counts))
    return int(grid[best]) if counts[best] else None


def _core(xy: np.ndarray, chosen: np.ndarray) -> tuple[int, np.ndarray]:
    """The chosen track that lies deepest among its kind, and which chosen tracks are near it.

    Args:
        xy: n×2 visible tracks.
        chosen: n bool, at least one.

    Returns:
        Index of the track with the most chosen neighbours and the fewest others (ties go to the medoid), and n bool.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(xy)
    spacing = float(np.median(tree.query(xy, k=min(2, len(xy)))[0][:, -1])) if len(xy) > 1 else 1.0
    radius = 3.0 * max(spacing, 1e-3)
    candidates = np.flatnonzero(chosen)
    around = tree.query_ball_point(xy[candidates], radius)
    # Static tracks weigh double: a point on the rim of an object invites a mask of what lies behind it.
    score = np.array([3 * chosen[near].sum() - 2 * len(near) for near in around])
    best = candidates[score == score.max()]
    seed = int(best[np.argmin(np.linalg.norm(xy[best][:, None] - xy[chosen][None], axis=2).sum(axis=1))])
    near = np.zeros(len(xy), bool)
    near[tree.query_ball_point(xy[seed], radius)] = True
    return seed, near & chosen


def _vote(
    observations: Observations,
    segmenter: Segmenter,
    remaining: np.ndarray,
    frame: int,
    seed: int,
    grid: np.ndarray,
    options: PromptingOptions,
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Ask for the object under a track at several frames.

    Returns:
        N bool tracks that most of the masks hold, and the masks by frame.
    """
    held = np.zeros(len(remaining))
    seen = np.zeros(len(remaining))
    asked: dict[int, np.ndarray] = {}
    order = grid[np.argsort(np.abs(grid - frame), kind="stable")]
    if len(order) > options.votes:  # spread over the clip, but outward from the start, so that the anchor carries over
        order = order[np.unique(np.linspace(0, len(order) - 1, options.votes).round().astype(np.int64))]
    for at in map(int, order):
        ids, xy = observations.at(at)
        position = np.flatnonzero(ids == seed)
        if len(position) == 0:
            # The seed is hidden: its most faithful companion takes its place.
            share = np.where(seen[ids] > 0, held[ids] / np.maximum(seen[ids], 1), 0.0)
            loyal = np.flatnonzero(remaining[ids] & (share > 0.6))
            if len(loyal) == 0:
                continue
            loyal = loyal[share[loyal] >= share[loyal].max() - 1e-9]
            position = loyal[[_medoid(xy[loyal])]]
        mask = segmenter.click(at, xy[position[:1]], np.ones(1, bool))
        inside = observations.inside(mask, xy)
        if not inside.any():
            continue
        asked[at] = mask
        seen[ids] += 1
        held[ids] += inside
        # A lone track, most likely labelled wrongly, is not worth all the questions.
        if len(asked) == 3 and (remaining & (held > 0.5 * seen)).sum() < options.min_tracks:
            break
    return remaining & (held > 0.5 * seen), asked


def _medoid(xy: np.ndarray) -> int:
    return int(np.argmin(np.linalg.norm(xy[:, None] - xy[None], axis=2).sum(axis=1)))


def _verified(
    observations: Observations, segmenter: Segmenter, frame: int, mask: np.ndarray, members: np.ndarray, agreement: float
) -> np.ndarray | None:
    """The mask if it agrees with the tracks, else a second answer with points on what was wrong, else None."""
    for attempt in range(2):
        recall, purity = observations.agreement(mask, frame, members)
        if recall >= agreement and purity >= agreement:
            return mask
        if attempt:
            break
        ids, xy = observations.at(frame)
        own, inside = members[ids], observations.inside(mask, xy)
        if not own.any():
            break
        points, positive = corrections(xy, own, inside)
        mask = segmenter.click(frame, points, positive)
    return None


def corrections(xy: np.ndarray, own: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points that ask again for an object: on its middle, on its part that was missed, and off what was swallowed.

    Args:
        xy: n×2 visible tracks.
        own: n bool, tracks of the object.
        inside: n bool, tracks in the wrong mask.

    Returns:
        m×2 points and m bool, True for those on the object.
    """
    points, positive = [xy[own][_medoid(xy[own])]], [True]
    for wanted, sign in ((own & ~inside, True), (inside & ~own, False)):
        if wanted.any():
            points.append(xy[wanted][_medoid(xy[wanted])])
            positive.append(sign)
    return np.array(points, np.float32), np.array(positive)


def _prompt_where_drifted(
    observations: Observations, grouping: Grouping, masks: FollowedMasks, segmenter: Segmenter, options: PromptingOptions
) -> bool:
    """Add prompts at frames where a mask has left its tracks; True when there were any."""
    added = False
    taken = {(prompt.object_id, prompt.frame) for prompt in grouping.prompts}
    for k in grouping.ids:
        members = grouping.object_id == k
        scores = []
        for frame in range(observations.tracks.num_frames):
            ids, _ = observations.at(frame)
            if members[ids].sum() >= options.min_tracks and (k, frame) not in taken:
                recall, purity = observations.agreement(masks.mask(frame, k), frame, members)
                if min(recall, purity) < options.agreement:
                    scores.append((min(recall, purity), frame))
        # The worst frames first; what lies near a new prompt is likely mended by it.
        chosen: list[int] = []
        gap = max(2, observations.tracks.num_frames // options.key_frames)
        for _, frame in sorted(scores):
            if all(abs(frame - other) >= gap for other in chosen):
                chosen.append(frame)
        for frame in chosen:
            mask = _verified(observations, segmenter, frame, masks.mask(frame, k), members, options.agreement)
            if mask is not None:
                grouping.prompts.append(MaskPrompt(k, frame, mask))
                added = True
    return added
