"""Rounds that are measured while nothing else runs: what other programs held is watched, rounds beside them are discarded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from openreml_dist.plan.load import NOTICED, OtherLoad, usable_cores

Found = TypeVar("Found")


@dataclass(frozen=True)
class Rounds(Generic[Found]):
    """What the rounds found that are kept, the cores that others held in each of them, and how many were measured."""

    found: list[Found]
    others: list[float]
    measured: int

    def __str__(self) -> str:
        held = f"other programs held {max(self.others):.2f} of {len(usable_cores())} cores in the busiest of them"
        loud = sum(cores >= NOTICED for cores in self.others)
        warning = f"; {loud} of them above {NOTICED}, kept because none was quieter: measure again" if loud else ""
        return f"{len(self.found)} rounds kept of {self.measured}; {held}{warning}"


def quiet_rounds(measure: Callable[[], tuple[Found, float]], wanted: int, most: int) -> Rounds[Found]:
    """Measure until ``wanted`` rounds were quiet, ``most`` at most; then the quietest.

    Args:
        measure: one round, and the cores that others held in it.
    """
    rounds: list[tuple[float, int, Found]] = []
    while sum(others < NOTICED for others, *_ in rounds) < wanted and len(rounds) < most:
        found, others = measure()
        rounds.append((others, len(rounds), found))
        print(f"round {len(rounds)}: other programs held {others:.2f} cores", flush=True)
    kept = sorted(rounds, key=lambda one: one[:2])[:wanted]
    return Rounds([found for *_, found in kept], [others for others, *_ in kept], len(rounds))


def remark_on(load: OtherLoad) -> str:
    """A sentence for the head of a table of results that were all taken since ``load`` began."""
    cores = load.cores()
    if cores is None:
        return "What other programs held meanwhile is not known."
    warning = " (measure again when nothing else runs)" if cores >= NOTICED else ""
    return f"Other programs held {cores:.2f} of {len(usable_cores())} cores meanwhile{warning}."
