"""Which evaluation follows which: few probes on the way, as many as the accuracy takes once, and from there what the few say
of the difference."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Probing(Enum):
    """How traces and log|S| are sampled at a θ."""

    FEW = "few probes"  # the same at every θ
    ACCURATE = "probes to the target"  # until the Monte-Carlo error of the estimates is that which was asked for
    ANCHORED = "anchored probes"  # accurate ones at another θ, and the few for the difference

    @property
    def comparable(self) -> frozenset[str]:
        """Ways whose score differs from this one's by θ alone."""
        return frozenset({str(Probing.FEW)} if self is Probing.FEW else {str(Probing.ACCURATE), str(Probing.ANCHORED)})

    def __str__(self) -> str:
        """As in a record."""
        return self.value


NEAR = 1.0  # standard errors: the step from here ends where few probes have nothing more to say
NEGLIGIBLE_PART = 0.25  # of the Monte-Carlo error, below which a step is not worth an evaluation
TOLERATED = 1.25  # of the wanted error: what the few add to it between an anchor and the end
HOPELESS = 0.5  # standard errors: with more Monte-Carlo error than this the estimates are no answer


@dataclass(frozen=True)
class StochasticSchedule:
    """Few probes until the next step is short, then accurate ones, then anchored ones, as long as those are good enough.

    Attributes:
        error: Monte-Carlo error that is wanted, in standard errors.
    """

    error: float

    def first(self) -> Probing:
        """Few."""
        return Probing.FEW

    def following(self, last: Probing, move: float, noise: float) -> Probing:
        """Accurate ones at the end of a short step; anchored ones after those, and accurate ones where they do not suffice."""
        if last is Probing.FEW:
            return Probing.ACCURATE if move < NEAR else Probing.FEW
        suffices = last is Probing.ACCURATE or noise <= TOLERATED * self.error
        return Probing.ANCHORED if move < NEAR and suffices else Probing.ACCURATE

    def fallback(self, failed: Probing) -> StochasticSchedule | None:
        """From where few probes lead no further, accurate ones."""
        return _Accurate(self.error) if failed is Probing.FEW else None

    def may_end(self, last: Probing, noise: float) -> bool:
        """With the accuracy that was asked for, or what accurate probes had to be content with."""
        if last is Probing.FEW:
            return False
        return noise <= (HOPELESS if last is Probing.ACCURATE else min(HOPELESS, TOLERATED * self.error))

    def negligible_move(self, noise: float, tolerance: float) -> float:
        """A quarter of the Monte-Carlo error."""
        return max(tolerance, NEGLIGIBLE_PART * noise)


class _Accurate(StochasticSchedule):
    """Accurate probes from the beginning."""

    def first(self) -> Probing:
        """Accurate ones."""
        return Probing.ACCURATE
