"""One evaluation of the dense engine: V(θ) assembled in tiles, inverted or factored in place, read once more for its traces.

Legend: n samples, p fixed effects, r parameters θ, s probes; P, T, ℓ, score and AI as in ``reml/step.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from openreml_dist.grid import PhaseProgress
from openreml_dist.linalg import cholesky_, sweep_inverse_
from openreml_dist.reml.dense.probes import Anchor, Probes, draw_probes
from openreml_dist.reml.dense.problem import Problem
from openreml_dist.reml.dense.projection import Projection, fixed_log_determinant
from openreml_dist.reml.dense.schedule import EXACT, FEW_PROBES, Evaluation, Traces
from openreml_dist.reml.step import Formulas, Information, LogLikelihood, Step, rounding_of, trace_identity_error
from openreml_dist.reml.stopwatch import Stopwatch

"""Names the phase that begins; what it returns is told the fraction that is done."""

INFORMATION_PROBES = 16


def ai_step(
    problem: Problem,
    theta: Tensor,
    phase: PhaseProgress,
    how: Evaluation = EXACT,
    probes: Probes | None = None,
    carried: Mapping[str, Tensor] | None = None,
) -> tuple[Step, Tensor]:
    """Log-likelihood, score, average information and fixed effects at θ; and Py (n,), on the device.

    Collective: every rank calls it with the same θ (r,) on the CPU. Cost: n³ flops for the inverse, n³/3 for the factor where
    probes give the traces; O((p + r + s) n²) beside it; two passes over the stored kernels.

    Args:
        problem: model and data.
        theta: (r,).
        phase: told which phase begins.
        how: whence the traces, and in which precision.
        probes: needed unless the traces are exact; with exact ones they make this θ an anchor.
        carried: by the step that this one follows: the anchor, for anchored traces.
    Raises:
        NotPositiveDefiniteError: on every rank.
    """
    covariance, y = problem.covariance, problem.y
    if probes is not None and how.traces is Traces.FEW:
        probes = probes.first(FEW_PROBES)
    watch = Stopwatch(problem.grid.device)

    V = problem.assembled(theta, how.dtype, phase("assemble V"))
    watch.lap("assemble")
    # either way V is overwritten
    V_inv = sweep_inverse_(V, phase("invert V")) if how.traces is Traces.EXACT else cholesky_(V, phase("factor V"))
    watch.lap("invert" if how.traces is Traces.EXACT else "factor")
    P, PyZ = Projection.with_product(V_inv, problem.X, _joined(y, probes))
    Py, PZ = PyZ[:, 0].contiguous(), PyZ[:, 1:]
    watch.lap("project")
    anchor = None
    if how.traces is Traces.EXACT:
        T, traces = covariance.contract(P, Py, theta, phase("traces"))  # t_k = V_k P y, tr(P V_k)
        trace_noise = torch.zeros(len(theta), len(theta), dtype=traces.dtype, device=traces.device)
        if probes is not None:
            anchor = Anchor(traces, probes.estimates(PZ))
    else:
        assert probes is not None
        if how.traces is Traces.ANCHORED:
            anchor = Anchor.carried(carried or {})
        T = problem.derivatives_times(Py, theta, how.dtype, phase("traces"))
        traces, trace_noise = probes.traces(PZ, anchor)
    watch.lap("traces")
    found = Formulas.of(P, y, Py, T, traces)
    watch.lap("project")

    n, p = problem.X.Q.shape
    trace_error = trace_identity_error(theta, traces, n - p) if covariance.is_linear else float("nan")
    seen = trace_error * n if how.traces is Traces.EXACT and math.isfinite(trace_error) else 0.0
    step = Step(
        theta=theta,
        loglik=found.loglik,
        loglik_error=max(rounding_of(found.loglik, how.dtype), seen),
        loglik_seen_error=seen,
        score=found.score,
        score_noise=(0.25 * trace_noise).cpu(),
        AI=found.AI,
        beta=problem.fit.cpu() + found.beta,
        beta_covariance=found.beta_covariance,
        trace_error=trace_error,
        evaluation=how,
        comparable=how.comparable,
        carried={} if anchor is None else anchor.to_carry(),
        seconds=watch.seconds,
    )
    return step, Py


def _joined(y: Tensor, probes: Probes | None) -> Tensor:
    """[y Z] (n, 1 + s)."""
    return y[:, None] if probes is None else torch.cat([y[:, None], probes.Z.to(y.dtype)], dim=1)


def log_likelihood(problem: Problem, theta: Tensor, phase: PhaseProgress, dtype: torch.dtype = torch.float64) -> LogLikelihood:
    """ℓ(θ) alone, from a Cholesky factor: a third of the flops of ``ai_step``.

    With LLᵀ = V and Z = L⁻¹[Q y]:  QᵀV⁻¹Q = Z_QᵀZ_Q,  QᵀV⁻¹y = Z_Qᵀz_y,  yᵀV⁻¹y = z_yᵀz_y.

    Collective: every rank calls it with the same θ (r,) on the CPU. Cost: n³/3 flops; one pass over the stored kernels.

    Raises:
        NotPositiveDefiniteError: on every rank.
    """
    V = problem.assembled(theta, dtype, phase("assemble V"))
    L = cholesky_(V, phase("factor V"))
    Z = L.half_solve(torch.cat([problem.X.Q, problem.y[:, None]], dim=1))
    Z_Q, z_y = Z[:, :-1], Z[:, -1]
    C = torch.linalg.cholesky(Z_Q.mT @ Z_Q)
    fitted = torch.linalg.solve_triangular(C, (Z_Q.mT @ z_y)[:, None], upper=False)
    yPy = float(z_y @ z_y) - float(fitted.square().sum())
    loglik = -0.5 * (L.log_determinant + fixed_log_determinant(C, problem.X) + yPy)
    return LogLikelihood(loglik, rounding_of(loglik, dtype))


def expected_information(
    problem: Problem, theta: Tensor, phase: PhaseProgress, dtype: torch.dtype = torch.float64
) -> Information:
    """½ tr(P V_j P V_k) at θ, from s random u with covariance P: ½ E uᵀV_j P V_k u.

    With LLᵀ = V and K (n, p) an orthonormal basis of L⁻¹X,  P = L⁻ᵀ(I − KKᵀ)L⁻¹, so that u = L⁻ᵀ(I − KKᵀ)z, and it is the Gram
    matrix of (I − KKᵀ)L⁻¹V_k u: positive semidefinite, off by √(2/sn) of itself in every direction, exact for n ≤ s.

    Collective: every rank calls it with the same θ (r,) on the CPU. Cost: n³/3 + O(r s n²) flops; two passes over the stored
    kernels.

    Raises:
        NotPositiveDefiniteError: on every rank.
    """
    n, r = problem.layout.size, len(theta)
    L = cholesky_(problem.assembled(theta, dtype, phase("assemble V")), phase("factor V"))
    K, _ = torch.linalg.qr(L.half_solve(problem.X.Q))
    Z = draw_probes(n, INFORMATION_PROBES, seed=1).double().to(problem.grid.device)
    U = L.half_solve_transposed(Z - K @ (K.mT @ Z))
    products = problem.covariance.times(U, theta, problem.grid, problem.layout, phase("expected information"))
    G = L.half_solve(products.permute(1, 0, 2).reshape(n, -1).contiguous())
    G = (G - K @ (K.mT @ G)).reshape(n, r, -1)
    expected = 0.5 * torch.einsum("njs,nks->jk", G, G) / Z.shape[1]
    return Information(expected.cpu())


def generalised_least_squares(problem: Problem, theta: Tensor, phase: PhaseProgress) -> tuple[Tensor, Tensor]:
    """β̂ (p,) = (XᵀV⁻¹X)⁻¹XᵀV⁻¹y and Py (n,) = V⁻¹(y − Xβ̂) at θ, on the CPU, from a Cholesky factor.

    Collective: every rank calls it with the same θ (r,) on the CPU. Cost: n³/3 flops; one pass over the stored kernels.

    Raises:
        NotPositiveDefiniteError: on every rank.
    """
    L = cholesky_(problem.assembled(theta, torch.float64, phase("assemble V")), phase("factor V"))
    P, Py = Projection.with_product(L, problem.X, problem.y[:, None])
    return (problem.fit + P.fixed_effects(problem.y)[0]).cpu(), Py[:, 0].cpu()
