"""A second engine, of plain algebra on whole matrices: what the driver may rely on, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from openreml_dist import Covariance
from openreml_dist.grid import ProcessGrid
from openreml_dist.layout import TileLayout
from openreml_dist.plan.cost import PlannedFit
from openreml_dist.plan.memory import FitSize
from openreml_dist.reml.bounds import Bounds, bounds_of_model
from openreml_dist.reml.engine import Capability, Reply, Request, Want
from openreml_dist.reml.prediction import Predictor
from openreml_dist.reml.ridges import Gram
from openreml_dist.reml.solver import Solver
from openreml_dist.reml.step import Information, LogLikelihood, Step
from tests.helpers.oracle import Case, Oracle


class Plainly:
    """The one way of evaluating that there is, as a schedule."""

    def first(self) -> str:
        return "whole"

    def following(self, last: str, move: float, noise: float) -> str:
        return "whole"

    def fallback(self, failed: str) -> None:
        return None

    def may_end(self, last: str, noise: float) -> bool:
        return True

    def negligible_move(self, noise: float, tolerance: float) -> float:
        return tolerance


@dataclass
class WholeMatrices:
    """The formulas of ``oracle``, for any model without its own random numbers."""

    case: Case
    grid: ProcessGrid = field(default_factory=ProcessGrid.single)
    schedule: Plainly = field(default_factory=Plainly)

    @property
    def covariance(self) -> Covariance:
        return self.case.covariance

    def why_not(self, wish: Capability) -> str | None:
        return "are not to be had from whole matrices"

    def bounds(self, constrain: bool) -> Bounds:
        return bounds_of_model(self.covariance, float(self.case.y.var()), constrain)

    def start(self, method: str) -> Tensor:
        return self.covariance.start(self.case.y.square())

    def gram(self) -> Gram:
        Q, _ = torch.linalg.qr(self.case.X)
        M = torch.eye(len(Q), dtype=torch.float64) - Q @ Q.mT
        whole = torch.stack(list(self.case.matrices))
        return Gram.of(M @ whole @ M, torch.linalg.matrix_norm(whole))

    def evaluate(self, requests: Sequence[Request]) -> list[Reply]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Reply:
        V = sum(float(t) * K for t, K in zip(request.theta, self.case.matrices, strict=True))
        if int(torch.linalg.cholesky_ex(V)[1]) > 0:
            return None
        exact = self.case.oracle(request.theta)
        error = 1e-11 * (1 + abs(exact.loglik))
        if request.want is Want.LOGLIK:
            return LogLikelihood(exact.loglik, error)
        if request.want is Want.INFORMATION:
            return Information(expected_information(exact.P, self.case.matrices))
        return step_of(request.theta, exact, error)

    def Py(self, step: Step) -> Tensor:
        return self.case.oracle(step.theta).P @ self.case.y

    def predictor(self, at: Step | Tensor, error_variances: bool) -> Predictor:
        raise NotImplementedError

    def plan(self, chunk_size: int = 1, cache_bytes: float = 0.0) -> PlannedFit:
        n = len(self.case.y)
        return PlannedFit(TileLayout(n, n, self.grid.shape), FitSize(num_kernels=0, num_probes=0))


def step_of(theta: Tensor, exact: Oracle, error: float) -> Step:
    noise = torch.zeros_like(exact.AI)
    whole = frozenset({"whole"})
    found = (exact.score, noise, exact.AI, exact.beta, exact.beta_covariance)
    return Step(theta, exact.loglik, error, 0.0, *found, trace_error=0.0, evaluation="whole", comparable=whole)


def expected_information(P: Tensor, dV: Sequence[Tensor]) -> Tensor:
    products = [P @ V_k for V_k in dV]
    return torch.stack([torch.stack([0.5 * (one * other.mT).sum() for other in products]) for one in products])


def dense(case: Case, traces: str = "exact", num_probes: int = 16) -> object:
    return Solver.of(case.covariance, ProcessGrid.single(), tile_size=32).engine(case.y, case.X, traces, num_probes)


ENGINES = {"whole matrices": WholeMatrices, "dense": dense}
