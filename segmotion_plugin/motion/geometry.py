"""Robust two-view geometry on tracks, for many frame pairs at once.

A static world seen by a moving camera obeys, between two frames, one homography (planes, rotation) or one fundamental matrix
(parallax). What a track leaves unexplained is evidence of motion. All pairs of a window are fitted in one batch: hypotheses
from minimal samples, scored by a redescending cost, refined by iteratively reweighted least squares (IRLS).

Positions are normalised: ``(x - width/2) / (diagonal/2)``, so residuals do not depend on the image's size.
Shapes: P pairs, M tracks used to fit, N tracks to judge, K hypotheses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

REFERENCE_DIAGONAL = 1000.0
"""Residuals are told in pixels of an image with this diagonal (854×480 has 980)."""

_HALF = REFERENCE_DIAGONAL / 2


@dataclass(frozen=True)
class FitOptions:
    """How hard to search for the dominant motion of a frame pair.

    Attributes:
        hypotheses: minimal samples per pair and model.
        refinements: IRLS steps on the best one.
        max_points: tracks used for fitting (all are judged).
    """

    hypotheses: int = 48
    refinements: int = 4
    max_points: int = 320


@dataclass
class PairGeometry:
    """What P frame pairs leave unexplained for N tracks; lengths in pixels at the reference diagonal.

    Attributes:
        residual: P×N×2, displacement left after the dominant homography.
        second: P×N, distance left after the second homography, fitted to what the first leaves.
        sampson: P×N, Sampson distance to the fundamental matrix found from the dominant homography.
        sampson_second: P×N, the same from the second homography.
        scale: P, the noise scale used by the fits.
    """

    residual: Tensor
    second: Tensor
    sampson: Tensor
    sampson_second: Tensor
    scale: Tensor


def normalise(xy: Tensor, size: Tensor) -> Tensor:
    """Pixels (B×…×2) of images of B×2 (width, height) to the normalised positions of this module."""
    size = size.view(size.shape[0], *[1] * (xy.dim() - 2), 2)
    return (xy - size / 2) / (0.5 * size.square().sum(-1, keepdim=True).sqrt())


def _homogeneous(points: Tensor) -> Tensor:
    return torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)


def _product(model: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three coordinates, P×(K×)M each, of matrices P×(K×)3×3 times points P×M×2."""
    # One product per pair for all of its matrices: a product for each of them would be far too small to be fast.
    stacked = model.reshape(model.shape[0], -1, 3) @ _homogeneous(points).transpose(1, 2)
    x, y, z = stacked.view(*model.shape[:-1], points.shape[1]).unbind(-2)
    return x, y, z


def homography_error(model: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Displacement b − H a, in reference pixels: P×(K×)M×2, bounded to ±1e4."""
    return torch.stack(_displacement(model, a, b), dim=-1)


def _displacement(model: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The two coordinates of `homography_error`, P×(K×)M each."""
    x, y, depth = _product(model, a)
    depth = torch.where(depth.abs() < 1e-6, torch.full_like(depth, 1e-6), depth)
    target = b.unsqueeze(1) if model.dim() == 4 else b

    def bounded(difference: Tensor) -> Tensor:
        return torch.nan_to_num(difference * _HALF, nan=1e4).clamp(-1e4, 1e4)

    return bounded(target[..., 0] - x / depth), bounded(target[..., 1] - y / depth)


def _squared_displacement(model: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Squared length of `homography_error`, P×(K×)M."""
    x, y = _displacement(model, a, b)
    return x.square() + y.square()


def sampson_error(model: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Sampson distance (Hartley and Zisserman, eq. 11.9), in reference pixels: P×(K×)M.

    Args:
        model: P×3×3 or P×K×3×3 fundamental matrices in normalised positions.
        a: P×M×2 points in the first frame.
        b: P×M×2 points in the second.
    """
    algebraic, gradient = _epipolar(model, a, b)
    distance = algebraic.abs() / gradient.clamp_min(1e-20).sqrt() * _HALF
    return torch.nan_to_num(distance, nan=1e4).clamp(max=1e4)


def _epipolar(model: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The products bᵀ F a, and the squared length of their gradient by the four coordinates, P×(K×)M each."""
    x, y, rest = _product(model, a)
    back_x, back_y, _ = _product(model.transpose(-1, -2), b)
    target = b.unsqueeze(1) if model.dim() == 4 else b
    algebraic = target[..., 0] * x + target[..., 1] * y + rest
    return algebraic, x.square() + y.square() + back_x.square() + back_y.square()


def masked_median(values: Tensor, valid: Tensor) -> Tensor:
    """Median along the last axis where `valid`; 0 where nothing is valid."""
    filled = torch.where(valid, values, torch.full_like(values, float("inf")))
    ordered = filled.sort(dim=-1).values
    count = valid.sum(-1, keepdim=True)
    middle = ordered.gather(-1, ((count - 1) // 2).clamp_min(0)).squeeze(-1)
    return torch.where(count.squeeze(-1) > 0, middle, torch.zeros_like(middle))


def _cost(distance_squared: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
    """Cauchy cost per model: P×K from P×K×M squared distances, P scales and P×M weights."""
    shaped = scale.square()[:, None, None]
    return (torch.log1p(distance_squared / shaped) * weight.unsqueeze(1)).sum(-1)


def _draw(weight: Tensor, count: int, size: int, generator: torch.Generator) -> Tensor:
    """Indices P×count×size, drawn by weight."""
    drawn = torch.multinomial(weight + 1e-9, count * size, replacement=True, generator=generator)
    return drawn.view(weight.shape[0], count, size)


def _take(points: Tensor, index: Tensor) -> Tensor:
    """points P×M×C at index P×K×S -> P×K×S×C."""
    flat = index.reshape(index.shape[0], -1, 1).expand(-1, -1, points.shape[-1])
    return points.gather(1, flat).view(*index.shape, points.shape[-1])


def _homography_rows(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Rows …×2×8 and right sides …×2 of the linear system with h33 = 1."""
    x, y = a.unbind(-1)
    u, v = b.unbind(-1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    first = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], dim=-1)
    second = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], dim=-1)
    return torch.stack([first, second], dim=-2), torch.stack([u, v], dim=-1)


