"""One fit: an engine, a start, and the driver between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from openreml_dist.errors import ConfigError
from openreml_dist.log import LOGGER
from openreml_dist.reml.bounds import Bounds
from openreml_dist.reml.driver import average_information
from openreml_dist.reml.engine import Engine
from openreml_dist.reml.outcome import Iteration, Outcome, Stopping
from openreml_dist.reml.result import FitResult
from openreml_dist.reml.ridges import Ridges
from openreml_dist.reml.rounds import drive


@dataclass(frozen=True)
class FitOptions:
    """How to iterate; the arguments of ``Solver.fit``, where they are explained.

    Attributes:
        warn: told on rank 0, before the iteration, what no phenotype could determine.
    """

    constrain: bool = True
    stopping: Stopping = field(default_factory=Stopping)
    report: Callable[[Iteration], None] | None = None
    warn: Callable[[str], None] = LOGGER.warning


def fit(engine: Engine, start: Tensor | str, options: FitOptions) -> FitResult:
    """Estimate θ from a start (r,) of values, or the name of a method that finds one. Collective.

    Raises:
        ConfigError: for a start outside the bounds, or a method that there is not.
        NotPositiveDefiniteError: if V is not positive definite at the start.
    """
    bounds = engine.bounds(options.constrain)
    theta = engine.start(start) if isinstance(start, str) else start
    check_start(engine.covariance.parameters, theta, bounds)
    if (gram := engine.gram()) is not None:
        ridges = Ridges.of(gram, bounds)
        theta, bounds = ridges.tie(theta, bounds)
        for sentence in ridges.sentences(engine.covariance.parameters) if engine.grid.is_root else ():
            options.warn(sentence)
    dialogues = None
    if engine.grid.is_root:
        beside = bounds.beside_vanishing(theta)
        dialogues = [average_information(theta, beside, options.stopping, engine.schedule, options.report)]
    (ended,) = drive(engine.grid, dialogues, engine.evaluate)
    if not isinstance(ended, Outcome):
        raise ended
    return FitResult.of(ended, engine.covariance, engine.Py(ended.last.step))


def check_start(parameters: tuple[str, ...], theta: Tensor, bounds: Bounds) -> None:
    """Refuse a start outside the bounds. Local."""
    for name, value, least, most in zip(parameters, theta.tolist(), bounds.lower.tolist(), bounds.upper.tolist(), strict=True):
        if not least <= value <= most:
            side, bound = ("below", least) if value < least else ("above", most)
            raise ConfigError(f"start: {name} = {value:g} is {side} its bound {bound:g}; start within it or do not constrain")
