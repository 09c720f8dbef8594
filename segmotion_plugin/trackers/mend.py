"""Flow that one direction of time lost, taken from the other one and from the pair of frames before.

What is hardly larger than a patch of the flow and goes fast is found in one direction and lost in the other by chance, and then no
track comes home on it. Where a flow is lost, the way back that ends there, and the last step gone on with, are tried, and taken where
they explain the pictures better.
"""

from __future__ import annotations

import cv2
import numpy as np

from segmotion_plugin.boxes import box_around
from segmotion_plugin.trackers.far import UNLIKE, unlike

WORSE = 4  # grey levels by which a flow must explain a place worse to be replaced there
_WINDOW = 3  # pixels beyond what is tried that a comparison looks at


def mend(
    images: tuple[np.ndarray, np.ndarray],
    flows: tuple[np.ndarray, np.ndarray],
    gone: tuple[np.ndarray, np.ndarray],
    last: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Replace lost flow where there is a better one, in place.

    Args:
        images: two frames, h×w uint8 grey.
        flows: forward and backward, h×w×2 float32 in pixels.
        gone: what each loses (`far.lost`), h×w bool.
        last: h×w×2 flow from the first frame to the one before it, or None.

    Returns:
        Where each was replaced, h×w bool.
    """
    back = images[1], images[0]
    replaced = np.zeros_like(gone[0]), np.zeros_like(gone[1])
    if gone[0].any():
        _try(images, flows[0], *_turned(back, flows[1], gone[0]), replaced[0])
    if gone[1].any():
        _try(back, flows[1], *_turned(images, flows[0], gone[1]), replaced[1])
    if last is not None and gone[0].any():
        went_on = np.zeros_like(replaced[0])
        _try(images, flows[0], -last, gone[0] & ~replaced[0], went_on)
        replaced[0][went_on] = True
        if went_on.any() and gone[1].any():
            _try(back, flows[1], *_turned(images, flows[0], gone[1] & ~replaced[1], went_on), replaced[1])
    return replaced


def _turned(
    images: tuple[np.ndarray, np.ndarray], flow: np.ndarray, gone: np.ndarray, which: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The flow the other way for lost pixels that this one ends in, h×w×2, and for which of them it is known, h×w bool.

    Args:
        images: the frame that the flow begins in, and the one that is asked about.
        flow: h×w×2, pixels, from the first to the second.
        gone: h×w bool, the pixels there.
        which: h×w bool, pixels whose flow counts; all when absent.
    """
    height, width = gone.shape
    row, column = np.indices(gone.shape, np.float32) if which is None else (v.astype(np.float32) for v in np.nonzero(which))
    steps = flow if which is None else flow[which]
    x, y = np.rint(column + steps[..., 0]).astype(np.int32), np.rint(row + steps[..., 1]).astype(np.int32)
    ends = np.flatnonzero((x >= 0) & (x < width) & (y >= 0) & (y < height))
    x, y = x.ravel()[ends], y.ravel()[ends]
    asked = np.flatnonzero(gone[y, x])
    x, y, ends = x[asked], y[asked], ends[asked]
    # Where several end, as a mover and the wall it uncovers, the one that looks most alike on the way stays.
    astray = unlike(*images, flow).ravel()[ends if which is None else np.flatnonzero(which)[ends]]
    order = np.argsort(-astray.astype(np.int16), kind="stable")
    x, y, steps = x[order], y[order], steps.reshape(-1, 2)[ends[order]]
    turned, known = np.zeros_like(flow), np.zeros(gone.shape, np.float32)
    turned[y, x], known[y, x] = -steps, 1
    # What comes nearer leaves holes between the ends.
    count = cv2.boxFilter(known, -1, (3, 3), normalize=False)
    total = cv2.boxFilter(turned, -1, (3, 3), normalize=False)
    holes = (known == 0) & (count >= 3) & gone
    turned[holes] = total[holes] / count[holes][:, None]
    return turned, (known > 0) | holes


def _try(
    images: tuple[np.ndarray, np.ndarray], flow: np.ndarray, choice: np.ndarray, where: np.ndarray, replaced: np.ndarray
) -> None:
    """Replace marked flow by what is chosen where that explains the pictures, and does so better, and mark it as replaced."""
    if not where.any():
        return
    box = box_around(where, _WINDOW)
    tried = np.where(where[..., None], choice, flow)
    now, then = unlike(*images, flow, box).astype(np.float32), unlike(*images, tried, box)
    better = where[box] & (then + WORSE < now) & (then <= UNLIKE)
    flow[box][better] = choice[box][better]
    replaced[box][better] = True