def _close(parameters: Tensor) -> Tensor:
    return torch.cat([parameters, torch.ones_like(parameters[..., :1])], dim=-1).unflatten(-1, (3, 3))


def fit_homographies(
    a: Tensor, b: Tensor, weight: Tensor, scale: Tensor, options: FitOptions, generator: torch.Generator
) -> Tensor:
    """Dominant homography of every pair: P×3×3.

    Args:
        a: P×M×2 normalised points in the first frame.
        b: P×M×2 in the second.
        weight: P×M ≥ 0; 0 where the pair does not exist.
        scale: P noise scales, reference pixels.
        options: effort.
        generator: source of the samples.
    """
    index = _draw(weight, options.hypotheses, 4, generator)
    rows, right = _homography_rows(_take(a, index).double(), _take(b, index).double())
    solved = torch.linalg.solve_ex(rows.flatten(-3, -2), right.flatten(-2).unsqueeze(-1)).result.squeeze(-1)
    identity = solved.new_tensor([1, 0, 0, 0, 1, 0, 0, 0]).expand_as(solved[:, :1])
    finite = torch.isfinite(solved).all(-1, keepdim=True) & (solved.abs().amax(-1, keepdim=True) < 1e3)
    models = _close(torch.cat([torch.where(finite, solved, identity), identity], dim=1)).to(a.dtype)
    cost = _cost(_squared_displacement(models, a, b), scale, weight)
    best = cost.argmin(1)
    rows_index = torch.arange(len(best), device=a.device)
    model, best_cost = models[rows_index, best], cost[rows_index, best]

    all_rows, all_right = _homography_rows(a.double(), b.double())
    system = torch.cat([all_rows, all_right.unsqueeze(-1)], dim=-1).flatten(1, 2)  # P×2M×9
    damping = 1e-9 * torch.eye(8, dtype=torch.float64, device=a.device)
    candidate = model
    for _ in range(options.refinements):
        error = _squared_displacement(candidate, a, b)
        depth = (_homogeneous(a) @ candidate.transpose(-1, -2))[..., 2].abs().clamp_min(0.1)
        robust = weight / (1 + error / scale.square()[:, None]) / depth.square()
        weighted = system * robust.double().repeat_interleave(2, dim=1).unsqueeze(-1)
        normal = weighted.transpose(1, 2) @ system
        solved = torch.linalg.solve_ex(normal[:, :8, :8] + damping, normal[:, :8, 8:]).result.squeeze(-1)
        usable = torch.isfinite(solved).all(-1)[:, None, None]
        candidate = torch.where(usable, _close(solved).to(a.dtype), candidate)
        cost = _cost(_squared_displacement(candidate, a, b)[:, None], scale, weight)[:, 0]
        better = cost < best_cost
        model = torch.where(better[:, None, None], candidate, model)
        best_cost = torch.minimum(cost, best_cost)
    return model


def _cross_matrix(vector: Tensor) -> Tensor:
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def _unit(model: Tensor) -> Tensor:
    return model / model.flatten(-2).norm(dim=-1).clamp_min(1e-12)[..., None, None]


