"""Conjugate gradients for many right-hand sides at once, each with steps of its own, and accurate solutions by refinement.

Legend: m unknowns, c right-hand sides.

References: Hestenes & Stiefel (1952), J Res NBS 49:409; Saad (2003), Iterative Methods, sections 6.7 and 9.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.reml.stochastic.system import System

MOST_STEPS = 500
REFINED = 1e-4  # residual that single precision is asked for at a time
ROUNDS = 8  # of refinement at most

Observe = Callable[[int, Tensor, Tensor, Tensor], None]
"""Told after each step its number from 1, which right-hand sides it was for, their X (m, c) and, after the first, SH⁻¹B."""


@dataclass(frozen=True)
class Solution:
    """X with SX ≈ B.

    Attributes:
        X: (m, c).
        steps: (c,) of each right-hand side.
        alphas, betas: (steps, c) coefficients, zero after its last step: the Lanczos matrix of L⁻¹SL⁻ᵀ.
    """

    X: Tensor
    steps: Tensor
    alphas: Tensor
    betas: Tensor


def conjugate_gradients(
    S: System, B: Tensor, tolerance: float, most: int = MOST_STEPS, observe: Observe | None = None
) -> Solution:
    """Solve SX = B, preconditioned by H, until every residual is ``tolerance`` of its right-hand side.

    Collective. Cost: 4nm flops a step of a right-hand side; those that have ended are left out.

    Args:
        S: the system.
        B: (m, c) in the precision to work in.
        tolerance: relative.
        most: steps.
        observe: told every step.
    """
    X, R = torch.zeros_like(B), B.clone()
    going = torch.arange(B.shape[1], device=B.device)
    goal = tolerance * _norms(B)
    steps = torch.zeros_like(going)
    alphas: list[Tensor] = []
    betas: list[Tensor] = []
    Y = S.precondition(R)
    P, rho = Y.clone(), _dots(R, Y)
    for step in range(1, most + 1):
        still = _norms(R) > goal[going]
        if not bool(still.all()):
            going, R, P, rho = going[still], R[:, still], P[:, still], rho[still]
        if not len(going):
            break
        SP = S @ P
        alpha = rho / _dots(P, SP)
        X[:, going] += alpha.to(B.dtype) * P
        if observe is not None:
            observe(step, going, X[:, going], SP)
        R = R - alpha.to(B.dtype) * SP
        Y = S.precondition(R)
        fresh = _dots(R, Y)
        beta = fresh / rho
        P, rho = Y + beta.to(B.dtype) * P, fresh
        steps[going] += 1
        for kept, values in ((alphas, alpha), (betas, beta)):
            kept.append(torch.zeros(B.shape[1], dtype=torch.float64, device=B.device).index_copy_(0, going, values))
    none = torch.zeros(0, B.shape[1], dtype=torch.float64, device=B.device)
    return Solution(X, steps, *(torch.stack(kept) if kept else none for kept in (alphas, betas)))


def solve(S: System, B: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """X (m, c) float64 with SX ≈ B for B (m, c) float64, and the residual B − SX: single precision, refined in double.

    Collective. Cost: that of conjugate gradients, and a product in double precision a round.
    """
    X, R = torch.zeros_like(B), B.clone()
    goal = tolerance * _norms(B)
    for _ in range(ROUNDS):
        worst = float((_norms(R) / goal.clamp_min(torch.finfo(B.dtype).tiny)).max())
        if worst <= 1:
            break
        scale = _norms(R).clamp_min(torch.finfo(B.dtype).tiny)
        correction = conjugate_gradients(S, (R / scale).float(), max(REFINED, 0.5 / worst)).X
        X += scale * correction.double()
        R = B - S @ X
    return X, R


def _dots(A: Tensor, B: Tensor) -> Tensor:
    """(c,) AᵀB column by column, float64."""
    return (A * B).sum(dim=0, dtype=torch.float64)


def _norms(A: Tensor) -> Tensor:
    """(c,) float64."""
    norms: Tensor = torch.linalg.vector_norm(A, dim=0, dtype=torch.float64)
    return norms
