"""The middle of a run: a job that is ready to be fitted, and its fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from openreml_dist.app.checkpoint import Checkpoint
from openreml_dist.app.inputs.model import starting_point
from openreml_dist.app.inputs.samples import Inputs
from openreml_dist.app.predictions import PredictionRequest
from openreml_dist.app.report.result_json import step_record
from openreml_dist.app.report.results import EngineReport
from openreml_dist.app.report.run_directory import STEPS, append_json_line
from openreml_dist.app.session import Session
from openreml_dist.config import FitConfig, OutputConfig
from openreml_dist.errors import ConfigError
from openreml_dist.log import LOGGER
from openreml_dist.reml import FitResult, Iteration, Stopping
from openreml_dist.reml.engine import Capability, Engine
from openreml_dist.reml.fitting import FitOptions, fit
from openreml_dist.reml.likelihood_ratio import VarianceTests
from openreml_dist.reml.start import Known
from openreml_dist.reml.stochastic.batches import Batches


@dataclass(frozen=True)
class Job:
    """Data that are read, and the engine that fits them.

    Attributes:
        inputs: samples and data.
        remarks: what is remarkable about the phenotypes, as ``result.json`` has it; on rank 0.
        engine: of the model.
        request: what is to be predicted.
        test: likelihood-ratio tests of a fit, None where the model has none, and how to keep a fit of its own. Collective.
        memory_bytes: that the fullest rank was planned to need.
        read: seconds until the inputs were read.
        report: what this engine alone has to report of a fit. Local.
        digests: of inputs that this engine alone reads, by path.
        remember: gives the engine the batches of probes that were found before, if it has any.
    """

    inputs: Inputs
    remarks: list[dict[str, Any]]
    engine: Engine
    request: PredictionRequest
    test: Callable[[FitResult, FitOptions], VarianceTests | None]
    memory_bytes: float
    read: float
    report: Callable[[FitResult], EngineReport]
    digests: Mapping[str, str] = field(default_factory=dict)
    remember: Callable[[Batches], None] | None = None


def refuse_beyond(engine: Engine, output: OutputConfig) -> None:
    """Refuse what the engine cannot do of what is asked, before the fit. Local: alike on every rank.

    Raises:
        ConfigError: names it, and why.
    """
    wanted = {"output.blup": (Capability.EFFECTS, output.blup), "output.pev": (Capability.ERROR_VARIANCES, output.pev)}
    for setting, (wish, is_wanted) in wanted.items():
        if is_wanted and (why := engine.why_not(wish)) is not None:
            raise ConfigError(f"{setting}: {wish} {why}")


def run_fit(job: Job, settings: FitConfig, here: Session) -> tuple[FitResult, VarianceTests | None, float]:
    """Estimate, each iterate shown and kept as it is accepted, and test; from where an unfinished run of the job ended.

    Collective.

    Returns:
        The fit, its tests, and the seconds until the estimates were there.
    """
    engine, solver = job.engine, settings.solver
    parameters = engine.covariance.parameters
    checkpoint = Checkpoint.open(settings, parameters, job.digests, here)
    between = here.interruption.meet
    if job.remember is not None:
        job.remember(checkpoint.batches(between))
    numbers: list[int] = []

    def report(iteration: Iteration) -> None:
        numbers.append(iteration.number)
        _keep(here, parameters, iteration)

    def resumed() -> None:
        line = f"resuming at iteration {len(numbers)}"
        here.say(line)
        LOGGER.info(line)

    stopping = Stopping(solver.max_iter, solver.tolerance_theta, solver.tolerance_loglik, here.interruption.wished)
    journals = checkpoint.journal("fit", resumed), checkpoint.journal("test", lambda: None)
    options = FitOptions(solver.constrain, stopping, report, partial(_warn, here), journals[0], between)
    with here.grid.together("reading the start"):
        start = starting_point(solver, parameters)
    if isinstance(start, Known):
        others = [name for name in parameters if name not in start.values]
        from_data = f"; from the data: {', '.join(others)}" if others else ""
        here.say(f"start from {solver.start}: {', '.join(start.values)}{from_data}")
    result = fit(engine, start, options)
    LOGGER.info("%s after %d iterations: %s", result.status, result.num_iterations, result.message)
    fitted = here.seconds()
    of_test = FitOptions(solver.constrain, Stopping(solver.max_iter), journal=journals[1], between=between)
    return result, job.test(result, of_test), fitted


def _keep(here: Session, parameters: tuple[str, ...], iteration: Iteration) -> None:
    """Show and keep one accepted iterate. Local: rank 0."""
    here.terminal.iteration(iteration, parameters)
    append_json_line(here.directory / STEPS, step_record(iteration, parameters))


def _warn(here: Session, sentence: str) -> None:
    """Before the iteration. Local: rank 0."""
    here.say(f"warning: {sentence}")
    LOGGER.warning(sentence)
