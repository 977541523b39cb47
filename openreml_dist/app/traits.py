"""Several traits: heritability of each, and the table that GCTA prints for two (``--reml-bivar``)."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import combinations

from torch import Tensor

from openreml_dist.covariance import Covariance
from openreml_dist.reml import FitResult
from openreml_dist.reml.result import Estimate, delta_method

Functions = Callable[[Tensor], dict[str, Tensor]]


def traits_of(covariance: Covariance, theta: Tensor) -> list[str]:
    """Names of the traits, where V is a covariance between them for one random term and one for the residual; else none."""
    if len(covariance.terms) != 2:
        return []
    found = []
    for term in covariance.terms:
        pattern = re.compile(rf"{re.escape(term.name)}\.variance\[(.*)\]")
        found.append([match[1] for name in covariance.summary(theta) if (match := pattern.fullmatch(name))])
    return found[0] if found[0] == found[1] else []


def trait_estimates(fit: FitResult, covariance: Covariance) -> list[Estimate]:
    """GCTA's rows for several traits, with standard errors; empty for other models."""
    traits = traits_of(covariance, fit.theta)
    if not traits:
        return []
    genetic, residual = (term.name for term in covariance.terms)

    def rows(theta: Tensor) -> dict[str, Tensor]:
        values = covariance.summary(theta)
        made: dict[str, Tensor] = {}
        for label, name in (("G", genetic), ("e", residual)):
            made |= {f"V({label})_tr{t}": values[f"{name}.variance[{trait}]"] for t, trait in enumerate(traits, 1)}
            pairs = combinations(enumerate(traits, 1), 2)
            made |= {f"C({label})_tr{a}{b}": values[f"{name}.covariance[{one},{other}]"] for (a, one), (b, other) in pairs}
        numbers = range(1, len(traits) + 1)
        made |= {f"Vp_tr{t}": made[f"V(G)_tr{t}"] + made[f"V(e)_tr{t}"] for t in numbers}
        made |= {f"V(G)/Vp_tr{t}": made[f"V(G)_tr{t}"] / made[f"Vp_tr{t}"] for t in numbers}
        for (a, one), (b, other) in combinations(enumerate(traits, 1), 2):
            made["rG" if len(traits) == 2 else f"rG_tr{a}{b}"] = values[f"{genetic}.correlation[{one},{other}]"]
        return made

    return list(delta_method(rows, fit.theta, fit.theta_covariance))


def traits_hsq(fit: FitResult, rows: list[Estimate], num_records: int) -> str:
    """The table as GCTA prints it, tab separated; ``NA`` where there is no standard error."""
    lines = ["Source\tVariance\tSE"]
    lines += [f"{row.name}\t{row.value:.6f}\t{'NA' if row.se is None else f'{row.se:.6f}'}" for row in rows]
    return "\n".join([*lines, f"logL\t{fit.loglik:.3f}", f"n\t{num_records}"]) + "\n"
