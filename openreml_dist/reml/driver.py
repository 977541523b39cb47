"""The AI-REML iteration: what rank 0 decides, and how every rank follows.

The decisions are one generator, ``average_information``, that knows no matrix, no rank and no file: it asks for a θ to be
evaluated, is told the result, and ends with an outcome. ``drive`` runs it on rank 0, shares each request with all ranks
and evaluates it there together, so that no rank can diverge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from openreml_dist.errors import InputError, NotPositiveDefiniteError
from openreml_dist.grid import ProcessGrid
from openreml_dist.reml.dense.evaluation import EXACT, Evaluation, Schedule, Traces
from openreml_dist.reml.step import Step
from openreml_dist.reml.trust import NO_INFORMATION, Bounds, ModelStep, bounded_step, positive_definite, secant_correction


class Status(StrEnum):
    """How a fit ended."""

    CONVERGED = "converged"
    CONVERGED_AT_BOUND = "converged_at_bound"
    ITERATION_LIMIT = "iteration_limit"
    STALLED = "stalled"
    FAILED = "failed"

    @property
    def exit_code(self) -> int:
        """What a program that ran the fit exits with."""
        return {"iteration_limit": 3, "stalled": 3, "failed": 4}.get(self, 0)


@dataclass(frozen=True)
class Stopping:
    """When to stop: the step that would come next is negligible.

    Attributes:
        max_iter: accepted steps at most.
        tolerance_theta: it would move no component by more, in standard errors.
        tolerance_loglik: it would raise ℓ by no more, beyond the rounding of ℓ.
    """

    max_iter: int = 50
    tolerance_theta: float = 1e-6
    tolerance_loglik: float = 1e-9


@dataclass(frozen=True)
class Request:
    """Evaluate this θ: everything (a ``Step``), or the log-likelihood alone."""

    theta: Tensor
    how: Evaluation


@dataclass(frozen=True)
class Iteration:
    """One accepted iterate: all numbers belong to the θ of ``step``.

    Attributes:
        number: 0 is the start.
        evaluations: of V(θ) that this iteration took.
        at_bound: (r,) parameters held on a bound.
        next_step: what the quadratic model would do next, with no trust region; its size says how far off the optimum is.
        largest_move: of ``next_step``, in standard errors.
        noise: largest Monte-Carlo error of θ + ``next_step``, in standard errors; 0 where the traces are exact.
    """

    number: int
    step: Step
    evaluations: int
    at_bound: Tensor
    next_step: ModelStep
    largest_move: float
    noise: float


@dataclass(frozen=True)
class Outcome:
    """How the iteration ended, and all accepted iterates, the last the best."""

    status: Status
    iterations: tuple[Iteration, ...]
    message: str

    @property
    def last(self) -> Iteration:
        """The estimate."""
        return self.iterations[-1]


Reply = Step | float | None
"""A complete step, a log-likelihood alone, or None where V(θ) is not positive definite."""

INITIAL_RADIUS = 10.0  # standard errors jointly
SMALLEST_RADIUS = 1e-8
ACCEPTED_GAIN = 1e-4  # least actual share of the predicted rise of ℓ


def average_information(
    start: Tensor,
    bounds: Bounds,
    stopping: Stopping,
    report: Callable[[Iteration], None] | None = None,
    schedule: Schedule | None = None,
) -> Generator[Request, Reply, Outcome]:
    """AI-REML in a trust region with bounds, as a dialogue: yields a Request, is sent its Reply, returns the Outcome.

    The first trial of an iteration is evaluated completely, because it is nearly always accepted and then is the next iterate;
    after a rejection only ℓ is evaluated until a shorter step is accepted. Where a cheap evaluation leads no further, exact
    ones take over.

    Args:
        start: (r,) within the bounds.
        bounds: of θ.
        stopping: tolerances and the limit of iterations.
        report: told every accepted iterate at once.
        schedule: which evaluation follows which; by default all are exact.
    Raises:
        InputError: if there is nothing to estimate.
        NotPositiveDefiniteError: if V is not positive definite at the start.
    """
    if not len(start):
        raise InputError("there is nothing to estimate: the covariance has no free parameter")
    schedule = schedule or Schedule("exact")
    step, schedule, evaluations = yield from _evaluate_start(start, schedule)
    E, radius = torch.zeros_like(step.AI), INITIAL_RADIUS
    iterations: list[Iteration] = []
    while True:
        iteration = _describe(len(iterations), step, E, bounds, evaluations)
        iterations.append(iteration)
        if report is not None:
            report(iteration)
        if _is_negligible(iteration, stopping, schedule) and schedule.may_end(step.evaluation, iteration.noise):
            status = Status.CONVERGED_AT_BOUND if bool(iteration.at_bound.any()) else Status.CONVERGED
            return Outcome(status, tuple(iterations), "the next step would be negligible")
        if len(iterations) > stopping.max_iter:
            return Outcome(Status.ITERATION_LIMIT, tuple(iterations), f"not converged after {stopping.max_iter} iterations")

        how = schedule.following(step.evaluation, iteration.largest_move, iteration.noise)
        trial, radius, evaluations = yield from _improve(step, E, bounds, radius, how)
        if trial is None and step.evaluation == EXACT:
            return Outcome(Status.STALLED, tuple(iterations), "no step along the predicted direction raises logL")
        if trial is None:
            step, schedule, evaluations = yield from _evaluate_start(step.theta, Schedule("exact"))
            E, radius = torch.zeros_like(step.AI), INITIAL_RADIUS
            continue
        if _are_comparable(step, trial):
            free = ~bounds.holding(trial.theta, trial.score)
            E = secant_correction(E, trial.AI, trial.theta - step.theta, trial.score - step.score, free)
        step = trial


def _evaluate_start(theta: Tensor, schedule: Schedule) -> Generator[Request, Reply, tuple[Step, Schedule, int]]:
    """The first evaluation; exact from there on where V is positive definite in float64 alone."""
    first = yield Request(theta, schedule.first())
    evaluations = 1
    if not isinstance(first, Step) and schedule.first() != EXACT:
        schedule = Schedule("exact")
        first = yield Request(theta, schedule.first())
        evaluations += 1
    if not isinstance(first, Step):
        raise NotPositiveDefiniteError("V is not positive definite at the start")
    return first, schedule, evaluations


def _improve(
    step: Step, E: Tensor, bounds: Bounds, radius: float, how: Evaluation
) -> Generator[Request, Reply, tuple[Step | None, float, int]]:
    """The next iterate (None if there is none), the trust radius after it, and the evaluations it took."""
    B = _curvature(step, E, bounds.lower)
    evaluations = 0
    while radius > SMALLEST_RADIUS:
        model = bounded_step(step.score, B, step.theta, bounds.for_step_from(step.theta), radius)
        theta = bounds.clip(step.theta + model.delta)
        trial = yield Request(theta, how if evaluations == 0 else how.loglik_alone())
        evaluations += 1
        share = _gained_share(trial, step, model, how)
        if share < ACCEPTED_GAIN:
            radius = 0.5 * min(radius, model.length)
            continue
        if not isinstance(trial, Step):
            trial = yield Request(theta, how)
            evaluations += 1
            if not isinstance(trial, Step):  # the sweep may fail where the Cholesky factor just existed
                radius = 0.5 * min(radius, model.length)
                continue
        if share > 0.75 and model.length > 0.9 * radius:
            radius *= 2
        elif share < 0.25:
            radius = 0.5 * model.length
        return trial, radius, evaluations
    return None, radius, evaluations


def _gained_share(trial: Reply, step: Step, model: ModelStep, how: Evaluation) -> float:
    """Actual over predicted rise of ℓ: −inf without a finite ℓ, 1 where the predicted rise is lost in rounding or noise."""
    reached = trial.loglik if isinstance(trial, Step) else trial
    if reached is None or not torch.isfinite(torch.tensor(reached)):
        return float("-inf")
    rounding = max(_rounding(step.loglik, step.evaluation.dtype), _rounding(reached, how.dtype), _seen_error(step))
    doubt = rounding + 3 * float((model.delta @ step.score_noise @ model.delta).sqrt())  # of the predicted rise
    if model.gain < doubt and abs(reached - step.loglik) < 10 * doubt:
        return 1.0
    return (reached - step.loglik) / model.gain


def _are_comparable(step: Step, trial: Step) -> bool:
    """Whether the change of score between two steps is that of ℓ alone, not of precision or Monte-Carlo error."""
    same_precision = step.evaluation.dtype == trial.evaluation.dtype
    from_anchor_to_anchor = trial.evaluation.traces is Traces.EXACT and step.evaluation.traces is not Traces.EXACT
    return same_precision and not from_anchor_to_anchor


def _rounding(loglik: float, dtype: torch.dtype) -> float:
    """What the sum of n logarithms and squares behind ℓ may be off by."""
    return 5e4 * torch.finfo(dtype).eps * (1 + abs(loglik)) if dtype == torch.float64 else 1e-6 * (1 + abs(loglik))


def _seen_error(step: Step) -> float:
    """What ℓ is off by according to the trace identity: more than ``_rounding`` if V is badly conditioned; 0 if unknown."""
    known = step.evaluation.traces is Traces.EXACT and math.isfinite(step.trace_error)
    return step.trace_error * len(step.Py) if known else 0.0


def _describe(number: int, step: Step, E: Tensor, bounds: Bounds, evaluations: int) -> Iteration:
    """The iterate with its distance from the optimum as the quadratic model sees it."""
    B = _curvature(step, E, bounds.lower)
    next_step = bounded_step(step.score, B, step.theta, bounds, radius=float("inf"))
    at_bound = bounds.holding(step.theta, step.score)
    standard_errors = torch.linalg.inv(B).diagonal().sqrt()
    largest_move = float((next_step.delta.abs() / standard_errors).max())
    noise = float((monte_carlo_errors(step, B, at_bound) / standard_errors).max())
    return Iteration(number, step, evaluations, at_bound, next_step, largest_move, noise)


def _curvature(step: Step, E: Tensor, lower: Tensor) -> Tensor:
    """AI + E, positive definite; a variance of which the data say nothing, such as one of fixed effects, keeps its value."""
    unknown = (lower == 0) & (step.theta > 0) & (step.AI.diagonal() * step.theta.square() < NO_INFORMATION)
    B = torch.where(unknown[:, None] | unknown, 0.0, step.AI + E)
    return positive_definite(B + torch.diag(torch.where(unknown, step.theta.pow(-2), 0.0)))


def monte_carlo_errors(step: Step, B: Tensor, at_bound: Tensor) -> Tensor:
    """Standard deviations (r,) of θ + B⁻¹·score due to the probes; 0 for parameters that are held. Local."""
    free = torch.nonzero(~at_bound).flatten()
    errors = torch.zeros_like(step.theta)
    B_inv = torch.linalg.inv(B[free][:, free])
    errors[free] = (B_inv @ step.score_noise[free][:, free] @ B_inv).diagonal().clamp_min(0).sqrt()
    return errors


def _is_negligible(iteration: Iteration, stopping: Stopping, schedule: Schedule) -> bool:
    """Whether the next step would move neither θ nor ℓ, or ℓ less than its error: the score is zero for all purposes."""
    step = iteration.step
    if iteration.next_step.gain <= _seen_error(step):
        return True
    move_limit = schedule.negligible_move(iteration.noise, stopping.tolerance_theta)
    gain_limit = stopping.tolerance_loglik + _rounding(step.loglik, step.evaluation.dtype)
    gain_limit += 0.5 * (move_limit * len(step.theta)) ** 2  # what a step of that size may gain
    return iteration.largest_move <= move_limit and iteration.next_step.gain <= gain_limit


Evaluate = Callable[[Request], Step | float]


def drive(grid: ProcessGrid, decisions: Generator[Request, Reply, Outcome] | None, evaluate: Evaluate) -> Outcome:
    """Run the decisions of rank 0 and evaluate each request on all ranks.

    Collective: every rank calls it; ``decisions`` is given on rank 0 and None elsewhere. An error of the decisions or of an
    evaluation is raised on every rank.

    Args:
        grid: the ranks.
        decisions: ``average_information(...)`` on rank 0.
        evaluate: collective; raises NotPositiveDefiniteError on every rank or on none.
    Returns:
        The outcome, the same on every rank.
    """
    reply: Reply = None
    while True:
        request: Request | Outcome | Exception | None = None
        if decisions is not None:
            try:
                request = decisions.send(reply)
            except StopIteration as end:
                request = end.value
            except Exception as error:
                request = error
        request = grid.share(request)
        if isinstance(request, Exception):
            raise request
        if isinstance(request, Outcome):
            return request
        assert request is not None
        try:
            reply = evaluate(request)
        except NotPositiveDefiniteError:
            reply = None
