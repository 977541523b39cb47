"""What Python users compute from a fit: tests of variances, and heritabilities and correlations of traits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from openreml_dist import Covariance, Grouping, Identity, MixedModel
from openreml_dist.covariance import AR1Correlation, Scaled
from openreml_dist.models import Group, Unstructured
from openreml_dist.reml import FitResult, Solver, Stopping, null_log_likelihood, trait_estimates, variance_tests
from openreml_dist.reml.traits import traits_of

N = 60
X = torch.ones(N, 1, dtype=torch.float64)
OTHER_TRAITS = ("height[cm], sitting", "weight")


def grouped(rng: np.random.Generator, sizes: list[int]) -> tuple[Tensor, list[Grouping]]:
    """y, and a grouping of each size, of which all but the last have effects."""
    y, terms = rng.normal(size=N), []
    for number, size in enumerate(sizes):
        codes = rng.permutation(N) % size
        y += rng.normal(size=size)[codes] * (number < len(sizes) - 1)
        terms.append(Grouping(codes, f"group{number}"))
    return torch.tensor(y), terms


def test_one_random_term_is_tested_against_none() -> None:
    y, (group, _) = grouped(np.random.default_rng(1), [8, 5])
    covariance = Covariance([group, Identity(N)])
    solver = Solver.of(covariance)
    fit = solver.fit(y, X)
    tests = variance_tests(solver, fit, y, X)
    assert tests is not None
    assert tests.loglik_reduced == tests.loglik_null == null_log_likelihood(y, X)
    assert tests.lrt == pytest.approx(2 * (fit.loglik - tests.loglik_null))
    assert tests.lrt > 0
    without = variance_tests(solver, fit, y, X, without_first=False)
    assert without is not None
    assert (without.loglik_reduced, without.lrt) == (None, tests.lrt)


def test_a_large_mean_costs_no_digits() -> None:
    y, (group, _) = grouped(np.random.default_rng(1), [8, 5])
    solver = Solver.of(Covariance([group, Identity(N)]))
    fit, far = solver.fit(y, X), solver.fit(y + 2e7 * X[:, 0], X)
    torch.testing.assert_close(far.theta, fit.theta, rtol=1e-6, atol=0)
    assert far.loglik == pytest.approx(fit.loglik, abs=1e-6)
    torch.testing.assert_close(far.beta[0] - 2e7, fit.beta[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(far.beta[1:], fit.beta[1:], rtol=0, atol=1e-6)


def test_first_of_two_random_terms_is_tested_beside_the_other() -> None:
    y, terms = grouped(np.random.default_rng(2), [8, 5, 3])
    covariance = Covariance([*terms, Identity(N)])
    solver = Solver.of(covariance)
    fit = solver.fit(y, X)
    tests = variance_tests(solver, fit, y, X)
    reduced = Solver.of(Covariance([*terms[1:], Identity(N)])).fit(y, X, stopping=Stopping(tolerance_theta=1e-8))
    assert tests is not None
    assert tests.loglik_reduced == pytest.approx(reduced.loglik, abs=1e-4)  # three decimals are printed
    assert tests.loglik_null < reduced.loglik < fit.loglik


def test_correlations_have_no_test_of_variances() -> None:
    y, _ = grouped(np.random.default_rng(3), [8, 5])
    covariance = Covariance([Scaled(AR1Correlation(N, "row"), "field"), Identity(N)])
    solver = Solver.of(covariance)
    assert variance_tests(solver, solver.fit(y, X), y, X) is None


def two_traits(names: tuple[str, str], residual: Unstructured | None) -> tuple[MixedModel, FitResult]:
    rng = np.random.default_rng(4)
    family, person = np.repeat(np.arange(20), 4), np.arange(80)
    effects = rng.multivariate_normal([0, 0], [[1.0, 0.5], [0.5, 1.0]], 20)[family]
    values = effects + rng.multivariate_normal([0, 0], [[1.0, -0.3], [-0.3, 1.0]], 80)
    table = pd.DataFrame({"family": family, "person": person, names[0]: values[:, 0], names[1]: values[:, 1]})
    random = {"family.(x)": Unstructured("trait") * Group("family")}
    covariance = None if residual is None else residual * Group("person")
    model = MixedModel.from_dataframe(table, "1", random, covariance, traits=names)
    return model, model.fit()


@pytest.mark.parametrize("names", [("a", "b"), OTHER_TRAITS])
def test_traits_are_known_by_their_names_whatever_these_are(names: tuple[str, str]) -> None:
    model, fit = two_traits(names, Unstructured("trait"))
    assert traits_of(model.covariance, fit.theta) == names
    rows = {row.name: row for row in trait_estimates(fit, model.covariance)}
    G, R = (
        L @ L.mT
        for L in (
            torch.stack([torch.stack([a, torch.zeros_like(a)]), torch.stack([b, c])])
            for a, b, c in (fit.theta[:3], fit.theta[3:])
        )
    )
    expected = {
        "V(G)_tr1": G[0, 0], "V(G)_tr2": G[1, 1], "C(G)_tr12": G[0, 1],
        "V(e)_tr1": R[0, 0], "V(e)_tr2": R[1, 1], "C(e)_tr12": R[0, 1],
        "Vp_tr1": (G + R)[0, 0], "Vp_tr2": (G + R)[1, 1],
        "V(G)/Vp_tr1": G[0, 0] / (G + R)[0, 0], "V(G)/Vp_tr2": G[1, 1] / (G + R)[1, 1],
        "rG": G[0, 1] / (G[0, 0] * G[1, 1]).sqrt(),
    }  # fmt: skip
    assert list(rows) == list(expected)
    for name, value in expected.items():
        assert rows[name].value == pytest.approx(float(value), rel=1e-12)
        assert rows[name].se is not None
    assert [rows[name].unit for name in ("V(G)_tr1", "C(e)_tr12", "V(G)/Vp_tr2", "rG")] == [
        "variance", "covariance", "ratio", "correlation",
    ]  # fmt: skip


def test_residuals_of_uncorrelated_traits_have_no_such_rows() -> None:
    model, fit = two_traits(("a", "b"), None)
    assert traits_of(model.covariance, fit.theta) == ()
    assert trait_estimates(fit, model.covariance) == []
