"""How V(θ) is evaluated, and which evaluation comes next: cheap ones far from the optimum, exact ones at it.

Measured in the time of an inverse and a factor by LAPACK in float64 (n = 5,000, CPU): exact in float64 0.9, in float32 0.5, a
Cholesky factor in float64 0.3, in float32 0.17.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch


class Traces(Enum):
    """Where tr(P V_k) comes from."""

    PROBES = "probes"  # random probes and a Cholesky factor
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
        others = Traces if self.traces is not Traces.EXACT else (Traces.EXACT,)
        return frozenset(str(Evaluation(traces, self.dtype)) for traces in others)

    def __str__(self) -> str:
        """As in a record: ``exact float64``."""
        return f"{self.traces.value} {str(self.dtype).removeprefix('torch.')}"


EXACT = Evaluation(Traces.EXACT, torch.float64)
EXACT_SINGLE = Evaluation(Traces.EXACT, torch.float32)
PROBES_SINGLE = Evaluation(Traces.PROBES, torch.float32)
ANCHORED = Evaluation(Traces.ANCHORED, torch.float64)
ANCHORED_SINGLE = Evaluation(Traces.ANCHORED, torch.float32)

SMALLEST_SIZE = 2000  # with fewer samples an exact evaluation costs less than thinking about it
NEAR = 5.0  # standard errors: an anchor this far from the optimum leaves less Monte-Carlo error than float32 leaves rounding
LOCAL = 0.3  # standard errors: the step from here ends where float32 has nothing more to say
NOISE_GROWTH = 5e-3  # Monte-Carlo error of an anchored evaluation over its distance from the anchor; 0.002–0.005 for 64 probes
LARGEST_NOISE = 2e-5  # standard errors: Monte-Carlo error that an estimate called exact may have
NEGLIGIBLE_SHARE = 0.1  # of the Monte-Carlo error, below which a step is not worth an evaluation


@dataclass(frozen=True)
class DenseSchedule:
    """Which evaluation follows which.

    ``exact``: all exact, float64. ``hutchinson``: probes alone, float32, to the end. ``auto``: probes in float32 at the start,
    then an anchor in float32, then the exact evaluation in float64 near the optimum, and anchored ones in float64 to the end,
    their Monte-Carlo error below ``LARGEST_NOISE``.
    """

    method: str

    @classmethod
    def choose(cls, method: str, size: int, num_probes: int, is_linear: bool) -> DenseSchedule:
        """``auto`` is exact for few samples; both need a covariance that is linear in θ and more samples than probes."""
        if not is_linear or size <= num_probes or (method == "auto" and size < SMALLEST_SIZE):
            return cls("exact")
        return cls(method)

    @property
    def uses_probes(self) -> bool:
        """Whether any evaluation needs them."""
        return self.method != "exact"

    @property
    def widest(self) -> torch.dtype:
        """The widest numbers of any evaluation."""
        return torch.float32 if self.method == "hutchinson" else torch.float64

    def first(self) -> Evaluation:
        """At the start."""
        return EXACT if self.method == "exact" else PROBES_SINGLE

    def following(self, last: Evaluation, move: float, noise: float) -> Evaluation:
        """At the end of the next step.

        Args:
            last: the evaluation here.
            move: the next step, in standard errors.
            noise: Monte-Carlo error here, in standard errors.
        """
        if self.method != "auto":
            return self.first()
        if last == PROBES_SINGLE:
            return EXACT_SINGLE if move < NEAR else PROBES_SINGLE
        if last == EXACT_SINGLE or (last == ANCHORED_SINGLE and move > LOCAL):
            return ANCHORED_SINGLE
        if last == EXACT:
            return ANCHORED if NOISE_GROWTH * move < LARGEST_NOISE else EXACT
        return ANCHORED if last == ANCHORED and noise < LARGEST_NOISE else EXACT

    def fallback(self, failed: Evaluation) -> DenseSchedule | None:
        """Exact traces in float64 where anything else has failed."""
        return None if failed == EXACT else DenseSchedule("exact")

    def may_end(self, last: Evaluation, noise: float) -> bool:
        """Whether an estimate from this evaluation is what was asked for."""
        return self.method == "hutchinson" or (last.dtype == torch.float64 and noise < LARGEST_NOISE)

    def negligible_move(self, noise: float, tolerance: float) -> float:
        """The step, in standard errors, that is not worth taking."""
        if self.method == "exact":
            return tolerance
        return max(tolerance, NEGLIGIBLE_SHARE * noise if self.method == "hutchinson" else 0.5 * LARGEST_NOISE)
