"""Random effects, their error variances and predictions of new records against dense matrices, on 1 and 2 ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from openreml_dist import REML, Covariance, Grouping, Identity, Kernel
from openreml_dist.covariance import (
    HadamardProduct,
    Heterogeneous,
    IdentityMatrix,
    PedigreeMatrix,
    Scaled,
    Term,
    Unstructured,
    VarianceComponent,
)
from openreml_dist.errors import InputError
from openreml_dist.linalg import diagonal, quadratic_forms
from openreml_dist.reml import Effects, Predictor, wald_test
from openreml_dist.reml.dense import cross_covariance as cross
from openreml_dist.reml.dense.prediction import extra_inverses
from tests.helpers.gloo import spawn
from tests.helpers.oracle import oracle, random_case, random_positive_definite, tiled

EXACT = {"rtol": 1e-9, "atol": 1e-9}
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Model:
    """Terms on all samples, of which some have records; a sample may have several."""

    whole: Covariance
    theta: Tensor
    records: np.ndarray
    targets: np.ndarray
    X: Tensor
    y: Tensor
    x_new: Tensor
    jitter: float = 0.0

    @property
    def covariance(self) -> Covariance:
        terms = [term.selected(self.records) for term in self.whole.terms[:-1]]
        residual = self.whole.terms[-1].selected(self.records) if self.one_record_each else Identity(len(self.records))
        return Covariance([*terms, residual])

    @property
    def one_record_each(self) -> bool:
        return len(np.unique(self.records)) == len(self.records)

    def predictor(self, error_variances: bool = True) -> Predictor:
        reml = REML(self.covariance, tile_size=17, jitter=self.jitter)
        return reml.predictor(self.y, self.X, self.theta, error_variances)


def model(kind: str) -> Model:
    rng = np.random.default_rng(3)
    N, n = 71, 60
    K, L = (random_positive_definite(N, seed) / 30 for seed in (1, 2))
    one, other = Kernel.from_array(K, "one"), Kernel.from_array(L, "other")
    terms: dict[str, list[Term]] = {
        "one kernel": [one, Identity(N)],
        "two kernels": [one, other, Identity(N)],
        "plots": [one, Grouping(np.arange(N) % 9, "plot"), Identity(N)],
        "two diagonals": [one, Scaled(IdentityMatrix(N), "nugget"), Identity(N)],
        "groups": [one, Heterogeneous(np.arange(N) % 3)],
        "nothing": [Identity(N)],
        "jitter": [one, Identity(N)],
        "on the bound": [one, other, Identity(N)],
        "interaction": [HadamardProduct(Unstructured(2, "sex").selected(np.arange(N) % 2), one.K), Identity(N)],
    }
    whole = Covariance(terms[kind])
    theta = torch.linspace(0.4, 0.9, len(whole.parameters), dtype=torch.float64)
    if kind == "on the bound":
        theta[0] = 0.0
    records, targets = np.split(rng.permutation(N), [n])
    X = torch.tensor(np.column_stack([np.ones(n), rng.normal(1000, 100, n)]))
    x_new = torch.tensor(np.column_stack([np.ones(N - n), rng.normal(1000, 100, N - n)]))
    y = torch.tensor(rng.normal(size=n))
    return Model(whole, theta, records, targets, X, y, x_new, 0.05 if kind == "jitter" else 0.0)


KINDS = ["one kernel", "two kernels", "plots", "two diagonals", "groups", "nothing", "jitter", "on the bound", "interaction"]


def dense(covariance: Covariance, theta: Tensor) -> Iterator[Tensor]:
    for term, eta in zip(covariance.terms, covariance.eta_by_term(theta), strict=True):
        samples = range(covariance.size)
        V = term.entries(samples, samples, eta, CPU)
        yield torch.zeros(covariance.size, covariance.size).double() if V is None else V.double()


def expected_effects(
    V_t: Tensor, P: Tensor, y: Tensor, records: np.ndarray, targets: np.ndarray
) -> tuple[Tensor, Tensor, Tensor]:
    """û, var(u) and PEV from the term on everything."""
    C = V_t[targets][:, records]
    prior = V_t.diagonal()[targets]
    return C @ P @ y, prior, prior - (C @ P @ C.mT).diagonal()


def check(made: Effects, expected: tuple[Tensor, Tensor, Tensor]) -> None:
    values, prior, pev = expected
    torch.testing.assert_close(made.values, values, **EXACT)
    assert made.prior is not None and made.pev is not None and made.reliability is not None
    torch.testing.assert_close(made.prior, prior, **EXACT)
    torch.testing.assert_close(made.pev, pev, **EXACT)
    torch.testing.assert_close(made.reliability, torch.where(prior > 0, 1 - pev / prior, 0.0), rtol=1e-8, atol=1e-8)


def predictions() -> list[Any]:
    """Of every kind of model, in blocks of 16 or 17 columns."""
    made = []
    for kind in KINDS:
        m = model(kind)
        predictor = m.predictor()
        cross.SQUARE = 7
        made.append((predictor.records(), predictor.new_records(m.whole, m.records, m.targets, m.x_new)))
    return made


@pytest.fixture(scope="module", params=[1, 2])
def answers(request: pytest.FixtureRequest) -> Iterator[list[list[Any]]]:
    kept = cross.SQUARE
    yield spawn(predictions, request.param)
    cross.SQUARE = kept


@pytest.mark.parametrize("kind", KINDS)
def test_effects_at_the_records_and_elsewhere_equal_the_dense_ones(kind: str, answers: list[list[Any]]) -> None:
    m = model(kind)
    n = len(m.records)
    at_records, everywhere = [*dense(m.covariance, m.theta)], [*dense(m.whole, m.theta)]
    V = torch.stack(at_records).sum(dim=0) + m.jitter * torch.eye(n)
    found = oracle(V, at_records, m.y, m.X)
    for by_rank in answers:
        records, new = by_rank[KINDS.index(kind)]
        for made, V_t in zip(records, at_records, strict=True):
            check(made, expected_effects(V_t, found.P, m.y, np.arange(n), np.arange(n)))
        total = torch.stack([made.values for made in records]).sum(dim=0)
        torch.testing.assert_close(total, m.y - m.X @ found.beta - m.jitter * (found.P @ m.y), **EXACT)

        for made, V_t in zip(new.effects, everywhere, strict=True):
            check(made, expected_effects(V_t, found.P, m.y, m.records, m.targets))
        V_all = torch.stack(everywhere).sum(dim=0) + m.jitter * torch.eye(m.whole.size)
        C = V_all[m.targets][:, m.records]
        drift = m.x_new - C @ torch.linalg.solve(V, m.X)
        variance = V_all.diagonal()[m.targets] - (C @ torch.linalg.solve(V, C.mT)).diagonal()
        variance += ((drift @ found.beta_covariance) * drift).sum(dim=1)
        torch.testing.assert_close(new.fitted, m.x_new @ found.beta + C @ found.P @ m.y, **EXACT)
        torch.testing.assert_close(new.variance, variance, **EXACT)


def test_without_error_variances_nothing_is_inverted_and_effects_are_the_same() -> None:
    m = model("two kernels")
    with_errors, without = m.predictor(), m.predictor(error_variances=False)
    for made, bare in zip(with_errors.records(), without.records(), strict=True):
        assert bare.pev is None and bare.prior is None and bare.reliability is None
        torch.testing.assert_close(bare.values, made.values, **EXACT)
    new = without.new_records(m.whole, m.records, m.targets, m.x_new)
    assert new.variance is None
    torch.testing.assert_close(new.fitted, with_errors.new_records(m.whole, m.records, m.targets, m.x_new).fitted, **EXACT)


def pedigree() -> tuple[PedigreeMatrix, np.ndarray]:
    """30 animals in three generations; the records are of the last ones, three of them twice."""
    rng = np.random.default_rng(8)
    sires = ["0"] * 10 + [f"a{rng.integers(0, 10)}" for _ in range(10)] + [f"a{rng.integers(10, 15)}" for _ in range(10)]
    dams = ["0"] * 10 + [f"a{rng.integers(0, 10)}" for _ in range(10)] + [f"a{rng.integers(15, 20)}" for _ in range(10)]
    A = PedigreeMatrix([f"a{i}" for i in range(30)], sires, dams, "animal")
    return A, np.concatenate([np.arange(12, 30), [15, 20, 29]])


def levels() -> list[Any]:
    """Animals with and without records, and levels of a factor of which one has no record."""
    A, animals = pedigree()
    n = len(animals)
    plots = np.arange(n) % 6
    whole = VarianceComponent(A, "animal")
    covariance = Covariance([whole.selected(animals), Grouping(plots, "plot"), Identity(n)])
    y, X = torch.tensor(np.random.default_rng(2).normal(size=n)), torch.ones(n, 1).double()
    predictor = REML(covariance, tile_size=8).predictor(
        y, X, torch.tensor([0.5, 0.3, 0.7], dtype=torch.float64), error_variances=True
    )
    of_plots = VarianceComponent(IdentityMatrix(7), "plot")
    return [predictor.effects("animal", whole, animals), predictor.effects("plot", of_plots, plots), predictor.records()]


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_levels_without_records(num_ranks: int) -> None:
    A, animals = pedigree()
    n = len(animals)
    plots = np.arange(n) % 6
    G = [0.5 * A.entries(range(30), range(30), torch.zeros(0), CPU), 0.3 * torch.eye(7).double()]
    V_t = [G[0][animals][:, animals], G[1][plots][:, plots], 0.7 * torch.eye(n).double()]
    y, X = torch.tensor(np.random.default_rng(2).normal(size=n)), torch.ones(n, 1).double()
    P = oracle(torch.stack(V_t).sum(dim=0), V_t, y, X).P
    for of_animals, of_plots, at_records in spawn(levels, num_ranks):
        check(of_animals, expected_effects(G[0], P, y, animals, np.arange(30)))
        check(of_plots, expected_effects(G[1], P, y, plots, np.arange(7)))
        for made, V in zip(at_records, V_t, strict=True):
            check(made, expected_effects(V, P, y, np.arange(n), np.arange(n)))
        assert float(of_plots.reliability[6]) == pytest.approx(0.0, abs=1e-12)


def test_a_fit_predicts_without_a_further_factor_and_the_effects_add_up() -> None:
    case = random_case(80)
    reml = REML(case.covariance, tile_size=32)
    fit = reml.fit(case.y, case.X)
    flops = reml.grid.counters.flops
    effects = reml.predictor(case.y, case.X, fit).records()
    assert reml.grid.counters.flops == flops
    total = torch.stack([made.values for made in effects]).sum(dim=0)
    torch.testing.assert_close(total, case.y - case.X @ fit.beta, rtol=1e-9, atol=1e-9)
    errors = reml.predictor(case.y, case.X, fit, error_variances=True).records()
    for made, other in zip(errors, effects, strict=True):
        torch.testing.assert_close(made.values, other.values, rtol=1e-8, atol=1e-8)


def test_cost_at_the_records() -> None:
    """One dense term is free once V⁻¹ is there; each of several costs n² flops a distinct row."""
    for kind, dense_forms in (("one kernel", 0), ("two kernels", 2 * 60), ("plots", 60 + 9), ("on the bound", 0)):
        m = model(kind)
        predictor = m.predictor()
        before = predictor.problem.grid.counters.flops
        predictor.records()
        n, tile = 60, 17
        entries = n * (n + 1) // 2 + sum(b * (b - 1) // 2 for b in (tile, tile, tile, n - 3 * tile))  # stored in lower tiles
        assert predictor.problem.grid.counters.flops - before == 2 * entries * dense_forms
        assert extra_inverses(m.covariance, m.theta) == dense_forms / n


def test_what_cannot_be_predicted_is_named() -> None:
    m = model("one kernel")
    predictor = m.predictor(error_variances=False)
    with pytest.raises(InputError, match="no term herd; it has one"):
        predictor.effects("herd", m.whole.terms[0], m.records)
    with pytest.raises(InputError, match="is not the term one"):
        predictor.effects("one", m.whole.terms[1], m.records)
    with pytest.raises(InputError, match="records must be among the 71 samples"):
        predictor.effects("one", m.whole.terms[0], m.records + 71)
    with pytest.raises(InputError, match=r"x \(11, 1\) must be 11 samples by 2 effects"):
        predictor.new_records(m.whole, m.records, m.targets, m.x_new[:, :1])
    with pytest.raises(InputError, match="this model has"):
        predictor.new_records(model("two kernels").whole, m.records, m.targets, m.x_new)


def forms() -> tuple[Tensor, Tensor]:
    from openreml_dist.grid import ProcessGrid

    A = tiled(random_positive_definite(45), 8, ProcessGrid.connect())
    B = torch.randn(45, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return quadratic_forms(A, B), diagonal(A)


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_quadratic_forms_and_diagonal(num_ranks: int) -> None:
    A = random_positive_definite(45)
    B = torch.randn(45, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for found, of_A in spawn(forms, num_ranks):
        torch.testing.assert_close(found, (B * (A @ B)).sum(dim=0), rtol=1e-12, atol=0)
        torch.testing.assert_close(of_A, A.diagonal(), rtol=0, atol=0)


def test_wald_tests_of_one_effect_and_of_a_group() -> None:
    case = random_case(60, 1, grouping=False, num_fixed=4)
    fit = REML(case.covariance).fit(case.y, case.X)
    alone = wald_test(fit, [1])
    z = float(fit.beta[1] / fit.beta_se[1])
    assert (alone.statistic, alone.df) == (pytest.approx(z**2, rel=1e-9), 1)
    assert alone.pvalue == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-9)
    group = wald_test(fit, [3, 1])
    b, B = fit.beta[[3, 1]], fit.beta_covariance[[3, 1]][:, [3, 1]]
    assert group.statistic == pytest.approx(float(b @ torch.linalg.solve(B, b)), rel=1e-9)
    assert group.pvalue == pytest.approx(stats.chi2.sf(group.statistic, 2), rel=1e-9)
    for columns in ([], [1, 1], [4], [-1]):
        with pytest.raises(InputError, match="columns of X"):
            wald_test(fit, columns)
    B = fit.beta_covariance.clone()
    B[2], B[:, 2] = B[1], B[:, 1]
    B[2, 2] = B[1, 1]
    with pytest.raises(InputError, match=r"columns \[1, 2\] is singular"):
        wald_test(replace(fit, beta_covariance=B), [1, 2])
