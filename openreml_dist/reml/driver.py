"""The AI-REML iteration: which θ comes next, and when to stop.

The decisions are one generator, ``average_information``, that knows no matrix, no rank and no file: it asks for a θ to be
evaluated, is told the result, and ends with an outcome. ``rounds.drive`` holds the dialogue, ``journal`` writes it down.

Legend: r parameters θ; AI average information, E its secant correction, B positive definite curvature, near AI + E.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from openreml_dist.errors import InputError, NotPositiveDefiniteError
from openreml_dist.reml.bounds import NEARER, Bounds
from openreml_dist.reml.doubt import changes_loglik, is_blind, is_implausible, says_nothing
from openreml_dist.reml.engine import Reply, Request, Schedule, Want
from openreml_dist.reml.outcome import Dialogue, Iteration, Outcome, Status, Stopping
from openreml_dist.reml.step import How, Information, LogLikelihood, Step
from openreml_dist.reml.trust import (
    NO_INFORMATION,
    ModelStep,
    bounded_step,
    monte_carlo_errors,
    positive_definite,
    raised_to_expected,
    secant_correction,
)

Report = Callable[[Iteration], None]

INITIAL_RADIUS = 10.0  # standard errors jointly
SMALLEST_RADIUS = 1e-8
ACCEPTED_GAIN = 1e-4  # least ratio of the actual to the predicted rise of ℓ
POOR_GAIN = 0.25  # below it the quadratic model is not to be trusted with the next step either
LAST_DIGITS = 1e-3  # standard errors: a step this short that no longer raises ℓ is lost in the rounding of ℓ
VANISHING_GAIN = 1e-6  # of ℓ on the way from beside a vanishing bound onto it, which is not worth going on for
BESIDE = 0.1  # of the largest parameter: how far from a special θ an ordinary one is
NEAREST = 2  # times that such a bound is approached


def average_information(
    start: Tensor, bounds: Bounds, stopping: Stopping, schedule: Schedule, report: Report | None = None
) -> Dialogue:
    """AI-REML in a trust region with bounds, as a dialogue.

    What it decides depends on the replies alone: told the same, it asks for the same θ, bit for bit.

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
    bounds = yield from _fix_unknown(step, bounds)
    path = _Path(bounds, report)
    path.accept(step, torch.zeros_like(step.AI), evaluations)
    status, message = yield from _climb(path, stopping, schedule)
    for _ in range(NEAREST):
        if status is not Status.CONVERGED or not path.approach_vanishing():
            break
        status, message = yield from _climb(path, stopping, schedule)
    if status is Status.CONVERGED and path.ends_at_bound():
        status = Status.CONVERGED_AT_BOUND
    return Outcome(status, tuple(path.iterations), message)


def _climb(path: _Path, stopping: Stopping, schedule: Schedule) -> Generator[Request, Reply, tuple[Status, str]]:
    """Go up from the last iterate, until the next step would be negligible.

    The first trial of an iteration is evaluated completely, because it is nearly always accepted and then is the next iterate;
    after a rejection only ℓ is evaluated until a shorter step is accepted. Where the average information leads astray, the
    expected one is asked for; where a cheap way of evaluating leads no further, surer ones take over.
    """
    E, radius, in_doubt = torch.zeros_like(path.last.step.AI), INITIAL_RADIUS, False
    while True:
        step = path.last.step
        if path.has_ended(stopping, schedule):
            return Status.CONVERGED, "the next step would be negligible"
        if stopping.wished():
            return Status.STOPPED, "stopped on request, before it converged"
        if len(path.iterations) > stopping.max_iter:
            return Status.ITERATION_LIMIT, f"not converged after {stopping.max_iter} iterations"

        expected = None
        if in_doubt or is_implausible(path.last) or is_blind(step, path.bounds):
            expected = yield from _expected_information(step)
        B, misled = _curvature(step, E, path.bounds, expected)
        how = schedule.following(step.evaluation, path.last.largest_move, path.last.noise)
        trial, radius, evaluations, ratio = yield from _improve(step, B, path.bounds, radius, how)
        if trial is None:
            surer = schedule.fallback(step.evaluation)
            if surer is None and path.last.largest_move < LAST_DIGITS:
                return Status.CONVERGED, "the next step would be lost in the rounding of logL"
            if surer is None:
                return Status.STALLED, "no step along the predicted direction raises logL"
            trial, schedule, evaluations = yield from _evaluate_start(step.theta, surer)
            E, radius, in_doubt = torch.zeros_like(E), INITIAL_RADIUS, False
        else:
            in_doubt = misled or ratio < POOR_GAIN or evaluations > 1
            if trial.is_comparable_with(step):
                free = ~path.bounds.holding(trial.theta, trial.score)
                E = secant_correction(E, trial.AI, trial.theta - step.theta, trial.score - step.score, free)
        path.accept(trial, E, evaluations)