def fit_fundamentals(
    a: Tensor,
    b: Tensor,
    weight: Tensor,
    homography: Tensor,
    scale: Tensor,
    options: FitOptions,
    generator: torch.Generator,
) -> Tensor:
    """Robust fundamental matrix of every pair, P×3×3, from "plane + parallax".

    Given a plane's homography, two points off the plane fix the epipole, so minimal samples are pairs (Hartley and Zisserman,
    section 13.3); the best is refined by the reweighted 8-point algorithm and made rank 2.

    Args:
        a: P×M×2 normalised points in the first frame.
        b: P×M×2 in the second.
        weight: P×M ≥ 0.
        homography: P×3×3, of the plane to start from.
        scale: P noise scales, reference pixels.
        options: effort.
        generator: source of the samples.
    """
    parallax = homography_error(homography, a, b).norm(dim=-1) / scale[:, None]
    index = _draw(weight * (parallax.square() / (1 + parallax.square()) + 0.02), options.hypotheses, 2, generator)
    p, q = _homogeneous(_take(a, index)), _homogeneous(_take(b, index))
    lines = torch.linalg.cross(q, p @ homography.transpose(-1, -2).unsqueeze(1), dim=-1)
    epipole = torch.linalg.cross(lines[..., 0, :], lines[..., 1, :], dim=-1)
    epipole = epipole / epipole.norm(dim=-1, keepdim=True).clamp_min(1e-20)
    models = _unit(_cross_matrix(epipole) @ homography.unsqueeze(1))
    cost = _cost(sampson_error(models, a, b).square(), scale, weight)
    best = cost.argmin(1)
    rows_index = torch.arange(len(best), device=a.device)
    model, best_cost = models[rows_index, best], cost[rows_index, best]

    p, q = _homogeneous(a), _homogeneous(b)
    system = (q.unsqueeze(-1) * p.unsqueeze(-2)).flatten(-2).double()  # P×M×9
    candidate = model
    for _ in range(options.refinements):
        error = sampson_error(candidate, a, b)
        gradient = _epipolar(candidate, a, b)[1]
        robust = weight / (1 + (error / scale[:, None]).square()) / gradient.clamp_min(1e-8)
        robust = robust / robust.sum(-1, keepdim=True).clamp_min(1e-12)
        normal = (system * robust.double().unsqueeze(-1)).transpose(1, 2) @ system
        normal = torch.nan_to_num(normal) + 1e-14 * torch.eye(9, dtype=torch.float64, device=a.device)
        raw = torch.linalg.eigh(normal).eigenvectors[..., 0].unflatten(-1, (3, 3))
        left, values, right = torch.linalg.svd(raw)
        values = values * values.new_tensor([1.0, 1.0, 0.0])
        candidate = _unit((left * values.unsqueeze(-2)) @ right).to(a.dtype)
        cost = _cost(sampson_error(candidate, a, b).square()[:, None], scale, weight)[:, 0]
        better = cost < best_cost
        model = torch.where(better[:, None, None], candidate, model)
        best_cost = torch.minimum(cost, best_cost)
    return model


def pair_geometry(
    a: Tensor, b: Tensor, valid: Tensor, options: FitOptions, generator: torch.Generator, fit: Tensor | None = None
) -> PairGeometry:
    """Fit both homographies and both fundamental matrices of P pairs, and judge all N tracks.

    The second homography matters because the larger part of the picture is not always the world.

    Args:
        a: P×N×2 normalised positions in the first frame of each pair (anything where not valid).
        b: P×N×2 in the second.
        valid: P×N, visible in both.
        options: effort.
        generator: source of the samples.
        fit: indices of the tracks to fit on; the first `options.max_points` when absent.
    """
    a = torch.where(valid.unsqueeze(-1), a, torch.zeros_like(a))
    b = torch.where(valid.unsqueeze(-1), b, torch.zeros_like(b))
    if fit is None:
        fit = torch.arange(min(a.shape[1], options.max_points), device=a.device)
    fa, fb, weight = a[:, fit], b[:, fit], valid[:, fit].to(a.dtype)
    length = masked_median((fb - fa).norm(dim=-1) * _HALF, valid[:, fit])
    # Noise grows with the time between the frames, and a scene is never quite a plane.
    scale = (0.6**2 + (0.03 * length).square()).sqrt()

    first = fit_homographies(fa, fb, weight, scale, options, generator)
    residual = homography_error(first, a, b)
    left = residual[:, fit].norm(dim=-1) / (2.5 * scale[:, None])
    left_weight = weight * (left.square() / (1 + left.square())).square()
    second = fit_homographies(fa, fb, left_weight, scale, options, generator)
    epipolar = fit_fundamentals(fa, fb, weight, first, scale, options, generator)
    sampson = sampson_error(epipolar, a, b)
    # The second matrix explains the second plane and whatever else goes with it, the first plane's points included.
    epipolar_second = fit_fundamentals(fa, fb, left_weight + 0.1 * weight, second, scale, options, generator)
    return PairGeometry(
        residual=residual,
        second=homography_error(second, a, b).norm(dim=-1),
        sampson=sampson,
        sampson_second=sampson_error(epipolar_second, a, b),
        scale=scale,
    )
