"""Long-range point tracks and what is known of their motion.

Positions are in pixels with the centre of the top-left pixel at (0.5, 0.5), x to the right and y down, as in COLMAP.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.files import write_npz
from segmotion_plugin.reading import read_arrays


@dataclass
class TrackWindow:
    """The tracks seen within a range of frames, dense.

    Attributes:
        ids: n int, index of each track in its `Tracks`.
        xy: n×t×2 float32, NaN outside a track's run.
        visible: n×t bool.
        confidence: n×t float32, 0 outside a track's run.
    """

    ids: np.ndarray
    xy: np.ndarray
    visible: np.ndarray
    confidence: np.ndarray


class Tracks:
    """N tracks over T frames, stored by observation so that memory grows with what was seen, not with N × T.

    A track is one contiguous run of frames; within its run a point may be hidden.

    Attributes:
        first: N int32, first frame of each run.
        offset: N+1 int64, where each track's observations start in the flat arrays.
        xy_flat: M×2 float32.
        visible_flat: M bool.
        confidence_flat: M float16.
        query_frame: N int32, the frame where the point was picked.
        num_frames: T.
    """

    def __init__(
        self,
        first: np.ndarray,
        offset: np.ndarray,
        xy_flat: np.ndarray,
        visible_flat: np.ndarray,
        confidence_flat: np.ndarray,
        query_frame: np.ndarray,
        num_frames: int,
    ) -> None:
        self.first = np.asarray(first, dtype=np.int32)
        self.offset = np.asarray(offset, dtype=np.int64)
        self.xy_flat = np.asarray(xy_flat, dtype=np.float32).reshape(-1, 2)
        self.visible_flat = np.asarray(visible_flat, dtype=bool)
        self.confidence_flat = np.asarray(confidence_flat, dtype=np.float16)
        self.query_frame = np.asarray(query_frame, dtype=np.int32)
        self.num_frames = int(num_frames)
        self._order: tuple[np.ndarray, np.ndarray] | None = None

    # -- making ---------------------------------------------------------------------------------------------------

    @classmethod
    def from_dense(
        cls,
        xy: np.ndarray,
        visible: np.ndarray,
        confidence: np.ndarray | None = None,
        query_frame: np.ndarray | None = None,
    ) -> Tracks:
        """Make tracks from dense arrays.

        Args:
            xy: N×T×2 positions; NaN where nothing is known (only allowed where not visible).
            visible: N×T bool.
            confidence: N×T in [0, 1]; 1 where visible when absent.
            query_frame: N; the first visible frame when absent.

        Raises:
            SegmotionError: shapes that do not fit, or visible points without a finite position.
        """
        xy = np.asarray(xy, dtype=np.float32)
        visible = np.asarray(visible, dtype=bool)
        if xy.ndim != 3 or xy.shape[2] != 2:
            raise SegmotionError(f"track positions must be N×T×2, got {xy.shape}")
        if visible.shape != xy.shape[:2]:
            raise SegmotionError(f"visibility must be N×T = {xy.shape[:2]}, got {visible.shape}")
        if confidence is None:
            confidence = visible.astype(np.float32)
        elif np.shape(confidence) != visible.shape:
            raise SegmotionError(f"confidence must be N×T = {visible.shape}, got {np.shape(confidence)}")
        known = np.isfinite(xy).all(axis=2)
        if np.any(visible & ~known):
            track, frame = np.argwhere(visible & ~known)[0]
            raise SegmotionError(f"track {track} is visible at frame {frame} but its position is not finite")
        count, frames = visible.shape
        any_known = known.any(axis=1) if frames else np.zeros(count, bool)
        first = np.where(any_known, known.argmax(axis=1) if frames else 0, 0)
        last = np.where(any_known, frames - 1 - known[:, ::-1].argmax(axis=1) if frames else 0, -1)
        length = np.where(any_known, last - first + 1, 0)
        offset = np.concatenate([[0], np.cumsum(length)])
        grid = np.arange(frames)[None, :]
        inside = (grid >= first[:, None]) & (grid < (first + length)[:, None])
        if query_frame is None:
            query_frame = np.where(visible.any(axis=1), visible.argmax(axis=1), first)
        return cls(first, offset, xy[inside], visible[inside], np.asarray(confidence)[inside], query_frame, frames)

    def select(self, ids: np.ndarray) -> Tracks:
        """The tracks with these indices (or where a boolean N array is True), in that order."""
        ids = np.asarray(ids)
        if ids.dtype == bool:
            ids = np.flatnonzero(ids)
        rows = _rows(self.offset, ids)
        offset = np.concatenate([[0], np.cumsum(self.length[ids])])
        return Tracks(
            self.first[ids],
            offset,
            self.xy_flat[rows],
            self.visible_flat[rows],
            self.confidence_flat[rows],
            self.query_frame[ids],
            self.num_frames,
        )

    def scaled(self, factors: tuple[float, float]) -> Tracks:
        """The same tracks in pixels of images that are larger by these factors (x, y)."""
        xy = self.xy_flat * np.array(factors, np.float32)
        return Tracks(self.first, self.offset, xy, self.visible_flat, self.confidence_flat, self.query_frame, self.num_frames)

    # -- reading --------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.first)

    def stretches(self) -> list[tuple[int, int]]:
        """(start, stop) of the ranges of frames, two at least, that tracks connect: at a hard cut none goes on."""
        change = np.zeros(self.num_frames + 2, np.int64)
        long = self.length > 1
        np.add.at(change, self.first[long] + 1, 1)
        np.add.at(change, (self.first + self.length)[long], -1)
        crossed = np.cumsum(change)[1 : self.num_frames] > 0  # from a frame to the next
        bounds = np.concatenate([[0], np.flatnonzero(~crossed) + 1, [self.num_frames]]).tolist()
        return [(start, stop) for start, stop in zip(bounds[:-1], bounds[1:], strict=True) if stop - start > 1]

    @property
    def length(self) -> np.ndarray:
        """N int64, number of frames in each run."""
        return np.diff(self.offset)

    @property
    def frame_flat(self) -> np.ndarray:
        """M int32, frame of every observation."""
        return (np.arange(len(self.xy_flat)) - np.repeat(self.offset[:-1] - self.first, self.length)).astype(np.int32)

    @property
    def track_flat(self) -> np.ndarray:
        """M int32, track of every observation."""
        return np.repeat(np.arange(len(self), dtype=np.int32), self.length)

    @property
    def xy(self) -> np.ndarray:
        """N×T×2 float32, NaN outside a track's run. Takes N × T memory: use `window` on long clips."""
        return self.dense(self.xy_flat, np.float32(np.nan))

    @property
    def visible(self) -> np.ndarray:
        """N×T bool."""
        return self.dense(self.visible_flat, False)

    @property
    def confidence(self) -> np.ndarray:
        """N×T float32."""
        return self.dense(self.confidence_flat.astype(np.float32), np.float32(0.0))

    def dense(self, flat: np.ndarray, fill: object) -> np.ndarray:
        """Spread an array by observation (M×…) to N×T×…, with `fill` outside the runs."""
        out = np.full((len(self), self.num_frames, *flat.shape[1:]), fill, dtype=flat.dtype)
        out[self.track_flat, self.frame_flat] = flat
        return out

    def window(self, start: int, stop: int) -> TrackWindow:
        """Tracks with at least one visible observation in frames [start, stop), dense over these frames."""
        end = self.first + self.length
        ids = np.flatnonzero((self.first < stop) & (end > start))
        rows = _rows(self.offset, ids)
        frame = self.frame_flat_of(ids)
        local = np.repeat(np.arange(len(ids)), self.length[ids])
        keep = (frame >= start) & (frame < stop)
        rows, frame, local = rows[keep], frame[keep] - start, local[keep]
        seen = np.zeros(len(ids), bool)
        np.logical_or.at(seen, local, self.visible_flat[rows])
        remap = np.cumsum(seen) - 1
        keep = seen[local]
        rows, frame, local = rows[keep], frame[keep], remap[local[keep]]
        ids = ids[seen]
        span = stop - start
        xy = np.full((len(ids), span, 2), np.nan, np.float32)
        visible = np.zeros((len(ids), span), bool)
        confidence = np.zeros((len(ids), span), np.float32)
        xy[local, frame] = self.xy_flat[rows]
        visible[local, frame] = self.visible_flat[rows]
        confidence[local, frame] = self.confidence_flat[rows]
        return TrackWindow(ids, xy, visible, confidence)

    def frame_flat_of(self, ids: np.ndarray) -> np.ndarray:
        """Frames of the observations of some tracks, track by track."""
        length = self.length[ids]
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        return within + np.repeat(self.first[ids].astype(np.int64), length)

    def rows_at(self, frame: int) -> np.ndarray:
        """Indices into the flat arrays of the visible observations at a frame."""
        if self._order is None:
            frames = self.frame_flat
            order = np.argsort(frames, kind="stable")
            self._order = (order, np.searchsorted(frames[order], np.arange(self.num_frames + 1)))
        order, bounds = self._order
        rows = order[bounds[frame] : bounds[frame + 1]]
        return rows[self.visible_flat[rows]]

    def observations_at(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Track ids (n) and positions (n×2) visible at a frame."""
        rows = self.rows_at(frame)
        ids = np.searchsorted(self.offset, rows, side="right") - 1
        return ids.astype(np.int64), self.xy_flat[rows]

    def positions_at(self, ids: np.ndarray, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """n×2 positions of tracks at a frame, anything where they do not live, and n flags that they are visible there."""
        since = frame - self.first[ids]
        inside = (since >= 0) & (since < self.length[ids])
        row = np.where(inside, self.offset[ids] + since, 0)
        return self.xy_flat[row], inside & self.visible_flat[row]


class TrackMotion:
    """What is known of the motion of every track.

    Attributes:
        probability: N float32, that the point's surface moves in the world at some time of the clip.
        moving_flat: M bool, moving at that frame, by observation of the tracks it belongs to.
        object_id: N int32, 0 = static.
    """

    def __init__(self, tracks: Tracks, probability: np.ndarray, moving_flat: np.ndarray, object_id: np.ndarray) -> None:
        self._tracks = tracks
        self.probability = np.asarray(probability, dtype=np.float32)
        self.moving_flat = np.asarray(moving_flat, dtype=bool)
        self.object_id = np.asarray(object_id, dtype=np.int32)
        if len(self.probability) != len(tracks) or len(self.object_id) != len(tracks):
            raise SegmotionError(
                f"{len(tracks)} tracks need as many probabilities and object ids, "
                f"got {len(self.probability)} and {len(self.object_id)}"
            )
        if len(self.moving_flat) != len(tracks.xy_flat):
            raise SegmotionError(f"{len(tracks.xy_flat)} observations need as many flags, got {len(self.moving_flat)}")

    @classmethod
    def static(cls, tracks: Tracks) -> TrackMotion:
        """Nothing moves."""
        none = np.zeros(len(tracks))
        return cls(tracks, none, np.zeros(len(tracks.xy_flat), bool), none)

    @property
    def moving(self) -> np.ndarray:
        """N×T bool, moving at that frame."""
        return self._tracks.dense(self.moving_flat, False)


# A dense track file is cut to this many (track, frame) cells, so that long clips stay readable.
_FILE_CELLS = 24_000_000


def save_tracks(path: Path, tracks: Tracks, motion: TrackMotion, width: int, height: int) -> int:
    """Write `motion/tracks.npz`: dense arrays as other programs read them. Returns how many tracks were written.

    Keys: xy N×T×2 float32 (pixels of the source images; NaN outside a run), visible N×T, confidence N×T float16,
    query_frame N, probability N, moving N×T, object_id N, track_index N (index in the full set), size (width, height).
    On long clips static tracks are left out first, the shortest before the others, until N × T fits into 24 million
    cells.
    """
    budget = max(1, _FILE_CELLS // max(1, tracks.num_frames))
    ids = np.arange(len(tracks))
    if len(ids) > budget:
        importance = tracks.length + (motion.object_id > 0) * (tracks.num_frames + 1)
        ids = np.sort(np.argsort(-importance, kind="stable")[:budget])
    part = tracks.select(ids)
    write_npz(
        path,
        xy=part.xy,
        visible=part.visible,
        confidence=part.dense(part.confidence_flat, np.float16(0)),
        query_frame=part.query_frame,
        probability=motion.probability[ids],
        moving=part.dense(motion.moving_flat[_rows(tracks.offset, ids)], False),
        object_id=motion.object_id[ids],
        track_index=ids.astype(np.int32),
        size=np.array([width, height], np.int32),
        format=np.array(2),  # 1 (0.1.0) had no such key and is read as well
    )
    return len(ids)


def load_tracks(path: Path) -> tuple[Tracks, TrackMotion, tuple[int, int]]:
    """Read `motion/tracks.npz`: tracks, their motion, and the (width, height) of the images they are measured in.

    Raises:
        SegmotionError: the file is missing, damaged, or lacks a key.
    """
    path = Path(path)
    if not path.is_file():
        raise SegmotionError(f"{path}: no such file; make it with 'segmotion masks INPUT OUT'")
    again = "make it again with 'segmotion masks INPUT OUT'"
    arrays = read_arrays(path, "track file", again)
    missing = {"xy", "visible", "probability", "object_id"} - set(arrays)
    if missing:
        raise SegmotionError(f"{path}: not a Segmotion track file, it lacks {', '.join(sorted(missing))}")
    try:
        tracks = Tracks.from_dense(arrays["xy"], arrays["visible"], arrays.get("confidence"), arrays.get("query_frame"))
        moving = arrays.get("moving", np.zeros(arrays["visible"].shape, bool))
        moving_flat = moving[tracks.track_flat, tracks.frame_flat]
        motion = TrackMotion(tracks, arrays["probability"], moving_flat, arrays["object_id"])
        width, height = (int(v) for v in arrays.get("size", np.zeros(2)))
    except (SegmotionError, ValueError, IndexError, TypeError, OverflowError) as error:
        raise SegmotionError(f"{path}: its arrays do not fit each other ({error}); {again}") from None
    return tracks, motion, (width, height)


def _rows(offset: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Flat rows of the observations of some tracks, track by track."""
    start = offset[ids]
    length = offset[np.asarray(ids) + 1] - start
    within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    return np.repeat(start, length) + within
