"""log|S| by Lanczos quadrature, preconditioned by the blocks H = LLᵀ.

    log|S| = log|H| + tr log(L⁻¹SL⁻ᵀ),   wᵀ log(L⁻¹SL⁻ᵀ) w ≈ ‖w‖² Σ_i τ_i² log λ_i    w of ±1

λ and τ are the eigenvalues of the Lanczos matrix that the conjugate gradients for Sx = Lw leave behind, and the first entries
of its eigenvectors. wᵀL⁻¹SL⁻ᵀw is the control variate: its mean tr(H⁻¹S) is m.

Legend: m SNPs, s probes.

References: Ubaru, Chen & Saad (2017), SIAM J Matrix Anal 38:1075.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openreml_dist.reml.stochastic.conjugate_gradients import Solution, conjugate_gradients
from openreml_dist.reml.stochastic.controls import Controlled
from openreml_dist.reml.stochastic.system import System

LANCZOS_STEPS = 10
RESIDUAL = 1e-6  # a Lanczos matrix of fewer steps is as good as one of all


def log_determinants(S: System, w: Tensor) -> Tensor:
    """Samples (s,) whose mean is log|S|, from probes w (m, s). Collective. Cost: 4nm flops a step and a probe."""
    solution = conjugate_gradients(S, S.half_of_H(w), RESIDUAL, LANCZOS_STEPS)
    T = lanczos_matrices(solution)
    eigenvalues, vectors = torch.linalg.eigh(T)
    logs = len(w) * (vectors[:, 0].square() * eigenvalues.clamp_min(torch.finfo(T.dtype).tiny).log()).sum(dim=1)
    control = len(w) * (T[:, 0, 0] - 1)
    sampled = Controlled(logs[:, None], control[:, None, None])
    return S.h_log_determinant + sampled.cross_corrected()[:, 0]


def lanczos_matrices(solution: Solution) -> Tensor:
    """(s, steps, steps) tridiagonal; that of a right-hand side with fewer steps is filled up with ones. Local."""
    alphas, betas = solution.alphas.mT, solution.betas.mT
    going = torch.arange(alphas.shape[1], device=alphas.device) < solution.steps[:, None]
    inverse = torch.where(going, 1 / torch.where(going, alphas, 1.0), 1.0)
    before = torch.nn.functional.pad(betas * inverse, (1, 0))[:, :-1]
    diagonal = torch.where(going, inverse + before, 1.0)
    beside = torch.where(going[:, 1:], betas[:, :-1].clamp_min(0).sqrt() * inverse[:, :-1], 0.0)
    return torch.diag_embed(diagonal) + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
