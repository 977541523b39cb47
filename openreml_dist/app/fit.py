"""``openreml-fit``: GRMs and a phenotype in, variance components out; alone or as one rank of many."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from openreml_dist.app import launch
from openreml_dist.app.cli import compose, exit_with
from openreml_dist.app.report.heartbeat import State
from openreml_dist.app.session import Session, session
from openreml_dist.app.startup import uncollected
from openreml_dist.app.sweep.asked import is_asked_for
from openreml_dist.config import FitConfig
from openreml_dist.log import LOGGER

if TYPE_CHECKING:
    from openreml_dist.app.report.results import Results

_BEGUN = time.perf_counter()


def main() -> None:
    """Entry point."""
    exit_with("fit", jobs)


def jobs() -> int:
    """Run the fit of the command line, which began with the process; with ``--multirun`` those of a sweep. Collective.

    Returns:
        The exit code; of a sweep the worst.
    """
    if is_asked_for(sys.argv[1:]):
        from openreml_dist.app.sweep.run import sweep

        exit_code = sweep(sys.argv[1:])
    else:
        exit_code = compose("fit", FitConfig, lambda settings: fit(settings, _BEGUN))
    launch.disconnect()
    return exit_code


def fit(settings: FitConfig, begun: float) -> int:
    """Run one fit. Collective: every rank of the job, with the same settings.

    Args:
        settings: of the fit.
        begun: when the job began, in seconds of ``time.perf_counter``.
    Returns:
        The exit code of the status: 0 converged, 3 not.
    """
    with uncollected():
        from openreml_dist.app.inputs.checks import check_settings
        from openreml_dist.app.predictions import check_output

    check_settings(settings)
    check_output(settings.output)
    with session(settings, begun) as here:
        results = estimate(settings, here)
        report(results, here)
    return results.fit.status.exit_code


def estimate(settings: FitConfig, here: Session) -> Results:
    """Read, say what it will cost, estimate, test, predict: a record a stage. Collective."""
    from openreml_dist.app.estimation import run_fit
    from openreml_dist.app.predictions import predict
    from openreml_dist.app.report.lines import place_line
    from openreml_dist.app.report.profiler import traced
    from openreml_dist.app.report.provenance import profile_of_rank
    from openreml_dist.app.report.results import Results, Timings, seconds_by_phase
    from openreml_dist.reml.traits import trait_estimates

    news = here.terminal.news
    here.say(place_line(here))
    LOGGER.info(place_line(here))
    news.enter(State.READING)

    if settings.data.genotypes is not None:
        from openreml_dist.app.from_genotypes import prepare
    else:
        from openreml_dist.app.from_matrices import prepare
    job = prepare(settings, here)
    news.enter(State.ITERATING)
    with traced(settings.launcher.profile if here.grid.is_root else None, news, here.directory):
        found, tests, fitted = run_fit(job, settings, here)
    news.enter(State.PREDICTING)
    tested = here.seconds()
    predictions = predict(job, found, here.directory)
    timings = Timings(here.startup, job.read, fitted, seconds_by_phase(found), tested - fitted, here.seconds() - tested)

    traits = trait_estimates(found, job.engine.covariance)
    profile = here.grid.gather(profile_of_rank(here.grid))
    return Results(
        settings,
        job.inputs,
        job.remarks,
        job.memory_bytes,
        found,
        tests,
        traits,
        predictions,
        timings,
        profile,
        job.report(found),
        job.digests,
    )


def report(results: Results, here: Session) -> None:
    """Tables first, on paper and on the terminal, then the picture, and last ``result.json``. Collective.

    The ranks meet after each part, because a launcher ends the job with the first rank to leave.
    """
    from openreml_dist.app.report.fixed_tests_table import fixed_tests_table
    from openreml_dist.app.report.result_files import finish, write_tables, written_files

    here.terminal.news.enter(State.WRITING)
    with here.grid.together("writing the results"):
        if here.grid.is_root:
            write_tables(results, here.directory)
    fixed_in_hsq = results.settings.output.fixed_in_hsq
    here.terminal.result(
        results.fit, results.inputs.fixed_names, results.tests, results.traits, fixed_in_hsq, results.engine.warnings
    )
    if results.predictions.fixed_tests is not None:
        here.terminal.show(fixed_tests_table(results.predictions.fixed_tests))
    with here.grid.together("writing the results"):
        if here.grid.is_root:
            finish(results, here.directory)
    files = ", ".join(map(str, written_files(results, here.directory)))
    here.say("", f"{results.fit.status}: {files}")


if __name__ == "__main__":
    main()
