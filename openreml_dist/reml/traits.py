"""Several traits: covariances, heritability of each, genetic correlations, under the names of GCTA's ``--reml-bivar``."""

from __future__ import annotations

from itertools import combinations

from torch import Tensor

from openreml_dist.covariance import Covariance, Quantity
from openreml_dist.reml.result import Estimate, FitResult, delta_method

UNITS = {"V": "variance", "C": "covariance", "r": "correlation"}  # by the first letter of GCTA's names


def traits_of(covariance: Covariance, theta: Tensor) -> tuple[str, ...]:
    """Names of the traits, where V is a covariance between them for one random term and one for the residual; else none.

    A trait is a level that both terms have a variance of.
    """
    if len(covariance.terms) != 2:
        return ()
    genetic, residual = (
        tuple(quantity.levels[0] for quantity in summary if quantity.unit == "variance" and len(quantity.levels) == 1)
        for summary in _summaries(covariance, theta)
    )
    return genetic if genetic == residual else ()


def trait_estimates(fit: FitResult, covariance: Covariance) -> list[Estimate]:
    """V(G), C(G), V(e), C(e), Vp, V(G)/Vp and rG of the traits, with standard errors; empty for other models. Local."""
    traits = traits_of(covariance, fit.theta)
    if not traits:
        return []
    numbered = [*enumerate(traits, 1)]

    def rows(theta: Tensor) -> dict[Quantity, Tensor]:
        genetic, residual = (
            {(quantity.unit, *quantity.levels): value for quantity, value in summary.items() if quantity.levels}
            for summary in _summaries(covariance, theta)
        )
        made: dict[str, Tensor] = {}
        for label, values in (("G", genetic), ("e", residual)):
            made |= {f"V({label})_tr{t}": values["variance", trait] for t, trait in numbered}
            made |= {
                f"C({label})_tr{a}{b}": values["covariance", one, other] for (a, one), (b, other) in combinations(numbered, 2)
            }
        made |= {f"Vp_tr{t}": made[f"V(G)_tr{t}"] + made[f"V(e)_tr{t}"] for t, _ in numbered}
        made |= {f"V(G)/Vp_tr{t}": made[f"V(G)_tr{t}"] / made[f"Vp_tr{t}"] for t, _ in numbered}
        for (a, one), (b, other) in combinations(numbered, 2):
            made["rG" if len(traits) == 2 else f"rG_tr{a}{b}"] = genetic["correlation", one, other]
        return {Quantity(name, "ratio" if "/" in name else UNITS[name[0]]): value for name, value in made.items()}

    return list(delta_method(rows, fit.theta, fit.known))


def _summaries(covariance: Covariance, theta: Tensor) -> list[dict[Quantity, Tensor]]:
    """What each term reports at θ (r,), differentiable in it."""
    return [term.summary(eta) for term, eta in zip(covariance.terms, covariance.eta_by_term(theta), strict=True)]
