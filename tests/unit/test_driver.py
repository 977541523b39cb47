"""The decisions of rank 0 alone: a dialogue with an engine, the real one and one of plain algebra in turn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from openreml_dist import Identity, Kernel
from openreml_dist.errors import ConfigError, InputError, NotPositiveDefiniteError
from openreml_dist.grid import ProcessGrid
from openreml_dist.reml.bounds import Bounds
from openreml_dist.reml.driver import average_information
from openreml_dist.reml.engine import Capability, Engine, Reply, Request, Want
from openreml_dist.reml.fitting import FitOptions, fit
from openreml_dist.reml.outcome import Dialogue, Iteration, Outcome, Stopping
from openreml_dist.reml.rounds import drive
from openreml_dist.reml.step import LogLikelihood
from tests.helpers.engines import ENGINES
from tests.helpers.oracle import Case, random_case

BOUNDS = Bounds.of(torch.tensor([0.0, 1e-6], dtype=torch.float64))
Make = Callable[[Case], Engine]


@pytest.fixture(params=[pytest.param(make, id=name) for name, make in ENGINES.items()])
def make(request: pytest.FixtureRequest) -> Make:
    engine: Make = request.param
    return engine


def converse(dialogue: Dialogue, reply: Callable[[Request, int], Reply]) -> tuple[Outcome, list[Request]]:
    """Answer every request; ``reply`` is given the request and its number."""
    requests = [next(dialogue)]
    while True:
        try:
            requests.append(dialogue.send(reply(requests[-1], len(requests) - 1)))
        except StopIteration as end:
            return end.value, requests


def run(
    engine: Engine, start: Tensor, stopping: Stopping | None = None, report: Callable[[Iteration], None] | None = None
) -> tuple[Outcome, list[Request]]:
    dialogue = average_information(start, BOUNDS, stopping or Stopping(), engine.schedule, report)
    return converse(dialogue, lambda request, _: honest(engine, request))


def honest(engine: Engine, request: Request) -> Reply:
    (reply,) = engine.evaluate([request])
    return reply


def alone(loglik: float) -> LogLikelihood:
    return LogLikelihood(loglik, 1e-9)


def simple() -> Case:
    """80 samples, 20 features: half of the variance of y is theirs."""
    generator = torch.Generator().manual_seed(1)
    Z = torch.randn(80, 20, generator=generator, dtype=torch.float64)
    K = Z @ Z.mT / 20
    y = Z @ torch.randn(20, generator=generator, dtype=torch.float64) / 20**0.5
    y = 0.7 * y + 0.7 * torch.randn(80, generator=generator, dtype=torch.float64)
    X = torch.ones(80, 1, dtype=torch.float64)
    terms = [Kernel.from_array(K, "kernel0"), Identity(80)]
    return Case(terms, [K, torch.eye(80, dtype=torch.float64)], y, X, torch.tensor([0.5, 0.5]).double())


@pytest.mark.parametrize("start", [[0.4, 0.6], [0.01, 5.0], [5.0, 0.01], [0.05, 0.05]])
def test_converges_to_a_zero_of_the_score_from_anywhere(make: Make, start: list[float]) -> None:
    engine = make(simple())
    reported: list[Iteration] = []
    outcome, _ = run(engine, torch.tensor(start, dtype=torch.float64), report=reported.append)
    assert outcome.status == "converged"
    assert tuple(reported) == outcome.iterations
    step = outcome.last.step
    standard_errors = torch.linalg.inv(step.AI).diagonal().sqrt()
    assert float((step.score * standard_errors).abs().max()) < 1e-5
    logliks = [iteration.step.loglik for iteration in outcome.iterations]
    assert logliks == sorted(logliks)


def test_every_iterate_holds_numbers_of_its_own_theta(make: Make) -> None:
    case = simple()
    outcome, _ = run(make(case), torch.tensor([0.2, 0.9], dtype=torch.float64))
    assert len(outcome.iterations) > 2
    for iteration in outcome.iterations:
        exact = case.oracle(iteration.step.theta)
        assert iteration.step.loglik == pytest.approx(exact.loglik, rel=1e-12)
        torch.testing.assert_close(iteration.step.score, exact.score, rtol=1e-9, atol=1e-9)


def test_component_without_variance_ends_on_its_bound(make: Make) -> None:
    case = simple()
    noise = Case(case.terms, case.matrices, case.y, case.X, case.theta)
    for seed in range(20):  # the first of these phenotypes whose kernel explains less than nothing
        y = torch.randn(80, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        noise = Case(case.terms, case.matrices, y, case.X, case.theta)
        null = noise.oracle(torch.tensor([0.0, float(y.var())], dtype=torch.float64))
        if float(null.score[0]) < -1:
            break
    outcome, _ = run(make(noise), torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert outcome.status == "converged_at_bound"
    assert outcome.last.step.theta[0] == 0
    assert outcome.last.at_bound.tolist() == [True, False]
    assert float(outcome.last.step.score[0]) < 0
    assert abs(float(outcome.last.step.score[1])) < 1e-4


def test_limit_of_iterations_is_kept(make: Make) -> None:
    outcome, _ = run(make(simple()), torch.tensor([0.01, 5.0], dtype=torch.float64), Stopping(max_iter=2))
    assert outcome.status == "iteration_limit"
    assert len(outcome.iterations) == 3  # the start and two steps


def begun(engine: Engine) -> Dialogue:
    return average_information(torch.tensor([0.01, 5.0], dtype=torch.float64), BOUNDS, Stopping(), engine.schedule)


def test_indefinite_start_is_an_error(make: Make) -> None:
    dialogue = average_information(torch.ones(2).double(), BOUNDS, Stopping(), make(simple()).schedule)
    next(dialogue)
    with pytest.raises(NotPositiveDefiniteError, match="start"):
        dialogue.send(None)


@pytest.mark.parametrize("bad", [None, alone(float("nan")), alone(-1e9)])
def test_rejected_trial_halves_the_step_and_asks_for_loglik_alone(make: Make, bad: LogLikelihood | None) -> None:
    engine = make(simple())
    outcome, requests = converse(begun(engine), lambda request, number: bad if number in (1, 2) else honest(engine, request))
    assert outcome.status == "converged"
    start, first, second, third, accepted = requests[:5]
    assert [r.want for r in requests[:5]] == [Want.STEP, Want.STEP, Want.LOGLIK, Want.LOGLIK, Want.STEP]
    lengths = [float((r.theta - start.theta).norm()) for r in (first, second, third)]
    assert lengths[1] == pytest.approx(lengths[0] / 2)
    assert lengths[2] == pytest.approx(lengths[0] / 4)
    assert torch.equal(third.theta, accepted.theta)
    assert outcome.iterations[1].evaluations == 4


def test_complete_evaluation_that_fails_where_loglik_existed_is_a_rejection(make: Make) -> None:
    engine = make(simple())
    # trial 1 is rejected, 2 is accepted by its loglik alone, and 3, its complete evaluation, is not positive definite
    outcome, requests = converse(begun(engine), lambda request, number: None if number in (1, 3) else honest(engine, request))
    assert outcome.status == "converged"
    assert torch.equal(requests[2].theta, requests[3].theta)
    assert [r.want for r in requests[:5]] == [Want.STEP, Want.STEP, Want.LOGLIK, Want.STEP, Want.LOGLIK]


def test_no_gain_anywhere_is_stalled(make: Make) -> None:
    engine = make(simple())
    outcome, _ = converse(begun(engine), lambda request, number: honest(engine, request) if number == 0 else alone(-1e9))
    assert outcome.status == "stalled"
    assert outcome.last.number == 0
    assert outcome.status.exit_code == 3


def test_an_engine_is_fitted_as_any_other(make: Make) -> None:
    """The same estimates from both engines, by the same call, with the fixed effects and Py of the last θ."""
    case = random_case(70, 2, seed=3)
    found = fit(make(case), "equal", FitOptions())
    assert found.status == "converged"
    exact = case.oracle(found.theta)
    standard_errors = torch.linalg.inv(exact.AI).diagonal().sqrt()
    assert float((exact.score * standard_errors).abs().max()) < 1e-5
    torch.testing.assert_close(found.standard_errors, standard_errors, rtol=1e-8, atol=0)
    torch.testing.assert_close(found.beta, exact.beta, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found.Py, exact.P @ case.y, rtol=1e-8, atol=1e-9)


def test_a_start_outside_the_bounds_is_refused_before_any_evaluation(make: Make) -> None:
    engine = make(simple())
    with pytest.raises(ConfigError, match=r"kernel0 = -1 is below its bound 0"):
        fit(engine, torch.tensor([-1.0, 1.0], dtype=torch.float64), FitOptions())


def test_what_an_engine_cannot_do_it_says() -> None:
    whole, tiles = (make(simple()) for make in ENGINES.values())
    assert whole.why_not(Capability.ERROR_VARIANCES) == "are not to be had from whole matrices"
    assert tiles.why_not(Capability.ERROR_VARIANCES) is None
    few = ENGINES["dense"](random_case(12, 1, grouping=False))
    assert few.why_not(Capability.PROBES) == "needs more samples than its 16 probes"


# Many dialogues at once.


def phenotypes(number: int) -> list[Case]:
    case = simple()
    generator = torch.Generator().manual_seed(9)
    noise = torch.randn(number, 80, generator=generator, dtype=torch.float64)
    return [Case(case.terms, case.matrices, case.y + 0.5 * e, case.X, case.theta) for e in noise]


def test_many_dialogues_take_a_round_together_and_end_as_each_alone(make: Make) -> None:
    cases = phenotypes(4)
    engines = [make(case) for case in cases]
    starts = [torch.tensor(start, dtype=torch.float64) for start in ([0.4, 0.6], [0.01, 5.0], [5.0, 0.01], [0.5, 0.5])]
    dialogues = [average_information(start, BOUNDS, Stopping(), e.schedule) for start, e in zip(starts, engines, strict=True)]
    rounds: list[list[int]] = []

    def evaluate(requests: object) -> list[Reply]:
        assert isinstance(requests, list)
        rounds.append([request.dialogue for request in requests])
        return [honest(engines[request.dialogue], request) for request in requests]

    ended = drive(ProcessGrid.single(), dialogues, evaluate)
    assert len(ended) == 4
    for start, engine, outcome in zip(starts, engines, ended, strict=True):
        apart, _ = run(engine, start)
        assert isinstance(outcome, Outcome)
        assert outcome.status == apart.status
        assert torch.equal(outcome.last.step.theta, apart.last.step.theta)
    lengths = [sum(k in one for one in rounds) for k in range(4)]
    assert rounds[0] == [0, 1, 2, 3] and len(rounds) == max(lengths)  # whoever has ended is asked no more
    assert min(lengths) < max(lengths)


def test_a_dialogue_that_fails_leaves_the_others_talking(make: Make) -> None:
    engine = make(simple())
    good = average_information(torch.tensor([0.4, 0.6], dtype=torch.float64), BOUNDS, Stopping(), engine.schedule)
    empty = average_information(torch.zeros(0, dtype=torch.float64), BOUNDS, Stopping(), engine.schedule)
    ended = drive(ProcessGrid.single(), [empty, good], engine.evaluate)
    assert isinstance(ended[0], InputError) and "nothing to estimate" in str(ended[0])
    assert isinstance(ended[1], Outcome) and ended[1].status == "converged"
