"""The AI-REML iteration: what rank 0 decides, and how every rank follows.

The decisions are one generator, ``average_information``, that knows no matrix, no rank and no file: it asks for a θ to be
evaluated, is told the result, and ends with an outcome. ``drive`` runs any number of such dialogues on rank 0, sends each
round of requests to all ranks and evaluates it there together, so that no rank can diverge.

Legend: r parameters θ; E correction of the average information AI; B = AI + E, positive definite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor

from openreml_dist.errors import InputError, NotPositiveDefiniteError
from openreml_dist.grid import ProcessGrid
from openreml_dist.reml.bounds import Bounds
from openreml_dist.reml.engine import Reply, Request, Schedule
from openreml_dist.reml.step import How, Step
from openreml_dist.reml.trust import NO_INFORMATION, ModelStep, bounded_step, positive_definite, secant_correction


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


Dialogue = Generator[Request, Reply, Outcome]
"""Yields a Request, is sent its Reply, returns the Outcome."""

INITIAL_RADIUS = 10.0  # standard errors jointly
SMALLEST_RADIUS = 1e-8
ACCEPTED_GAIN = 1e-4  # least ratio of the actual to the predicted rise of ℓ


def average_information(
    start: Tensor,
    bounds: Bounds,
    stopping: Stopping,
    schedule: Schedule,
    report: Callable[[Iteration], None] | None = None,
) -> Dialogue:
    """AI-REML in a trust region with bounds, as a dialogue.

    The first trial of an iteration is evaluated completely, because it is nearly always accepted and then is the next iterate;
    after a rejection only ℓ is evaluated until a shorter step is accepted. Where a cheap way of evaluating leads no further,
    surer ones take over. What it decides depends on the replies alone: fed the same ones, it asks for the same θ, bit for bit.

    Args:
        start: (r,) within the bounds.
        bounds: of θ.
        stopping: tolerances and the limit of iterations.
        schedule: which way of evaluating follows which.
        report: told every accepted iterate at once.
    Raises:
        InputError: if there is nothing to estimate.
        NotPositiveDefiniteError: if V is not positive definite at the start.
    """
    if not len(start):
        raise InputError("there is nothing to estimate: the covariance has no free parameter")
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
        if trial is None:
            surer = schedule.fallback(step.evaluation)
            if surer is None:
                return Outcome(Status.STALLED, tuple(iterations), "no step along the predicted direction raises logL")
            step, schedule, evaluations = yield from _evaluate_start(step.theta, surer)
            E, radius = torch.zeros_like(step.AI), INITIAL_RADIUS
            continue
        if trial.is_comparable_with(step):
            free = ~bounds.holding(trial.theta, trial.score)
            E = secant_correction(E, trial.AI, trial.theta - step.theta, trial.score - step.score, free)
        step = trial


def _evaluate_start(theta: Tensor, schedule: Schedule) -> Generator[Request, Reply, tuple[Step, Schedule, int]]:
    """The first evaluation; a surer one, and its schedule from there on, where V is positive definite for that alone."""
    evaluations = 0
    surer: Schedule | None = schedule
    while surer is not None:
        schedule = surer
        reply = yield Request(theta, schedule.first())
        evaluations += 1
        if isinstance(reply, Step):
            return reply, schedule, evaluations
        surer = schedule.fallback(schedule.first())
    raise NotPositiveDefiniteError("V is not positive definite at the start")


def _improve(
    step: Step, E: Tensor, bounds: Bounds, radius: float, how: How
) -> Generator[Request, Reply, tuple[Step | None, float, int]]:
    """The next iterate (None if there is none), the trust radius after it, and the evaluations it took."""
    B = _curvature(step, E, bounds.lower)
    evaluations = 0
    while radius > SMALLEST_RADIUS:
        model = bounded_step(step.score, B, step.theta, bounds.for_step_from(step.theta), radius)
        theta = bounds.clip(step.theta + model.delta)
        trial = yield Request(theta, how, complete=evaluations == 0, carried=step.carried)
        evaluations += 1
        ratio = _gain_ratio(trial, step, model)
        if ratio < ACCEPTED_GAIN:
            radius = 0.5 * min(radius, model.length)
            continue
        if not isinstance(trial, Step):
            trial = yield Request(theta, how, carried=step.carried)
            evaluations += 1
            if not isinstance(trial, Step):  # the sweep may fail where the Cholesky factor just existed
                radius = 0.5 * min(radius, model.length)
                continue
        if ratio > 0.75 and model.length > 0.9 * radius:
            radius *= 2
        elif ratio < 0.25:
            radius = 0.5 * model.length
        return trial, radius, evaluations
    return None, radius, evaluations


def _gain_ratio(trial: Reply, step: Step, model: ModelStep) -> float:
    """Actual over predicted rise of ℓ: −inf without a finite ℓ, 1 where the predicted rise is lost in rounding or noise."""
    if trial is None or not math.isfinite(trial.loglik):
        return -math.inf
    gain = trial.loglik - step.loglik
    error = max(step.loglik_error, trial.loglik_error)
    doubt = error + 3 * float((model.delta @ step.score_noise @ model.delta).sqrt())  # of the predicted rise
    if model.gain < doubt and abs(gain) < 10 * doubt:
        return 1.0
    return gain / model.gain


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
    if iteration.next_step.gain <= step.loglik_seen_error:
        return True
    move_limit = schedule.negligible_move(iteration.noise, stopping.tolerance_theta)
    gain_limit = stopping.tolerance_loglik + step.loglik_error
    gain_limit += 0.5 * (move_limit * len(step.theta)) ** 2  # what a step of that size may gain
    return iteration.largest_move <= move_limit and iteration.next_step.gain <= gain_limit


Ended = Outcome | Exception
"""How a dialogue ended: with its outcome, or with an error of its own."""


def drive(
    grid: ProcessGrid, dialogues: Sequence[Dialogue] | None, evaluate: Callable[[Sequence[Request]], Sequence[Reply]]
) -> list[Ended]:
    """Hold dialogues on rank 0 and evaluate their requests on all ranks, those of all dialogues together: a round.

    A dialogue that ends leaves the others talking. Collective: one broadcast a round.

    Args:
        grid: the ranks.
        dialogues: on rank 0, such as ``average_information(...)``; None elsewhere.
        evaluate: collective; answers all requests of a round, in order; each says whose it is.
    Returns:
        How each dialogue ended, the same on every rank; an error of an evaluation is raised, on every rank.
    """
    ended: dict[int, Ended] = {}
    replies: dict[int, Reply] = {} if dialogues is None else dict.fromkeys(range(len(dialogues)))
    while True:
        said = grid.share(None if dialogues is None else {k: _next(dialogues[k], reply) for k, reply in replies.items()})
        assert said is not None
        ended |= {k: what for k, what in said.items() if not isinstance(what, Request)}
        requests = {k: replace(what, dialogue=k) for k, what in said.items() if isinstance(what, Request)}
        if not requests:
            return [ended[k] for k in sorted(ended)]
        replies = dict(zip(requests, evaluate(list(requests.values())), strict=True))


def _next(dialogue: Dialogue, reply: Reply) -> Request | Ended:
    """The next request of a dialogue that is told a reply (None at its beginning), or how it ended."""
    try:
        return dialogue.send(reply)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome
    except Exception as error:
        return error
