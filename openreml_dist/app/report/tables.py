"""What a fit leaves behind: ``result.json``, ``result.hsq`` as GCTA prints it, and the records of ``steps.jsonl``."""

from __future__ import annotations

import math
import platform
import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch

from openreml_dist.reml import FitResult, Iteration
from openreml_dist.reml.wald import chi2_tail
from openreml_dist.versions import OWN, version_of


@dataclass(frozen=True)
class Tests:
    """Likelihood-ratio tests of the genetic components; all log-likelihoods without −½(n−p) log 2π.

    Attributes:
        loglik_null: no genetic term at all.
        lrt: 2(logL − loglik_null), not below 0.
        pvalue: of ``lrt`` under the mixture of χ² that variances at zero have.
        pvalue_note: how good that mixture is.
        loglik_reduced: without the first genetic term, the others refitted (GCTA's logL0); None if not asked for.
    """

    loglik_null: float
    lrt: float
    pvalue: float
    pvalue_note: str
    loglik_reduced: float | None

    @classmethod
    def of(cls, loglik: float, loglik_null: float, loglik_reduced: float | None, num_genetic: int) -> Tests:
        """Test all genetic variances at once: ½χ²₀ + ½χ²₁ for one, binomial weights as if independent for more."""
        lrt = max(0.0, 2 * (loglik - loglik_null))
        weights = [math.comb(num_genetic, df) / 2**num_genetic for df in range(num_genetic + 1)]
        pvalue = sum(weight * chi2_tail(lrt, df) for df, weight in enumerate(weights))
        note = "½χ²₀ + ½χ²₁" if num_genetic == 1 else "approximate: mixture of χ²₀...χ²_K with binomial weights"
        return cls(loglik_null, lrt, pvalue, note, loglik_reduced)


def result_json(fit: FitResult, fixed_names: tuple[str, ...], tests: Tests | None, num_samples: int) -> dict[str, Any]:
    """The estimates as plain numbers; None where there is no standard error."""
    beta_se = fit.beta_se.tolist()
    return {
        "status": str(fit.status),
        "exit_code": fit.status.exit_code,
        "message": fit.message,
        "num_samples": num_samples,
        "num_fixed_effects": len(fixed_names),
        "num_iterations": fit.num_iterations,
        "loglik": fit.loglik,
        **({} if tests is None else asdict(tests)),
        **_variance_components(fit),
        "estimates": [asdict(estimate) for estimate in fit.estimates],
        "parameters": list(fit.parameters),
        "confounded": list(fit.confounded),
        "theta_covariance": fit.theta_covariance.tolist(),
        "monte_carlo_se": fit.monte_carlo_se.tolist(),
        "fixed_effects": [
            {"name": name, "estimate": estimate, "se": se}
            for name, estimate, se in zip(fixed_names, fit.beta.tolist(), beta_se, strict=True)
        ],
        "fixed_effects_covariance": fit.beta_covariance.tolist(),
        "history": [step_record(iteration, fit.parameters) for iteration in fit.iterations],
    }


def _variance_components(fit: FitResult) -> dict[str, Any]:
    """Variances with their proportions, where they add up."""
    if not fit.is_linear:
        return {}
    return {
        "components": [asdict(component) for component in fit.components],
        "phenotypic_variance": fit.total[0],
        "phenotypic_variance_se": fit.total[1],
    }


def step_record(iteration: Iteration, parameters: tuple[str, ...]) -> dict[str, Any]:
    """One accepted iterate; every number belongs to its θ."""
    step = iteration.step
    return {
        "iteration": iteration.number,
        "theta": dict(zip(parameters, step.theta.tolist(), strict=True)),
        "loglik": step.loglik,
        "score": step.score.tolist(),
        "ai": step.AI.tolist(),
        "beta": step.beta.tolist(),
        "at_bound": [name for name, held in zip(parameters, iteration.at_bound.tolist(), strict=True) if held],
        "largest_move_se": iteration.largest_move,
        "evaluations": iteration.evaluations,
        "evaluation": str(step.evaluation),
        "monte_carlo_error_se": iteration.noise,
        "trace_error": step.trace_error,
        "seconds": step.seconds,
    }


def versions() -> dict[str, str]:
    """Of this package, Python and the libraries that computed."""
    packages = (OWN, "torch", "numpy", "zarr", "hydra-core")
    return {"python": platform.python_version(), "platform": sys.platform, **{name: version_of(name) for name in packages}}


def hsq(fit: FitResult, tests: Tests, num_samples: int, liability: Liability | None) -> str:
    """The table of GCTA's ``.hsq``, tab separated; ``NA`` where there is no standard error."""
    *genetic, residual = fit.components
    labels = ["G"] if len(genetic) == 1 else [f"G{k}" for k in range(1, len(genetic) + 1)]
    total, total_se = fit.total
    lines = ["Source\tVariance\tSE"]
    lines += [f"V({label})\t{_six(g.variance)}\t{_six(g.se)}" for label, g in zip(labels, genetic, strict=True)]
    lines += [f"V(e)\t{_six(residual.variance)}\t{_six(residual.se)}", f"Vp\t{_six(total)}\t{_six(total_se)}"]
    lines += [f"V({label})/Vp\t{_six(g.proportion)}\t{_six(g.proportion_se)}" for label, g in zip(labels, genetic, strict=True)]
    shares = [(f"V({label})/Vp", g.proportion, g.proportion_se) for label, g in zip(labels, genetic, strict=True)]
    if len(genetic) > 1:
        summed = fit.share(list(range(len(genetic))))
        lines += ["", f"Sum of V(G)/Vp\t{_six(summed[0])}\t{_six(summed[1])}"]
        shares.append(("Sum of V(G)/Vp", *summed))
    if liability is not None:
        lines += liability.lines(shares)
    lines.append(f"logL\t{fit.loglik:.3f}")
    if tests.loglik_reduced is not None:
        lrt = max(0.0, 2 * (fit.loglik - tests.loglik_reduced))
        lines += [f"logL0\t{tests.loglik_reduced:.3f}", f"LRT\t{lrt:.3f}", "df\t1", f"Pval\t{0.5 * chi2_tail(lrt, 1):.4e}"]
    return "\n".join([*lines, f"n\t{num_samples}"]) + "\n"


@dataclass(frozen=True)
class Liability:
    """Observed to liability scale for a case/control trait: prevalence K in the population, P in the sample."""

    prevalence: float
    sample_proportion: float

    @property
    def factor(self) -> float:
        """h²_L / h²_O = K²(1−K)² / (z² P(1−P)), z the normal density at the threshold (Lee et al. 2011, AJHG 88:294)."""
        K, P = self.prevalence, self.sample_proportion
        threshold = float(torch.special.ndtri(torch.tensor(1 - K, dtype=torch.float64)))
        z = math.exp(-(threshold**2) / 2) / math.sqrt(2 * math.pi)
        return (K * (1 - K)) ** 2 / (z**2 * P * (1 - P))

    def lines(self, shares: list[tuple[str, float, float | None]]) -> list[str]:
        """GCTA's lines for the underlying scale."""
        head = [
            "The estimate of variance explained on the observed scale is transformed to that on the underlying scale:",
            f"(Proportion of cases in the sample = {self.sample_proportion:g}; "
            f"User-specified disease prevalence = {self.prevalence:g})",
        ]
        rows = [
            f"{name}_L\t{_six(share * self.factor)}\t{_six(None if se is None else se * self.factor)}"
            for name, share, se in shares
        ]
        return head + rows


def _six(value: float | None) -> str:
    return "NA" if value is None else f"{value:.6f}"