@dataclass
class _Path:
    """The iterates so far, and the bounds that they keep."""

    bounds: Bounds
    report: Report | None
    iterations: list[Iteration] = field(default_factory=list)

    @property
    def last(self) -> Iteration:
        return self.iterations[-1]

    def accept(self, step: Step, E: Tensor, evaluations: int) -> None:
        """A step becomes the next iterate, which took so many evaluations."""
        self.iterations.append(_describe(len(self.iterations), step, E, self.bounds, evaluations))
        if self.report is not None:
            self.report(self.last)

    def has_ended(self, stopping: Stopping, schedule: Schedule) -> bool:
        """Whether the last iterate is good enough, or nearly so and its steps are lost in the rounding of ℓ."""
        last = self.last
        if not schedule.may_end(last.step.evaluation, last.noise):
            return False
        if _is_negligible(last, stopping, schedule):
            return True
        if len(self.iterations) < 2 or last.largest_move > LAST_DIGITS:
            return False
        lost = all(one.next_step.gain <= one.step.loglik_error for one in self.iterations[-2:])
        return lost and last.largest_move > 0.5 * self.iterations[-2].largest_move

    def approach_vanishing(self) -> bool:
        """Put the bounds beside vanishing ones nearer to them, where ℓ would still rise on the way."""
        step = self.last.step
        rising = (step.theta <= self.bounds.lower) & (step.score < 0) & (_gain_to_zero(step) > VANISHING_GAIN)
        rising = rising & self.bounds.vanishing
        if not bool(rising.any()):
            return False
        self.bounds = self.bounds.nearer_vanishing(rising)
        last = self.last
        self.iterations[-1] = _describe(last.number, step, torch.zeros_like(step.AI), self.bounds, last.evaluations)
        return True

    def ends_at_bound(self) -> bool:
        """Whether a parameter is on its bound, or so near to a vanishing one that nothing is gained on the way."""
        step = self.last.step
        near = self.bounds.vanishing & (step.theta <= self.bounds.beside / NEARER) & (_gain_to_zero(step) <= VANISHING_GAIN)
        if bool((near & ~self.last.at_bound).any()):
            self.iterations[-1] = replace(self.last, at_bound=self.last.at_bound | near)
        return bool(self.last.at_bound.any())


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


def _expected_information(step: Step) -> Generator[Request, Reply, Tensor | None]:
    """That at a step (r, r); None where it cannot be had."""
    reply = yield Request(step.theta, step.evaluation, Want.INFORMATION, step.carried)
    return reply.expected if isinstance(reply, Information) else None


def _fix_unknown(step: Step, bounds: Bounds) -> Generator[Request, Reply, Bounds]:
    """Bounds that fix what the data say nothing about: V_k is zero, or within X, wherever there are records.

    Then score_k and AI_kk are zero. So they may be by chance, where y is balanced, but the expected information is not; and so
    may all three be at a special θ, as of the correlation of a term whose variance is 0, but not beside it.
    """
    theta = step.theta
    nothing = says_nothing(step.AI, theta) & ~changes_loglik(step) & ~bounds.fixed & ~bounds.tied
    special = ((theta == 0) | (theta <= bounds.lower) | (theta >= bounds.upper)) & ~nothing
    ordinary = bounds.clip(torch.where(special, theta + BESIDE * theta.abs().max(), theta))
    for point in (theta, ordinary):
        if not bool(nothing.any()):
            return bounds
        reply = yield Request(point, step.evaluation, Want.INFORMATION, step.carried)
        if not isinstance(reply, Information):
            return bounds
        nothing = nothing & says_nothing(reply.expected, point)
    return bounds.fixing(nothing, theta)


def _gain_to_zero(step: Step) -> Tensor:
    """(r,) change of ℓ on the way of θ_k to 0, where its slope vanishes: ½|score_k|θ_k."""
    return 0.5 * step.score.abs() * step.theta


