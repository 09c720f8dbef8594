"""Fragments of objects and how surely two of them are one thing: they stay together, or one goes on where the other ended.

Neighbouring tracks that move alike make fragments (`objects.group`). One thing may yield several: its limbs swing, it hides for a
while, it turns. Over many frames, though, limbs stay with their body, and what comes out from behind a pole goes on as it went in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from segmotion_plugin.densify.explain import polynomial_flow
from segmotion_plugin.tracks import Tracks

_FEWEST = 3  # observations that tell where a fragment is
_THERE = 0.2  # share of a fragment's largest number of observations from which on it is there
_SLACK = 0.006  # drift that means nothing, as a share of the image's longer side
_POINTS = 96  # of a path, when its extent is measured
_GAP = 24  # absence that does not make a return less likely, frames
_LIKE = 0.5  # least cosine between the mean features of pieces seen one after the other
# Log odds that two fragments are one thing, by logistic regression on cuts and pairs of fragments in rendered worlds.
_PRIOR, _BY_DRIFT, _BY_PARTING, _BY_LIKENESS, _BY_SWING = -2.0, 2.1, 2.4, 4.5, 2.9
# These by how many objects are found there.
_BY_SMALLNESS, _SMALL = 0.5, 1.5  # for each e-fold by which the larger one has more than e^1.5 times the smaller one's tracks
_BESIDE = 0.2  # share of frames in different patches from which on smallness tells nothing
_NO_GAP, _GLANCES = 0.08, 12  # gap that is nothing, as a share of the larger extent; frames in which gaps are looked at
_NOISE = 0.2  # drift that tells no more when it gets smaller, as a share of the size
_USUAL = 0.2  # cosine that stands for that of fragments of unknown looks
_HALF_SURE = 4.0  # common frames that tell half of it
_UNKNOWN = -0.5  # log odds of fragments never seen together of which nothing else is known
_ANEW, _BY_LOOKS = 0.5, 6.0  # log odds of those that look just alike enough and fit, and what more likeness adds
_SPEED = 8  # frames over which speed is measured before something goes and after it comes


@dataclass
class Sightings:
    """M visible observations of n tracks within a shot of T frames.

    Attributes:
        owner: M, 0 … n−1.
        frame: M, 0 … T−1.
        xy: M×2 positions, pixels.
        step: M×2 displacements to the next frame; NaN where unknown.
        world: M×2 displacements that the static world has there.
        patch: M, the patch of moving tracks or of the mask that the observation lies in, −1 where unknown.
        count: n.
        num_frames: T.
        size: (width, height) that the tracks are measured in.
    """

    owner: np.ndarray
    frame: np.ndarray
    xy: np.ndarray
    step: np.ndarray
    world: np.ndarray
    patch: np.ndarray
    count: int
    num_frames: int
    size: tuple[int, int]

    @classmethod
    def collect(cls, tracks: Tracks, ids: np.ndarray, patch: np.ndarray, size: tuple[int, int], shot: tuple[int, int]) -> Sightings:
        """Of the tracks `ids`; tracks not in `ids` are taken for the static world.

        `patch` has a value for every observation of all tracks.
        """
        local = np.full(len(tracks), -1)
        local[ids] = np.arange(len(ids))
        last, track_flat = tracks.offset[1:] - 1, tracks.track_flat
        parts = []
        for frame in range(*shot):
            rows = tracks.rows_at(frame)
            track = track_flat[rows]
            following = np.minimum(rows + 1, len(tracks.xy_flat) - 1)
            goes_on = (rows < last[track]) & tracks.visible_flat[following]
            xy, ahead = tracks.xy_flat[rows].astype(np.float64), (tracks.xy_flat[following] - tracks.xy_flat[rows]).astype(np.float64)
            mine = local[track] >= 0
            still = ~mine & goes_on
            world = np.zeros((int(mine.sum()), 2))
            if still.sum() >= 12 and len(world):
                world = polynomial_flow(xy[still], ahead[still], np.ones(int(still.sum())), size)(xy[mine])
            step = np.where(goes_on[mine, None], ahead[mine], np.nan)
            at = np.full(len(world), frame - shot[0])
            parts.append((local[track[mine]], at, xy[mine], step, world, patch[rows[mine]]))
        owner, at, xy, step, world, place = (np.concatenate(column) for column in zip(*parts, strict=True))
        return cls(owner, at, xy, step, world, place, len(ids), shot[1] - shot[0], size)

    def of(self, picked: np.ndarray) -> Sightings:
        """The observations of some tracks, renumbered 0, 1, … in the order of their indices `picked`."""
        local = np.full(self.count, -1)
        local[picked] = np.arange(len(picked))
        keep = local[self.owner] >= 0
        frame, xy, step = self.frame[keep], self.xy[keep], self.step[keep]
        owner, world, patch = local[self.owner[keep]], self.world[keep], self.patch[keep]
        return Sightings(owner, frame, xy, step, world, patch, len(picked), self.num_frames, self.size)


@dataclass
class Fragments:
    """K fragments over T frames.

    Attributes:
        count: K×T observations.
        place: K×T×2 mean positions, pixels; NaN where not seen.
        step: K×T×2 mean displacement to the next frame; NaN where unknown.
        world: K×T×2 displacement that the static world has there.
        extent: K×T standard deviation of the positions, pixels.
        patch: K×T, the patch that the fragment mostly lies in, −1 where unknown.
        slack: pixels of drift that mean nothing.
        seen: what was seen of the tracks.
        label: fragment of each track.
    """

    count: np.ndarray
    place: np.ndarray
    step: np.ndarray
    world: np.ndarray
    extent: np.ndarray
    patch: np.ndarray
    slack: float
    seen: Sightings
    label: np.ndarray

    @classmethod
    def measure(cls, seen: Sightings, label: np.ndarray) -> Fragments:
        """From n labels 0 … K−1 of tracks (−1: none)."""
        number, frames = int(label.max()) + 1, seen.num_frames
        who = label[seen.owner]
        known = who >= 0
        key = (who * frames + seen.frame)[known]

        def total(values: np.ndarray | None, keys: np.ndarray = key) -> np.ndarray:
            return np.bincount(keys, values, number * frames).reshape(number, frames)

        def both(values: np.ndarray, keys: np.ndarray = key) -> np.ndarray:
            return np.stack([total(values[:, 0], keys), total(values[:, 1], keys)], axis=2)

        xy, step = seen.xy[known], seen.step[known]
        goes_on = np.isfinite(step[:, 0])
        count, steps = total(None), total(None, key[goes_on])
        with np.errstate(invalid="ignore", divide="ignore"):
            place = np.where(count[..., None] >= _FEWEST, both(xy) / count[..., None], np.nan)
            mean_step = np.where(steps[..., None] >= _FEWEST, both(step[goes_on], key[goes_on]) / steps[..., None], np.nan)
            extent = np.sqrt(np.maximum(total((xy**2).sum(axis=1)) / count - (place**2).sum(axis=2), 0))
            world = np.nan_to_num(both(seen.world[known]) / count[..., None])
        patch = _commonest(key, seen.patch[known], number * frames).reshape(number, frames)
        return cls(count, place, mean_step, world, extent, patch, _SLACK * max(seen.size), seen, label)

    def there(self, k: int) -> np.ndarray:
        """T bool: seen with a good part of what it is at its best; a few strays before and after do not count."""
        return self.count[k] >= max(_FEWEST, _THERE * self.count[k].max(initial=0))

    def apart(self, a: int, b: int) -> float:
        """Share of the frames in which both are seen and lie in different patches."""
        known = self._known(a, b)
        return float((self.patch[a] != self.patch[b])[known].mean()) if known.any() else 0.0

    def far_apart(self, a: int, b: int) -> float:
        """As `apart`, but a gap that is nothing beside the larger one's extent does not count: masks break where limbs are thin."""
        known = np.flatnonzero(self._known(a, b))
        looked = known[np.linspace(0, len(known) - 1, min(len(known), _GLANCES)).round().astype(int)]
        parted = looked[self.patch[a, looked] != self.patch[b, looked]]
        here = np.isin(self.seen.frame, parted)
        who, frame, xy = self.label[self.seen.owner[here]], self.seen.frame[here], self.seen.xy[here]
        far = 0
        for t in parted:
            one, other = (xy[(who == k) & (frame == t)] for k in (a, b))
            gap = cKDTree(one).query(other)[0].min()
            far += bool(gap > _NO_GAP * max(self.extent[a, t], self.extent[b, t]))
        return far / max(len(looked), 1)

    def _known(self, a: int, b: int) -> np.ndarray:
        """T bool: both are there and in some patch."""
        return (self.patch[a] >= 0) & (self.patch[b] >= 0) & self.there(a) & self.there(b)

    def same(self, a: int, b: int, looks: np.ndarray | None = None, over_gaps: bool = False) -> float:
        """Log odds that two fragments are one thing; `looks` K×C unit vectors tell what each looks like.

        Seen together, what counts is how far they drift against each other over all common frames, and how much that changes the
        distance between them (what turns about a joint keeps it), as a share of how large they are; whether they drift straight on
        or to and fro (limbs swing), how alike they look, and how often they lie in different patches. What is much smaller than what
        it never leaves is a part of that, and may turn in its place. Otherwise one has to go on as the other.

        Args:
            a: a fragment.
            b: another.
            looks: see above.
            over_gaps: gaps that are nothing beside the larger one do not count as lying in different patches.
        """
        moving = np.isfinite(self.step[a, :, 0]) & np.isfinite(self.step[b, :, 0])
        common = np.flatnonzero(moving & self.there(a) & self.there(b))
        apart = self.apart(a, b)
        sure = len(common) / (len(common) + _HALF_SURE)
        if len(common) < 3:
            return self._goes_on(a, b, looks) - _BY_PARTING * apart * sure
        steps = self.step[a, common] - self.step[b, common]
        away = np.cumsum(np.concatenate([self.place[a, common[:1]] - self.place[b, common[:1]], steps]), axis=0)
        drift, stretch = _reach(away), float(np.ptp(np.linalg.norm(away, axis=1)))
        less, more = np.sort(np.median(self.count[[a, b]][:, common], axis=1) + 1)
        smallness = max(np.log(more / less) - _SMALL, 0.0) * max(1 - apart / _BESIDE, 0.0)
        if smallness > 0:
            # What turns within something large, as a wheel, moves on and on against it and yet stays where it is.
            between = self.place[a, common] - self.place[b, common]
            stays = _reach(between), float(np.ptp(np.linalg.norm(between, axis=1)))
            drift, stretch = min((drift, stretch), stays, key=np.prod)
        spread = np.median(self.extent[a, common]) + np.median(self.extent[b, common])
        path = np.linalg.norm(steps, axis=1).sum()
        drifting = np.log(np.sqrt(drift * stretch) / (spread + self.slack) + _NOISE)
        swinging = np.log((path + self.slack) / (drift + self.slack))
        likeness = _USUAL if looks is None else float(looks[a] @ looks[b])
        odds = _PRIOR - _BY_DRIFT * drifting + _BY_SWING * swinging + _BY_LIKENESS * likeness + _BY_SMALLNESS * smallness
        if over_gaps and 0 < odds < _BY_PARTING * apart:  # only where it decides
            apart = self.far_apart(a, b)
        return float(sure * (odds - _BY_PARTING * apart))

    def _goes_on(self, a: int, b: int, looks: np.ndarray | None) -> float:
        """Log odds that of two fragments never seen together one goes on as the other: it looks alike and is where the other led."""
        if not self.there(a).any() or not self.there(b).any():
            return _UNKNOWN
        if np.flatnonzero(self.there(a))[0] > np.flatnonzero(self.there(b))[0]:
            a, b = b, a
        seen_a, seen_b = np.flatnonzero(self.there(a)), np.flatnonzero(self.there(b))
        end, begin = seen_a[-1], seen_b[0]
        gap = int(begin - end)
        before = np.flatnonzero(np.isfinite(self.step[a, : end + 1, 0]))[-_SPEED:]
        after = np.flatnonzero(np.isfinite(self.step[b, :, 0]))[:_SPEED]
        if not len(before) or not len(after):
            return _UNKNOWN
        alike = None if looks is None else _BY_LOOKS * (float(looks[a] @ looks[b]) - _LIKE)
        if gap < -2:  # one hides for a while, and the other is seen meanwhile
            return _UNKNOWN if alike is None else alike + _UNKNOWN
        speed_a = np.median(self.step[a, before] - self.world[a, before], axis=0)
        speed_b = np.median(self.step[b, after] - self.world[b, after], axis=0)
        drift = (self.world[a, end] + self.world[b, begin] + speed_a + speed_b) / 2 * gap
        miss = float(np.linalg.norm(self.place[a, end] + drift - self.place[b, begin]))
        # What goes behind something and comes out from there shows a part of itself only.
        size = sum(float(self.extent[k, self.there(k)].max()) for k in (a, b))
        reach = size + self.slack + 0.25 * abs(gap) * float(np.linalg.norm(speed_a + speed_b))
        turn = float(np.linalg.norm(speed_a - speed_b) / (np.linalg.norm(speed_a) + np.linalg.norm(speed_b) + 0.3))
        if alike is None:
            return _UNKNOWN if gap > _GAP else 1 - float(max(miss / (1.5 * reach), turn / 0.7))
        late = max(gap - _GAP, 0) / _GAP
        return _ANEW + alike - max(miss / (1.5 * reach) - 1, 0.0) - 2 * max(turn - 0.5, 0.0) - late


