"""One step of average-information REML, and the log-likelihood alone, at a given θ.

Legend: n samples, p fixed effects, r parameters θ; y ~ N(Xβ, V(θ)), V_k = ∂V/∂θ_k.

    ℓ(θ)    = −½ (log|V| + log|XᵀV⁻¹X| + yᵀPy)
    score_k = ½ (yᵀP V_k P y − tr(P V_k))
    AI_jk   = ½ yᵀP V_j P V_k P y

References: Patterson & Thompson (1971), Biometrika 58:545; Gilmour, Thompson & Cullis (1995), Biometrics 51:1440.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.covariance import Covariance
from openreml_dist.errors import InputError
from openreml_dist.grid import ProcessGrid, Progress
from openreml_dist.layout import TileLayout
from openreml_dist.linalg import cholesky_, sweep_inverse_
from openreml_dist.reml.dense.evaluation import EXACT, Evaluation, Traces
from openreml_dist.reml.dense.probes import Probes
from openreml_dist.reml.dense.projection import Design, Projection, fixed_log_determinant
from openreml_dist.reml.dense.stopwatch import Stopwatch
from openreml_dist.tiled import TiledSymmetric, Workspace

PhaseProgress = Callable[[str], Progress]
"""Names the phase that begins; what it returns is told the share that is done."""


@dataclass(frozen=True)
class Step:
    """Everything known at one θ; on the CPU, the same on every rank.

    Attributes:
        theta: (r,).
        loglik: ℓ(θ) without −½(n−p) log 2π.
        score: (r,) ∂ℓ/∂θ.
        score_noise: (r, r) covariance of its Monte-Carlo error; zero where the traces are exact.
        AI: (r, r) average information.
        beta: (p,) generalised least squares.
        beta_covariance: (p, p), (XᵀV⁻¹X)⁻¹.
        Py: (n,).
        trace_error: |Σ_k θ_k tr(P V_k) − (n − p)| / (n − p), zero in exact arithmetic if V is linear in θ; nan if it is not.
        evaluation: how it was computed.
        seconds: wall time by phase.
    """

    theta: Tensor
    loglik: float
    score: Tensor
    score_noise: Tensor
    AI: Tensor
    beta: Tensor
    beta_covariance: Tensor
    Py: Tensor
    trace_error: float
    evaluation: Evaluation
    seconds: dict[str, float]


@dataclass(frozen=True)
class Problem:
    """What stays the same while θ changes: the model, the data, the grid and the tiling. ``y`` and ``X`` are replicated."""

    covariance: Covariance
    y: Tensor
    X: Design
    grid: ProcessGrid
    layout: TileLayout
    jitter: float = 0.0
    probes: Probes | None = None
    workspace: Workspace | None = None

    @classmethod
    def of(
        cls, covariance: Covariance, y: Tensor, X: Tensor, grid: ProcessGrid, layout: TileLayout, jitter: float = 0.0
    ) -> Problem:
        """From y (n,) and X (n, p) of any precision, checked. Local.

        Raises:
            InputError: for the wrong shape, values that are not finite, dependent columns of X.
        """
        n, device = covariance.size, grid.device
        if y.shape != (n,) or X.ndim != 2 or X.shape[0] != n:
            raise InputError(
                f"y {tuple(y.shape)} and x {tuple(X.shape)} must have {n} rows, as V has; x must have two dimensions"
            )
        if not bool(torch.isfinite(y).all() and torch.isfinite(X).all()):
            raise InputError("y and x must be finite")
        return cls(covariance, y.double().to(device), Design.of(X.double().to(device)), grid, layout, jitter)

    def assembled(self, theta: Tensor, dtype: torch.dtype, progress: Progress) -> TiledSymmetric:
        """The tiles of V(θ) + jitter·I. Collective."""
        V = TiledSymmetric(self.layout, self.grid, dtype, self.workspace)
        self.covariance.assemble_(V, theta, progress)
        if self.jitter:
            for i, j, tile in V.tiles():
                if i == j:
                    tile.diagonal().add_(self.jitter)
        return V

    def derivatives_times(self, u: Tensor, theta: Tensor, dtype: torch.dtype, progress: Progress) -> Tensor:
        """T (n, r) with t_k = V_k u for u (n,). Collective."""
        products = self.covariance.times(u[:, None].to(dtype), theta, self.grid, self.layout, progress)
        return products[:, :, 0].mT.to(u.dtype).contiguous()


def ai_step(problem: Problem, theta: Tensor, phase: PhaseProgress, how: Evaluation = EXACT) -> Step:
    """Log-likelihood, score, average information and fixed effects at θ.

    Collective: every rank calls it with the same θ (r,) on the CPU. Cost: n³ flops for the inverse, n³/3 for the factor where
    probes give the traces; O((p + r + s) n²) beside it; two passes over the stored kernels.

    Raises:
        NotPositiveDefiniteError: on every rank.
    """
    covariance, y, probes = problem.covariance, problem.y, problem.probes
    watch = Stopwatch(problem.grid.device)

    V = problem.assembled(theta, how.dtype, phase("assemble V"))
    watch.lap("assemble")
    # either way V is overwritten
    V_inv = sweep_inverse_(V, phase("invert V")) if how.traces is Traces.EXACT else cholesky_(V, phase("factor V"))
    watch.lap("invert" if how.traces is Traces.EXACT else "factor")
    P, PyZ = Projection.with_product(V_inv, problem.X, _joined(y, probes))
    Py, PZ = PyZ[:, 0].contiguous(), PyZ[:, 1:]
    watch.lap("project")
    if how.traces is Traces.EXACT:
        T, traces = covariance.contract(P, Py, theta, phase("traces"))  # t_k = V_k P y, tr(P V_k)
        trace_noise = torch.zeros(len(theta), len(theta), dtype=traces.dtype, device=traces.device)
        if probes is not None:
            probes.drop_anchor(traces, PZ)
    else:
        assert probes is not None
        T = problem.derivatives_times(Py, theta, how.dtype, phase("traces"))
        traces, trace_noise = probes.traces(PZ, anchored=how.traces is Traces.ANCHORED)
    watch.lap("traces")
    score = 0.5 * (T.mT @ Py - traces)
    AI = 0.5 * P.quadratic(T)  # Tᵀ P T
    loglik = -0.5 * (P.log_determinants + float(y @ Py))
    beta, beta_covariance = P.fixed_effects(y)
    watch.lap("project")

    degrees_of_freedom = len(y) - len(beta)
    return Step(
        theta=theta,
        loglik=loglik,
        score=score.cpu(),
        score_noise=(0.25 * trace_noise).cpu(),
        AI=(0.5 * (AI + AI.mT)).cpu(),
        beta=beta.cpu(),
        beta_covariance=beta_covariance.cpu(),
        Py=Py.cpu(),
        trace_error=abs(float(theta @ traces.cpu()) / degrees_of_freedom - 1) if covariance.is_linear else float("nan"),
        evaluation=how,
        seconds=watch.seconds,
    )


def _joined(y: Tensor, probes: Probes | None) -> Tensor:
    """[y Z] (n, 1 + s)."""
    return y[:, None] if probes is None else torch.cat([y[:, None], probes.Z.to(y.dtype)], dim=1)


def log_likelihood(problem: Problem, theta: Tensor, phase: PhaseProgress, dtype: torch.dtype = torch.float64) -> float:
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
    return -0.5 * (L.log_determinant + fixed_log_determinant(C, problem.X) + yPy)


def generalised_least_squares(problem: Problem, theta: Tensor, phase: PhaseProgress) -> tuple[Tensor, Tensor]:
    """β̂ (p,) = (XᵀV⁻¹X)⁻¹XᵀV⁻¹y and Py (n,) = V⁻¹(y − Xβ̂) at θ, on the CPU, from a Cholesky factor.

    Collective: every rank calls it with the same θ (r,) on the CPU. Cost: n³/3 flops; one pass over the stored kernels.

    Raises:
        NotPositiveDefiniteError: on every rank.
    """
    L = cholesky_(problem.assembled(theta, torch.float64, phase("assemble V")), phase("factor V"))
    P, Py = Projection.with_product(L, problem.X, problem.y[:, None])
    return P.fixed_effects(problem.y)[0].cpu(), Py[:, 0].cpu()
