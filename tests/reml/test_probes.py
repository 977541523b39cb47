"""Traces from probes, and fits whose early iterations are cheap: the same answers as exact ones, or an honest error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from openreml_dist import REML, Covariance, FitResult, Identity, Kernel
from openreml_dist.errors import ConfigError
from openreml_dist.grid import ProcessGrid, no_progress
from openreml_dist.layout import TileLayout
from openreml_dist.reml.dense import schedule
from openreml_dist.reml.dense.evaluation import ai_step, log_likelihood
from openreml_dist.reml.dense.probes import Probes, draw_probes
from openreml_dist.reml.dense.problem import Problem
from openreml_dist.reml.dense.schedule import ANCHORED, EXACT, LARGEST_NOISE, SMALLEST_SIZE, Evaluation, Traces
from openreml_dist.reml.step import Step
from tests.helpers.gloo import spawn
from tests.helpers.oracle import Case, random_case

N = 107
PROBES = Evaluation(Traces.PROBES, torch.float64)


Posed = tuple[Problem, Probes]


def problem(case: Case, grid: ProcessGrid, num_probes: int, seed: int = 1) -> Posed:
    bare = Problem.of(case.covariance, case.y, case.X, grid, TileLayout(N, 32, grid.shape))
    Z = draw_probes(N, num_probes, seed)
    return bare, Probes.of(Z, case.covariance.times(Z, case.theta, grid, bare.layout))


def step(case: Case, how: Evaluation, posed: Posed, theta: Tensor | None = None, after: Step | None = None) -> Step:
    bare, probes = posed
    carried = None if after is None else after.carried
    return ai_step(bare, case.theta if theta is None else theta, lambda _: no_progress, how, probes, carried)[0]


def test_probes_are_signs_and_depend_on_the_seed_alone() -> None:
    Z = draw_probes(1000, 8, 3)
    assert torch.equal(Z.abs(), torch.ones(1000, 8))
    assert abs(float(Z.mean())) < 0.05
    assert torch.equal(Z, draw_probes(1000, 8, 3))
    assert not torch.equal(Z, draw_probes(1000, 8, 4))
    few = draw_probes(5, 8, 1)
    torch.testing.assert_close(few @ few.mT / few.shape[1], torch.eye(5))  # no error at all


def test_score_from_probes_is_unbiased_with_the_covariance_it_states() -> None:
    """Over 200 sets of 16 probes: the mean is the exact score, the spread is as stated."""
    case, grid = random_case(N), ProcessGrid.single()
    exact = case.oracle()
    steps = [step(case, PROBES, problem(case, grid, 16, seed)) for seed in range(200)]
    errors = torch.stack([one.score - exact.score for one in steps])
    stated = torch.stack([one.score_noise for one in steps]).mean(dim=0)
    seen = torch.cov(errors.mT)
    torch.testing.assert_close(seen.diagonal(), stated.diagonal(), rtol=0.35, atol=0)  # of a variance from 200: 10 % is 1 SD
    standardised = errors.mean(dim=0) / (stated.diagonal() / 200).sqrt()
    assert float(standardised.abs().max()) < 4
    for one in steps[:3]:
        assert one.loglik == pytest.approx(exact.loglik, rel=1e-10)  # nothing else is random
        torch.testing.assert_close(one.AI, exact.AI, rtol=1e-6, atol=0)


def test_anchored_score_is_exact_at_the_anchor_and_better_than_probes_near_it() -> None:
    case, grid = random_case(N), ProcessGrid.single()
    posed = problem(case, grid, 16)
    anchor = step(case, EXACT, posed)
    at_anchor = step(case, ANCHORED, posed, after=anchor)
    torch.testing.assert_close(at_anchor.score, case.oracle().score, rtol=1e-6, atol=1e-6)
    assert float(at_anchor.score_noise.abs().max()) < 1e-9
    near = case.theta * 1.02
    anchored, free = step(case, ANCHORED, posed, near, at_anchor), step(case, PROBES, posed, near)
    error = anchored.score - case.oracle(near).score
    assert bool((error.abs() < 4 * anchored.score_noise.diagonal().sqrt()).all())
    assert bool((anchored.score_noise.diagonal() < 0.01 * free.score_noise.diagonal()).all())


def test_controls_take_away_most_of_the_error_and_leave_no_bias() -> None:
    """Over 200 sets of 64 probes: the mean is the exact trace, the spread is as stated, and less than that without."""
    case, grid = random_case(N, 1, grouping=False), ProcessGrid.single()
    layout = TileLayout(N, 32, grid.shape)
    exact = torch.stack([(case.oracle().P * K).sum() for K in case.matrices])
    norms = case.covariance.norms(grid, layout)
    found: dict[str, list[tuple[Tensor, Tensor]]] = {"plain": [], "controlled": []}
    for seed in range(200):
        Z = draw_probes(N, 64, seed)
        VZ = case.covariance.times(Z, case.theta, grid, layout)
        PZ = case.oracle().P @ Z.double()
        found["plain"].append(Probes.of(Z, VZ).traces(PZ, None))
        found["controlled"].append(Probes.of(Z, VZ, norms).traces(PZ, None))
    spread = {}
    for name, estimates in found.items():
        errors = torch.stack([traces - exact for traces, _ in estimates])
        stated = torch.stack([noise.diagonal() for _, noise in estimates]).mean(dim=0)
        spread[name] = errors.square().mean(dim=0).sqrt()
        torch.testing.assert_close(spread[name], stated.sqrt(), rtol=0.25, atol=0)
        assert float((errors.mean(dim=0) / (stated / 200).sqrt()).abs().max()) < 4
    ratio = spread["controlled"] / spread["plain"]
    assert float(ratio[0]) < 0.4 and float(ratio[1]) < 0.9  # of the kernel, and of the residual, whose trace varies less


def test_norms_of_terms_are_those_of_whole_matrices() -> None:
    case = random_case(N, 2)
    for traces, squares in spawn(norms_of, 2):
        torch.testing.assert_close(traces, torch.stack([K.trace() for K in case.matrices]), rtol=1e-12, atol=0)
        torch.testing.assert_close(squares, torch.stack([K.square().sum() for K in case.matrices]), rtol=1e-12, atol=0)


def norms_of() -> tuple[Tensor, Tensor]:
    grid = ProcessGrid.connect()
    return random_case(N, 2).covariance.norms(grid, TileLayout(N, 23, grid.shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_float32_is_near_and_says_so(dtype: torch.dtype) -> None:
    case, grid = random_case(N), ProcessGrid.single()
    exact, tolerance = case.oracle(), 2e-3 if dtype == torch.float32 else 1e-9
    found = step(case, Evaluation(Traces.EXACT, dtype), problem(case, grid, 8))
    standard_errors = torch.linalg.inv(exact.AI).diagonal().sqrt()
    assert float(((found.score - exact.score) * standard_errors).abs().max()) < tolerance
    assert found.loglik == pytest.approx(exact.loglik, rel=tolerance)
    alone = log_likelihood(problem(case, grid, 8)[0], case.theta, lambda _: no_progress, dtype).loglik
    assert alone == pytest.approx(exact.loglik, rel=tolerance)


def large(n: int = SMALLEST_SIZE) -> tuple[Covariance, Tensor, Tensor]:
    """Two kernels as stores hold them, in float32, with an effect each; two covariates."""
    generator = torch.Generator().manual_seed(8)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    terms, y = [], normal(n)
    for k in range(2):
        Z = normal(n, 700)
        y = y + 0.7 * Z @ normal(700) / 700**0.5
        terms.append(Kernel.from_array((Z @ Z.mT / 700).float(), f"kernel{k}"))
    X = torch.cat([torch.ones(n, 1, dtype=torch.float64), normal(n, 1)], dim=1)
    return Covariance([*terms, Identity(n)]), y, X


def fits() -> dict[str, FitResult]:
    covariance, y, X = large()
    return {method: REML(covariance, tile_size=192).fit(y, X, traces=method) for method in ("exact", "auto", "hutchinson")}


def check(found: dict[str, FitResult]) -> None:
    exact, auto, hutchinson = found["exact"], found["auto"], found["hutchinson"]
    assert {fit.status for fit in found.values()} == {"converged"}
    se = exact.standard_errors
    kinds = [str(iteration.step.evaluation) for iteration in auto.iterations]
    assert kinds[:2] == ["probes float32", "exact float32"]
    assert "exact float64" in kinds and kinds[-1].endswith("float64")
    assert len([kind for kind in kinds if kind == "exact float64"]) < len(exact.iterations)
    assert float(((auto.theta - exact.theta) / se).abs().max()) < 1e-4
    torch.testing.assert_close(auto.standard_errors, se, rtol=1e-6, atol=0)
    assert auto.loglik == pytest.approx(exact.loglik, rel=1e-6)
    assert float((auto.monte_carlo_se / se).max()) < LARGEST_NOISE
    assert float(exact.monte_carlo_se.max()) == 0
    error = hutchinson.monte_carlo_se
    assert bool((error > 0.002 * se).all()) and bool((error < 0.03 * se).all())
    assert bool(((hutchinson.theta - exact.theta).abs() < 4 * error).all())
    kinds = [str(iteration.step.evaluation) for iteration in hutchinson.iterations]
    assert kinds[0] == "few probes float32" and kinds[-1] == "probes float32"
    assert kinds == sorted(kinds)  # few, then all to the end


def test_cheap_iterations_lead_to_the_exact_answer() -> None:
    check(fits())


def test_ranks_take_the_same_path() -> None:
    alone = fits()
    for found in spawn(fits, 2):
        check(found)
        for method, fit in found.items():
            tolerance = 1e-8 if method == "exact" else 1e-4  # float32 rounds otherwise on another grid
            torch.testing.assert_close(fit.theta, alone[method].theta, rtol=tolerance, atol=0)
            assert len(fit.iterations) == len(alone[method].iterations)


@pytest.mark.parametrize("start", [[0.01, 3.0, 0.05], [3.0, 0.01, 4.0]])
def test_a_bad_start_costs_iterations_but_no_digits(start: list[float]) -> None:
    covariance, y, X = large()
    reml = REML(covariance, tile_size=192)
    exact = reml.fit(y, X, traces="exact")
    auto = reml.fit(y, X, torch.tensor(start))
    assert auto.status == "converged"
    assert float(((auto.theta - exact.theta) / exact.standard_errors).abs().max()) < 1e-4


def test_what_float32_cannot_factor_is_evaluated_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Condition number 1e8: the residual is small beside a kernel of rank 30."""
    monkeypatch.setattr(schedule, "SMALLEST_SIZE", 100)
    generator = torch.Generator().manual_seed(2)
    Z = torch.randn(300, 30, generator=generator, dtype=torch.float64)
    y = 100 * Z @ torch.randn(30, generator=generator, dtype=torch.float64)
    y = y + 0.1 * torch.randn(300, generator=generator, dtype=torch.float64)
    X = torch.ones(300, 1, dtype=torch.float64)
    reml = REML(Covariance([Kernel.from_array(Z @ Z.mT), Identity(300)]), tile_size=192)
    start = torch.tensor([1e4, 1e-2], dtype=torch.float64)
    auto, exact = (reml.fit(y, X, start, constrain=False, traces=method) for method in ("auto", "exact"))
    assert auto.status == exact.status == "converged"
    torch.testing.assert_close(auto.theta, exact.theta, rtol=1e-6, atol=0)


def test_few_samples_are_evaluated_exactly() -> None:
    case = random_case(N)
    for method in ("auto", "exact"):
        fit: Any = REML(case.covariance).fit(case.y, case.X, traces=method)
        assert {str(iteration.step.evaluation) for iteration in fit.iterations} == {"exact float64"}


def test_unknown_method_is_refused() -> None:
    case = random_case(N)
    with pytest.raises(ConfigError, match=r"solver.traces: 'hutch' is none of auto, exact, hutchinson"):
        REML(case.covariance).fit(case.y, case.X, traces="hutch")
