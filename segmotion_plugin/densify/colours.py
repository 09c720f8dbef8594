"""The colours of what moves and of what lies around it, learned from a first mask, and the mask drawn again with them.

Tracks and backbone features tell where a mover is but not where it ends: both are coarse. Its colours against those of its surroundings
do, once most of a mask is right: what a first mask takes along at a rim or between two legs has the background's colour, what it
misses mostly has the mover's. Colour distributions are histograms, as in Boykov and Jolly (ICCV 2001); mask and distributions
are found in turn, as in GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004), and the evidence of motion stays in the balance.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

from segmotion_plugin.densify.cut import cut, edge_weight

_BINS = (24, 20, 20)  # of lightness and the two colour axes of CIELAB
_CHROMA = 100.0  # range of the colour axes that the bins span, 8-bit scale
_SPREAD = 0.8  # blur of the histograms, bins
_UNSEEN = 7.5e-5  # share of a bin that nothing was seen in


@dataclass(frozen=True)
class ColourOptions:
    """Constants of the second drawing, chosen on DAVIS training sequences and rendered scenes; lengths in pixels at half size."""

    rounds: int = 3
    """How often colours and mask are found in turn; 0 leaves the first mask."""
    motion: float = 0.25
    """Weight of the evidence of motion."""
    most_motion: float = 4.0
    """Largest absolute evidence of motion."""
    colour: float = 0.7
    """Weight of the log odds of colours."""
    most_colour: float = 2.5
    """Largest absolute log odds of colours."""
    reach: int = 15
    """Pixels beyond the mask's border that may be added."""
    around: float = 20.0
    """The background counts by exp(-distance / around)."""
    unsure_inside: float = 2.0
    """Width inside the border in which pixels count less for the mover's colours."""
    unsure_outside: float = 4.0
    """Width outside the border in which pixels count less for the background's colours."""
    beyond: float = 1.0
    """Evidence against motion beyond the reach."""


def colour_bins(image: np.ndarray) -> np.ndarray:
    """h×w int64 index of the histogram's bin of every pixel of an h×w×3 uint8 RGB image."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    scale = np.array([_BINS[0] / 256, _BINS[1] / _CHROMA, _BINS[2] / _CHROMA], np.float32)
    shift = np.array([0, _BINS[1] / 2 - 128 * scale[1], _BINS[2] / 2 - 128 * scale[2]], np.float32)
    place = np.clip((lab * scale + shift).astype(np.int64), 0, np.array(_BINS) - 1)
    return (place[..., 0] * _BINS[1] + place[..., 1]) * _BINS[2] + place[..., 2]


def colour_odds(bins: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Log odds that a pixel's colour is the inside's and not the outside's, whatever their sizes.

    Args:
        bins: h×w, see `colour_bins`.
        inside: h×w weights of the pixels that show the inside's colours.
        outside: h×w weights of those that show the outside's.

    Returns:
        h×w float32.
    """

    def density(weight: np.ndarray) -> np.ndarray:
        counts = np.bincount(bins.ravel(), weight.ravel(), int(np.prod(_BINS))).reshape(_BINS)
        smooth = gaussian_filter(counts, _SPREAD, mode="constant")
        return smooth / max(float(smooth.sum()), 1e-6) + _UNSEEN

    table = np.log(density(inside)) - np.log(density(outside))
    return table.ravel()[bins].astype(np.float32)


def draw_again(image: np.ndarray, evidence: np.ndarray, soft: np.ndarray, border: float, steps: int, options: ColourOptions) -> np.ndarray:
    """The mask of a frame with its colours taken into account.

    Args:
        image: h×w×3 uint8 RGB.
        evidence: h×w log odds that a pixel moves.
        soft: h×w first segmentation in [0, 1], above 0.5 = moves.
        border: price of a border between pixels of one colour.
        steps: of the cut's solver, in each round.
        options: constants.

    Returns:
        h×w float32 in [0, 1]. What lies further than the reach of all rounds from the first mask is 0.
    """
    if options.rounds == 0 or not (soft > 0.5).any():
        return soft
    crop = _surroundings(soft > 0.5, 2 * options.reach)
    image, soft, whole = image[crop], soft[crop], np.zeros_like(soft)
    motion = options.motion * np.clip(evidence[crop], -options.most_motion, options.most_motion)
    weight_x, weight_y = edge_weight(image, border)
    bins = colour_bins(image)
    for _ in range(options.rounds):
        dynamic = (soft > 0.5).astype(np.uint8)
        if not dynamic.any():
            break
        depth = cv2.distanceTransform(dynamic, cv2.DIST_L2, cv2.DIST_MASK_3)
        distance = cv2.distanceTransform(1 - dynamic, cv2.DIST_L2, cv2.DIST_MASK_3)
        inside = np.clip(depth / options.unsure_inside, 0, 1) ** 2
        outside = np.clip(distance / options.unsure_outside, 0, 1) ** 2 * np.exp(-distance / options.around)
        odds = np.clip(colour_odds(bins, inside, outside), -options.most_colour, options.most_colour)
        told = np.where(distance < options.reach, options.colour * odds, -options.beyond)
        soft = cut(motion + told, weight_x, weight_y, soft, steps)
    whole[crop] = soft
    return whole


def _surroundings(dynamic: np.ndarray, margin: int) -> tuple[slice, slice]:
    """Rows and columns of the box around a mask, with a margin."""
    rows, columns = np.flatnonzero(dynamic.any(axis=1)), np.flatnonzero(dynamic.any(axis=0))
    return (
        slice(max(int(rows[0]) - margin, 0), int(rows[-1]) + margin + 1),
        slice(max(int(columns[0]) - margin, 0), int(columns[-1]) + margin + 1),
    )
