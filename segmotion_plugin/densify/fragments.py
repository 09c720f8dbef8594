"""Joining fragments of objects: pieces that travel together, and pieces that follow one another in time.

Neighbouring tracks that move alike make fragments (`objects.group`). One thing may yield several: its limbs swing, it hides for a
while, it turns. Over many frames, though, limbs stay with their body, and what comes out from behind a pole goes on as it went in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from segmotion_plugin.densify.explain import polynomial_flow
from segmotion_plugin.tracks import Tracks

_FEWEST = 3  # observations that tell where a fragment is
_THERE = 0.2  # share of a fragment's largest number of observations from which on it is there
_TOGETHER = 0.3  # drift between pieces of one thing, as a share of how far they travel through the world
_SLACK = 0.006  # and this share of the image's longer side
_WINDOW = 16  # frames over which drift is looked at
_GAP = 24  # longest absence, frames
_BESIDE = 1.6  # distance of two fragments without contact over their extents, up to which they may be one thing
_APART = 0.15  # share of frames in different patches up to which two fragments may be one thing
_NEVER_APART = 2.0  # pieces always in one patch may drift by so much more
_LIKE = 0.5  # least cosine between the mean features of pieces seen one after the other


@dataclass
class Fragments:
    """K fragments over T frames.

    Attributes:
        count: K×T observations.
        place: K×T×2 mean positions, pixels; NaN where not seen.
        step: K×T×2 mean displacement to the next frame; NaN where unknown.
        world: K×T×2 displacement that the static world has there.
        extent: K×T standard deviation of the positions, pixels.
        patch: K×T, the patch of moving tracks that the fragment mostly lies in (see `patches`), −1 where unknown.
    """

    count: np.ndarray
    place: np.ndarray
    step: np.ndarray
    world: np.ndarray
    extent: np.ndarray
    patch: np.ndarray

    @classmethod
    def measure(
        cls, tracks: Tracks, ids: np.ndarray, label: np.ndarray, patch: np.ndarray, size: tuple[int, int]
    ) -> Fragments:
        """From the tracks `ids` with labels 0 … K−1 (−1: none); tracks not in `ids` count as the static world."""
        number = int(label.max()) + 1
        shape = (number, tracks.num_frames)
        owner = np.full(len(tracks), -2)
        owner[ids] = label
        main = np.full(shape, -1)
        count, place, square, step, steps = (np.zeros((*shape, c)) for c in (1, 2, 1, 2, 1))
        world = np.full((*shape, 2), np.nan)
        last = tracks.offset[1:] - 1
        for frame in range(tracks.num_frames):
            rows = tracks.rows_at(frame)
            track = tracks.track_flat[rows]
            xy, who, goes_on = tracks.xy_flat[rows].astype(np.float64), owner[track], rows < last[track]
            goes_on &= tracks.visible_flat[np.minimum(rows + 1, len(tracks.visible_flat) - 1)]
            ahead = tracks.xy_flat[np.minimum(rows + 1, len(tracks.xy_flat) - 1)] - tracks.xy_flat[rows]
            mine = who >= 0
            np.add.at(count, (who[mine], frame, 0), 1)
            np.add.at(place, (who[mine], frame), xy[mine])
            np.add.at(square, (who[mine], frame, 0), (xy[mine] ** 2).sum(axis=1))
            np.add.at(step, (who[mine & goes_on], frame), ahead[mine & goes_on])
            np.add.at(steps, (who[mine & goes_on], frame, 0), 1)
            main[:, frame] = _commonest(who[mine], patch[rows[mine]], number)
            still = (who == -2) & goes_on
            if still.sum() >= 12:
                field = polynomial_flow(xy[still], ahead[still].astype(np.float64), np.ones(int(still.sum())), size)
                seen = count[:, frame, 0] > 0
                world[seen, frame] = field(place[seen, frame] / count[seen, frame])
        with np.errstate(invalid="ignore", divide="ignore"):
            place = np.where(count >= _FEWEST, place / count, np.nan)
            step = np.where(steps >= _FEWEST, step / steps, np.nan)
            extent = np.sqrt(np.maximum(square / count - (place**2).sum(axis=2, keepdims=True), 0))
        return cls(count[..., 0], place, step, np.nan_to_num(world), extent[..., 0], main)

    def there(self, k: int) -> np.ndarray:
        """T bool: seen with a good part of what it is at its best; a few strays before and after do not count."""
        return self.count[k] >= max(_FEWEST, _THERE * self.count[k].max(initial=0))

    def travel(self, k: int, frames: np.ndarray) -> float:
        """How far a fragment gets through the world within these frames, pixels."""
        return _reach(np.nan_to_num(self.step[k, frames] - self.world[k, frames]))

    def apart(self, a: int, b: int) -> float:
        """Share of the frames in which both are seen and lie in different patches."""
        known = (self.patch[a] >= 0) & (self.patch[b] >= 0) & self.there(a) & self.there(b)
        return float((self.patch[a] != self.patch[b])[known].mean()) if known.any() else 0.0

    def beside(self, a: int, b: int) -> bool:
        """Whether two fragments are about as far from each other as they are large, in most frames that see both."""
        common = self.there(a) & self.there(b)
        if not common.any():
            return False
        gap = np.linalg.norm(self.place[a, common] - self.place[b, common], axis=1)
        return float(np.median(gap / (self.extent[a, common] + self.extent[b, common] + 1e-6))) < _BESIDE

    def together(self, a: int, b: int, slack: float) -> float | None:
        """Drift between two fragments over what is allowed (below 1: they travel together); None where never seen together."""
        moving = np.isfinite(self.step[a, :, 0]) & np.isfinite(self.step[b, :, 0])
        common = np.flatnonzero(moving & self.there(a) & self.there(b))
        if len(common) < 3:
            return None
        worst = 0.0
        for begin in range(0, len(common), _WINDOW // 2):
            frames = common[begin : begin + _WINDOW]
            if len(frames) < min(len(common), _WINDOW // 2):
                break
            drift = _reach(self.step[a, frames] - self.step[b, frames])
            allowed = _TOGETHER * max(self.travel(a, frames), self.travel(b, frames)) + slack * len(frames) / _WINDOW
            worst = max(worst, drift / allowed)
        return worst

    def goes_on_as(self, a: int, b: int, slack: float) -> float | None:
        """Distance between where `a` would be when `b` appears and where `b` is, over what is allowed; None where they overlap."""
        seen_a, seen_b = np.flatnonzero(self.there(a)), np.flatnonzero(self.there(b))
        if not len(seen_a) or not len(seen_b):
            return None
        end, begin = seen_a[-1], seen_b[0]
        gap = int(begin - end)
        if gap < -2 or gap > _GAP:
            return None
        before = np.flatnonzero(np.isfinite(self.step[a, : end + 1, 0]))[-6:]
        after = np.flatnonzero(np.isfinite(self.step[b, :, 0]))[:6]
        if not len(before) or not len(after):
            return None
        speed_a = (self.step[a, before] - self.world[a, before]).mean(axis=0)
        speed_b = (self.step[b, after] - self.world[b, after]).mean(axis=0)
        drift = (self.world[a, end] + self.world[b, begin]) / 2 * gap
        miss = np.linalg.norm(self.place[a, end] + drift + (speed_a + speed_b) / 2 * gap - self.place[b, begin])
        reach = self.extent[a, end] + self.extent[b, begin] + slack + 0.5 * abs(gap) * np.linalg.norm(speed_a + speed_b) / 2
        turn = np.linalg.norm(speed_a - speed_b) / (np.linalg.norm(speed_a) + np.linalg.norm(speed_b) + 0.3)
        return float(max(miss / (1.5 * reach), turn / 0.7))


def patches(tracks: Tracks, ids: np.ndarray, distance: float, fewest: int = 4) -> np.ndarray:
    """M labels of observations: moving tracks linked over gaps below `distance` pixels at their frame are one patch.

    −1 for observations of other tracks and for patches of fewer than `fewest` tracks, which are mostly false alarms.
    """
    moving = np.zeros(len(tracks), bool)
    moving[ids] = True
    out = np.full(len(tracks.xy_flat), -1)
    for frame in range(tracks.num_frames):
        rows = tracks.rows_at(frame)
        rows = rows[moving[tracks.track_flat[rows]]]
        if len(rows) < fewest:
            continue
        pairs = cKDTree(tracks.xy_flat[rows]).query_pairs(distance, output_type="ndarray")
        links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(rows),) * 2)
        _, patch = connected_components(links, directed=False)
        out[rows] = np.where(np.bincount(patch)[patch] >= fewest, patch, -1)
    return out


def _commonest(who: np.ndarray, patch: np.ndarray, number: int) -> np.ndarray:
    """For each of `number` fragments the patch with most of its observations, −1 where it has fewer than `_FEWEST`."""
    known = patch >= 0
    votes = np.zeros((number, int(patch.max(initial=0)) + 1))
    np.add.at(votes, (who[known], patch[known]), 1)
    return np.where(votes.max(axis=1) >= _FEWEST, votes.argmax(axis=1), -1)


def _reach(steps: np.ndarray) -> float:
    """Largest distance between two places of a path of n×2 steps."""
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    return float(np.linalg.norm(path[:, None] - path[None], axis=2).max())


def join(
    tracks: Tracks,
    ids: np.ndarray,
    label: np.ndarray,
    touch: np.ndarray,
    patch: np.ndarray,
    size: tuple[int, int],
    features: np.ndarray | None = None,
) -> np.ndarray:
    """Labels of n tracks after fragments of one thing were joined, the surest pair first.

    Args:
        tracks: all tracks of the clip.
        ids: n indices of the tracks that move.
        label: n fragments 0 … K−1; −1 for tracks without one.
        touch: K×K, how often tracks of two fragments were neighbours.
        patch: M, see `patches`.
        size: (width, height) that the tracks are measured in.
        features: N×C features of all tracks (NaN = unknown), or None.
    """
    label, touch = label.copy(), touch.astype(np.float64).copy()
    slack = _SLACK * max(size)
    while True:
        fragments = Fragments.measure(tracks, ids, label, patch, size)
        present = np.unique(label[label >= 0])
        looks = _looks(features, ids, label) if features is not None else None
        best, pair = 1.0, None
        for i, a in enumerate(present):
            for b in present[i + 1 :]:
                score = _score(fragments, int(a), int(b), touch, slack, looks)
                if score is not None and score < best:
                    best, pair = score, (int(a), int(b))
        if pair is None:
            return label
        a, b = pair
        label[label == b] = a
        touch[a] += touch[b]
        touch[:, a] += touch[:, b]


def _score(
    fragments: Fragments, a: int, b: int, touch: np.ndarray, slack: float, looks: np.ndarray | None
) -> float | None:
    apart = fragments.apart(a, b)
    if apart > _APART:
        return None  # what parts is not one thing
    together = fragments.together(a, b, slack)
    if together is not None:
        if touch[a, b] == 0:  # a gap between them: body and head of a thing whose neck has no tracks
            return together * 1.5 if fragments.beside(a, b) else None
        return together / (_NEVER_APART if apart == 0 else 1.0)
    if looks is not None and float(looks[a] @ looks[b]) < _LIKE:
        return None
    found = [fragments.goes_on_as(a, b, slack), fragments.goes_on_as(b, a, slack)]
    known = [value for value in found if value is not None]
    return min(known) if known else None


def _looks(features: np.ndarray, ids: np.ndarray, label: np.ndarray) -> np.ndarray:
    """K×C unit vectors: mean feature of each fragment, against the mean of all tracks."""
    known = np.isfinite(features).all(axis=1)
    if not known.any():
        return np.zeros((int(label.max()) + 1, features.shape[1]))
    centred = np.nan_to_num(features[ids] - features[known].mean(axis=0))
    total = np.zeros((int(label.max()) + 1, features.shape[1]))
    np.add.at(total, label[label >= 0], centred[label >= 0])
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)
