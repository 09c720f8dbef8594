"""What was seen to move and is suddenly missing is looked for in the frames that follow, and in those before.

Evidence about a frame comes from tracks. Where flow loses a small mover between two frames all its tracks end at once, and those that
begin behind live too short to tell that they move; a walker who comes straight towards the camera for a while does not stand out
either. But once a thing is known, its looks find it again: the memory of video object segmentation (Oh et al., "Video Object
Segmentation using Space-Time Memory Networks", ICCV 2019; SAM 2), here with flow, shifts and colour histograms. A part of a mask that
has no successor is carried to the next frame, by the flow or by the shift under which it looks most like itself, and drawn there with
its colours; for as long as it stays alike and unlike its surroundings, and for no more frames than it was seen in before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from segmotion_plugin.boxes import Box, box_around
from segmotion_plugin.clip import Clip
from segmotion_plugin.densify.colours import colour_bins, densities, draw_again
from segmotion_plugin.densify.cut import edge_weight
from segmotion_plugin.densify.explain import Recent, compose, places
from segmotion_plugin.densify.options import DenseOptions
from segmotion_plugin.parallel import in_order
from segmotion_plugin.rawstore import RawStore
from segmotion_plugin.trackers.flow import FlowStore
from segmotion_plugin.tracks import Tracks

FlowBetween = Callable[[int, int], np.ndarray]
"""h×w×2 float32 displacements from one frame to another, at half size, in pixels at full size."""

_CAPPED = 40.0  # grey levels up to which a pixel's difference counts
_COMPARED = 1500  # pixels of a part at most that are compared
_EVIDENCE = 4.0  # log odds that a pixel moves where the part was carried to, and that it does not beyond the rim


@dataclass(frozen=True)
class CarryOptions:
    """Constants of carrying, chosen on rendered scenes and DAVIS training sequences; lengths in pixels at half size, where the longer
    side has 640 of them (see `scaled`)."""

    most: int = 24
    """Frames in succession that a part is carried over at most."""
    least_seen: int = 8
    """Frames in succession that it must have been seen in before."""
    least: int = 24
    """Smallest part, pixels."""
    kept: float = 0.2
    """Share of where a part should be that a mask must cover to be its successor."""
    search: int = 2
    """Pixels by which it may lie beside where it is expected."""
    unlike: float = 22.0
    """Mean difference in grey levels up to which it looks like itself."""
    shrunk: float = 0.6
    """Share of its size when last seen that it must keep, and the other way round."""
    alike: float = 0.6
    """Least likeness (Bhattacharyya coefficient) of its colours to those when last seen."""
    hidden: float = 0.4
    """Most likeness of its colours to those around it: what blends in cannot be drawn."""
    rim: int = 3
    """Width outside in which nothing is said about motion."""
    gap: int = 2
    """Width outside that is not compared with the part..."""
    around: int = 12
    """...beside what lies further out, up to here."""

    def scaled(self, unit: float) -> CarryOptions:
        """The same lengths and areas where the longer side has `unit` times 640 pixels."""
        lengths = {name: max(1, round(unit * getattr(self, name))) for name in ("rim", "gap", "around")}
        return replace(self, least=round(unit**2 * self.least), **lengths)


class Carried(NamedTuple):
    """What was found of a part in a frame that had no mask there."""

    frame: int
    box: Box
    soft: np.ndarray
    """uint8 of the box's size, 255 = moves."""


@dataclass
class _Part:
    """A connected part of a frame's mask."""

    seen: int = 1  # frames in succession up to this one
    carried: int = 0  # frames since
    area: float = 0.0  # pixels when last seen
    colours: np.ndarray | None = None  # densities by bin when last seen; known once it was carried
    velocity: np.ndarray | None = None  # pixels at half size since the frame before, where flow does not tell


class _Frame(NamedTuple):
    number: int
    labels: np.ndarray  # h×w int16, 0 = static, k = parts[k - 1]
    parts: list[_Part]
    back: np.ndarray | None  # flow to the frame before


def carry_on(clip: Clip, flow: FlowStore, soft: RawStore, options: DenseOptions | None = None) -> list[Carried]:
    """Complete the masks of a clip's selected frames by what is carried on, in both directions of time.

    Args:
        clip: the frames.
        flow: stored flows of the clip.
        soft: h×w uint8 soft masks by frame at half size, 255 = moves; completed.
        options: constants of the densifier.

    Returns:
        What was added.
    """
    height, width = soft.shape
    unit = max(height, width) / 640
    drawing = (options or DenseOptions()).scaled(unit)

    def halved(frame: int) -> np.ndarray:
        return cv2.resize(clip.frames[frame], (width, height), interpolation=cv2.INTER_AREA)

    def between(first: int, second: int) -> np.ndarray:
        if second > first:
            return compose([flow.read(frame)[0] for frame in range(first, second)])
        return compose([flow.read(frame)[1] for frame in range(first - 1, second - 1, -1)])

    def searched(frames: list[int]) -> list[Carried]:
        images = Recent(halved, 2)
        return carry(lambda frame: soft[frame] > 127, images, between, frames, CarryOptions().scaled(unit), drawing)

    selected = clip.selected.tolist()
    shots = [[frame for frame in selected if start <= frame < stop] for start, stop in clip.shots]
    found = [part for parts in in_order(searched, [way for shot in shots for way in (shot, shot[::-1])]) for part in parts]
    for frame, box, part in found:
        whole = soft[frame].copy()
        whole[box] = np.maximum(whole[box], part)
        soft[frame] = whole
    return found