def _improve(
    step: Step, B: Tensor, bounds: Bounds, radius: float, how: How
) -> Generator[Request, Reply, tuple[Step | None, float, int, float]]:
    """The next iterate (None if there is none), the trust radius after it, the evaluations, and the ratio of gains."""
    evaluations = 0
    while radius > SMALLEST_RADIUS:
        model = bounded_step(step.score, B, step.theta, bounds.for_step_from(step.theta), radius)
        theta = bounds.clip(step.theta + model.delta)
        trial = yield Request(theta, how, Want.STEP if evaluations == 0 else Want.LOGLIK, step.carried)
        evaluations += 1
        ratio = _gain_ratio(trial, step, model)
        if ratio < ACCEPTED_GAIN:
            radius = 0.5 * min(radius, model.length)
            continue
        if not isinstance(trial, Step):
            trial = yield Request(theta, how, Want.STEP, step.carried)
            evaluations += 1
            if not isinstance(trial, Step):  # the sweep may fail where the Cholesky factor just existed
                radius = 0.5 * min(radius, model.length)
                continue
        if ratio > 0.75 and model.length > 0.9 * radius:
            radius *= 2
        elif ratio < 0.25:
            radius = 0.5 * model.length
        return trial, radius, evaluations, ratio
    return None, radius, evaluations, -math.inf


def _gain_ratio(trial: Reply, step: Step, model: ModelStep) -> float:
    """Actual over predicted rise of ℓ: −inf without a finite ℓ, 1 where the predicted rise is lost in rounding or noise."""
    if not isinstance(trial, Step | LogLikelihood) or not math.isfinite(trial.loglik):
        return -math.inf
    gain = trial.loglik - step.loglik
    error = max(step.loglik_error, trial.loglik_error)
    doubt = error + 3 * float((model.delta @ step.score_noise @ model.delta).sqrt())  # of the predicted rise
    if model.gain < doubt and abs(gain) < 10 * doubt:
        return 1.0
    return gain / model.gain


def _describe(number: int, step: Step, E: Tensor, bounds: Bounds, evaluations: int) -> Iteration:
    """The iterate with its distance from the optimum as the quadratic model sees it."""
    B, _ = _curvature(step, E, bounds)
    next_step = bounded_step(step.score, B, step.theta, bounds, radius=math.inf)
    held = bounds.holding(step.theta, step.score)
    standard_errors = torch.linalg.inv(B).diagonal().sqrt()
    largest_move = float((next_step.delta.abs() / standard_errors).max())
    noise = float((monte_carlo_errors(step.score_noise, B, held) / standard_errors).max())
    at_bound = held & ~bounds.fixed & ~bounds.tied
    ridges = bounds.open_ridges(at_bound)
    tied = bounds.tied & (ridges != 0).any(dim=1)
    at_bound = at_bound | (bounds.tied & ~tied)
    return Iteration(number, step, evaluations, at_bound, bounds.fixed, tied, ridges, next_step, largest_move, noise)


def _curvature(step: Step, E: Tensor, bounds: Bounds, expected: Tensor | None = None) -> tuple[Tensor, bool]:
    """B = AI + E, positive definite, and whether the expected information had to take its place in any direction.

    A variance of which the data say nothing, such as one of fixed effects, keeps its value; what is tied stands apart.
    """
    apart = (bounds.tied[:, None] | bounds.tied) & ~torch.eye(len(E), dtype=torch.bool)
    B, misled = torch.where(apart, 0.0, step.AI + E), False
    if expected is not None:
        B, misled = raised_to_expected(B, torch.where(apart, 0.0, expected))
    unknown = (bounds.lower == 0) & ~bounds.tied & (step.theta > 0) & (B.diagonal() * step.theta.square() < NO_INFORMATION)
    B = torch.where(unknown[:, None] | unknown, 0.0, B)
    return positive_definite(B + torch.diag(torch.where(unknown, step.theta.pow(-2), 0.0))), misled


def _is_negligible(iteration: Iteration, stopping: Stopping, schedule: Schedule) -> bool:
    """Whether the next step would move neither θ nor ℓ, or ℓ less than its error: the score is zero for all purposes."""
    step = iteration.step
    if iteration.next_step.gain <= step.loglik_seen_error:
        return True
    move_limit = schedule.negligible_move(iteration.noise, stopping.tolerance_theta)
    gain_limit = stopping.tolerance_loglik + step.loglik_error
    gain_limit += 0.5 * (move_limit * len(step.theta)) ** 2  # what a step of that size may gain
    return iteration.largest_move <= move_limit and iteration.next_step.gain <= gain_limit
