"""The matrix-free engine against dense algebra: exact where it says so, honest about its Monte-Carlo error elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from openreml_dist.grid import ProcessGrid
from openreml_dist.reml.engine import Request, Want
from openreml_dist.reml.fitting import FitOptions, fit
from openreml_dist.reml.step import Step
from openreml_dist.reml.stochastic import StochasticEngine
from openreml_dist.reml.stochastic.accuracy import Target
from openreml_dist.reml.stochastic.batches import Batches
from openreml_dist.reml.stochastic.conjugate_gradients import conjugate_gradients, solve
from openreml_dist.reml.stochastic.determinant import log_determinants
from openreml_dist.reml.stochastic.faint import faint_traces
from openreml_dist.reml.stochastic.probes import Stream, signs
from openreml_dist.reml.stochastic.problem import Problem
from openreml_dist.reml.stochastic.schedule import Probing
from openreml_dist.reml.stochastic.system import System
from openreml_dist.reml.stochastic.traces import Probes, Space, TraceMap, Weighting
from tests.helpers.markers import Genotypes

GRID = ProcessGrid.single()
DATA = Genotypes.simulated(150, 200, num_components=2, p=3)
THETA = torch.tensor([0.3, 0.25, 0.5], dtype=torch.float64)


def engine(data: Genotypes, block: int, error: float = 0.01, seed: int = 1) -> StochasticEngine:
    names = [f"k{k}" for k in range(data.annotation.shape[1])]
    return StochasticEngine(data.problem(GRID, block), names, Target(error, 20_000, seed))


def dense_S(data: Genotypes, theta: torch.Tensor) -> torch.Tensor:
    Z, Q = data.Z, torch.linalg.qr(data.X)[0]
    M = torch.eye(len(Q), dtype=torch.float64) - Q @ Q.mT
    root = (data.annotation / data.annotation.sum(dim=0) @ theta[:-1]).sqrt()[:, None]
    return (root * Z) @ M @ (root * Z).mT + theta[-1] * torch.eye(len(Z), dtype=torch.float64)


def test_the_system_its_blocks_and_its_solutions() -> None:
    S, dense = System.at(DATA.problem(GRID, block=64), THETA, torch.float64), dense_S(DATA, THETA)
    assert S is not None
    B = torch.randn(200, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(S @ B, dense @ B, rtol=1e-10, atol=1e-10)
    H = torch.block_diag(*(dense[i : i + 64, i : i + 64] for i in range(0, 200, 64)))
    assert float((S.precondition(H @ B) - B).abs().max()) < 1e-4  # the blocks are known in single precision
    assert S.h_log_determinant == pytest.approx(float(torch.logdet(H)), abs=1e-4)
    assert float((S.H_inv_diagonal - torch.linalg.inv(H).diagonal()).abs().max()) < 1e-5
    exact = torch.linalg.solve(dense, B)
    assert float((conjugate_gradients(S, B, 1e-10).X - exact).abs().max()) < 1e-8
    refined, rest = solve(S, B, 1e-8)
    assert float((refined - exact).abs().max()) < 1e-6
    assert float((B - dense @ refined - rest).abs().max()) < 1e-9


def test_one_block_of_all_snps_leaves_no_error() -> None:
    exact, found = DATA.oracle(THETA), engine(DATA, block=200).evaluate([Request(THETA, Probing.ACCURATE)])[0]
    assert isinstance(found, Step)
    assert found.loglik == pytest.approx(exact.loglik, abs=1e-3)
    torch.testing.assert_close(found.AI, exact.AI, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.beta, exact.beta, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found.beta_covariance, exact.beta_covariance, rtol=1e-6, atol=1e-12)
    errors = torch.linalg.inv(exact.AI) @ (found.score - exact.score) / torch.linalg.inv(exact.AI).diagonal().sqrt()
    assert float(errors.abs().max()) < 1e-5


@pytest.mark.parametrize(
    "theta",
    [[0.3, 0.25, 0.5], [0.3, 0.005, 0.5], [0.3, 0.0, 0.5], [0.0, 0.0, 0.9]],
    ids=["inside", "one near zero", "one at zero", "none"],
)
def test_scores_are_unbiased_and_their_errors_are_what_they_say(theta: list[float]) -> None:
    point = torch.tensor(theta, dtype=torch.float64)
    exact = DATA.oracle(point).score
    errors, claimed = [], []
    for seed in range(60):
        step = engine(DATA, block=25, seed=seed).evaluate([Request(point, Probing.FEW)])[0]
        assert isinstance(step, Step)
        errors.append(step.score - exact)
        claimed.append(step.score_noise.diagonal())
    E, variance = torch.stack(errors), torch.stack(claimed).mean(dim=0)
    spread = E.std(dim=0)
    assert bool((E.mean(dim=0).abs() < 4 * spread / math.sqrt(len(E)) + 1e-5 * exact.abs()).all())
    seen = spread > 1e-6 * exact.abs()
    assert bool(((variance.sqrt() / spread)[seen] - 1).abs().max() < 0.4) if bool(seen.any()) else True


def test_controls_take_most_of_the_error_away() -> None:
    S = System.at(DATA.problem(GRID, block=50), THETA)
    assert S is not None
    z = signs(200, range(256), 1, Stream.FEW, S.root.device)
    for space, part in ((Space.SNPS, 0.35), (Space.SAMPLES, 0.6)):
        found = Probes(S, Weighting.of(S), space, 1, Stream.FEW).sample(range(256), keep=(2,)).complete
        assert bool((found.cross_corrected().std(dim=0) < part * found.values.std(dim=0)).all()), space
    mean = float(log_determinants(S, z).mean())
    assert mean == pytest.approx(float(torch.logdet(dense_S(DATA, THETA))), abs=0.2)


@pytest.mark.parametrize("space", Space)
@pytest.mark.parametrize(
    "theta", [[0.3, 0.25, 0.5], [0.3, 0.005, 0.5], [0.3, 0.0, 0.5]], ids=["inside", "one near zero", "one at zero"]
)
def test_traces_are_unbiased(space: Space, theta: list[float]) -> None:
    point = torch.tensor(theta, dtype=torch.float64)
    P = DATA.oracle(point).P
    exact = torch.stack([(P * K).sum() for K in DATA.matrices])
    problem, found = DATA.problem(GRID, block=50), []
    for seed in range(40):
        S = System.at(problem, point)
        assert S is not None
        faint = faint_traces(S, seed, lambda _: True, 1, Batches()).traces
        complete = Probes(S, Weighting.of(S), space, seed, Stream.FEW).sample(range(16)).complete
        found.append(TraceMap.of(S, faint).traces(complete.cross_corrected()).mean(dim=0))
    values = torch.stack(found)
    assert bool(((values.mean(dim=0) - exact).abs() < 4 * values.std(dim=0) / math.sqrt(len(values)) + 1e-4 * exact).all())


@pytest.mark.parametrize("small", [0.0, 0.0005])
def test_the_error_of_a_small_component_is_no_larger_than_that_of_others(small: float) -> None:
    """Few probes are to see where it goes from its bound, and accurate ones whether it stays there."""
    theta = torch.tensor([0.4, small, 0.5], dtype=torch.float64)
    for probing, limit in ((Probing.FEW, 0.1), (Probing.ACCURATE, 0.02)):
        step = engine(DATA, block=25, error=0.02).evaluate([Request(theta, probing)])[0]
        assert isinstance(step, Step)
        standard_errors = torch.linalg.inv(step.AI).diagonal().sqrt()
        noise = step.score_noise.diagonal().sqrt() * standard_errors
        certain = small == 0 and abs(step.score[1]) > 4 * step.score_noise[1, 1].sqrt()
        assert float(noise[1]) <= limit or certain


@pytest.mark.parametrize("num_components", [1, 3])
def test_a_fit_ends_within_its_error_of_the_exact_answer(num_components: int) -> None:
    data = Genotypes.simulated(300, 400, num_components=num_components, seed=5)
    exact = fit(engine(data, block=400), "auto", FitOptions())
    errors = []
    for seed in range(6):
        found = fit(engine(data, block=50, error=0.02, seed=seed), "auto", FitOptions())
        assert found.status == exact.status
        assert bool((found.monte_carlo_se <= 0.021 * exact.standard_errors.nan_to_num(nan=1.0)).all())
        errors.append((found.theta - exact.theta) / exact.standard_errors)
    assert float(torch.stack(errors).nan_to_num().square().mean().sqrt()) < 0.03


def test_overlapping_annotation() -> None:
    data = Genotypes.simulated(150, 200, num_components=2)
    overlapping = data.annotation.clone()
    overlapping[::3, 0] += 0.5
    mixed = Genotypes(data.counts, data.y, data.X, overlapping)
    exact, step = mixed.oracle(THETA), engine(mixed, block=200).evaluate([Request(THETA, Probing.ACCURATE)])[0]
    assert isinstance(step, Step)
    torch.testing.assert_close(step.AI, exact.AI, rtol=1e-6, atol=0)
    assert float((step.score - exact.score).abs().max()) < 1e-4 * float(exact.AI.diagonal().sqrt().max())


def test_the_expected_information_is_that_of_data_that_the_model_makes() -> None:
    found = engine(DATA, block=200).evaluate([Request(THETA, Probing.FEW, Want.INFORMATION)])[0]
    P = DATA.oracle(THETA).P
    exact = torch.stack([torch.stack([0.5 * ((P @ A) * (P @ B).mT).sum() for B in DATA.matrices]) for A in DATA.matrices])
    assert float(((found.expected - exact) / exact.diagonal().sqrt()[:, None] / exact.diagonal().sqrt()).abs().max()) < 0.3


def test_nothing_is_asked_of_a_variance_below_zero() -> None:
    made = engine(DATA, block=50)
    assert made.evaluate([Request(torch.tensor([-0.1, 0.2, 0.5]).double(), Probing.FEW)]) == [None]
    assert made.evaluate([Request(THETA, Probing.FEW, Want.LOGLIK)])[0] is not None


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """200 traits on one set of genotypes: 92 to 98 % of the 95 % intervals of h², Monte-Carlo error and all."""
    data, h2, inside = Genotypes.simulated(400, 500, missing=0.0), 0.5, 0
    rng = np.random.default_rng(7)
    problem = data.problem(GRID, block=64)
    for seed in range(200):
        effects, noise = (torch.from_numpy(rng.standard_normal(size)) for size in (500, 400))
        y = (h2 / 500) ** 0.5 * data.Z.mT @ effects + (1 - h2) ** 0.5 * noise
        own = Problem.of(problem.Z, data.annotation, y, data.X, block=64)
        found = fit(StochasticEngine(own, ["genetic"], Target(0.05, 2000, seed)), "auto", FitOptions())
        component = found.components[0]
        inside += component.proportion_se is not None and abs(component.proportion - h2) < 1.96 * component.proportion_se
    assert 0.92 * 200 <= inside <= 0.98 * 200
