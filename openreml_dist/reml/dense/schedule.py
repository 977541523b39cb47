"""How V(θ) is evaluated, and which evaluation comes next: cheap ones far from the optimum, exact ones at it.

Measured in the time of an inverse and a factor by LAPACK in float64 (n = 5,000, CPU): exact in float64 0.9, in float32 0.5, a
Cholesky factor in float64 0.3, in float32 0.17.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum

import torch
from typing_extensions import override


class Traces(Enum):
    """Where tr(P V_k) comes from."""

    FEW = "few probes"  # the first of the random probes, and a Cholesky factor
    PROBES = "probes"  # all of them
    ANCHORED = "anchored"  # exact traces at another θ, and probes for the difference
    EXACT = "exact"  # the inverse


@dataclass(frozen=True)
class Evaluation:
    """What to compute at a θ, in which precision."""

    traces: Traces
    dtype: torch.dtype

    @property
    def comparable(self) -> frozenset[str]:
        """Ways whose score differs from this one's by θ alone: of the same precision, and about the same anchor.

        Exact traces make a new anchor, so what was anchored before is not comparable with them.
        """
        alone = self.traces in (Traces.EXACT, Traces.FEW)
        others = (self.traces,) if alone else [traces for traces in Traces if traces is not Traces.FEW]
        return frozenset(str(Evaluation(traces, self.dtype)) for traces in others)

    def __str__(self) -> str:
        """As in a record: ``exact float64``."""
        return f"{self.traces.value} {str(self.dtype).removeprefix('torch.')}"


EXACT = Evaluation(Traces.EXACT, torch.float64)
EXACT_SINGLE = Evaluation(Traces.EXACT, torch.float32)
FEW_SINGLE = Evaluation(Traces.FEW, torch.float32)
PROBES_SINGLE = Evaluation(Traces.PROBES, torch.float32)
ANCHORED = Evaluation(Traces.ANCHORED, torch.float64)
ANCHORED_SINGLE = Evaluation(Traces.ANCHORED, torch.float32)

SMALLEST_SIZE = 2000  # with fewer samples an exact evaluation costs less than thinking about it
NEAR = 5.0  # standard errors: an anchor this far from the optimum leaves less Monte-Carlo error than float32 leaves rounding
LOCAL = 0.3  # standard errors: the step from here ends where float32 has nothing more to say
NOISE_GROWTH = 5e-3  # Monte-Carlo error of an anchored evaluation over its distance from the anchor; 0.002–0.005 for 64 probes
LARGEST_NOISE = 2e-5  # standard errors: Monte-Carlo error that an estimate called exact may have
NEGLIGIBLE_PART = 0.25  # of the Monte-Carlo error, below which a step is not worth an evaluation
FEW_PROBES = 64  # lead to within their own error of the optimum
NEAR_ENOUGH = 1.0  # standard errors: the step from here ends where few probes have nothing more to say


class DenseSchedule(ABC):
    """Which evaluation follows which.

    Attributes:
        uses_probes: whether any evaluation needs them.
        uses_controls: whether their error is what the estimates are left with.
        widest: the widest numbers of any evaluation.
    """

    uses_probes: bool = True
    uses_controls: bool = False
    widest: torch.dtype = torch.float64

    @abstractmethod
    def first(self) -> Evaluation:
        """At the start."""

    @abstractmethod
    def following(self, last: Evaluation, move: float, noise: float) -> Evaluation:
        """At the end of the next step.

        Args:
            last: the evaluation here.
            move: the next step, in standard errors.
            noise: Monte-Carlo error here, in standard errors.
        """

    def fallback(self, failed: Evaluation) -> DenseSchedule | None:
        """Exact traces in float64 where anything else has failed."""
        return None if failed == EXACT else Exact()

    @abstractmethod
    def may_end(self, last: Evaluation, noise: float) -> bool:
        """Whether an estimate from this evaluation is what was asked for."""

    def negligible_move(self, noise: float, tolerance: float) -> float:  # noqa: ARG002
        """The step, in standard errors, that is not worth taking."""
        return tolerance


@dataclass(frozen=True)
class Exact(DenseSchedule):
    """All exact, in float64."""

    uses_probes = False

    @override
    def first(self) -> Evaluation:
        return EXACT

    @override
    def following(self, last: Evaluation, move: float, noise: float) -> Evaluation:
        return EXACT

    @override
    def may_end(self, last: Evaluation, noise: float) -> bool:
        return True


@dataclass(frozen=True)
class Hutchinson(DenseSchedule):
    """Probes alone, in float32, to the end: few of them at first.

    Attributes:
        num_probes: of which there are enough for the last evaluations to be worth more than the first.
    """

    num_probes: int
    uses_controls = True
    widest = torch.float32

    @override
    def first(self) -> Evaluation:
        return FEW_SINGLE if self.num_probes >= 2 * FEW_PROBES else PROBES_SINGLE

    @override
    def following(self, last: Evaluation, move: float, noise: float) -> Evaluation:
        return FEW_SINGLE if last == FEW_SINGLE and move > NEAR_ENOUGH else PROBES_SINGLE

    @override
    def may_end(self, last: Evaluation, noise: float) -> bool:
        return last == PROBES_SINGLE

    @override
    def negligible_move(self, noise: float, tolerance: float) -> float:
        return max(tolerance, NEGLIGIBLE_PART * noise)


@dataclass(frozen=True)
class Auto(DenseSchedule):
    """Probes in float32 at the start, then an anchor in float32, then the exact evaluation in float64 near the optimum, and
    anchored ones in float64 to the end, their Monte-Carlo error below ``LARGEST_NOISE``."""

    @override
    def first(self) -> Evaluation:
        return PROBES_SINGLE

    @override
    def following(self, last: Evaluation, move: float, noise: float) -> Evaluation:
        if last == PROBES_SINGLE:
            return EXACT_SINGLE if move < NEAR else PROBES_SINGLE
        if last == EXACT_SINGLE or (last == ANCHORED_SINGLE and move > LOCAL):
            return ANCHORED_SINGLE
        if last == EXACT:
            return ANCHORED if NOISE_GROWTH * move < LARGEST_NOISE else EXACT
        return ANCHORED if last == ANCHORED and noise < LARGEST_NOISE else EXACT

    @override
    def may_end(self, last: Evaluation, noise: float) -> bool:
        return last.dtype == torch.float64 and noise < LARGEST_NOISE

    @override
    def negligible_move(self, noise: float, tolerance: float) -> float:
        return max(tolerance, 0.5 * LARGEST_NOISE)


@dataclass(frozen=True)
class Maximum(DenseSchedule):
    """For max ℓ alone: an anchor in float32, then anchored evaluations in float64, whose ℓ is exact."""

    @override
    def first(self) -> Evaluation:
        return EXACT_SINGLE

    @override
    def following(self, last: Evaluation, move: float, noise: float) -> Evaluation:
        return EXACT_SINGLE if move > NEAR else ANCHORED

    @override
    def may_end(self, last: Evaluation, noise: float) -> bool:
        return last.dtype == torch.float64


def choose_schedule(method: str, size: int, num_probes: int, is_linear: bool, loglik_alone: bool = False) -> DenseSchedule:
    """That of a method of traces, where it can be: both cheap ones need a V that is linear in θ and more samples than probes.

    ``auto`` is exact for few samples.
    """
    if method == "exact" or not is_linear or size <= num_probes or (method == "auto" and size < SMALLEST_SIZE):
        return Exact()
    if method == "hutchinson":
        return Hutchinson(num_probes)
    return Maximum() if loglik_alone else Auto()
