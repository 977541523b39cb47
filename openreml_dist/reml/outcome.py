"""What the iteration leaves behind: every accepted iterate, and how it ended.

Legend: r parameters θ.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from openreml_dist.reml.engine import Reply, Request
from openreml_dist.reml.step import Step
from openreml_dist.reml.trust import ModelStep


class Status(StrEnum):
    """How a fit ended."""

    CONVERGED = "converged"
    CONVERGED_AT_BOUND = "converged_at_bound"
    NOT_IDENTIFIED = "not_identified"
    ITERATION_LIMIT = "iteration_limit"
    STALLED = "stalled"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_an_answer(self) -> bool:
        """Whether the last iterate may stand for the maximum: files that other programs read are written of such fits alone."""
        return self in (Status.CONVERGED, Status.CONVERGED_AT_BOUND)

    @property
    def exit_code(self) -> int:
        """What a program that ran the fit exits with."""
        return {"iteration_limit": 3, "stalled": 3, "stopped": 3, "failed": 4, "not_identified": 6}.get(self, 0)


@dataclass(frozen=True)
class Stopping:
    """When to stop: the step that would come next is negligible.

    Attributes:
        max_iter: accepted steps at most.
        tolerance_theta: it would move no component by more, in standard errors.
        tolerance_loglik: it would raise ℓ by no more, beyond the rounding of ℓ.
        wished: whether somebody wants the fit to end with the iterate that it has; asked after each.
    """

    max_iter: int = 50
    tolerance_theta: float = 1e-6
    tolerance_loglik: float = 1e-9
    wished: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Iteration:
    """One accepted iterate: all numbers belong to the θ of ``step``.

    Attributes:
        number: 0 is the start.
        evaluations: of V(θ) that this iteration took.
        at_bound: (r,) parameters held on a bound.
        fixed: (r,) parameters that keep their value, since the likelihood of these data does not depend on them.
        tied: (r,) parameters that keep their value, since others make up for them.
        ridges: (r, d) how: directions along which the likelihood does not change.
        next_step: what the quadratic model would do next, with no trust region; its size says how far off the optimum is.
        largest_move: of ``next_step``, in standard errors.
        noise: largest Monte-Carlo error of θ + ``next_step``, in standard errors; 0 where the traces are exact.
    """

    number: int
    step: Step
    evaluations: int
    at_bound: Tensor
    fixed: Tensor
    tied: Tensor
    ridges: Tensor
    next_step: ModelStep
    largest_move: float
    noise: float

    @property
    def held(self) -> Tensor:
        """(r,) parameters without a part in the next step: on a bound, fixed or tied."""
        return self.at_bound | self.fixed | self.tied


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
