"""The step that maximises a quadratic model of ℓ within bounds and a trust region.

Legend: r parameters; g score; B positive definite curvature (−∂²ℓ, near AI); δ step. All on the CPU, r is small.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.reml.bounds import Bounds


@dataclass(frozen=True)
class ModelStep:
    """A step, what the quadratic model promises for it, and how long it is.

    Attributes:
        delta: (r,).
        gain: gᵀδ − ½δᵀBδ, the rise of ℓ that the model predicts.
        length: √(δᵀBδ), in standard errors jointly.
        at_bound: (r,) which parameters end on a bound.
    """

    delta: Tensor
    gain: float
    length: float
    at_bound: Tensor


def bounded_step(g: Tensor, B: Tensor, theta: Tensor, bounds: Bounds, radius: float) -> ModelStep:
    """Maximise gᵀδ − ½δᵀBδ for θ + δ within the bounds and √(δᵀBδ) ≤ radius.

    The bounds are met by an active set (primal, one parameter at a time; exact, since B is positive definite), in units of
    1/√B_kk, so that it does not depend on the units of y. A step longer than the radius is shortened, which keeps it within the
    bounds. Local.
    """
    unit = B.diagonal().rsqrt()
    least, most = bounds.lower - theta, bounds.upper - theta  # of δ
    scaled = _within(unit * g, unit[:, None] * B * unit, least / unit, most / unit)
    delta = torch.where(scaled <= least / unit, least, torch.where(scaled >= most / unit, most, unit * scaled))
    length = float((delta @ B @ delta).sqrt())
    if length > radius:
        delta = delta * (radius / length)
        length = radius
    at_bound = (delta <= least) | (delta >= most)
    return ModelStep(delta, float(g @ delta - 0.5 * delta @ B @ delta), length, at_bound)


def _within(g: Tensor, B: Tensor, least: Tensor, most: Tensor) -> Tensor:
    """The δ between ``least`` and ``most`` that maximises gᵀδ − ½δᵀBδ."""
    held = torch.zeros_like(g, dtype=torch.bool)
    at = torch.zeros_like(g)  # where a held δ is: on the bound that it would have crossed
    for _ in range(3 * len(g) + 1):
        delta = _solve_free(g, B, at, held)
        excess = torch.where(held, 0.0, torch.maximum(least - delta, delta - most))
        if bool((excess > 0).any()):
            crossing = (excess > 0) & (excess >= excess.max())
            at = torch.where(crossing, torch.minimum(torch.maximum(delta, least), most), at)
            held = held | crossing
            continue
        multiplier = torch.where(at <= least, 1.0, -1.0) * (B @ delta - g)  # ≥ 0 where holding at the bound is right
        wrong = held & (multiplier < 0)
        if not bool(wrong.any()):
            break
        held = held & (multiplier > multiplier[wrong].min())
    return torch.minimum(torch.maximum(delta, least), most)


def _solve_free(g: Tensor, B: Tensor, at: Tensor, held: Tensor) -> Tensor:
    """δ with δ = at where held and (Bδ)_free = g_free."""
    delta = torch.where(held, at, torch.zeros_like(g))
    free = ~held
    if bool(free.any()):
        rhs = g[free] - B[free][:, held] @ delta[held]
        delta[free] = torch.linalg.solve(B[free][:, free], rhs)
    return delta


NO_INFORMATION = 1e-12  # of a parameter in units of itself
LEAST_OF_EXPECTED = 0.2  # average information over expected, below which y is too far from what θ expects to say anything
TAKEN_OF_EXPECTED = 0.7  # curvature instead: a little less than the expected one, since θ is then too large
NOTHING = 1e-200  # information that is zero but for rounding; its inverse is still a number
LOCAL_STEP = 0.5  # standard errors; over a longer step the mean curvature says little about that at its end


def secant_correction(E: Tensor, AI: Tensor, delta: Tensor, score_change: Tensor, free: Tensor) -> Tensor:
    """E such that B = AI + E maps the last step to the change of score that it made: Bδ = −Δg.

    AI is close to −∂²ℓ but not equal, so plain AI-REML converges linearly; this symmetric rank-one term, two inner products,
    makes it superlinear. E stays as it was after a step that is not local, and is dropped (0) where it would change the
    curvature along one direction by more than tenfold. What is held on a bound (not ``free``) has no part in it. Local.

    References: Dennis, Gay & Welsch (1981), ACM TOMS 7:348, the structured secant idea (NL2SOL); Nocedal & Wright (2006), 6.2.
    """
    if float(delta @ AI @ delta) > LOCAL_STEP**2:
        return E
    residual = torch.where(free, -score_change - (AI + E) @ delta, 0.0)
    along = float(residual @ delta)
    unit = positive_definite(AI).diagonal().rsqrt()  # so that the units of y do not matter
    if abs(along) <= 1e-8 * float((unit * residual).norm() * (delta / unit).norm()):
        return E
    corrected = E + torch.outer(residual, residual) / along
    L, info = torch.linalg.cholesky_ex(AI[free][:, free])
    if int(info) > 0:
        return torch.zeros_like(E)
    E_free = corrected[free][:, free]
    relative = torch.linalg.solve_triangular(L, torch.linalg.solve_triangular(L, E_free, upper=False).mT, upper=False)
    eigenvalues = 1 + torch.linalg.eigvalsh(0.5 * (relative + relative.mT))
    return corrected if bool(((eigenvalues > 0.1) & (eigenvalues < 10)).all()) else torch.zeros_like(E)


def positive_definite(B: Tensor) -> Tensor:
    """B with the eigenvalues of its unit-diagonal form raised to at least 1e-10: a confounded model still has a step.

    A parameter without any information, such as the correlation of a term whose variance is 0, has curvature 1. Local.
    """
    unknown = B.diagonal() <= NOTHING
    if bool(unknown.any()):
        B = B + torch.diag(unknown.to(B.dtype))
    scale = B.diagonal().rsqrt()
    values, vectors = torch.linalg.eigh(scale[:, None] * B * scale)
    if float(values[0]) >= 1e-10:
        return B
    raised = vectors @ torch.diag(values.clamp_min(1e-10)) @ vectors.mT
    definite: Tensor = raised / scale[:, None] / scale
    return definite


def raised_to_expected(B: Tensor, expected: Tensor) -> tuple[Tensor, bool]:
    """B with the expected information in the directions where it falls far short of it, and whether there are any.

    AI is the mean of observed and expected information. Where y is much smaller than θ expects, as if a variance were a
    hundredth of its value, AI is next to nothing and its step is off by the square of that; far from the optimum the expected
    information alone gives a step of the right size. Local.
    """
    I = positive_definite(expected)
    L = torch.linalg.cholesky(I)
    relative = torch.linalg.solve_triangular(L, torch.linalg.solve_triangular(L, B, upper=False).mT, upper=False)
    values, vectors = torch.linalg.eigh(0.5 * (relative + relative.mT))  # B v = λ I v
    low = values < LEAST_OF_EXPECTED
    if not bool(low.any()):
        return B, False
    directions = L @ vectors
    raised = directions @ torch.diag(torch.where(low, TAKEN_OF_EXPECTED, values)) @ directions.mT
    return 0.5 * (raised + raised.mT), True


def monte_carlo_errors(score_noise: Tensor, B: Tensor, held: Tensor) -> Tensor:
    """Standard deviations (r,) of θ + B⁻¹·score due to the probes; 0 for parameters that are held. Local."""
    free = torch.nonzero(~held).flatten()
    errors = torch.zeros(len(B), dtype=B.dtype)
    B_inv = torch.linalg.inv(B[free][:, free])
    errors[free] = (B_inv @ score_noise[free][:, free] @ B_inv).diagonal().clamp_min(0).sqrt()
    return errors
