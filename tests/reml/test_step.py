"""One AI step and the log-likelihood against the dense oracle and against finite differences, on every grid."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from openreml_dist import REML
from openreml_dist.grid import ProcessGrid, no_progress
from openreml_dist.layout import TileLayout
from openreml_dist.linalg import sweep_inverse_
from openreml_dist.reml.dense.evaluation import ai_step, expected_information, log_likelihood
from openreml_dist.reml.dense.problem import Problem
from openreml_dist.reml.dense.projection import Projection
from openreml_dist.reml.fixed import FixedDesign
from openreml_dist.tiled import TiledSymmetric
from tests.helpers import engines
from tests.helpers.gloo import spawn
from tests.helpers.oracle import Case, random_case

GRIDS = [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]
N = 107
CASES = [  # kernels, grouping, tile size
    (1, False, 32),
    (2, True, 37),
    (3, True, 64),
    (1, True, N),
]


def problem(case: Case, grid: ProcessGrid, tile_size: int) -> Problem:
    layout = TileLayout(len(case.y), tile_size, grid.shape)
    return Problem.of(case.covariance, case.y, case.X, grid, layout)


def steps(rows: int, columns: int) -> list[dict[str, Any]]:
    grid = ProcessGrid.connect(rows, columns)
    found = []
    for kernels, grouping, tile_size in CASES:
        case = random_case(N, kernels, grouping)
        step, _ = ai_step(problem(case, grid, tile_size), case.theta, lambda _: no_progress)
        alone = Problem.of(case.covariance, case.y, case.X, grid, TileLayout(N, tile_size, grid.shape))
        found.append({"step": step, "loglik": log_likelihood(alone, case.theta, lambda _: no_progress).loglik})
    return found


@pytest.mark.parametrize(("rows", "columns"), GRIDS)
def test_step_and_loglik_equal_the_oracle(rows: int, columns: int) -> None:
    for found in spawn(steps, rows * columns, rows, columns):
        for (kernels, grouping, _), result in zip(CASES, found, strict=True):
            case = random_case(N, kernels, grouping)
            exact, step = case.oracle(), result["step"]
            assert step.loglik == pytest.approx(exact.loglik, rel=1e-8)
            assert result["loglik"] == pytest.approx(exact.loglik, rel=1e-8)
            torch.testing.assert_close(step.score, exact.score, rtol=1e-8, atol=1e-8)
            torch.testing.assert_close(step.AI, exact.AI, rtol=1e-8, atol=0)
            torch.testing.assert_close(step.beta, exact.beta, rtol=1e-8, atol=1e-10)
            torch.testing.assert_close(step.beta_covariance, exact.beta_covariance, rtol=1e-8, atol=1e-12)
            assert step.trace_error < 1e-12


def informations(rows: int, columns: int) -> list[torch.Tensor]:
    grid = ProcessGrid.connect(rows, columns)
    cases = [random_case(14, 1, False), random_case(N, 2, True)]
    return [
        expected_information(problem(case, grid, 32 if len(case.y) > 32 else 5), case.theta, lambda _: no_progress).expected
        for case in cases
    ]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 2), (2, 2)])
def test_expected_information_is_exact_for_few_and_near_in_every_direction_for_many(rows: int, columns: int) -> None:
    for few, many in spawn(informations, rows * columns, rows, columns):
        small, large = random_case(14, 1, False), random_case(N, 2, True)
        torch.testing.assert_close(few, engines.expected_information(small.oracle().P, small.matrices), rtol=1e-6, atol=0)
        exact = engines.expected_information(large.oracle().P, large.matrices)
        L = torch.linalg.cholesky(exact)
        relative = torch.linalg.solve_triangular(L, torch.linalg.solve_triangular(L, many, upper=False).mT, upper=False)
        off = torch.linalg.eigvalsh(relative) - 1
        assert float(off.abs().max()) < 6 * (2 / (16 * N)) ** 0.5 * len(exact) ** 0.5


def test_score_is_the_gradient_of_the_loglikelihood() -> None:
    case = random_case(60, 2)
    reml = REML(case.covariance, tile_size=13)
    _, score, _, _ = reml.ai_step(case.y, case.X, case.theta)
    h = 1e-5
    for k in range(len(case.theta)):
        e = torch.zeros_like(case.theta)
        e[k] = h
        slope = (reml.loglik(case.y, case.X, case.theta + e) - reml.loglik(case.y, case.X, case.theta - e)) / (2 * h)
        assert float(score[k]) == pytest.approx(float(slope), rel=1e-6, abs=1e-6)


def test_projection_annihilates_X_and_is_idempotent_in_V() -> None:
    case = random_case(50)
    grid = ProcessGrid.single()
    V = TiledSymmetric(TileLayout(50, 11, grid.shape), grid)
    case.covariance.assemble_(V, case.theta)
    dense = sum(float(t) * K for t, K in zip(case.theta, case.matrices, strict=True))
    eye = torch.eye(50, dtype=torch.float64)
    P, PI = Projection.with_product(sweep_inverse_(V), FixedDesign.of(case.X), eye)
    torch.testing.assert_close(PI, P @ eye, rtol=0, atol=1e-10 * float(PI.abs().max()))
    scale = float((P @ eye).abs().max())
    assert float((P @ case.X).abs().max()) < 1e-9 * scale * float(case.X.abs().max())
    torch.testing.assert_close(P @ (dense @ (P @ eye)), P @ eye, rtol=0, atol=1e-10 * scale)


def test_results_do_not_depend_on_the_order_of_samples_or_the_tile() -> None:
    case = random_case(80)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(5))
    from openreml_dist import Covariance, Identity, Kernel

    def step(index: torch.Tensor, tile_size: int) -> tuple[torch.Tensor, ...]:
        kernels = [Kernel.from_array(K[index][:, index].contiguous(), f"k{i}") for i, K in enumerate(case.matrices[:3])]
        return REML(Covariance([*kernels, Identity(80)]), tile_size=tile_size).ai_step(case.y[index], case.X[index], case.theta)

    for one, other in zip(step(torch.arange(80), 80), step(order, 9), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def whole_fit() -> tuple[Any, ...]:
    case = random_case(150, 2, seed=4)
    fit = REML(case.covariance).fit(case.y, case.X)
    return fit.status, fit.theta, fit.standard_errors, fit.beta, fit.loglik


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_a_fit_on_several_ranks_equals_that_on_one(num_ranks: int) -> None:
    alone = whole_fit()
    for answers in spawn(whole_fit, num_ranks):
        assert answers[0] == alone[0]
        for mine, theirs in zip(alone[1:], answers[1:], strict=True):
            torch.testing.assert_close(theirs, mine, rtol=1e-8, atol=1e-12, equal_nan=True)
