"""Motion that is too far for an image pyramid: a second beginning for the flow, from matches of features and from pans.

A pyramid loses what is smaller than its own motion; matches of descriptors help (Brox and Malik, "Large Displacement Optical Flow",
PAMI 2011). What was lost is known: its flow does not come home. So what does not come home in one picture is matched with what does
not come home in the other, and the flow is computed again from there. Little is left to be mistaken for each other, because whatever
was followed well takes no part. Most of what does not come home is merely covered by something: a match counts only where it explains
the pictures better than the flow did. Where much is lost, as when a fast camera blurs what it passes, the displacements that large
parts of the pictures have in common are tried as well; phase correlation finds them (Kuglin and Hines, "The Phase Correlation Image
Alignment Method", 1975).
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from scipy.spatial import cKDTree

from segmotion_plugin.boxes import Box, box_around

_ABSOLUTE = 0.5  # square pixels of the images before they were enlarged, see `missed_at_rest`
_RELATIVE = 0.01
_REACH = 0.3  # of the features' width: how far is matched
_WINDOW, _UNLIKE = 5, 24  # pixels, and the mean difference in grey levels above which two places do not look alike
_LOST = 0.25  # of the pixels of a cell are lost
_ROWS = 512  # cells that are matched at a time
_NEIGHBOURS = 7  # matches of which the middle one is taken
_FEWEST = 4  # cells below which there is nothing to begin from
_FAR = 1.5  # cells between a match and where the flow led
_FINE = 2  # pixels per cell at which a match is held against the pictures
_BETTER = 2  # grey levels by which it must explain them better
_ALONG = 3  # cells around such a match within which others are taken along
_MUCH = 0.1  # of the picture is lost: then pans are looked for
_PANS, _SUPPRESSED = 3, 4  # their number; pixels around one within which no other is
_COMMON = 0.1  # of the lost cells confirm a pan that is taken for all of them


def missed_at_rest(enlarged: float) -> float:
    """What a round trip may miss by at rest, square pixels of images that were enlarged by a factor."""
    return _ABSOLUTE * enlarged**2


def round_trip(step: np.ndarray, back: np.ndarray, absolute: float) -> tuple[np.ndarray, np.ndarray]:
    """What round trips miss by, and what they may miss by, in square pixels.

    The test is that of Sundaram et al., "Dense Point Trajectories by GPU-accelerated Large Displacement Optical Flow", ECCV 2010.

    Args:
        step: …×2 displacements.
        back: …×2 displacements of the way back, read where the steps end.
        absolute: allowed at rest.
    """
    ahead, behind, missed = _square(step), _square(back), _square(step + back)
    return missed, absolute + _RELATIVE * (ahead + behind)


def _square(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors[..., 0] ** 2 + vectors[..., 1] ** 2)


def unlike(first: np.ndarray, second: np.ndarray, flow: np.ndarray, box: Box | None = None) -> np.ndarray:
    """uint8: mean difference in grey levels around each place of an image and around where its flow leads in another.

    Args:
        first: h×w uint8 grey.
        second: h×w uint8 grey.
        flow: h×w×2 float32 from the first to the second, pixels.
        box: rows and columns of the first to look at; all when absent. The result has its size.
    """
    rows, columns = box or (slice(0, flow.shape[0]), slice(0, flow.shape[1]))
    x, y = np.meshgrid(np.arange(columns.start, columns.stop, dtype=np.float32), np.arange(rows.start, rows.stop, dtype=np.float32))
    step = flow[rows, columns]
    led = cv2.remap(second, x + step[..., 0], y + step[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.blur(cv2.absdiff(first[rows, columns], led), (_WINDOW, _WINDOW))


def lost(images: tuple[np.ndarray, np.ndarray], flows: tuple[np.ndarray, np.ndarray], absolute: float) -> np.ndarray:
    """h×w bool: pixels that stay in the picture but do not come home, or do not look alike where they are led.

    Args:
        images: h×w uint8 grey, the one that is asked about and the other.
        flows: h×w×2 float32 in pixels, from the first image to the second and back.
        absolute: see `round_trip`.
    """
    flow, back = flows
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = x + flow[..., 0], y + flow[..., 1]
    missed, allowed = round_trip(flow, cv2.remap(back, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), absolute)
    astray = (missed >= allowed) | (unlike(*images, flow) > _UNLIKE)
    return np.asarray(astray & (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1))


class Beginning(NamedTuple):
    """Where flow should begin once more."""

    flow: np.ndarray  # h×w×2 float32, cells of the features: what to begin with
    where: np.ndarray  # h×w bool, cells of the features: it differs there from the flow that was lost


def beginnings(
    images: tuple[np.ndarray, np.ndarray],
    flows: tuple[np.ndarray, np.ndarray],
    gone: tuple[np.ndarray, np.ndarray],
    features: tuple[np.ndarray, np.ndarray],
) -> tuple[Beginning, Beginning] | None:
    """Flows to begin with where what is lost in both frames matches far from where the flow led, and looks more alike there.

    Args:
        images: the frames, H×W uint8 grey.
        flows: forward and backward, H×W×2 float32 in pixels.
        gone: what each loses (`lost`), H×W.
        features: of the first and the second frame, h×w×C.

    Returns:
        Forward and backward; None where nothing matches far away.
    """
    rows, columns = features[0].shape[:2]
    cells = [_cells(mask, columns, rows) for mask in gone]
    if min(int(found.sum()) for found in cells) < _FEWEST:
        return None
    start, end = _matches(features, cells)
    first, second = (_fine(image, (columns, rows)) for image in images)
    shifts = pans(first, second, _PANS) / _FINE if min(float(mask.mean()) for mask in gone) > _MUCH else np.zeros((0, 2), np.float32)
    ahead = _begun((first, second), flows[0], cells[0], start, end, shifts)
    if ahead.where.sum() < _FEWEST:
        return None
    behind = _begun((second, first), flows[1], cells[1], end, start, -shifts)
    return (ahead, behind) if behind.where.any() else None


def pans(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """count×2 float32 displacements (x, y) in pixels that large parts of two h×w grey images have in common, the likeliest first."""
    height, width = first.shape
    fade = np.outer(np.hanning(height), np.hanning(width))
    spectra = [np.fft.rfft2((image - image.mean()) * fade) for image in (first, second)]
    product = spectra[1] * np.conj(spectra[0])
    size = np.abs(product)
    likeness = np.fft.irfft2(product / (size + 1e-3 * size.mean() + 1e-12), s=(height, width))
    likeness = cv2.GaussianBlur(np.fft.fftshift(likeness).astype(np.float32), (0, 0), 1)
    found = []
    for _ in range(count):
        y, x = np.unravel_index(int(likeness.argmax()), likeness.shape)
        found.append((x - width // 2, y - height // 2))
        likeness[max(0, y - _SUPPRESSED) : y + _SUPPRESSED + 1, max(0, x - _SUPPRESSED) : x + _SUPPRESSED + 1] = -np.inf
    return np.array(found, np.float32)


def _matches(features: tuple[np.ndarray, np.ndarray], marked: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """m×2 cells (row, column) of the first frame and of the second, among those that are marked, which are each other's best match."""
    cells = [np.argwhere(mask).astype(np.int32) for mask in marked]
    first, second = (_surroundings(seen, found) for seen, found in zip(features, cells, strict=True))
    there, back, most = np.zeros(len(first), np.int64), np.zeros(len(second), np.int64), np.full(len(second), -np.inf, np.float32)
    # Some rows at a time: half of the picture against half of the other would take gigabytes.
    for begin in range(0, len(first), _ROWS):
        some = slice(begin, begin + _ROWS)
        alike = first[some] @ second.T
        apart = np.abs(cells[0][some, None] - cells[1][None]).max(axis=2)
        alike[apart > _REACH * features[0].shape[1]] = -1
        there[some] = alike.argmax(axis=1)
        row = alike.argmax(axis=0)
        value = alike[row, np.arange(len(second))]
        back, most = np.where(value > most, begin + row, back), np.maximum(value, most)
    mutual = back[there] == np.arange(len(there))
    return cells[0][mutual], cells[1][there[mutual]]


