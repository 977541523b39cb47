"""One fit: an engine, a start, and the driver between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from openreml_dist.errors import ConfigError
from openreml_dist.log import LOGGER
from openreml_dist.reml.bounds import Bounds
from openreml_dist.reml.driver import average_information
from openreml_dist.reml.engine import Engine, Reply, Request
from openreml_dist.reml.journal import Journal, Opening, continued
from openreml_dist.reml.outcome import Iteration, Outcome, Stopping
from openreml_dist.reml.result import FitResult
from openreml_dist.reml.ridges import Ridges
from openreml_dist.reml.rounds import drive
from openreml_dist.reml.start import Known


@dataclass(frozen=True)
class FitOptions:
    """How to iterate; the arguments of ``Solver.fit``, where they are explained.

    Attributes:
        warn: told on rank 0, before the iteration, what no phenotype could determine.
        journal: of this fit, to go on from and to write; every rank has one or none has.
        between: called on every rank before each evaluation; collective, and may raise to end the fit on all of them.
    """

    constrain: bool = True
    stopping: Stopping = field(default_factory=Stopping)
    report: Callable[[Iteration], None] | None = None
    warn: Callable[[str], None] = LOGGER.warning
    journal: Journal | None = None
    between: Callable[[], None] | None = None


def fit(engine: Engine, start: Tensor | str | Known, options: FitOptions) -> FitResult:
    """Estimate θ from a start (r,) of values, the name of a method that finds one, or what is known of it. Collective.

    Raises:
        ConfigError: for a start outside the bounds, or a method that there is not.
        NotPositiveDefiniteError: if V is not positive definite at the start.
    """
    bounds, journal = engine.bounds(options.constrain), options.journal
    opening = None if journal is None else journal.opening
    if opening is None:
        theta = _starting_point(engine, start, bounds)
        check_start(engine.covariance.parameters, theta, bounds)
        opening = Opening(theta, engine.gram())
        if journal is not None:
            with engine.grid.together("writing the checkpoint"):
                if engine.grid.is_root:
                    journal.open(opening)
    theta = opening.theta
    if opening.gram is not None:
        ridges = Ridges.of(opening.gram, bounds)
        theta, bounds = ridges.tie(theta, bounds)
        for sentence in ridges.sentences(engine.covariance.parameters) if engine.grid.is_root else ():
            options.warn(sentence)
    dialogues = None
    if engine.grid.is_root:
        beside = bounds.beside_vanishing(theta)
        dialogue = average_information(theta, beside, options.stopping, engine.schedule, options.report)
        if journal is not None:
            dialogue = continued(dialogue, journal.entries, journal.add, journal.resumed)
        dialogues = [dialogue]

    def evaluate(requests: Sequence[Request]) -> Sequence[Reply]:
        if options.between is not None:
            options.between()
        return engine.evaluate(requests)

    (ended,) = drive(engine.grid, dialogues, evaluate)
    if not isinstance(ended, Outcome):
        raise ended
    return FitResult.of(ended, engine.covariance, engine.Py(ended.last.step))


def _starting_point(engine: Engine, start: Tensor | str | Known, bounds: Bounds) -> Tensor:
    if isinstance(start, Known):
        return start.over(engine.start(start.method), engine.covariance.parameters, bounds)
    return engine.start(start) if isinstance(start, str) else start


def check_start(parameters: tuple[str, ...], theta: Tensor, bounds: Bounds) -> None:
    """Refuse a start outside the bounds. Local."""
    for name, value, least, most in zip(parameters, theta.tolist(), bounds.lower.tolist(), bounds.upper.tolist(), strict=True):
        if not least <= value <= most:
            side, bound = ("below", least) if value < least else ("above", most)
            raise ConfigError(f"start: {name} = {value:g} is {side} its bound {bound:g}; start within it or do not constrain")
