"""Likelihood-ratio tests of variance components: of all random terms at once, and of the first one beside the others."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from openreml_dist.covariance import Covariance
from openreml_dist.reml.fitting import FitOptions
from openreml_dist.reml.fixed import null_log_likelihood
from openreml_dist.reml.result import FitResult
from openreml_dist.reml.solver import Solver
from openreml_dist.reml.wald import chi2_tail


@dataclass(frozen=True)
class VarianceTests:
    """Likelihood-ratio tests of the variances of random terms; all log-likelihoods without −½(n−p) log 2π.

    Attributes:
        loglik_null: without any random term but the residual.
        lrt: 2(ℓ − loglik_null), not below 0.
        pvalue: of ``lrt`` under the mixture of χ² that variances at zero have.
        pvalue_note: how good that mixture is.
        loglik_reduced: without the first random term, the others refitted (GCTA's logL0); None if not asked for.
    """

    loglik_null: float
    lrt: float
    pvalue: float
    pvalue_note: str
    loglik_reduced: float | None

    @classmethod
    def of(cls, loglik: float, loglik_null: float, loglik_reduced: float | None, num_random: int) -> VarianceTests:
        """Test all ``num_random`` variances at once: ½χ²₀ + ½χ²₁ for one, binomial weights as if independent for more."""
        lrt = likelihood_ratio(loglik, loglik_null)
        note = "½χ²₀ + ½χ²₁" if num_random == 1 else "approximate: mixture of χ²₀...χ²_K with binomial weights"
        return cls(loglik_null, lrt, mixture_tail(lrt, num_random), note, loglik_reduced)


def likelihood_ratio(loglik: float, smaller: float) -> float:
    """2(ℓ − ℓ of the model without some variances), not below 0, which rounding can leave it."""
    return max(0.0, 2 * (loglik - smaller))


def mixture_tail(lrt: float, num_variances: int) -> float:
    """P(χ̄² > lrt) for variances that are 0: Σ_k C(K, k) 2⁻ᴷ P(χ²_k > lrt), where χ²₀ is never above lrt.

    So an lrt of 0 has 1 − 2⁻ᴷ, the limit from above and, for K = 1, the 0.5 that GCTA writes, whatever the last digits of the
    log-likelihoods are.
    """
    weights = [math.comb(num_variances, df) / 2**num_variances for df in range(num_variances + 1)]
    return math.fsum(weight * chi2_tail(lrt, df) for df, weight in enumerate(weights))


def can_test_variances(covariance: Covariance) -> bool:
    """Whether V is a sum of variance components with independent residuals: leaving out correlations tests no variance."""
    return covariance.is_linear and covariance.residual is not None and len(covariance.terms) > 1


def refit_is_needed(covariance: Covariance) -> bool:
    """Whether the test of the first random term takes a fit of its own: with one term alone it is closed. Local."""
    return can_test_variances(covariance) and len(covariance.terms) > 2


def variance_tests(
    solver: Solver,
    fit: FitResult,
    y: Tensor,
    X: Tensor,
    *,
    without_first: bool = True,
    options: FitOptions | None = None,
    traces: str = "auto",
    num_probes: int | None = None,
    seed: int = 1,
) -> VarianceTests | None:
    """All tests of a fit. Collective. Cost: about half a fit with several random terms, else none.

    Args:
        solver: of the fit.
        fit: its result.
        y: (n,).
        X: (n, p).
        without_first: test the first random term too.
        options: of the fit without the first term.
        traces, num_probes, seed: of that fit, as ``Solver.fit`` has them.
    Returns:
        None for a model that ``can_test_variances`` refuses.
    """
    covariance = solver.covariance
    if not can_test_variances(covariance):
        return None
    null = null_log_likelihood(y, X)
    reduced = null if without_first else None
    if without_first and refit_is_needed(covariance):
        without = replace(solver, covariance=Covariance(covariance.terms[1:]))
        reduced = without.largest_loglik(
            y,
            X,
            options=options,
            traces=traces,
            num_probes=num_probes,
            seed=seed,
        )
    return VarianceTests.of(fit.loglik, null, reduced, num_random=len(covariance.terms) - 1)