def raised(tracks: Tracks, probability: np.ndarray, found: list[Carried]) -> np.ndarray:
    """N probabilities that tracks move, at least one half for those that lie in what was carried on most of the time.

    Nothing but their shortness may speak against them.
    """
    inside = np.zeros(len(tracks.xy_flat), bool)
    for frame, (rows, columns), part in found:
        at = tracks.rows_at(frame)
        column, row = (tracks.xy_flat[at] / 2).astype(np.int64).T
        column, row = column - columns.start, row - rows.start
        within = (column >= 0) & (column < part.shape[1]) & (row >= 0) & (row < part.shape[0])
        inside[at[within]] |= part[row[within], column[within]] > 127
    most = 2 * np.bincount(tracks.track_flat, inside, len(tracks)) > tracks.length
    return np.where(most, np.maximum(probability, 0.5), probability)


def carry(
    masks: Callable[[int], np.ndarray],
    images: Callable[[int], np.ndarray],
    flow: FlowBetween,
    frames: Sequence[int],
    options: CarryOptions,
    drawing: DenseOptions,
) -> list[Carried]:
    """Look for parts that are missing, in one direction of time.

    Args:
        masks: gives the h×w bool mask of a frame.
        images: gives h×w×3 uint8 RGB of a frame.
        flow: between neighbours in `frames`, both ways.
        frames: in the order of the search, ascending or descending.
        options: constants, scaled.
        drawing: constants of the densifier, scaled.
    """
    found: list[Carried] = []
    before: _Frame | None = None
    for index in frames:
        mask = masks(index)
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), ltype=cv2.CV_16U)
        here = _Frame(index, labels.astype(np.int16), [_Part() for _ in range(count - 1)], None)
        if before is not None and (before.parts or here.parts):
            here = here._replace(back=flow(index, before.number))
            for moved, part in _without_successor(before, here, images, flow, options):
                drawn = _drawn(moved, part, here, images(index), options, drawing)
                if drawn is not None:
                    found.append(drawn)
        before = here
    return found


def _without_successor(
    before: _Frame, here: _Frame, images: Callable[[int], np.ndarray], flow: FlowBetween, options: CarryOptions
) -> list[tuple[np.ndarray, _Part]]:
    """Where parts of the frame before should be that have no successor; the others hand on for how long they were seen."""
    assert here.back is not None
    count = len(here.parts) + 1
    height, width = before.labels.shape
    source = places((slice(0, height), slice(0, width)), here.back)
    pulled = cv2.remap(before.labels, source, None, cv2.INTER_NEAREST)
    shared = np.bincount(pulled.ravel().astype(np.int64) * count + here.labels.ravel(), minlength=count * (len(before.parts) + 1))
    shared = shared.reshape(-1, count)
    missing: list[tuple[np.ndarray, _Part]] = []
    heirs: dict[int, list[tuple[int, int, np.ndarray | None]]] = {}  # by part here: pixels in common, frames seen, velocity
    for number, part in enumerate(before.parts, start=1):
        overlap, velocity = shared[number], None
        if not _goes_on(overlap, options.kept):
            if part.seen < options.least_seen:
                continue
            where = _located(before, here, number, pulled == number, images, flow, options)
            if where is None:
                continue
            moved, velocity = where
            overlap = np.bincount(here.labels[moved], minlength=count)
            if not _goes_on(overlap, options.kept):
                if part.carried < min(options.most, part.seen):
                    missing.append((moved, _last_seen(part, before, number, velocity, images)))
                continue
        # One part goes on where most of it is; what comes off is new.
        heir = int(overlap[1:].argmax()) + 1
        heirs.setdefault(heir, []).append((int(overlap[heir]), part.seen, velocity))
    for heir, candidates in heirs.items():
        _, seen, velocity = max(candidates, key=lambda candidate: candidate[0])
        here.parts[heir - 1].seen, here.parts[heir - 1].velocity = seen + 1, velocity
    return missing


def _goes_on(overlap: np.ndarray, kept: float) -> bool:
    """Whether enough of where a part should be is masked; `overlap` has pixels by part of the frame's mask, first those of none."""
    masked = overlap[1:].sum()
    return bool(masked and masked >= kept * overlap.sum())


