"""``REML``: the Python interface, in one process or in ranks.

Legend: n samples, p fixed effects, q random effects, r parameters θ; V = V(θ), Z (n, q) and G (q, q) of the random effects that
are predicted. Method names, arguments and return values are those of the single-machine package torch-openreml 0.1.0a0;
``fit`` is ours.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from openreml_dist.compat.builder import VBuilder, covariance_builder, whole_matrices
from openreml_dist.compat.history import KEYS, History, chosen, has_converged, newton_step, progress_bar, progress_line
from openreml_dist.covariance import Covariance
from openreml_dist.covariance.dense import MatrixFunction
from openreml_dist.errors import InputError
from openreml_dist.grid import PhaseProgress, ProcessGrid, silent
from openreml_dist.layout import TileLayout
from openreml_dist.reml.dense.evaluation import ai_step, generalised_least_squares, log_likelihood
from openreml_dist.reml.dense.problem import Problem
from openreml_dist.reml.outcome import Iteration, Stopping
from openreml_dist.reml.prediction import Predictor
from openreml_dist.reml.result import FitResult
from openreml_dist.reml.solver import Solver
from openreml_dist.reml.step import Step


class REML:
    """Restricted maximum likelihood for y ~ N(Xβ, V(θ)): a ``Solver`` with the methods of torch-openreml beside its own.

    Collective: every rank of the grid makes one and calls each method with the same arguments; each gets the same values,
    float64 on the CPU. In one process without a process group nothing else is needed. y, X, Z and θ may have any precision.

    Args:
        v_builder: V(θ): a ``Covariance`` or one of its terms; or a matrix of torch-openreml, known by its methods (small n).
        map_theta_to_v: from θ (r,) to V (n, n), whole, in place of ``v_builder`` (small n).
        map_theta_to_g: from θ to G (q, q), for ``blup``, ``predict`` and ``residual``.
        map_theta_to_dv: from θ to ∂V/∂θ (r, n, n), beside ``map_theta_to_v``; by default by differentiation.
        grid: ranks to work on; by default all ranks of the default process group, or this process alone.
        tile_size: rows of a tile; by default chosen from n and the grid.
        jitter: added to the diagonal of V(θ) (torch-openreml adds 1e-6).
        phase: told which phase begins.
    Raises:
        TypeError: if ``v_builder`` is no covariance.
        ValueError: if V is not given.
        ConfigError: if a rank would own no tile with the ``tile_size`` given.

    Attributes:
        history: of the last ``optimize``: ``theta``, ``beta``, ``loglik``, ``score``, ``ai``, ``delta``, ``update``, lists with
            one entry a θ, the last of them the one returned.
    """

    def __init__(
        self,
        v_builder: VBuilder | None = None,
        map_theta_to_v: MatrixFunction | None = None,
        map_theta_to_g: MatrixFunction | None = None,
        map_theta_to_dv: MatrixFunction | None = None,
        *,
        grid: ProcessGrid | None = None,
        tile_size: int | None = None,
        jitter: float = 0.0,
        phase: PhaseProgress = silent,
    ) -> None:
        self._builder = covariance_builder(v_builder, map_theta_to_v, map_theta_to_dv)
        self._map_theta_to_g = map_theta_to_g
        self._tile_size = tile_size
        self._jitter = jitter
        self._phase = phase
        self.grid = grid if grid is not None else ProcessGrid.connect()
        self.history: History = {}
        self._solver = self._solver_of(self._builder) if isinstance(self._builder, Covariance) else None

    @property
    def solver(self) -> Solver:
        """The model on its ranks, which does not change.

        Raises:
            InputError: where V is given by functions: then every call makes one, for its own n and r.
        """
        if self._solver is None:
            raise InputError("V is given by functions, so that its size and its parameters show only where it is used")
        return self._solver

    @property
    def covariance(self) -> Covariance:
        """V(θ) of the solver."""
        return self.solver.covariance

    @property
    def layout(self) -> TileLayout:
        """The tiling of the solver."""
        return self.solver.layout

    # The safe driver.

    def fit(
        self,
        y: Tensor,
        x: Tensor,
        start: Tensor | str = "auto",
        *,
        constrain: bool = True,
        stopping: Stopping | None = None,
        traces: str = "auto",
        num_probes: int | None = None,
        seed: int = 1,
        report: Callable[[Iteration], None] | None = None,
    ) -> FitResult:
        """Estimate θ by AI-REML in a trust region, within bounds: ``Solver.fit``, which explains the arguments. Collective."""
        if isinstance(start, str) and self._solver is None:
            raise InputError("start: V is given by functions, so what θ means is not known; give a value for each parameter")
        solver = self.solver if isinstance(start, str) else self._solver_at(y, start)
        return solver.fit(
            y,
            x,
            start,
            constrain=constrain,
            stopping=stopping,
            traces=traces,
            num_probes=num_probes,
            seed=seed,
            report=report,
        )

    def predictor(self, y: Tensor, x: Tensor, at: FitResult | Tensor, error_variances: bool = False) -> Predictor:
        """Random effects at the θ of a fit or at any other θ (r,): ``Solver.predictor``. Collective."""
        solver = self._solver_at(y, at.theta if isinstance(at, FitResult) else at)
        return solver.predictor(y, x, at, error_variances)

    # The interface of torch-openreml: at one θ.

    def ai_step(
        self, y: Tensor, x: Tensor, theta: Tensor, require_loglik: bool = True, require_beta: bool = True
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """β̂ (p,), score (r,), average information (r, r) and log-likelihood () at θ; nan if not required. Collective."""
        step, _ = ai_step(*self._at(y, x, theta), self._phase)
        return (step.beta if require_beta else _scalar(math.nan)), step.score, step.AI, _loglik(step, require_loglik)

    def loglik(self, y: Tensor, x: Tensor, theta: Tensor) -> Tensor:
        """REML log-likelihood () at θ, without −½(n−p) log 2π, from a Cholesky factor. Collective."""
        return _scalar(log_likelihood(*self._at(y, x, theta), self._phase).loglik)

    def blue(self, y: Tensor, x: Tensor, theta: Tensor) -> Tensor:
        """Best linear unbiased estimates β̂ (p,) at θ. Collective."""
        return generalised_least_squares(*self._at(y, x, theta), self._phase)[0]

    def blup(self, y: Tensor, x: Tensor, z: Tensor, theta: Tensor, map_theta_to_g: MatrixFunction | None = None) -> Tensor:
        """Best linear unbiased predictions û (q,) = G Zᵀ V⁻¹ (y − Xβ̂) of the effects of Z (n, q) at θ. Collective.

        Args:
            y: (n,).
            x: (n, p).
            z: (n, q).
            theta: (r,).
            map_theta_to_g: from θ to G (q, q); by default the one given to ``REML``.
        """
        return self._effects(y, x, z, theta, map_theta_to_g)[1]

    def marginal_predict(self, y: Tensor, x: Tensor, theta: Tensor) -> Tensor:
        """Xβ̂ (n,) at θ. Collective."""
        return _whole(x) @ self.blue(y, x, theta)

    def marginal_residual(self, y: Tensor, x: Tensor, theta: Tensor) -> Tensor:
        """y − Xβ̂ (n,) at θ. Collective."""
        return _whole(y) - self.marginal_predict(y, x, theta)

    def predict(self, y: Tensor, x: Tensor, z: Tensor, theta: Tensor, map_theta_to_g: MatrixFunction | None = None) -> Tensor:
        """Xβ̂ + Zû (n,) at θ; arguments as of ``blup``. Collective."""
        beta, u = self._effects(y, x, z, theta, map_theta_to_g)
        return _whole(x) @ beta + _whole(z) @ u

    def residual(self, y: Tensor, x: Tensor, z: Tensor, theta: Tensor, map_theta_to_g: MatrixFunction | None = None) -> Tensor:
        """y − Xβ̂ − Zû (n,) at θ; arguments as of ``blup``. Collective."""
        return _whole(y) - self.predict(y, x, z, theta, map_theta_to_g)

    def compute_v_dv(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """V (n, n) without jitter and ∂V/∂θ (r, n, n) at θ, whole: for small n. Collective.

        By tiles, for any n: ``covariance.assemble`` and ``covariance.derivatives``.

        Raises:
            InputError: if they take more than 1 GiB.
        """
        solver = self._solver_at(None, theta)
        values = solver.parameters(theta)
        with self.grid.together("computing V and its derivatives"):
            return whole_matrices(solver.covariance, values)

    # The interface of torch-openreml: the iteration.

    def update(
        self, theta: Tensor, delta: Tensor, eta: float, lb: float | Tensor = -math.inf, ub: float | Tensor = math.inf
    ) -> tuple[Tensor, Tensor]:
        """θ + ηδ clipped to [lb, ub], and the change that this made. Local."""
        lower, upper = (torch.as_tensor(bound, dtype=theta.dtype) for bound in (lb, ub))
        updated = torch.minimum(torch.maximum(theta + eta * delta, lower), upper)
        return updated, updated - theta

    def optimize(
        self,
        y: Tensor,
        x: Tensor,
        theta: Tensor,
        max_iter: int = 200,
        eta: float = 1.0,
        require_loglik: bool = True,
        lb: float | Tensor = -math.inf,
        ub: float | Tensor = math.inf,
        verbose: int = 0,
        check_score: bool = True,
        check_delta: bool = True,
        check_loglik: bool = True,
        tol_score: float = 1e-4,
        tol_delta: float = 1e-4,
        tol_loglik: float = 1e-4,
    ) -> tuple[Tensor, Tensor, int]:
        """The plain loop θ ← clip(θ + η AI⁻¹ score), without safeguards; ``fit`` has them. Collective.

        ``verbose=1`` shows a progress bar on rank 0, ``verbose=2`` a line an iteration.

        Returns:
            θ (r,) after the last update, β̂ (p,) at it, and the number of updates. The history has an entry for every θ, the
            last for the one returned, whose ``delta`` is the step that was not taken: one evaluation more than updates.
        """
        problem, values = self._at(y, x, theta)
        self.history = {key: [] for key in KEYS}
        count, converged = 0, False
        while True:
            step, _ = ai_step(problem, values, self._phase)
            delta = self.grid.broadcast_object(newton_step(step.AI, step.score))  # one for all ranks, whatever their hardware
            updated, change = self.update(values, delta, eta, lb, ub)
            record = (values, step.beta, _loglik(step, require_loglik), step.score, step.AI, delta, change)
            for key, value in zip(KEYS, record, strict=True):
                self.history[key].append(value)
            if converged or count >= max_iter:
                break
            values, count = updated, count + 1
            if verbose:
                self._say(progress_bar(count, max_iter) if verbose == 1 else progress_line(self.history, eta))
            converged = self.grid.broadcast_object(
                self.is_converged(check_score, check_delta, check_loglik, tol_score, tol_delta, tol_loglik)
            )
        if verbose:
            self._say(f"\n{'converged' if converged else 'not converged'} after {count}\n")
        return values, self.get_beta(), count

    def is_converged(
        self,
        check_score: bool = True,
        check_delta: bool = True,
        check_loglik: bool = True,
        tol_score: float = 1e-4,
        tol_delta: float = 1e-4,
        tol_loglik: float = 1e-4,
    ) -> bool:
        """Whether the last iteration of ``optimize`` passes every enabled check; never before two iterations. Local.

        A log-likelihood that was not asked for (nan) is not checked.
        """
        checks = (check_score, check_delta, check_loglik)
        return has_converged(self.history, checks, (tol_score, tol_delta, tol_loglik))

    def get_theta(self, select: str = "last", history: History | None = None) -> Tensor:
        """θ (r,) of the last iteration, or (any other ``select``) of the one with the highest log-likelihood. Local."""
        return chosen(self.history if history is None else history, "theta", select)

    def get_beta(self, select: str = "last", history: History | None = None) -> Tensor:
        """β̂ (p,) of the iteration of ``get_theta``. Local."""
        return chosen(self.history if history is None else history, "beta", select)

    # What the methods share.

    def _say(self, text: str) -> None:
        if self.grid.is_root:
            print(text, end="", file=sys.stderr, flush=True)

    def _solver_at(self, y: Tensor | None, theta: Tensor) -> Solver:
        """The solver; where V is given by functions, one for θ of this length and n of ``y``, or of V itself. Local."""
        if isinstance(self._builder, Covariance):
            return self.solver
        return self._solver_of(self._builder.covariance(None if y is None else y.numel(), theta))

    def _solver_of(self, covariance: Covariance) -> Solver:
        return Solver.of(covariance, self.grid, self._tile_size, self._jitter, self._phase)

    def _at(self, y: Tensor, x: Tensor, theta: Tensor) -> tuple[Problem, Tensor]:
        """The problem and θ, checked. Local."""
        solver = self._solver_at(y, theta)
        values = solver.parameters(theta)
        return solver.problem(y, x), values

    def _effects(
        self, y: Tensor, x: Tensor, z: Tensor, theta: Tensor, map_theta_to_g: MatrixFunction | None
    ) -> tuple[Tensor, Tensor]:
        """β̂ (p,) and û (q,). Collective."""
        map_theta_to_g = map_theta_to_g or self._map_theta_to_g
        if map_theta_to_g is None:
            raise InputError("map_theta_to_g: G of the random effects is needed, as a function of θ")
        problem, values = self._at(y, x, theta)
        G, Z = _whole(map_theta_to_g(theta)), _whole(z)
        if Z.ndim != 2 or len(Z) != len(y) or G.shape != (Z.shape[1], Z.shape[1]):
            raise InputError(f"z {tuple(Z.shape)} must be ({len(y)}, q) and G {tuple(G.shape)} must be (q, q)")
        beta, Py = generalised_least_squares(problem, values, self._phase)
        return beta, G @ (Z.mT @ Py)


def _scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _loglik(step: Step, required: bool) -> Tensor:
    return _scalar(step.loglik if required else math.nan)


def _whole(values: Tensor) -> Tensor:
    """A replicated tensor as the results are: float64 on the CPU."""
    return values.detach().double().cpu()