def patches(tracks: Tracks, ids: np.ndarray, distance: float, fewest: int = 4) -> np.ndarray:
    """M labels of observations: moving tracks linked over gaps below `distance` pixels at their frame are one patch.

    −1 for observations of other tracks and for patches of fewer than `fewest` tracks, which are mostly false alarms.
    """
    moving = np.zeros(len(tracks), bool)
    moving[ids] = True
    moving = moving[tracks.track_flat]
    out = np.full(len(tracks.xy_flat), -1)
    for frame in range(tracks.num_frames):
        rows = tracks.rows_at(frame)
        rows = rows[moving[rows]]
        if len(rows) < fewest:
            continue
        pairs = cKDTree(tracks.xy_flat[rows]).query_pairs(distance, output_type="ndarray")
        links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(rows),) * 2)
        _, patch = connected_components(links, directed=False)
        out[rows] = np.where(np.bincount(patch)[patch] >= fewest, patch, -1)
    return out


def _commonest(key: np.ndarray, patch: np.ndarray, number: int) -> np.ndarray:
    """For each of `number` keys the commonest patch of its observations, −1 where it has fewer than `_FEWEST` in it."""
    out = np.full(number, -1)
    inside = patch >= 0
    if inside.any():
        width = int(patch.max()) + 1
        pair, votes = np.unique(key[inside] * width + patch[inside], return_counts=True)
        order = np.argsort(votes, kind="stable")  # the last one written wins
        order = order[votes[order] >= _FEWEST]
        out[pair[order] // width] = pair[order] % width
    return out


def _reach(path: np.ndarray) -> float:
    """Largest distance between two places of a path of n×2 positions."""
    if len(path) > _POINTS:
        path = path[np.linspace(0, len(path) - 1, _POINTS).round().astype(int)]
    return float(np.linalg.norm(path[:, None] - path[None], axis=2).max())


def join(seen: Sightings, label: np.ndarray, features: np.ndarray | None = None) -> np.ndarray:
    """Labels of n tracks after fragments of one thing were joined, the surest pair first.

    Args:
        seen: what was seen of the tracks.
        label: n fragments 0 … K−1; −1 for tracks without one.
        features: n×C features of the tracks against the mean of all tracks of the clip (NaN = unknown), or None.
    """
    label = label.copy()
    odds: dict[tuple[int, int], float] = {}
    changed: int | None = None
    while True:
        fragments = Fragments.measure(seen, label)
        looks = looks_of(features, label) if features is not None else None
        present = np.unique(label[label >= 0]).tolist()
        pairs = [(a, b) for i, a in enumerate(present) for b in present[i + 1 :]]
        for a, b in pairs:
            if changed is None or changed in (a, b):
                odds[a, b] = fragments.same(a, b, looks, over_gaps=True)
        best = max(pairs, key=lambda pair: odds[pair], default=None)
        if best is None or odds[best] <= 0:
            return label
        label[label == best[1]] = best[0]
        changed = best[0]


def looks_of(features: np.ndarray, label: np.ndarray) -> np.ndarray:
    """K×C unit vectors: mean feature of each fragment."""
    known = np.flatnonzero(label >= 0)
    share = csr_matrix((np.ones(len(known)), (label[known], known)), shape=(int(label.max()) + 1, len(label)))
    total = share @ np.nan_to_num(features)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)