def _last_seen(
    part: _Part, before: _Frame, number: int, velocity: np.ndarray, images: Callable[[int], np.ndarray]
) -> _Part:
    """What a part that goes missing now was like, for the frames to come."""
    if part.colours is not None:
        return replace(part, velocity=velocity)
    own = before.labels == number
    colours = densities(colour_bins(images(before.number)), own)
    return replace(part, area=float(own.sum()), colours=colours, velocity=velocity)


def _located(
    before: _Frame,
    here: _Frame,
    number: int,
    pulled: np.ndarray,
    images: Callable[[int], np.ndarray],
    flow: FlowBetween,
    options: CarryOptions,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Where a part most looks like itself, h×w bool, and the displacement (x, y) it has then; None where nothing is alike.

    The flow of the pair may have lost it in one direction or in both, so shifts are tried as well: the flow's of either direction
    and the displacement of the frame before, with some pixels around each.
    """
    assert here.back is not None
    first, second = images(before.number), images(here.number)
    height, width = pulled.shape
    row, column = (values.astype(np.int64) for values in np.nonzero(before.labels == number))
    if len(row) < options.least:
        return None
    expected = [np.median(flow(before.number, here.number)[row, column], axis=0) / 2]
    velocity = before.parts[number - 1].velocity
    if velocity is None and before.back is not None:
        velocity = np.median(-before.back[row, column], axis=0) / 2
    if velocity is not None:
        expected.append(velocity)
    best, place = np.inf, np.zeros(2, np.int64)
    follows, step = np.inf, np.zeros(2)
    if pulled.sum() > 0.3 * len(row):
        there = np.nonzero(pulled)
        step = np.median(-here.back[there], axis=0) / 2
        expected.append(step)
        if pulled.sum() > 0.5 * len(row):
            led = np.round(here.back[there] / 2).astype(np.int64)
            source = np.clip(there[0] + led[:, 1], 0, height - 1), np.clip(there[1] + led[:, 0], 0, width - 1)
            follows = _difference(second[there], first[source])
    every = -(-len(row) // _COMPARED)
    some_rows, some_columns, colours = row[::every], column[::every], first[row[::every], column[::every]]
    around = range(-options.search, options.search + 1)
    centres = np.unique(np.round(np.array(expected)).astype(np.int64), axis=0)
    for shift in np.unique([centre + (x, y) for centre in centres for x in around for y in around], axis=0):
        y, x = some_rows + shift[1], some_columns + shift[0]
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        if inside.mean() > 0.7:
            value = _difference(second[y[inside], x[inside]], colours[inside])
            if value < best:
                best, place = value, shift
    # The flow deforms what turns or comes near, a shift does not.
    if min(best + 1, follows) > options.unlike:
        return None
    if follows <= best + 1:
        return pulled, step
    moved = np.zeros_like(pulled)
    row, column = row + place[1], column + place[0]
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    moved[row[inside], column[inside]] = True
    return moved, place.astype(float)


def _difference(first: np.ndarray, second: np.ndarray) -> float:
    """Mean difference of n×3 colours, grey levels."""
    apart = cv2.absdiff(np.ascontiguousarray(first), np.ascontiguousarray(second)).mean(axis=1)
    return float(np.minimum(apart, _CAPPED).mean())


def _drawn(
    moved: np.ndarray,
    part: _Part,
    here: _Frame,
    image: np.ndarray,
    options: CarryOptions,
    drawing: DenseOptions,
) -> Carried | None:
    """Draw a part where it was carried to and enter it among the frame's parts; None where it is not there any more."""
    assert part.colours is not None
    rim = _grown(moved, options.rim)
    evidence = np.where(moved, _EVIDENCE, np.where(rim, 0, -_EVIDENCE)).astype(np.float32)
    weights = edge_weight(image, drawing.border)
    soft = draw_again(image, evidence, np.zeros_like(evidence), moved.astype(np.float32), weights, drawing.steps, drawing.colours)
    soft[here.labels > 0] = 0
    own = soft > 0.5
    area = float(own.sum())
    if area < options.least or not options.shrunk * part.area <= area <= part.area / options.shrunk:
        return None
    box = box_around(own, options.around + 1)
    bins, inside = colour_bins(image[box]), own[box]
    beside = _grown(inside, options.around) & ~_grown(inside, options.gap)
    looks = densities(bins, inside)
    if _likeness(looks, part.colours) < options.alike or _likeness(looks, densities(bins, beside)) > options.hidden:
        return None
    here.parts.append(replace(part, carried=part.carried + 1))
    here.labels[own] = len(here.parts)
    return Carried(here.number, box, np.round(255 * soft[box]).astype(np.uint8))


def _grown(mask: np.ndarray, radius: int) -> np.ndarray:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel) > 0)


def _likeness(first: np.ndarray, second: np.ndarray) -> float:
    """Bhattacharyya coefficient of two distributions."""
    return float(np.sqrt(first * second).sum())
