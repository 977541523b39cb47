"""P of the dense formulas, applied by the SNP effects: whatever is asked of V⁻¹ is a system as large as there are SNPs.

    PB   = (MB − M Zᵀ D½ S⁻¹ D½ Z M B) / σ_e²            (Woodbury, within the complement of X)
    BᵀPB = (BᵀMB − RᵀS⁻¹R) / σ_e²,  R = D½ Z M B

Legend: n samples, p fixed effects, m SNPs, c vectors; S, D as in ``system``, Z, Q, M as in ``problem``.

References: Harville (1977), JASA 72:320; Loh et al. (2015), Nat Genet 47:1385, a system of SNP effects by conjugate gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openreml_dist.reml.stochastic.conjugate_gradients import solve
from openreml_dist.reml.stochastic.system import System

ACCURATE = 1e-7  # residual of the system behind Py: ℓ and score depend on it
FAIR = 1e-4  # of those behind AI and var(β̂), whose error is its square


class Projection:
    """P at one θ, with what it makes of y. Collective to make and to apply.

    Attributes:
        Py: (n,) float64, replicated.
        ZPy: (m,) float64.
    """

    def __init__(self, S: System, y: Tensor | None = None) -> None:
        self._S = S
        problem = S.problem
        ZMy = problem.ZMy if y is None else problem.Z.of_samples(problem.without_fixed(y[:, None]))[:, 0]
        y = problem.y if y is None else y
        R = (S.root * ZMy)[:, None]
        X, _ = solve(S, R, ACCURATE)
        My = problem.without_fixed(y[:, None])
        explained = problem.without_fixed(problem.Z.of_variants(S.root[:, None] * X))
        self.Py = ((My - explained) / S.residual)[:, 0].contiguous()
        self.ZPy = problem.Z.of_samples(self.Py[:, None])[:, 0].contiguous()

    def log_determinants(self, log_determinant_of_S: float) -> float:
        """log|V| + log|XᵀV⁻¹X| = (n − p − m) log σ_e² + log|S| + log|XᵀX|. Local."""
        problem = self._S.problem
        free = problem.degrees_of_freedom - problem.Z.num_variants
        return free * float(self._S.theta[-1].log()) + log_determinant_of_S + problem.X.log_gram_determinant

    def derivatives_times_Py(self) -> Tensor:
        """T (n, K + 1), t_k = Zᵀ(w_k ∘ ZPy) and Py itself. Collective. Cost: 2nmK flops."""
        problem = self._S.problem
        return torch.cat([problem.Z.of_variants(problem.weights * self.ZPy[:, None]), self.Py[:, None]], dim=1)

    def quadratic(self, B: Tensor) -> Tensor:
        """BᵀPB (c, c) for a replicated B (n, c). Collective. Cost: one system."""
        S, problem = self._S, self._S.problem
        MB = problem.without_fixed(B)
        return self._form(MB, S.root[:, None] * problem.Z.of_samples(MB))

    def fixed_effects(self) -> tuple[Tensor, Tensor]:
        """β̂ (p,): the least-squares fit, and R⁻¹Qᵀ(y − V P y) of the rest; no covariance: see ``fixed_covariance``. Local."""
        problem = self._S.problem
        left = problem.X.Q.mT @ problem.y - problem.ZQ.mT @ (self._S.root.square() * self.ZPy)
        beta = problem.fit + torch.linalg.solve_triangular(problem.X.R, left[:, None], upper=True)[:, 0]
        return beta, torch.full((len(beta), len(beta)), torch.nan, dtype=beta.dtype)

    def fixed_covariance(self) -> Tensor:
        """(XᵀV⁻¹X)⁻¹ (p, p) from (QᵀV⁻¹Q)⁻¹ = QᵀVQ − QᵀV P VQ. Collective. Cost: one system of p right-hand sides."""
        S, problem = self._S, self._S.problem
        DZQ = S.root.square()[:, None] * problem.ZQ
        QVQ = problem.ZQ.mT @ DZQ
        QVQ.diagonal().add_(S.residual)
        MVQ = problem.without_fixed(problem.Z.of_variants(DZQ))
        inner = QVQ - self._form(MVQ, S.root[:, None] * problem.Z.of_samples(MVQ))
        half = torch.linalg.solve_triangular(problem.X.R, inner, upper=True)
        covariance = torch.linalg.solve_triangular(problem.X.R, half.mT, upper=True)
        symmetric: Tensor = 0.5 * (covariance + covariance.mT)
        return symmetric

    def _form(self, MB: Tensor, R: Tensor) -> Tensor:
        """(BᵀMB − RᵀS⁻¹R)/σ_e², of an error that is the square of that of the solution. Collective."""
        X, rest = solve(self._S, R, FAIR)
        explained = R.mT @ X + X.mT @ rest  # 2RᵀX − XᵀSX
        form: Tensor = (MB.mT @ MB - 0.5 * (explained + explained.mT)) / self._S.residual
        return form
