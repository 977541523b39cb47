"""The dense engine: V(θ) in tiles over the grid. Any V(θ), exactly; n³ flops an evaluation, n²/2 numbers over all ranks.

Legend: n samples, p fixed effects, r parameters θ, s probes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from openreml_dist.covariance import Covariance
from openreml_dist.errors import ConfigError, NotPositiveDefiniteError
from openreml_dist.grid import PhaseProgress, ProcessGrid
from openreml_dist.plan.cost import PlannedFit
from openreml_dist.plan.memory import FitSize
from openreml_dist.reml.bounds import Bounds, bounds_of_model
from openreml_dist.reml.dense.evaluation import ai_step, expected_information, log_likelihood
from openreml_dist.reml.dense.prediction import DensePredictor
from openreml_dist.reml.dense.probes import Probes, draw_probes
from openreml_dist.reml.dense.problem import Problem
from openreml_dist.reml.dense.schedule import DenseSchedule, choose_schedule
from openreml_dist.reml.dense.start import haseman_elston
from openreml_dist.reml.engine import Capability, Reply, Request, Want
from openreml_dist.reml.ridges import Gram
from openreml_dist.reml.start import choose_start
from openreml_dist.reml.step import Step
from openreml_dist.tiled import Workspace
from openreml_dist.traces import METHODS, number_of_probes

RIDGE_PROBES = 4  # r derivatives of rank q differ in q random products if r ≤ q(q + 1)/2
REMEMBERED = 2  # evaluations whose Py is kept: the last iterate and the trial after it


@dataclass(frozen=True)
class DenseOptions:
    """Where traces come from; the arguments of ``Solver.fit``, where they are explained.

    Attributes:
        loglik_alone: the estimates are not wanted, but the largest log-likelihood.
    """

    traces: str = "auto"
    num_probes: int | None = None
    seed: int = 1
    loglik_alone: bool = False


class DenseEngine:
    """An ``Engine`` for one problem. Local to make.

    Raises:
        ConfigError: for a source of traces that there is not.
    """

    def __init__(self, problem: Problem, options: DenseOptions, phase: PhaseProgress) -> None:
        if options.traces not in METHODS:
            raise ConfigError(f"solver.traces: {options.traces!r} is none of {', '.join(METHODS)}")
        covariance, n = problem.covariance, problem.layout.size
        self._num_probes = number_of_probes(options.traces, options.num_probes)
        self._schedule = choose_schedule(options.traces, n, self._num_probes, covariance.is_linear, options.loglik_alone)
        self.problem = replace(problem, workspace=Workspace(self._schedule.widest))
        self._seed = options.seed
        self._phase = phase
        self._probes: Probes | None = None  # functions of the problem and the seed, made when they are first needed
        self._gram: Gram | None = None
        self._remembered: list[tuple[Step, Tensor]] = []

    @property
    def grid(self) -> ProcessGrid:
        """The ranks."""
        return self.problem.grid

    @property
    def covariance(self) -> Covariance:
        """The model."""
        return self.problem.covariance

    @property
    def schedule(self) -> DenseSchedule:
        """Cheap evaluations first, where the options allow them."""
        return self._schedule

    def why_not(self, wish: Capability) -> str | None:
        """Whatever stands on V being a sum of variance components needs one."""
        needs_components = (Capability.HASEMAN_ELSTON, Capability.PROBES)
        if wish in needs_components and not self.covariance.is_linear:
            return "needs a sum of variance components"
        if wish is Capability.PROBES and self.problem.layout.size <= self._num_probes:
            return f"needs more samples than its {self._num_probes} probes"
        return None

    # Where the iteration may go, and where it begins.

    def bounds(self, constrain: bool) -> Bounds:
        """Those of the model, for the variance of y beside X. Local."""
        phenotypic = float(self.problem.X.residuals(self.problem.y).var())
        return bounds_of_model(self.covariance, phenotypic, constrain)

    def start(self, method: str) -> Tensor:
        """Haseman-Elston regression with the probes of the traces, or equal parts of the phenotypic variance. Collective."""
        problem = self.problem
        if choose_start(method, self.why_not(Capability.HASEMAN_ELSTON)) == "haseman-elston":
            products, Z = self._random_products(self._num_probes)
            if self._schedule.uses_probes:
                self._probes = self._made_probes(products, Z)
            return haseman_elston(problem, products, Z)
        with problem.grid.together("choosing the start"):
            return self.covariance.start(problem.X.residuals(problem.y).square().cpu())

    def gram(self) -> Gram | None:
        """From the products that the start and the probes need anyway; else from one pass over the kernels. Collective."""
        if self._gram is None and self.covariance.is_linear:
            if self._schedule.uses_probes and self._probes is None:
                self._probes = self._made_probes(*self._random_products(self._num_probes))
            else:
                self._random_products(RIDGE_PROBES)
        return self._gram

    def _random_products(self, count: int) -> tuple[Tensor, Tensor]:
        """K_k [Z e] (r, n, s + 1) and Z (n, s), float32, e the residuals; with them the Gram matrix of M K_k M.

        Collective; one pass over the kernels.
        """
        problem, n, X = self.problem, self.problem.layout.size, self.problem.X
        Z = draw_probes(n, count, self._seed).to(problem.grid.device)
        W = X.projected(torch.randn(n, RIDGE_PROBES, generator=torch.Generator().manual_seed(self._seed)).to(Z.device).double())
        operands = torch.cat([Z, X.residuals(problem.y)[:, None].float(), W.float()], dim=1)
        ones = torch.ones(len(self.covariance.parameters), dtype=torch.float64)
        progress = self._phase("reading the kernels")
        products = self.covariance.times(operands, ones, problem.grid, problem.layout, progress)
        s = Z.shape[1]
        sizes = products[:, :, :s].square().sum(dim=(1, 2), dtype=torch.float64) * (RIDGE_PROBES / s)
        projected = torch.stack([X.projected(KW.double()) for KW in products[:, :, s + 1 :]])
        self._gram = Gram.of(projected, sizes.sqrt())
        return products[:, :, : s + 1], Z

    def _made_probes(self, products: Tensor, Z: Tensor) -> Probes:
        """Probes, with controls where all depends on them. Collective; with controls another pass over the kernels."""
        problem, norms = self.problem, None
        if self._schedule.uses_controls:
            norms = self.covariance.norms(problem.grid, problem.layout, self._phase("reading the kernels"))
        return Probes.of(Z, products[:, :, :-1].contiguous(), norms)

    # Evaluations.

    def evaluate(self, requests: Sequence[Request]) -> list[Reply]:
        """One after the other: each needs all of the memory. Collective."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Reply:
        if self._schedule.uses_probes and self._probes is None:
            self._probes = self._made_probes(*self._random_products(self._num_probes))
        try:
            if request.want is Want.INFORMATION:
                return expected_information(self.problem, request.theta, self._phase, request.how.dtype)
            if request.want is Want.LOGLIK:
                return log_likelihood(self.problem, request.theta, self._phase, request.how.dtype)
            step, Py = ai_step(self.problem, request.theta, self._phase, request.how, self._probes, request.carried)
        except NotPositiveDefiniteError:
            return None
        self._remembered = [*self._remembered, (step, Py)][-REMEMBERED:]
        return step

    def Py(self, step: Step) -> Tensor:
        """From memory, or by the same evaluation again. Collective."""
        for known, Py in self._remembered:
            if torch.equal(known.theta, step.theta) and known.evaluation == step.evaluation:
                return Py
        self.evaluate([Request(step.theta, step.evaluation, carried=step.carried)])
        return self._remembered[-1][1]

    # Before and after a fit.

    def plan(self, chunk_size: int = 1, cache_bytes: float = 0.0) -> PlannedFit:
        """Tiles of V in the widest precision of the schedule, panels, vectors, and what is kept of the stores. Local."""
        num_kernels = sum(term.is_stored for term in self.covariance.terms)
        size = FitSize(
            num_kernels=num_kernels,
            num_generated=len(self.covariance.parameters) - num_kernels,
            num_fixed=self.problem.X.Q.shape[1],
            num_probes=self._num_probes if self._schedule.uses_probes else 0,
            number_bytes=self._schedule.widest.itemsize,
            chunk_size=chunk_size,
            cache_bytes=cache_bytes,
        )
        return PlannedFit(self.problem.layout, size)

    def predictor(self, at: Step | Tensor, error_variances: bool) -> DensePredictor:
        """From the Py of a step, or from V(θ) factored (for error variances inverted) in float64. Collective."""
        theta = at.theta if isinstance(at, Step) else at
        if isinstance(at, Step) and not error_variances:
            return DensePredictor(self.problem, theta, self.Py(at), at.beta, None, self._phase)
        return DensePredictor.at(self.problem, theta, self._phase, error_variances)
