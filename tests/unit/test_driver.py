"""The decisions of rank 0 alone: a dialogue with a function, no grid and no matrix."""

from __future__ import annotations

from collections.abc import Callable, Generator

import pytest
import torch
from torch import Tensor

from openreml_dist.errors import NotPositiveDefiniteError
from openreml_dist.reml.dense.evaluation import EXACT
from openreml_dist.reml.driver import Iteration, Outcome, Reply, Request, Stopping, average_information
from openreml_dist.reml.step import Step
from openreml_dist.reml.trust import Bounds
from tests.helpers.oracle import Case

BOUNDS = Bounds.of(torch.tensor([0.0, 1e-6], dtype=torch.float64))


def answer(case: Case, theta: Tensor) -> Step:
    exact = case.oracle(theta)
    noise = torch.zeros_like(exact.AI)
    return Step(
        theta, exact.loglik, exact.score, noise, exact.AI, exact.beta, exact.beta_covariance, exact.P @ case.y, 0.0, EXACT, {}
    )


def converse(
    decisions: Generator[Request, Reply, Outcome], reply: Callable[[Request, int], Reply]
) -> tuple[Outcome, list[Request]]:
    """Answer every request; ``reply`` is given the request and its number."""
    requests = [next(decisions)]
    while True:
        try:
            requests.append(decisions.send(reply(requests[-1], len(requests) - 1)))
        except StopIteration as end:
            return end.value, requests


def run(
    case: Case, start: Tensor, stopping: Stopping | None = None, report: Callable[[Iteration], None] | None = None
) -> tuple[Outcome, list[Request]]:
    decisions = average_information(start, BOUNDS, stopping or Stopping(), report)
    return converse(decisions, lambda request, _: honest(case, request))


def honest(case: Case, request: Request) -> Reply:
    step = answer(case, request.theta)
    return step if request.how.is_complete else step.loglik


def simple() -> Case:
    """80 samples, 20 features: half of the variance of y is theirs."""
    generator = torch.Generator().manual_seed(1)
    Z = torch.randn(80, 20, generator=generator, dtype=torch.float64)
    K = Z @ Z.mT / 20
    y = Z @ torch.randn(20, generator=generator, dtype=torch.float64) / 20**0.5
    y = 0.7 * y + 0.7 * torch.randn(80, generator=generator, dtype=torch.float64)
    X = torch.ones(80, 1, dtype=torch.float64)
    return Case([], [K, torch.eye(80, dtype=torch.float64)], y, X, torch.tensor([0.5, 0.5]).double())


@pytest.mark.parametrize("start", [[0.4, 0.6], [0.01, 5.0], [5.0, 0.01], [0.05, 0.05]])
def test_converges_to_a_zero_of_the_score_from_anywhere(start: list[float]) -> None:
    case = simple()
    reported: list[Iteration] = []
    outcome, _ = run(case, torch.tensor(start, dtype=torch.float64), report=reported.append)
    assert outcome.status == "converged"
    assert tuple(reported) == outcome.iterations
    step = outcome.last.step
    standard_errors = torch.linalg.inv(step.AI).diagonal().sqrt()
    assert float((step.score * standard_errors).abs().max()) < 1e-5
    logliks = [iteration.step.loglik for iteration in outcome.iterations]
    assert logliks == sorted(logliks)


def test_every_iterate_holds_numbers_of_its_own_theta() -> None:
    case = simple()
    outcome, _ = run(case, torch.tensor([0.2, 0.9], dtype=torch.float64))
    assert len(outcome.iterations) > 2
    for iteration in outcome.iterations:
        exact = case.oracle(iteration.step.theta)
        assert iteration.step.loglik == exact.loglik
        torch.testing.assert_close(iteration.step.score, exact.score, rtol=0, atol=0)


def test_component_without_variance_ends_on_its_bound() -> None:
    case = simple()
    noise = Case(case.terms, case.matrices, case.y, case.X, case.theta)
    for seed in range(20):  # the first of these phenotypes whose kernel explains less than nothing
        y = torch.randn(80, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        noise = Case(case.terms, case.matrices, y, case.X, case.theta)
        null = noise.oracle(torch.tensor([0.0, float(y.var())], dtype=torch.float64))
        if float(null.score[0]) < -1:
            break
    outcome, _ = run(noise, torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert outcome.status == "converged_at_bound"
    assert outcome.last.step.theta[0] == 0
    assert outcome.last.at_bound.tolist() == [True, False]
    assert float(outcome.last.step.score[0]) < 0
    assert abs(float(outcome.last.step.score[1])) < 1e-4


def test_limit_of_iterations_is_kept() -> None:
    outcome, _ = run(simple(), torch.tensor([0.01, 5.0], dtype=torch.float64), Stopping(max_iter=2))
    assert outcome.status == "iteration_limit"
    assert len(outcome.iterations) == 3  # the start and two steps


def test_indefinite_start_is_an_error() -> None:
    decisions = average_information(torch.ones(2).double(), BOUNDS, Stopping())
    next(decisions)
    with pytest.raises(NotPositiveDefiniteError, match="start"):
        decisions.send(None)


@pytest.mark.parametrize("bad", [None, float("nan"), -1e9])
def test_rejected_trial_halves_the_step_and_asks_for_loglik_alone(bad: float | None) -> None:
    case = simple()
    decisions = average_information(torch.tensor([0.01, 5.0], dtype=torch.float64), BOUNDS, Stopping())
    outcome, requests = converse(decisions, lambda request, number: bad if number in (1, 2) else honest(case, request))
    assert outcome.status == "converged"
    start, first, second, third, accepted = requests[:5]
    assert [r.how.is_complete for r in requests[:5]] == [True, True, False, False, True]
    lengths = [float((r.theta - start.theta).norm()) for r in (first, second, third)]
    assert lengths[1] == pytest.approx(lengths[0] / 2)
    assert lengths[2] == pytest.approx(lengths[0] / 4)
    assert torch.equal(third.theta, accepted.theta)
    assert outcome.iterations[1].evaluations == 4


def test_sweep_that_fails_where_the_factor_existed_is_a_rejection() -> None:
    case = simple()
    decisions = average_information(torch.tensor([0.01, 5.0], dtype=torch.float64), BOUNDS, Stopping())
    # trial 1 is rejected, 2 is accepted by its loglik alone, and 3, its complete evaluation, is not positive definite
    outcome, requests = converse(decisions, lambda request, number: None if number in (1, 3) else honest(case, request))
    assert outcome.status == "converged"
    assert torch.equal(requests[2].theta, requests[3].theta)
    assert [request.how.is_complete for request in requests[:5]] == [True, True, False, True, False]


def test_no_gain_anywhere_is_stalled() -> None:
    case = simple()
    decisions = average_information(torch.tensor([0.01, 5.0], dtype=torch.float64), BOUNDS, Stopping())
    outcome, _ = converse(decisions, lambda request, number: honest(case, request) if number == 0 else -1e9)
    assert outcome.status == "stalled"
    assert outcome.last.number == 0
    assert outcome.status.exit_code == 3
