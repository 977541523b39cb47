"""``openreml-fit``: GRMs and a phenotype in, variance components out; alone or as one rank of many."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from openreml_dist.app import launch
from openreml_dist.app.cli import INTERRUPTED, compose, exit_with
from openreml_dist.app.report.run_directory import RESULT, append_json_line, prepare_run_directory, write_json
from openreml_dist.app.run import Run
from openreml_dist.app.startup import uncollected
from openreml_dist.config import FitConfig
from openreml_dist.errors import OpenREMLError
from openreml_dist.log import LOGGER, log_to_file

if TYPE_CHECKING:
    from openreml_dist.app.inputs.model import Analysis
    from openreml_dist.app.report.predictions import Outputs
    from openreml_dist.compat import REML
    from openreml_dist.reml import FitResult, Iteration

_BEGUN = time.perf_counter()


def main() -> None:
    """Entry point."""
    exit_with("fit", lambda: compose("fit", FitConfig, fit))


def fit(settings: FitConfig) -> int:
    """Run one fit. Collective: every rank of the job, with the same settings.

    Returns:
        The exit code of the status: 0 converged, 3 not.
    """
    with uncollected():
        from openreml_dist.app.inputs.model import check_settings
        from openreml_dist.app.report.predictions import check_output
        from openreml_dist.app.report.terminal import Terminal
        from openreml_dist.grid import out_of_memory_named

    check_settings(settings)
    check_output(settings.output)
    placement = launch.find_placement(settings.launcher.name)
    terminal = Terminal(placement.rank)
    grid = launch.connect(placement, settings.launcher, settings.grid)
    with grid.together("preparing the run directory"):
        prepared = prepare_run_directory(settings.run_dir, settings.overwrite) if grid.is_root else None
    directory = grid.share(prepared)
    assert directory is not None
    try:
        with launch.ended_politely(grid.rank), out_of_memory_named(grid.rank):
            exit_code = _fit(Run(settings, grid, terminal, directory), placement.launcher)
    except (Exception, KeyboardInterrupt) as error:
        exit_code = INTERRUPTED if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1)
        message = str(error) or ("interrupted" if exit_code == INTERRUPTED else type(error).__name__)
        LOGGER.error(message, exc_info=not isinstance(error, OpenREMLError))
        if grid.is_root:
            failure = {"status": "failed", "exit_code": exit_code, "message": message, "command": sys.argv}
            write_json(directory / RESULT, failure)
        raise
    launch.disconnect()
    return exit_code


def _fit(run: Run, launcher: str) -> int:
    """Read, say what it will cost, estimate, report. Collective."""
    from openreml_dist.app.forecast import forecast
    from openreml_dist.app.inputs.model import planned_model, read_model
    from openreml_dist.app.report.predictions import Outputs

    log_to_file(run.directory, run.grid.rank)
    ready = time.perf_counter()
    run.timings["startup"] = ready - _BEGUN
    run.terminal.say(_first_line(run, launcher))
    LOGGER.info(_first_line(run, launcher))

    analysis = read_model(run.settings, run.grid)
    run.timings["read"] = time.perf_counter() - ready
    run.terminal.say(*analysis.inputs.report)

    reml = run.reml(analysis.covariance)
    run.terminal.say(_model_line(reml, analysis.inputs.X.shape[1]))
    outputs = Outputs.prepare(run, analysis.inputs, analysis.covariance)
    planned = outputs.planned(planned_model(run.settings.solver, analysis))
    run.terminal.say(*forecast(run, reml.layout, planned), *outputs.notes)

    result = _estimate(run, reml, analysis)
    run.timings["fit"] = time.perf_counter() - ready
    run.timings["phases"] = _phases(result)
    LOGGER.info("%s after %d iterations: %s", result.status, result.num_iterations, result.message)
    _report(run, reml, analysis, result, outputs)
    return result.status.exit_code


def _estimate(run: Run, reml: REML, analysis: Analysis) -> FitResult:
    """The fit, each iterate shown and kept as it is accepted. Collective."""
    from openreml_dist.app.inputs.model import starting_point
    from openreml_dist.app.traces import traces_settings
    from openreml_dist.reml import Stopping

    solver, parameters = run.settings.solver, analysis.covariance.parameters
    return reml.fit(
        analysis.y,
        analysis.X,
        starting_point(solver, parameters),
        constrain=solver.constrain,
        stopping=Stopping(solver.max_iter, solver.tolerance_theta, solver.tolerance_loglik),
        **traces_settings(solver),
        report=lambda iteration: _record(run, iteration, parameters),
    )


def _report(run: Run, reml: REML, analysis: Analysis, result: FitResult, outputs: Outputs) -> None:
    """Tests and predictions, then the files and the tables. Collective."""
    from openreml_dist.app.lrt import likelihood_ratio_tests
    from openreml_dist.app.report.results import HSQ, profile_of_rank, write_results
    from openreml_dist.app.traits import trait_estimates

    begun = time.perf_counter()
    tests = likelihood_ratio_tests(run, analysis.covariance, result, analysis.y, analysis.X)
    tested = time.perf_counter()
    written = outputs.write(reml, result, analysis.y, analysis.X)
    run.timings |= {"tests": tested - begun, "predictions": time.perf_counter() - tested}
    traits = trait_estimates(result, analysis.covariance)
    profile = run.grid.gather(profile_of_rank(run.grid))
    run.terminal.result(result, analysis.inputs.fixed_names, tests, traits)  # before the plot, which takes half a second
    run.terminal.show(*outputs.tables)
    with run.grid.together("writing the results"):  # a launcher ends the job with the first rank to leave
        if run.grid.is_root:
            write_results(run, analysis.inputs, result, tests, traits, profile)
    names = (RESULT, HSQ, "convergence.png", *written)
    files = ", ".join(str(path) for name in names if (path := run.directory / name).exists())
    run.terminal.say("", f"{result.status}: {files}")


def _first_line(run: Run, launcher: str) -> str:
    import torch

    shape, threads = run.grid.shape, torch.get_num_threads()
    ranks = f"{shape.size} {'rank' if shape.size == 1 else 'ranks'}"
    shared = ", which share memory" if shape.shares_memory else ""
    return (
        f"openreml-fit on {ranks} ({launcher}), grid {shape.rows} x {shape.columns}, {run.grid.device}, "
        f"{threads} {'thread' if threads == 1 else 'threads'} a rank{shared}; writing to {run.directory}"
    )


def _model_line(reml: REML, num_fixed: int) -> str:
    return (
        f"model: {' + '.join(_term_names(reml))}; {reml.layout.size:,} samples, {num_fixed} fixed effects; "
        f"tiles of {reml.layout.tile_size}"
    )


def _term_names(reml: REML) -> list[str]:
    """Terms, with the number of their parameters where there are several."""
    counts = [(term.name, len(term.parameters)) for term in reml.covariance.terms]
    return [name if count == 1 else f"{name} ({count} parameters)" for name, count in counts]


def _record(run: Run, iteration: Iteration, parameters: tuple[str, ...]) -> None:
    """Show and keep one accepted iterate. Local: rank 0."""
    from openreml_dist.app.report.tables import step_record

    run.terminal.iteration(iteration, parameters)
    append_json_line(run.directory / "steps.jsonl", step_record(iteration, parameters))


def _phases(result: FitResult) -> dict[str, float]:
    """Seconds by phase, all complete evaluations that were accepted together."""
    phases: dict[str, float] = {}
    for iteration in result.iterations:
        for phase, seconds in iteration.step.seconds.items():
            phases[phase] = phases.get(phase, 0.0) + seconds
    return phases


if __name__ == "__main__":
    main()
