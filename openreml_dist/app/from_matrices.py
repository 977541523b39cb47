"""A job of relationship matrices and tables of records, for the dense engine."""

from __future__ import annotations

from functools import partial
from typing import Any

from openreml_dist.app.estimation import Job, refuse_beyond
from openreml_dist.app.forecast import forecast
from openreml_dist.app.inputs.model import Analysis, read_model
from openreml_dist.app.predictions import PredictionRequest, open_request
from openreml_dist.app.report.lines import model_line
from openreml_dist.app.report.remarks import say_remarks, say_scales
from openreml_dist.app.report.results import EngineReport
from openreml_dist.app.session import Session
from openreml_dist.config import FitConfig, SolverConfig
from openreml_dist.reml import FitResult, Solver
from openreml_dist.reml.engine import Capability
from openreml_dist.reml.fitting import FitOptions
from openreml_dist.reml.likelihood_ratio import VarianceTests, refit_is_needed, variance_tests
from openreml_dist.traces import number_of_probes


def prepare(settings: FitConfig, here: Session) -> Job:
    """Read, describe the model, and say what its fit will cost. Collective.

    Raises:
        InputError, ConfigError: for whatever cannot be used, or done.
    """
    analysis = read_model(settings, here.grid)
    here.say(*analysis.inputs.report)
    request = open_request(settings, analysis.inputs, analysis.covariance, here.grid)
    return job_of(settings, analysis, request, say_remarks(here, analysis.inputs), here)


def job_of(
    settings: FitConfig, analysis: Analysis, request: PredictionRequest, remarks: list[dict[str, Any]], here: Session
) -> Job:
    """The job of a model that is described. Collective.

    Raises:
        ConfigError: for what the engine cannot do, or does not fit.
    """
    read = here.seconds()
    chosen = settings.solver
    solver = Solver.of(analysis.covariance, grid=here.grid, tile_size=chosen.tile_size, phase=here.terminal.phase)
    here.say(model_line(solver.covariance, f"tiles of {solver.layout.tile_size}", analysis.inputs.X.shape))
    remarks += say_scales(here, solver.covariance)
    engine = solver.engine(analysis.y, analysis.X, **_traces(chosen))
    refuse_beyond(engine, settings.output)
    if chosen.traces == "hutchinson" and (why := engine.why_not(Capability.PROBES)) is not None:
        here.say(f"solver.traces=hutchinson {why}, so every evaluation is exact")
    expected = forecast(here.grid, request.planned(engine.plan(analysis.chunk_size, chosen.kernel_cache_bytes)))
    here.say(expected.line(chosen.traces), *request.notes)
    test = partial(_test, here, chosen, solver, analysis)
    return Job(analysis.inputs, remarks, engine, request, test, expected.memory.total, read, lambda _: EngineReport())


def _test(
    here: Session, settings: SolverConfig, solver: Solver, analysis: Analysis, fit: FitResult, options: FitOptions
) -> VarianceTests | None:
    """Likelihood-ratio tests of the variances, as far as the model and the settings have them. Collective."""
    if settings.lrt and refit_is_needed(solver.covariance):
        here.say(f"refitting without {solver.covariance.parameters[0]} for its likelihood-ratio test")
    return variance_tests(
        solver,
        fit,
        analysis.y,
        analysis.X,
        without_first=settings.lrt,
        options=options,
        **_traces(settings),
    )


def _traces(settings: SolverConfig) -> dict[str, Any]:
    """Where traces come from."""
    num_probes = number_of_probes(settings.traces, settings.num_probes)
    return {"traces": settings.traces, "num_probes": num_probes, "seed": settings.seed}
