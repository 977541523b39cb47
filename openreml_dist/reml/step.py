"""Everything known at one θ: what an engine returns for it, and the formulas that make it.

Legend: n samples, p fixed effects, r parameters θ; y ~ N(Xβ, V(θ)), V_k = ∂V/∂θ_k, t_k = V_k P y the columns of T (n, r).

    P       = V⁻¹ − V⁻¹X (XᵀV⁻¹X)⁻¹ XᵀV⁻¹
    ℓ(θ)    = −½ (log|V| + log|XᵀV⁻¹X| + yᵀPy)
    score_k = ½ (yᵀP V_k P y − tr(P V_k))
    AI_jk   = ½ yᵀP V_j P V_k P y

References: Patterson & Thompson (1971), Biometrika 58:545; Gilmour, Thompson & Cullis (1995), Biometrics 51:1440.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

How = Any
"""One of the ways in which an engine evaluates a θ: opaque to all but that engine; ``str`` names it."""


@dataclass(frozen=True)
class LogLikelihood:
    """ℓ(θ) alone, and what it may be off by."""

    loglik: float
    loglik_error: float


@dataclass(frozen=True)
class Information:
    """What y is expected to say of θ: ½ tr(P V_j P V_k) (r, r), the mean of AI over y ~ N(Xβ, V(θ))."""

    expected: Tensor


@dataclass(frozen=True)
class Step:
    """ℓ, its derivatives and the fixed effects at one θ; on the CPU, the same on every rank.

    Attributes:
        theta: (r,).
        loglik: ℓ(θ) without −½(n−p) log 2π.
        loglik_error: what ℓ may be off by: a bound on its rounding, or more where more was seen.
        loglik_seen_error: what it was seen to be off by; 0 where nothing shows it.
        score: (r,) ∂ℓ/∂θ.
        score_noise: (r, r) covariance of its Monte-Carlo error; zero where the traces are exact.
        AI: (r, r) average information.
        beta: (p,) generalised least squares.
        beta_covariance: (p, p), (XᵀV⁻¹X)⁻¹.
        trace_error: |Σ_k θ_k tr(P V_k) / (n − p) − 1|, zero in exact arithmetic if V is linear in θ; nan if it is not.
        evaluation: the way in which it was evaluated.
        comparable: names of the ways whose score differs from this one by the change of θ alone, not by its own error.
        carried: what the engine wants to be given with the next request, such as exact traces that later ones build upon.
        seconds: wall time by phase.
    """

    theta: Tensor
    loglik: float
    loglik_error: float
    loglik_seen_error: float
    score: Tensor
    score_noise: Tensor
    AI: Tensor
    beta: Tensor
    beta_covariance: Tensor
    trace_error: float
    evaluation: How
    comparable: frozenset[str]
    carried: Mapping[str, Tensor] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    def evaluated(self, how: How) -> Step:
        """The same numbers, said to be evaluated in this way."""
        return replace(self, evaluation=how)

    def is_comparable_with(self, before: Step) -> bool:
        """Whether the change of score since ``before`` is that of ℓ."""
        return str(before.evaluation) in self.comparable


class Projected(Protocol):
    """P, applied."""

    @property
    def log_determinants(self) -> float:
        """log|V| + log|XᵀV⁻¹X|."""

    def quadratic(self, B: Tensor) -> Tensor:
        """BᵀPB (m, m) for B (n, m)."""

    def fixed_effects(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """β̂ (p,) and its sampling covariance (p, p)."""


@dataclass(frozen=True)
class Formulas:
    """The formulas above at one θ, from P, Py, T and the traces tr(P V_k) (r,). Collective to make."""

    loglik: float
    score: Tensor
    AI: Tensor
    beta: Tensor
    beta_covariance: Tensor

    @classmethod
    def of(cls, P: Projected, y: Tensor, Py: Tensor, T: Tensor, traces: Tensor) -> Formulas:
        """Evaluate them. Cost: one product PT."""
        loglik = -0.5 * (P.log_determinants + float(y @ Py))
        score = 0.5 * (T.mT @ Py - traces)
        AI = 0.5 * P.quadratic(T)  # ½ TᵀPT
        beta, beta_covariance = P.fixed_effects(y)
        return cls(loglik, score.cpu(), (0.5 * (AI + AI.mT)).cpu(), beta.cpu(), beta_covariance.cpu())


def trace_identity_error(theta: Tensor, traces: Tensor, degrees_of_freedom: int) -> float:
    """|Σ θ_k tr(P V_k) / (n − p) − 1|: for V = Σ θ_k V_k the sum is tr(P V) = n − p. Local."""
    return abs(float(theta @ traces.cpu()) / degrees_of_freedom - 1)


def rounding_of(loglik: float, dtype: torch.dtype) -> float:
    """What the sum of n logarithms and squares behind ℓ may be off by."""
    return 5e4 * torch.finfo(dtype).eps * (1 + abs(loglik)) if dtype == torch.float64 else 1e-6 * (1 + abs(loglik))
