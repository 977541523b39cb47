"""``result.hsq``: the tables of GCTA, tab separated, with six decimals, and ``NA`` where there is no standard error."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from openreml_dist.app.inputs.terms import genetic_terms
from openreml_dist.app.report.decimals import hsq_line
from openreml_dist.app.report.results import Results
from openreml_dist.reml import FitResult
from openreml_dist.reml.liability import LiabilityScale
from openreml_dist.reml.likelihood_ratio import VarianceTests, likelihood_ratio, mixture_tail
from openreml_dist.reml.result import Estimate

Proportion = tuple[str, float, float | None]  # label, value, standard error


def hsq(results: Results) -> str | None:
    """The table of a finished run; None for a model that GCTA has no table of, and for a fit that did not converge."""
    if not results.fit.status.is_an_answer:
        return None
    if results.tests is not None:
        prevalence = results.settings.model.prevalence
        cases = results.inputs.num_cases / results.num_samples
        liability = None if prevalence is None else LiabilityScale(prevalence, cases)
        genetic = genetic_terms(results.settings)
        table = _of_components(results.fit, results.tests, results.num_samples, liability, genetic)
    elif results.traits:
        table = _of_traits(results.fit, results.traits, results.num_samples)
    else:
        return None
    table += hsq_line(results.fit, results.traits)
    return table + (_fixed_effects(results.fit) if results.settings.output.fixed_in_hsq else "")


def _of_components(
    fit: FitResult,
    tests: VarianceTests,
    num_samples: int,
    liability: LiabilityScale | None,
    genetic: Collection[str] | None,
) -> str:
    """As ``--reml`` prints it: variances, their proportions, and the test of the first one.

    G is what is genetic (all but the residual, where ``genetic`` is None); another term, which GCTA has not, has its own name.
    """
    *random, residual = fit.components
    places = [k for k, component in enumerate(random) if genetic is None or component.name in genetic]
    numbered = {place: "G" if len(places) == 1 else f"G{number}" for number, place in enumerate(places, 1)}
    labels = [numbered.get(k, component.name) for k, component in enumerate(random)]
    total, total_se = fit.total
    lines = ["Source\tVariance\tSE"]
    lines += [f"V({label})\t{_six(c.variance)}\t{_six(c.se)}" for label, c in zip(labels, random, strict=True)]
    lines += [f"V(e)\t{_six(residual.variance)}\t{_six(residual.se)}", f"Vp\t{_six(total)}\t{_six(total_se)}"]
    proportions: list[Proportion] = [
        (f"V({label})/Vp", c.proportion, c.proportion_se) for label, c in zip(labels, random, strict=True)
    ]
    lines += [f"{label}\t{_six(value)}\t{_six(se)}" for label, value, se in proportions]
    if len(places) > 1:
        summed = ("Sum of V(G)/Vp", *fit.proportion_of(places))
        lines += ["", f"{summed[0]}\t{_six(summed[1])}\t{_six(summed[2])}"]
        proportions.append(summed)
    if liability is not None:
        lines += _on_liability_scale(liability, proportions)
    lines.append(f"logL\t{fit.loglik:.3f}")
    if tests.loglik_reduced is not None:
        lrt = likelihood_ratio(fit.loglik, tests.loglik_reduced)
        lines += [f"logL0\t{tests.loglik_reduced:.3f}", f"LRT\t{lrt:.3f}", "df\t1", f"Pval\t{mixture_tail(lrt, 1):.4e}"]
    return "\n".join([*lines, f"n\t{num_samples}"]) + "\n"


def _on_liability_scale(liability: LiabilityScale, proportions: Sequence[Proportion]) -> list[str]:
    """Lines of the underlying scale, as with ``--prevalence``."""
    head = [
        "The estimate of variance explained on the observed scale is transformed to that on the underlying scale:",
        f"(Proportion of cases in the sample = {liability.sample_proportion:g}; "
        f"User-specified disease prevalence = {liability.prevalence:g})",
    ]
    rows = [
        f"{label}_L\t{_six(value * liability.factor)}\t{_six(None if se is None else se * liability.factor)}"
        for label, value, se in proportions
    ]
    return head + rows


def _of_traits(fit: FitResult, traits: Sequence[Estimate], num_records: int) -> str:
    """As ``--reml-bivar`` prints it."""
    lines = ["Source\tVariance\tSE"]
    lines += [f"{row.name}\t{_six(row.value)}\t{_six(row.se)}" for row in traits]
    return "\n".join([*lines, f"logL\t{fit.loglik:.3f}", f"n\t{num_records}"]) + "\n"


def _fixed_effects(fit: FitResult) -> str:
    """The end of the file with ``--reml-est-fix``: an empty line, then estimates and standard errors."""
    rows = zip(fit.beta.tolist(), fit.beta_se.tolist(), strict=True)
    return "\nFix_eff\tSE\n" + "".join(f"{estimate:.6f}\t{se:.6f}\n" for estimate, se in rows)


def _six(value: float | None) -> str:
    return "NA" if value is None or math.isnan(value) else f"{value:.6f}"