def _surroundings(features: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """n×9C float32 of length 1: the features of n cells and of the eight around each."""
    padded = np.pad(features, ((1, 1), (1, 1), (0, 0)), mode="edge")
    around = [padded[cells[:, 0] + i, cells[:, 1] + j] for i in range(3) for j in range(3)]
    joined = np.concatenate(around, axis=1).astype(np.float32)
    return np.asarray(joined / np.maximum(np.linalg.norm(joined, axis=1, keepdims=True), 1e-9))


def _cells(gone: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """Which cells are lost, and those beside them."""
    share = cv2.resize(gone.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    return cv2.dilate((share > _LOST).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def _fine(image: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """An image with `_FINE` pixels per cell of a grid (columns, rows), a little blurred."""
    small = cv2.resize(image, (_FINE * grid[0], _FINE * grid[1]), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small, (3, 3), 0)


def _begun(
    images: tuple[np.ndarray, np.ndarray],
    flow: np.ndarray,
    lost_cells: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    shifts: np.ndarray,
) -> Beginning:
    """The flow with lost cells replaced where something else, far from it, explains the pictures better.

    What is tried is the middle one of the displacements that matched nearby, and displacements that much has in common.

    Args:
        images: the first and the second, see `_fine`.
        flow: from the first to the second, H×W×2.
        lost_cells: h×w bool.
        start: m×2 cells (row, column) with a match...
        end: ...and where it is.
        shifts: k×2 displacements (x, y), cells.
    """
    height, width = flow.shape[:2]
    rows, columns = lost_cells.shape
    coarse = cv2.resize(flow, (columns, rows), interpolation=cv2.INTER_AREA) / np.array([width / columns, height / rows], np.float32)
    tried = [np.broadcast_to(shift, coarse.shape) for shift in shifts]
    if len(start) >= _FEWEST:
        tried.append(_matched(coarse, np.argwhere(lost_cells), start, end))
    if not tried:
        return Beginning(coarse, np.zeros(lost_cells.shape, bool))
    size = images[0].shape[::-1]
    measured = cv2.resize(flow, size, interpolation=cv2.INTER_AREA) * np.float32(size[0] / width)
    now = unlike(*images, measured).astype(np.float32)
    gains = [_gain(images, now, choice, lost_cells & (np.abs(choice - coarse).max(axis=2) > _FAR)) for choice in tried]
    best, most = np.argmax(gains, axis=0), np.max(gains, axis=0)
    better = most > _BETTER
    where = np.isfinite(most) & (cv2.dilate(better.astype(np.uint8), np.ones((2 * _ALONG + 1,) * 2, np.uint8)) > 0)
    if len(shifts):
        votes = np.bincount(best[better], minlength=len(tried))[: len(shifts)]
        pan = int(votes.argmax())
        if votes[pan] > _COMMON * lost_cells.sum():
            rest = ~where & np.isfinite(gains[pan])
            best[rest], where = pan, where | rest
    for number, choice in enumerate(tried):
        here = where & (best == number)
        coarse[here] = choice[here]
    return Beginning(coarse, where)


def _matched(coarse: np.ndarray, cells: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """h×w×2 displacements in cells: at n×2 `cells` the middle one of those of the nearest matches, elsewhere as they are."""
    steps = (end - start)[:, ::-1].astype(np.float32)
    choices = steps[cKDTree(start).query(cells, k=min(_NEIGHBOURS, len(start)))[1]]
    apart = np.abs(choices[:, :, None] - choices[:, None]).sum(axis=(2, 3))
    matched = coarse.copy()
    matched[cells[:, 0], cells[:, 1]] = choices[np.arange(len(cells)), apart.argmin(axis=1)]
    return matched


def _gain(images: tuple[np.ndarray, np.ndarray], now: np.ndarray, choice: np.ndarray, where: np.ndarray) -> np.ndarray:
    """h×w float32: grey levels by which a choice explains the first image better than the flow in marked cells; elsewhere -inf.

    Args:
        images: the first and the second, see `_fine`.
        now: what is `unlike` by the flow, of their size.
        choice: h×w×2, cells.
        where: h×w bool.
    """
    gain = np.full(where.shape, -np.inf, np.float32)
    if not where.any():
        return gain
    rows, columns = box_around(where, 2)
    window = slice(_FINE * rows.start, _FINE * rows.stop), slice(_FINE * columns.start, _FINE * columns.stop)
    fine = cv2.resize(np.ascontiguousarray(choice), now.shape[::-1], interpolation=cv2.INTER_LINEAR) * np.float32(_FINE)
    # A choice is as coarse as a cell.
    least = np.min([unlike(*images, fine + np.array([x, y], np.float32), window) for x in (-1, 0, 1) for y in (-1, 0, 1)], axis=0)
    inside = where[rows, columns]
    gain[rows, columns] = np.where(inside, cv2.resize(now[window] - least, inside.shape[::-1], interpolation=cv2.INTER_AREA), -np.inf)
    return gain
