"""Likelihood-ratio tests of a fit: against no genetic term, and against the model without its first one."""

from __future__ import annotations

from torch import Tensor

from openreml_dist.app.report.tables import Tests
from openreml_dist.app.run import Run
from openreml_dist.app.traces import traces_settings
from openreml_dist.covariance import Covariance
from openreml_dist.reml import FitResult, Stopping, null_log_likelihood

SMALLEST_START = 0.01  # share of the variance that a component restarts from, if it was less


def likelihood_ratio_tests(run: Run, covariance: Covariance, fit: FitResult, y: Tensor, X: Tensor) -> Tests | None:
    """All tests that the settings ask for. Collective: a refit with several random terms, else closed forms.

    None unless V is a sum of variance components with independent residuals: leaving out what has correlations is no test of
    one variance.
    """
    if not covariance.is_linear or covariance.residual is None or len(covariance.terms) == 1:
        return None
    null = null_log_likelihood(y, X)
    reduced = None
    if run.settings.solver.lrt:
        reduced = null if len(covariance.terms) == 2 else _refit_without_first(run, covariance, fit, y, X)
    return Tests.of(fit.loglik, null, reduced, num_genetic=len(covariance.terms) - 1)


def _refit_without_first(run: Run, covariance: Covariance, fit: FitResult, y: Tensor, X: Tensor) -> float:
    """logL with the first genetic term dropped and the others refitted, as GCTA tests it. Collective."""
    run.terminal.say(f"refitting without {covariance.parameters[0]} for its likelihood-ratio test")
    constrain = run.settings.solver.constrain
    start = fit.theta[1:]
    if constrain:
        start = start.clamp_min(SMALLEST_START * float(fit.theta.sum()))
    stopping = Stopping(run.settings.solver.max_iter, tolerance_theta=1e-3)  # ℓ is flat there: good to 1e-6
    reduced = run.reml(Covariance(covariance.terms[1:]))
    return reduced.fit(y, X, start, constrain=constrain, stopping=stopping, **traces_settings(run.settings.solver)).loglik
