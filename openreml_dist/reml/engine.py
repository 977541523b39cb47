"""What an engine is: whatever answers "given θ: ℓ, score, average information, β̂" for one model and its data.

The driver (``driver.py``) decides which θ comes next and knows no matrix, no precision and no kind of trace; an engine knows
nothing of steps, bounds reached or convergence. ``fitting.fit`` brings the two together, ``dense/`` is the first engine, and
``docs/development.md`` says how to write another.

Legend: n samples, p fixed effects, r parameters θ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from torch import Tensor

from openreml_dist.covariance import Covariance
from openreml_dist.grid import ProcessGrid
from openreml_dist.plan.memory import Planned
from openreml_dist.reml.bounds import Bounds
from openreml_dist.reml.prediction import Predictor
from openreml_dist.reml.ridges import Gram
from openreml_dist.reml.step import How, Information, LogLikelihood, Step


class Want(StrEnum):
    """What is asked for at a θ."""

    STEP = "everything"  # a Step
    LOGLIK = "logL"  # a LogLikelihood: what a step that was rejected needs
    INFORMATION = "expected information"  # an Information: where the average information says nothing, or leads astray


@dataclass(frozen=True)
class Request:
    """Evaluate this θ.

    Attributes:
        theta: (r,) on the CPU.
        how: one of the ways of the engine's schedule.
        want: what to answer.
        carried: of the ``Step`` that this one follows.
        dialogue: which of several that are held at once asks: the phenotype, for an engine of many.
    """

    theta: Tensor
    how: How
    want: Want = Want.STEP
    carried: Mapping[str, Tensor] = field(default_factory=dict)
    dialogue: int = 0


Reply = Step | LogLikelihood | Information | None
"""What was asked for, or None where V(θ) is not positive definite."""


class Schedule(Protocol):
    """Which way of evaluating follows which: cheap ones far from the optimum, exact ones at it."""

    def first(self) -> How:
        """At the start."""

    def following(self, last: How, move: float, noise: float) -> How:
        """At the end of the next step, which is ``move`` standard errors long, where ``last`` leaves ``noise`` of them."""

    def fallback(self, failed: How) -> Schedule | None:
        """What to go on with where ``failed`` found V(θ) indefinite or leads no further; None if nothing is surer."""

    def may_end(self, last: How, noise: float) -> bool:
        """Whether an estimate evaluated so, with this Monte-Carlo error in standard errors, is what was asked for."""

    def negligible_move(self, noise: float, tolerance: float) -> float:
        """The step, in standard errors, that is not worth an evaluation."""


class Capability(StrEnum):
    """What a user may ask of an engine beside the estimates."""

    HASEMAN_ELSTON = "a start by Haseman-Elston regression"
    PROBES = "traces from random probes alone"
    EFFECTS = "random effects"
    ERROR_VARIANCES = "prediction error variances"


class Engine(Protocol):
    """One model, its data, and the way to evaluate it on a grid of ranks, each of which has the same engine."""

    @property
    def grid(self) -> ProcessGrid:
        """The ranks."""

    @property
    def covariance(self) -> Covariance:
        """The model V(θ)."""

    @property
    def schedule(self) -> Schedule:
        """The ways of evaluating. Local."""

    def why_not(self, wish: Capability) -> str | None:
        """None if this can be asked for, else why it cannot, in words that go on after its name. Local."""

    def bounds(self, constrain: bool) -> Bounds:
        """Of θ; without ``constrain`` variances may be negative, correlations and ranges keep their limits. Local."""

    def start(self, method: str) -> Tensor:
        """θ (r,) to begin with, by the method named. Collective.

        Raises:
            ConfigError: for a method that there is not, or not for this model.
        """

    def gram(self) -> Gram | None:
        """How far the derivatives of V differ beside X; None where V is not linear in θ. Collective."""

    def evaluate(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer every request, in order. Collective: the same requests on every rank, the same replies.

        It depends on the requests alone: whatever an evaluation needs of an earlier one is in ``carried``.
        """

    def Py(self, step: Step) -> Tensor:
        """(n,) P y at a step of this engine, on the device: as it was evaluated last, or evaluated again. Collective."""

    def predictor(self, at: Step | Tensor, error_variances: bool) -> Predictor:
        """Random effects at a step of this engine or at any other θ (r,), with their error variances or without. Collective."""

    def plan(self, chunk_size: int = 1, cache_bytes: float = 0.0) -> Planned:
        """What the fullest rank will hold, before anything is computed. Local.

        Args:
            chunk_size: rows of a chunk of the stores that terms are read from.
            cache_bytes: host memory that a rank may spend to keep what it has read.
        """
