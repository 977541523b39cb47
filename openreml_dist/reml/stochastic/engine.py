"""The matrix-free engine: V(θ) known by products with packed genotypes. Genetic components and independent residuals alone;
4nm flops a genotype vector-pass, nm/4 bytes over all ranks, errors of Monte Carlo that are known and as small as asked for.

Legend: n samples, m SNPs, K components.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from openreml_dist.covariance import Covariance
from openreml_dist.covariance.identity import Identity
from openreml_dist.covariance.markers import Markers
from openreml_dist.errors import ConfigError, NotPositiveDefiniteError
from openreml_dist.grid import PhaseProgress, ProcessGrid, silent
from openreml_dist.plan.genotypes import GenotypeFit
from openreml_dist.reml.bounds import Bounds, bounds_of_model
from openreml_dist.reml.engine import Capability, Reply, Request, Want
from openreml_dist.reml.ridges import Gram
from openreml_dist.reml.start import choose_start
from openreml_dist.reml.step import Step
from openreml_dist.reml.stochastic.accuracy import Target
from openreml_dist.reml.stochastic.batches import Batches
from openreml_dist.reml.stochastic.evaluation import expected_information_at, log_likelihood_at, step_at
from openreml_dist.reml.stochastic.prediction import MarkerPredictor
from openreml_dist.reml.stochastic.problem import Problem
from openreml_dist.reml.stochastic.projection import Projection
from openreml_dist.reml.stochastic.schedule import StochasticSchedule
from openreml_dist.reml.stochastic.start import derivatives_gram, equal_parts, haseman_elston
from openreml_dist.reml.stochastic.system import System

SMALLEST_RESIDUAL = 1e-3  # of the phenotypic variance: S is as ill conditioned as it is small, and probes as noisy
REMEMBERED = 2  # evaluations whose Py is kept: the last iterate and the trial after it


class StochasticEngine:
    """An ``Engine`` for one problem. Local to make.

    Args:
        problem: genotypes and data.
        names: of the K components.
        target: the Monte-Carlo error that is wanted.
        phase: told which phase begins.

    Attributes:
        passes: genotype vector-passes by phase.
    """

    def __init__(self, problem: Problem, names: Sequence[str], target: Target, phase: PhaseProgress = silent) -> None:
        self.problem = problem
        self.target = target
        components = [Markers(problem.Z, w, name) for w, name in zip(problem.weights.mT, names, strict=True)]
        self._covariance = Covariance([*components, Identity(problem.num_samples, "residual")])
        self._schedule = StochasticSchedule(target.error)
        self._phase = phase
        self._remembered: list[tuple[Step, Tensor]] = []
        self._batches = Batches()
        self.passes: dict[str, float] = {"setup": problem.Z.passes}

    @property
    def grid(self) -> ProcessGrid:
        """The ranks."""
        return self.problem.Z.grid

    @property
    def covariance(self) -> Covariance:
        """Components of genotypes, and independent residuals."""
        return self._covariance

    @property
    def schedule(self) -> StochasticSchedule:
        """Few probes, then accurate ones."""
        return self._schedule

    def remember(self, batches: Batches) -> None:
        """Go on from the batches of an evaluation that was cut off, and keep new ones there. Local."""
        self._batches = batches

    def why_not(self, wish: Capability) -> str | None:
        """Error variances need V⁻¹ itself."""
        if wish is Capability.ERROR_VARIANCES:
            return "need the inverse of V, which no product gives; take solver.engine=dense"
        return None

    def bounds(self, constrain: bool) -> Bounds:
        """No variance below zero: S has square roots of them. Local.

        Raises:
            ConfigError: if variances are not to be constrained.
        """
        if not constrain:
            raise ConfigError(
                "solver.constrain=false: the matrix-free engine knows no negative variances; take solver.engine=dense"
            )
        phenotypic = float(self.problem.X.residuals(self.problem.y).var())
        bounds = bounds_of_model(self._covariance, phenotypic, constrain)
        lower = bounds.lower.clone()
        lower[-1] = SMALLEST_RESIDUAL * phenotypic
        return replace(bounds, lower=lower)

    def start(self, method: str) -> Tensor:
        """Haseman-Elston regression, or equal parts of the phenotypic variance. Collective."""
        if choose_start(method, None) == "equal":
            return equal_parts(self.problem)
        with self._counted("start"):
            return haseman_elston(self.problem, self.target.seed)

    def gram(self) -> Gram:
        """How far the derivatives of V differ beside X. Collective."""
        with self._counted("start"):
            return derivatives_gram(self.problem, self.target.seed)

    def evaluate(self, requests: Sequence[Request]) -> list[Reply]:
        """One after the other. Collective."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Reply:
        with self._counted(str(request.how) if request.want is Want.STEP else str(request.want)):
            return self._answered(request)

    def _answered(self, request: Request) -> Reply:
        problem, theta, target = self.problem, request.theta, self.target
        if request.want is Want.INFORMATION:
            return expected_information_at(problem, theta, target)
        if request.want is Want.LOGLIK:
            return log_likelihood_at(problem, theta, request.how, request.carried, target)
        found = step_at(problem, theta, request.how, request.carried, target, self._batches, self._phase)
        if found is None:
            return None
        self._remembered = [*self._remembered, found][-REMEMBERED:]
        return found[0]

    def Py(self, step: Step) -> Tensor:
        """From memory, or solved again. Collective."""
        for known, Py in self._remembered:
            if torch.equal(known.theta, step.theta):
                return Py
        return self._Py_at(step.theta)

    def plan(self, chunk_size: int = 1, cache_bytes: float = 0.0) -> GenotypeFit:  # noqa: ARG002
        """Packed genotypes, unpacked tiles, blocks of SNPs, vectors. Local."""
        problem = self.problem
        (m, K), p, ranks = problem.weights.shape, problem.X.Q.shape[1], self.grid.shape.size
        on_device = problem.Z.frequency.device.type == "cuda"
        return GenotypeFit(problem.num_samples, m, K, p, ranks, problem.Z.packed.cache_bytes, on_device)

    def predictor(self, at: Step | Tensor, error_variances: bool) -> MarkerPredictor:
        """From the Py of a step, or of any other θ (K + 1,). Collective.

        Raises:
            ConfigError: for error variances.
        """
        if error_variances:
            raise ConfigError(f"prediction: error variances {self.why_not(Capability.ERROR_VARIANCES)}")
        theta, Py = (at.theta, self.Py(at)) if isinstance(at, Step) else (at, self._Py_at(at))
        return MarkerPredictor(self.problem, self._covariance.parameters, theta, Py)

    def _Py_at(self, theta: Tensor) -> Tensor:
        S = System.at(self.problem, theta)
        if S is None:
            raise NotPositiveDefiniteError("V is not positive definite there")
        with self._counted("predictions"):
            return Projection(S).Py

    @contextmanager
    def _counted(self, phase: str) -> Iterator[None]:
        before = self.problem.Z.passes
        yield
        self.passes[phase] = self.passes.get(phase, 0.0) + self.problem.Z.passes - before
