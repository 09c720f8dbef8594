"""Binary segmentation by a cut: evidence per pixel, and a price for borders that is low on image edges.

The cut with the least total cost is found as the convex relaxation of Chan, Esedoglu and Nikolova, "Algorithms for Finding Global
Minimizers of Image Segmentation and Denoising Models" (SIAM J. Appl. Math. 2006): weighted total variation over u in [0, 1], whose
threshold at one half is a global minimiser of the binary problem. The solver is the primal-dual method of Chambolle and Pock (J. Math.
Imaging Vis. 2011) with over-relaxation; started from a good guess, some tens of steps are enough.
"""

from __future__ import annotations

import cv2
import numpy as np


def edge_weight(image: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Price of a border between horizontal and vertical neighbours of an H×W×3 uint8 image, two H×W float32 arrays.

    Flat neighbours cost `strength`; a colour step lowers it as exp(-d^2 / 2 mean(d^2)) (Boykov and Jolly, ICCV 2001), with a floor so
    that texture does not make borders free. The last column (row) of the horizontal (vertical) weights is 0.
    """
    smooth = cv2.GaussianBlur(image, (3, 3), 0).astype(np.float32)
    across, down = np.zeros(image.shape[:2], np.float32), np.zeros(image.shape[:2], np.float32)
    ones = np.ones((1, 3), np.float32)
    across[:, :-1] = cv2.transform((smooth[:, 1:] - smooth[:, :-1]) ** 2, ones)
    down[:-1] = cv2.transform((smooth[1:] - smooth[:-1]) ** 2, ones)
    mean = 0.5 * (float(across.mean()) + float(down.mean())) + 1e-6
    weight_x = strength * (0.1 + 0.9 * np.exp(-across / (2 * mean)))
    weight_y = strength * (0.1 + 0.9 * np.exp(-down / (2 * mean)))
    weight_x[:, -1], weight_y[-1] = 0.0, 0.0
    return weight_x, weight_y


def cut(
    evidence: np.ndarray,
    weight_x: np.ndarray,
    weight_y: np.ndarray,
    start: np.ndarray | None = None,
    steps: int = 60,
    duals: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Soft segmentation u of least cost  -sum(evidence * u) + sum(weight * |grad u|).

    Args:
        evidence: H×W float32, positive where the pixel should be inside (log odds).
        weight_x: H×W price of borders to the right neighbour.
        weight_y: H×W price of borders to the neighbour below.
        start: H×W first guess in [0, 1]; the sign of the evidence when absent.
        steps: of the primal-dual iteration.
        duals: two H×W float32 arrays, the iteration's dual variables after an earlier cut at the same prices, to go on from (zeros to
            begin with); overwritten.

    Returns:
        H×W float32 in [0, 1]; the segmentation is u > 0.5.
    """
    u = (evidence > 0).astype(np.float32) if start is None else start.astype(np.float32).copy()
    bar = u.copy()
    # The gradient's norm is at most sqrt(8); a larger primal step suits evidence of a few units. Duals are kept divided by their step,
    # and so are their bounds: one multiplication per step is left.
    tau, sigma = 0.35, 0.35
    gain, divergence = (tau * evidence).astype(np.float32), np.empty_like(u)
    dual_x, dual_y = (np.zeros_like(u), np.zeros_like(u)) if duals is None else duals
    high_x, high_y = weight_x / np.float32(sigma), weight_y / np.float32(sigma)
    low_x, low_y, zero, one = -high_x, -high_y, np.float32(0), np.float32(1)
    right, below = dual_x[:, :-1], dual_y[:-1]  # the last column and row have no neighbour and stay 0
    for _ in range(steps):
        right += bar[:, 1:]
        right -= bar[:, :-1]
        below += bar[1:]
        below -= bar[:-1]
        _bound(dual_x, low_x, high_x)
        _bound(dual_y, low_y, high_y)
        np.add(dual_x, dual_y, out=divergence)
        divergence[:, 1:] -= right
        divergence[1:] -= below
        divergence *= tau * sigma
        divergence += gain
        divergence += u
        _bound(divergence, zero, one)
        np.multiply(divergence, 2.0, out=bar)
        bar -= u
        u, divergence = divergence, u
    return u


def _bound(values: np.ndarray, low: np.ndarray | np.float32, high: np.ndarray | np.float32) -> None:
    """What np.clip does in place, in a fraction of its time."""
    np.maximum(values, low, out=values)
    np.minimum(values, high, out=values)
