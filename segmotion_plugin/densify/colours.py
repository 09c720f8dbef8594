"""The colours of what moves and of what lies around it, learned from a first mask, and the mask drawn again with them.

Tracks and backbone features tell where a mover is but not where it ends: both are coarse. Its colours against those around it do, once
most of a mask is right: what a first mask takes along at a rim or between two legs has the background's colour, what it misses
mostly has the mover's. Colour distributions are histograms, as in Boykov and Jolly (ICCV 2001); mask and distributions
are found in turn, as in GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004), and the evidence of motion stays in the balance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

from segmotion_plugin.boxes import box_around
from segmotion_plugin.densify.cut import cut

_BINS = (24, 20, 20)  # of lightness and the two colour axes of CIELAB
_CHROMA = 100.0  # range of the colour axes that the bins span, 8-bit scale
_SPREAD = 0.8  # blur of the histograms, bins
_UNSEEN = 7.5e-5  # share of a bin that nothing was seen in


@dataclass(frozen=True)
class ColourOptions:
    """Constants of the second drawing, chosen on DAVIS training sequences and rendered scenes; lengths in pixels at half size, where
    the longer side has 640 of them (see `scaled`)."""

    rounds: int = 3
    """How often colours and mask are found in turn; 0 leaves the first mask."""
    motion: float = 0.25
    """Weight of the evidence of motion."""
    most_motion: float = 4.0
    """Largest absolute evidence of motion."""
    colour: float = 0.5
    """Weight of the log odds of colours."""
    most_colour: float = 2.5
    """Largest absolute log odds of colours."""
    reach: int = 22
    """Pixels beyond the mask's border that may be added."""
    around: float = 30.0
    """The background counts by exp(-distance / around)."""
    unsure_inside: float = 3.0
    """Width inside the border in which pixels count less for the mover's colours."""
    unsure_outside: float = 6.0
    """Width outside the border in which pixels count less for the background's colours."""
    beyond: float = 1.0
    """Evidence against motion beyond the reach."""
    merge: int = 9
    """Parts of the mask that come closer than twice this have one set of colours."""
    least: int = 24
    """Parts of fewer pixels stay as they are."""

    def scaled(self, unit: float) -> ColourOptions:
        """The same lengths and areas where the longer side has `unit` times 640 pixels."""
        return replace(
            self,
            reach=round(unit * self.reach),
            around=unit * self.around,
            unsure_inside=unit * self.unsure_inside,
            unsure_outside=unit * self.unsure_outside,
            merge=round(unit * self.merge),
            least=round(unit**2 * self.least),
        )


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

    table = np.log(densities(bins, inside) + _UNSEEN) - np.log(densities(bins, outside) + _UNSEEN)
    return table[bins].astype(np.float32)


def densities(bins: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Shares of the colours, one per bin, a little blurred.

    Args:
        bins: h×w, see `colour_bins`.
        weight: h×w, of every pixel.
    """
    counts = np.bincount(bins.ravel(), weight.ravel(), int(np.prod(_BINS))).reshape(_BINS)
    smooth = gaussian_filter(counts, _SPREAD, mode="constant").ravel()
    return np.asarray(smooth / max(float(smooth.sum()), 1e-6))


def draw_again(
    image: np.ndarray,
    evidence: np.ndarray,
    unlike: np.ndarray,
    soft: np.ndarray,
    weights: tuple[np.ndarray, np.ndarray],
    steps: int,
    options: ColourOptions,
) -> np.ndarray:
    """The mask of a frame with its colours taken into account, each separate part of the mask with colours of its own.

    Args:
        image: h×w×3 uint8 RGB.
        evidence: h×w log odds that a pixel moves.
        unlike: h×w log odds that a pixel shows something else than the still world.
        soft: h×w first segmentation in [0, 1], above 0.5 = moves.
        weights: prices of borders, see `edge_weight`.
        steps: of the cut's solver in the first round; half of them in each later one, which goes on from there.
        options: constants.

    Returns:
        h×w float32 in [0, 1]. What lies further than twice the reach from the first mask is 0.
    """
    first = soft > 0.5
    if options.rounds == 0 or not first.any():
        return soft
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * options.merge + 1,) * 2)
    count, part = cv2.connectedComponents(cv2.dilate(first.astype(np.uint8), kernel))
    known = options.motion * np.clip(evidence, -options.most_motion, options.most_motion) + unlike
    weight_x, weight_y = weights
    bins = colour_bins(image)
    out = np.zeros_like(soft)
    for number in range(1, count):
        own = first & (part == number)
        if own.sum() < options.least:
            out[own] = soft[own]
            continue
        crop = box_around(own, 2 * options.reach)
        free = ~(first & ~own)[crop]
        drawn = own[crop].astype(np.float32)
        duals = np.zeros_like(drawn), np.zeros_like(drawn)
        for number_of_steps in (steps, *[steps // 2] * (options.rounds - 1)):
            told = known[crop] + _told(bins[crop], drawn > 0.5, free, options)
            drawn = cut(told, weight_x[crop], weight_y[crop], drawn, number_of_steps, duals)
        out[crop] = np.maximum(out[crop], drawn)
    return out


def _told(bins: np.ndarray, dynamic: np.ndarray, free: np.ndarray, options: ColourOptions) -> np.ndarray:
    """h×w evidence of the colours, given a mask; pixels that are not `free` belong to another part."""
    if not dynamic.any():
        return np.full(dynamic.shape, -options.beyond, np.float32)
    depth = cv2.distanceTransform(dynamic.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3)
    distance = cv2.distanceTransform((~dynamic).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3)
    inside = np.clip(depth / options.unsure_inside, 0, 1) ** 2
    outside = np.clip(distance / options.unsure_outside, 0, 1) ** 2 * np.exp(-distance / options.around) * free
    odds = np.clip(colour_odds(bins, inside, outside), -options.most_colour, options.most_colour)
    near = free & (distance < options.reach)
    return np.where(near, options.colour * odds, -options.beyond).astype(np.float32)
