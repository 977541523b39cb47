"""Fits that end on a bound, that the data cannot decide, or that only differ in units and order."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from openreml_dist import REML, Covariance, FitResult, Grouping, Identity, Kernel
from openreml_dist.covariance import AR1Correlation, HadamardProduct, IdentityMatrix, SameLevel, Scaled, Term, Unstructured
from openreml_dist.errors import ConfigError, InputError

N = 120
random = np.random.default_rng(3)
LEVELS, TRAIT = random.integers(0, 12, N), np.arange(N) % 2
EFFECTS, NOISE = random.standard_normal(12), np.random.default_rng(4).standard_normal(N)
Z = random.standard_normal((N, 200))
ONE = torch.ones(N, 1, dtype=torch.float64)
GROUPED = torch.tensor(EFFECTS[LEVELS] + NOISE)
TWO_TRAITS = torch.tensor((1 + TRAIT) * EFFECTS[LEVELS] + 0.5 * NOISE)  # genetic correlation 1


def fit(y: Tensor, *terms: Term, start: object = "auto", **settings: object) -> FitResult:
    return REML(Covariance(terms, **settings)).fit(y, ONE, start)  # type: ignore[arg-type]


def bivariate(name: str = "G") -> Term:
    return HadamardProduct(Unstructured(["a", "b"], name).selected(TRAIT), SameLevel(LEVELS, "level"))


def series() -> Term:
    return Scaled(AR1Correlation(N, "time"), "series")


def derived(fit: FitResult) -> dict[str, tuple[float, float | None]]:
    return {estimate.name: (estimate.value, estimate.se) for estimate in fit.derived}


def test_a_genetic_correlation_of_one_is_found_whatever_the_start() -> None:
    """∂(LLᵀ)/∂L_bb is zero at L_bb = 0, which must not pass for the optimum."""
    fits = [fit(TWO_TRAITS, bivariate(), Identity(N))]
    fits += [fit(TWO_TRAITS, bivariate(), Identity(N), start=start) for start in ([0.1, 0, 1, 1], [1, -1, 0.1, 0.3])]
    for found in fits:
        assert found.status == "converged_at_bound"
        assert found.loglik == pytest.approx(fits[0].loglik, abs=1e-6)
        correlation, se = derived(found)["G.correlation[a,b]"]
        assert correlation == pytest.approx(1, abs=1e-5) and se is None


def nearly_one_line() -> tuple[Tensor, Term, Term]:
    """Two traits of 60 individuals, the second twice the first but for a thousandth."""
    generator = np.random.default_rng(12)
    K = Z[:60] @ Z[:60].T / 200
    first = np.linalg.cholesky(K) @ generator.standard_normal(60) + generator.standard_normal(60)
    y = torch.tensor(np.concatenate([first, 2 * first + 1e-3 * generator.standard_normal(60)]))
    trait, individual = np.repeat([0, 1], 60), np.tile(np.arange(60), 2)
    genetic = HadamardProduct(Unstructured(["a", "b"], "G").selected(trait), Kernel.from_array(K).K.selected(individual))
    residual = HadamardProduct(Unstructured(["a", "b"], "R").selected(trait), SameLevel(individual, "individual"))
    return y, genetic, residual


@pytest.mark.parametrize(
    "start", ["auto", [1, 0, 1, 0.2, 0, 0.2], [0.5, 0.9, 0.6, 0.5, 0.3, 0.8], [0.1, 0, 0.3, 1, 1, 0.5]], ids=str
)
def test_two_traits_that_are_nearly_one_line_end_at_a_correlation_of_one(start: object) -> None:
    """AI is next to nothing where y is a thousandth of what the start expects: the expected information leads there."""
    y, genetic, residual = nearly_one_line()
    X = torch.tensor(np.kron(np.eye(2), np.ones((60, 1))))
    found = REML(Covariance([genetic, residual])).fit(y, X, start)  # type: ignore[arg-type]
    assert found.status == "converged_at_bound"
    assert found.num_iterations <= 35
    assert found.unit_correlations == ("G.correlation[a,b]",)
    noise = found.theta[5]  # of the residual, which is what is left of the second trait
    assert 0.7e-3 < float(noise) < 1.4e-3
    assert found.iterations[-1].next_step.gain < 1e-5  # of ℓ
    assert derived(found)["G.variance[a]"][0] == pytest.approx(1.176958, rel=1e-3)  # whatever the start


def loglik_of_two_traits(theta: np.ndarray, K: np.ndarray, Y: np.ndarray) -> float:
    """ℓ of Y (n, 2) with a mean a trait, individual by individual in the eigenvectors of K."""
    values, vectors = np.linalg.eigh(K)
    one, Y = vectors.T @ np.ones(len(K)), vectors.T @ Y
    G, R = (L @ L.T for L in (np.array([[a, 0], [b, c]]) for a, b, c in theta.reshape(2, 3)))
    V = values[:, None, None] * G + R
    V_inv = np.linalg.inv(V)
    information = np.einsum("i,ijk,i->jk", one, V_inv, one)
    projected = np.einsum("i,ijk,ik->j", one, V_inv, Y)
    yPy = np.einsum("ij,ijk,ik->", Y, V_inv, Y) - projected @ np.linalg.solve(information, projected)
    return float(-0.5 * (np.linalg.slogdet(V)[1].sum() + np.linalg.slogdet(information)[1] + yPy))


@pytest.mark.parametrize("seed", [1, 2, 5])
def test_one_wild_value_of_one_trait_ends_where_whole_matrices_do(seed: int) -> None:
    """A value 300 SD away takes the variance of its trait; the other trait keeps its own."""
    generator, n = np.random.default_rng(seed), 120
    features = generator.standard_normal((n, 200))
    K = features @ features.T / 200
    Y = np.linalg.cholesky(K) @ generator.standard_normal((n, 2)) + generator.standard_normal((n, 2))
    Y[17, 0] += 300 * Y[:, 0].std()
    trait, individual = np.repeat([0, 1], n), np.tile(np.arange(n), 2)
    genetic = HadamardProduct(Unstructured(["a", "b"], "G").selected(trait), Kernel.from_array(K).K.selected(individual))
    residual = HadamardProduct(Unstructured(["a", "b"], "R").selected(trait), SameLevel(individual, "individual"))
    found = REML(Covariance([genetic, residual])).fit(
        torch.tensor(Y.T.reshape(-1)), torch.tensor(np.kron(np.eye(2), np.ones((n, 1))))
    )
    assert found.status in ("converged", "converged_at_bound") and found.num_iterations <= 35
    theta = found.theta.numpy()
    assert found.loglik == pytest.approx(loglik_of_two_traits(theta, K, Y), abs=1e-6)
    unit = np.tile([Y[:, 0].std(), Y[:, 1].std(), Y[:, 1].std()], 2)
    for start in ([0.7, 0, 0.7, 0.7, 0, 0.7], [0.1, 0.3, 0.5, 1, 0, 0.7], [0.1, -0.3, 0.5, 1, 0, 0.7]):
        best = minimize(lambda x: -loglik_of_two_traits(x * unit, K, Y), start, method="BFGS")
        assert found.loglik > -best.fun - 1e-5


def test_a_correlation_without_a_variance_stays_where_it_is() -> None:
    found = fit(torch.tensor(NOISE), series(), Identity(N), start=[0.0, 0.5, 1.0])
    assert found.status == "converged_at_bound"
    assert found.theta[:2].tolist() == [0.0, 0.5]
    assert "time.correlation" in found.confounded


def test_the_correlations_of_a_random_walk_and_of_a_saw_come_near_their_limits() -> None:
    assert float(fit(torch.tensor(np.cumsum(NOISE)), series()).theta[1]) > 0.9
    assert float(fit(torch.tensor(3 * (-1.0) ** np.arange(N) + 0.1 * NOISE), series()).theta[1]) < -0.99


def kernel(name: str, scale: float = 1.0) -> Kernel:
    return Kernel.from_array(scale * Z @ Z.T / 200, name)


@pytest.mark.parametrize(
    ("terms", "names"),
    [
        ([kernel("k1"), kernel("k2"), Identity(N)], ("k1", "k2")),
        ([kernel("k1"), kernel("k3", 3.0), Identity(N)], ("k1", "k3")),
        ([Identity(N, "e1"), Identity(N, "e2")], ("e1", "e2")),
    ],
)
def test_what_the_data_cannot_tell_apart_is_named(terms: list[Term], names: tuple[str, ...]) -> None:
    found = fit(TWO_TRAITS, *terms)
    assert found.status == "not_identified" and found.status.exit_code == 6
    assert found.confounded == names
    values = {estimate.name: estimate for estimate in found.estimates}
    for name, estimate in values.items():
        assert (estimate.se is None) == (name in names) == math.isnan(estimate.value)
    elsewhere = fit(
        TWO_TRAITS, *terms, start=[0.2, 1.7, 0.9][: len(found.theta)]
    )  # another point of the ridge, the same answer
    assert elsewhere.loglik == pytest.approx(found.loglik, abs=1e-7)
    for estimate in elsewhere.estimates:
        if estimate.name not in names:
            assert estimate.value == pytest.approx(values[estimate.name].value, rel=1e-5)
            assert estimate.se == pytest.approx(values[estimate.name].se, rel=1e-5)
    assert len(found.ridges) == 1 and all(name in found.ridges[0] for name in names)


def test_a_covariance_of_traits_that_no_one_has_both_of_is_fixed_and_the_others_keep_their_errors() -> None:
    """Each record is of one trait and of one individual: V does not depend on the covariance."""
    G = Unstructured(2, "R")
    found = fit(TWO_TRAITS, HadamardProduct(G.selected(TRAIT), IdentityMatrix(N)))
    assert found.status == "converged" and found.confounded == ()
    assert found.unknown == ("R.L[2,1]", "R.covariance[1,2]", "R.correlation[1,2]")
    assert found.theta[1] == 0 and found.standard_errors[1].isnan()
    for trait, k in ((0, 0), (1, 2)):
        alone = REML(Identity(N // 2)).fit(TWO_TRAITS[trait == TRAIT], ONE[: N // 2])
        whole = REML(Covariance([HadamardProduct(G.selected(TRAIT), IdentityMatrix(N))]))
        apart = whole.fit(TWO_TRAITS, torch.tensor(np.eye(2)[TRAIT]))  # a mean a trait: then each trait is a fit of its own
        assert float(apart.theta[k]) ** 2 == pytest.approx(float(alone.theta[0]), rel=1e-6)
        variance = 2 * float(apart.theta[k]) * float(apart.standard_errors[k])
        assert variance == pytest.approx(float(alone.standard_errors[0]), rel=1e-6)


def test_a_variance_that_starts_at_zero_fixes_nothing_of_its_term() -> None:
    """There the correlation has no part in V, but elsewhere it has."""
    walk = torch.tensor(np.cumsum(NOISE))
    found = fit(walk, series(), Identity(N), start=[0.0, 0.5, 1.0])
    assert found.unknown == ()
    assert found.loglik == pytest.approx(fit(walk, series(), Identity(N)).loglik, abs=1e-6)


def test_two_unstructured_terms_that_are_one_are_named() -> None:
    found = fit(TWO_TRAITS, bivariate("G"), bivariate("H"), Identity(N))
    assert found.confounded == tuple(f"{term}.L[{pair}]" for term in "GH" for pair in ("a,a", "b,a", "b,b"))


def test_a_variance_of_fixed_effects_is_named_and_keeps_its_value() -> None:
    X = torch.tensor(np.eye(12)[LEVELS])
    reml = REML(Covariance([Grouping(LEVELS, "group"), Identity(N)]))
    found = reml.fit(GROUPED, X)
    assert found.unknown == ("group",) and found.status == "not_identified"
    assert math.isnan(found.total[0]) and [math.isnan(c.proportion) for c in found.components] == [True, True]
    assert found.components[1].se == pytest.approx(float(REML(Identity(N)).fit(GROUPED, X).standard_errors[0]))
    assert 0 < float(found.theta[0]) < 10
    assert float(found.theta[1]) == pytest.approx(float(REML(Identity(N)).fit(GROUPED, X).theta[0]))


def test_a_level_without_a_record_is_named() -> None:
    G = Unstructured(["a", "b", "c"], "G").selected(TRAIT)
    found = fit(TWO_TRAITS, HadamardProduct(G, SameLevel(LEVELS, "level")), Identity(N))
    assert found.status == "converged_at_bound"
    assert found.unknown[:3] == ("G.L[c,a]", "G.L[c,b]", "G.L[c,c]")
    assert {"G.variance[c]", "G.covariance[a,c]"} < set(found.unknown) and "G.variance[b]" not in found.unknown
    assert not bool(found.standard_errors[[0, 1, -1]].isnan().any())


def test_nothing_to_estimate_is_refused() -> None:
    with pytest.raises(InputError, match="no free parameter"):
        fit(GROUPED, Identity(N), fixed={"residual": 1.0})
    with pytest.raises(InputError, match="y is constant"):
        fit(torch.full((N,), 3.0, dtype=torch.float64), Grouping(LEVELS, "group"), Identity(N))


def test_a_start_outside_the_bounds_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"time.correlation = 1.5 is above its bound 0.999999"):
        fit(GROUPED, series(), Identity(N), start=[1.0, 1.5, 1.0])


def test_a_fixed_parameter_has_no_standard_error() -> None:
    found = fit(GROUPED, Grouping(LEVELS, "group"), Identity(N), fixed={"residual": 1.0})
    assert found.parameters == ("group",)
    assert derived(found) == {"residual": (1.0, None)}


MODELS = {
    "autocorrelated": (GROUPED, lambda: [series(), Grouping(LEVELS, "group"), Identity(N)]),
    "bivariate": (TWO_TRAITS, lambda: [bivariate(), Identity(N)]),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_of_y_change_nothing_but_units(name: str, scale: float) -> None:
    y, terms = MODELS[name]
    ours, theirs = fit(y, *terms()), fit(scale * y, *terms())
    assert theirs.status == ours.status and theirs.num_iterations == ours.num_iterations
    parameters = Covariance(terms()).map.parameters
    for parameter, mine, other in zip(parameters, ours.theta, theirs.theta, strict=True):
        power = {"variance": 2, "loading": 1}.get(parameter.unit, 0)
        assert float(other) == pytest.approx(float(mine) * scale**power, rel=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_order_of_terms_changes_nothing(name: str) -> None:
    y, terms = MODELS[name]
    ours, theirs = fit(y, *terms()), fit(y, *reversed(terms()))
    values = dict(zip(theirs.parameters, theirs.theta.tolist(), strict=True))
    assert ours.loglik == pytest.approx(theirs.loglik, abs=1e-7)
    assert [values[name] for name in ours.parameters] == pytest.approx(ours.theta.tolist(), rel=1e-5)
