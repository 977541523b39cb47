"""The middle of a run: a job that is ready to be fitted, and its fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from openreml_dist.app.inputs.model import starting_point
from openreml_dist.app.inputs.samples import Inputs
from openreml_dist.app.predictions import PredictionRequest
from openreml_dist.app.report.result_json import step_record
from openreml_dist.app.report.results import EngineReport
from openreml_dist.app.report.run_directory import STEPS, append_json_line
from openreml_dist.app.session import Session
from openreml_dist.config import OutputConfig, SolverConfig
from openreml_dist.errors import ConfigError
from openreml_dist.log import LOGGER
from openreml_dist.reml import FitResult, Iteration, Stopping
from openreml_dist.reml.engine import Capability, Engine
from openreml_dist.reml.fitting import FitOptions, fit
from openreml_dist.reml.likelihood_ratio import VarianceTests


@dataclass(frozen=True)
class Job:
    """Data that are read, and the engine that fits them.

    Attributes:
        inputs: samples and data.
        remarks: what is remarkable about the phenotypes, as ``result.json`` has it; on rank 0.
        engine: of the model.
        request: what is to be predicted.
        test: likelihood-ratio tests of a fit; None where the model has none. Collective.
        memory_bytes: that the fullest rank was planned to need.
        read: seconds until the inputs were read.
        report: what this engine alone has to report of a fit. Local.
    """

    inputs: Inputs
    remarks: list[dict[str, Any]]
    engine: Engine
    request: PredictionRequest
    test: Callable[[FitResult], VarianceTests | None]
    memory_bytes: float
    read: float
    report: Callable[[FitResult], EngineReport]


def refuse_beyond(engine: Engine, output: OutputConfig) -> None:
    """Refuse what the engine cannot do of what is asked, before the fit. Local: alike on every rank.

    Raises:
        ConfigError: names it, and why.
    """
    wanted = {"output.blup": (Capability.EFFECTS, output.blup), "output.pev": (Capability.ERROR_VARIANCES, output.pev)}
    for setting, (wish, is_wanted) in wanted.items():
        if is_wanted and (why := engine.why_not(wish)) is not None:
            raise ConfigError(f"{setting}: {wish} {why}")


def run_fit(engine: Engine, settings: SolverConfig, here: Session) -> FitResult:
    """Estimate, each iterate shown and kept as it is accepted. Collective."""
    parameters = engine.covariance.parameters
    stopping = Stopping(settings.max_iter, settings.tolerance_theta, settings.tolerance_loglik)
    options = FitOptions(settings.constrain, stopping, partial(_keep, here, parameters), partial(_warn, here))
    result = fit(engine, starting_point(settings, parameters), options)
    LOGGER.info("%s after %d iterations: %s", result.status, result.num_iterations, result.message)
    return result


def _keep(here: Session, parameters: tuple[str, ...], iteration: Iteration) -> None:
    """Show and keep one accepted iterate. Local: rank 0."""
    here.terminal.iteration(iteration, parameters)
    append_json_line(here.directory / STEPS, step_record(iteration, parameters))


def _warn(here: Session, sentence: str) -> None:
    """Before the iteration. Local: rank 0."""
    here.say(f"warning: {sentence}")
    LOGGER.warning(sentence)
