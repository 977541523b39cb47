"""The middle of a run: the solver that the settings describe, the estimates, and the tests of variances."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from openreml_dist.app.inputs.model import Analysis, starting_point
from openreml_dist.app.report.result_json import step_record
from openreml_dist.app.report.run_directory import STEPS, append_json_line
from openreml_dist.app.session import Session
from openreml_dist.config import OutputConfig, SolverConfig
from openreml_dist.covariance import Covariance
from openreml_dist.errors import ConfigError
from openreml_dist.log import LOGGER
from openreml_dist.reml import FitResult, Iteration, Solver, Stopping
from openreml_dist.reml.engine import Capability, Engine
from openreml_dist.reml.fitting import FitOptions, fit
from openreml_dist.reml.likelihood_ratio import VarianceTests, refit_is_needed, variance_tests
from openreml_dist.traces import number_of_probes


@dataclass(frozen=True)
class Estimator:
    """Fits models with the settings of a run.

    Attributes:
        settings: of the solver.
        output: what is wanted beside the estimates.
        here: ranks, terminal and folder.
    """

    settings: SolverConfig
    output: OutputConfig
    here: Session

    def solver(self, covariance: Covariance) -> Solver:
        """For one covariance. Collective."""
        return Solver.of(covariance, grid=self.here.grid, tile_size=self.settings.tile_size, phase=self.here.terminal.phase)

    def engine(self, solver: Solver, analysis: Analysis) -> Engine:
        """For the data; what it cannot do of what is asked is said, or refused before the fit. Local: alike on every rank.

        Raises:
            ConfigError: names the setting, and why.
        """
        engine = solver.engine(analysis.y, analysis.X, **self._traces())
        wanted = {Capability.EFFECTS: self.output.blup, Capability.ERROR_VARIANCES: self.output.pev}
        for wish in (wish for wish, is_wanted in wanted.items() if is_wanted):
            if (why := engine.why_not(wish)) is not None:
                raise ConfigError(f"output: {wish} {why}")
        if self.settings.traces == "hutchinson" and (why := engine.why_not(Capability.PROBES)) is not None:
            self.here.say(f"solver.traces=hutchinson {why}, so every evaluation is exact")
        return engine

    def fit(self, engine: Engine) -> FitResult:
        """Estimate, each iterate shown and kept as it is accepted. Collective."""
        settings, parameters = self.settings, engine.covariance.parameters
        stopping = Stopping(settings.max_iter, settings.tolerance_theta, settings.tolerance_loglik)
        options = FitOptions(settings.constrain, stopping, partial(self._keep, parameters=parameters), self._warn)
        result = fit(engine, starting_point(settings, parameters), options)
        LOGGER.info("%s after %d iterations: %s", result.status, result.num_iterations, result.message)
        return result

    def test(self, solver: Solver, analysis: Analysis, fit: FitResult) -> VarianceTests | None:
        """Likelihood-ratio tests of the variances, as far as the model and the settings have them. Collective."""
        settings, covariance = self.settings, analysis.covariance
        if settings.lrt and refit_is_needed(covariance):
            self.here.say(f"refitting without {covariance.parameters[0]} for its likelihood-ratio test")
        return variance_tests(
            solver,
            fit,
            analysis.y,
            analysis.X,
            without_first=settings.lrt,
            constrain=settings.constrain,
            max_iter=settings.max_iter,
            **self._traces(),
        )

    def _traces(self) -> dict[str, Any]:
        """Where traces come from."""
        settings = self.settings
        num_probes = number_of_probes(settings.traces, settings.num_probes)
        return {"traces": settings.traces, "num_probes": num_probes, "seed": settings.seed}

    def _warn(self, sentence: str) -> None:
        """Before the iteration. Local: rank 0."""
        self.here.say(f"warning: {sentence}")
        LOGGER.warning(sentence)

    def _keep(self, iteration: Iteration, parameters: tuple[str, ...]) -> None:
        """Show and keep one accepted iterate. Local: rank 0."""
        self.here.terminal.iteration(iteration, parameters)
        append_json_line(self.here.directory / STEPS, step_record(iteration, parameters))
