"""``REML``: the Python interface, in one process or in ranks.

Legend: n samples, p fixed effects, r parameters θ. Method names, arguments and return values are those of the
single-machine package torch-openreml 0.1.0a0; ``fit`` is ours.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from openreml_dist.covariance import Covariance, Heterogeneous, Identity, Term
from openreml_dist.errors import ConfigError, InputError
from openreml_dist.grid import ProcessGrid, Progress, no_progress
from openreml_dist.layout import TileLayout, choose_tile_size
from openreml_dist.reml.driver import Iteration, Request, Stopping, average_information, drive
from openreml_dist.reml.evaluation import METHODS, Schedule
from openreml_dist.reml.probes import Probes, draw_probes
from openreml_dist.reml.projection import Design
from openreml_dist.reml.result import FitResult
from openreml_dist.reml.start import choose_start, haseman_elston, residuals
from openreml_dist.reml.step import PhaseProgress, Problem, Step, ai_step, log_likelihood
from openreml_dist.tiled import Workspace

# Share of the phenotypic variance at which the bound of an identity term lies, since V must stay invertible, and the square of
# that of a diagonal loading, since ∂(LLᵀ)/∂L_aa is zero at L_aa = 0, whether it is the optimum or not.
SMALLEST_RESIDUAL = 1e-6

History = dict[str, list[Tensor]]


def _silent(_: str) -> Progress:
    return no_progress


class REML:
    """Restricted maximum likelihood for y ~ N(Xβ, V(θ)).

    Collective: every rank of the grid makes one and calls each method with the same arguments; each gets the same values.
    In one process without a process group nothing else is needed.

    Args:
        v_builder: V(θ), a ``Covariance`` or one of its terms.
        grid: ranks to work on; by default all ranks of the default process group, or this process alone.
        tile_size: rows of a tile; by default chosen from n and the grid.
        jitter: added to the diagonal of V(θ).
    Raises:
        TypeError: if ``v_builder`` is neither.
        ConfigError: if a rank would own no tile with the ``tile_size`` given.

    Attributes:
        history: of the last ``optimize``: ``theta``, ``beta``, ``loglik``, ``score``, ``ai``, ``delta``, ``update``, lists with
            one entry an iteration, all of the θ of that iteration.
    """

    def __init__(
        self,
        v_builder: Covariance | Term,
        *,
        grid: ProcessGrid | None = None,
        tile_size: int | None = None,
        jitter: float = 0.0,
        phase: PhaseProgress = _silent,
    ) -> None:
        if not isinstance(v_builder, Covariance | Term):
            raise TypeError(f"v_builder must be a Covariance or a Term, not {type(v_builder).__name__}")
        self.covariance = v_builder if isinstance(v_builder, Covariance) else Covariance([v_builder])
        self.grid = grid if grid is not None else ProcessGrid.connect()
        self.layout = _layout(self.covariance.size, self.grid, tile_size)
        self.jitter = jitter
        self.history: History = {}
        self._phase = phase

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
        num_probes: int = 64,
        seed: int = 1,
        report: Callable[[Iteration], None] | None = None,
    ) -> FitResult:
        """Estimate θ by AI-REML in a trust region, within bounds. Collective.

        Args:
            y: (n,) float64.
            x: (n, p) float64.
            start: (r,) values of θ, or a method: ``haseman-elston`` for a sum of variance components, ``equal`` shares of the
                phenotypic variance for any V, ``auto`` the first where it can be.
            constrain: keep variances at or above zero (independent residuals at or above 1e-6 of the phenotypic variance);
                correlations and ranges always stay within their limits.
            stopping: tolerances.
            traces: ``exact`` evaluates every iterate exactly in float64; ``auto`` does so at the end, after cheaper iterations;
                ``hutchinson`` has traces from random probes in float32, with a Monte-Carlo error that the result states.
            num_probes: random probes.
            seed: of the probes, which are the same on every grid.
            report: called on rank 0 with every iterate as it is accepted.
        Raises:
            InputError: for data of the wrong shape, values that are not finite, dependent columns of X.
            ConfigError: for a start outside the bounds.
            NotPositiveDefiniteError: if V is not positive definite at the start.
        """
        if traces not in METHODS:
            raise ConfigError(f"solver.traces: {traces!r} is none of {', '.join(METHODS)}")
        problem = self._problem(y, x)
        schedule = Schedule.choose(traces, self.layout.size, num_probes, self.covariance.is_linear)
        lower, upper = self._bounds(problem, constrain)
        if isinstance(start, str):
            start = choose_start(start, self.covariance)
        if start == "haseman-elston" or schedule.uses_probes:
            products, Z = self._random_products(problem, num_probes, seed)
        if start == "haseman-elston":
            theta = haseman_elston(problem, products, Z)
        elif isinstance(start, str):
            with self.grid.together("choosing the start"):
                theta = self.covariance.start(residuals(problem).square().cpu())
        else:
            theta = self._theta(start)
        _check_start(self.covariance.parameters, theta, lower, upper)
        if schedule.uses_probes:
            problem = replace(problem, probes=Probes(Z, products[:, :, :-1].contiguous()))
        problem = replace(problem, workspace=Workspace(schedule.widest))
        decisions = None
        if self.grid.is_root:
            decisions = average_information(theta, lower, upper, stopping or Stopping(), report, schedule)
        outcome = drive(self.grid, decisions, partial(_evaluate, problem, phase=self._phase))
        return FitResult.of(outcome, self.covariance)

    def _random_products(self, problem: Problem, num_probes: int, seed: int) -> tuple[Tensor, Tensor]:
        """K_k [Z e] (r, n, s + 1) and Z (n, s), float32, for the start and for traces. Collective; one pass over kernels."""
        Z = draw_probes(self.layout.size, num_probes, seed).to(self.grid.device)
        Ze = torch.cat([Z, residuals(problem)[:, None].float()], dim=1)
        ones = torch.ones(self._num_parameters, dtype=torch.float64)
        return self.covariance.times(Ze, ones, self.grid, self.layout, self._phase("reading the kernels")), Z

    # The interface of torch-openreml.

    def ai_step(
        self, y: Tensor, x: Tensor, theta: Tensor, require_loglik: bool = True, require_beta: bool = True
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """β̂ (p,), score (r,), average information (r, r) and log-likelihood () at θ; nan if not required. Collective."""
        step = self._step(y, x, theta)
        nan = torch.tensor(math.nan, dtype=torch.float64)
        loglik = torch.tensor(step.loglik, dtype=torch.float64) if require_loglik else nan
        return (step.beta if require_beta else nan), step.score, step.AI, loglik

    def loglik(self, y: Tensor, x: Tensor, theta: Tensor) -> Tensor:
        """REML log-likelihood () at θ, without −½(n−p) log 2π, from a Cholesky factor. Collective."""
        return torch.tensor(log_likelihood(self._problem(y, x), self._theta(theta), self._phase), dtype=torch.float64)

    def blue(self, y: Tensor, x: Tensor, theta: Tensor) -> Tensor:
        """Best linear unbiased estimates β̂ (p,) at θ. Collective."""
        return self._step(y, x, theta).beta

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

        ``verbose=1`` counts iterations in one line of rank 0, ``verbose=2`` prints a line for each.

        Returns:
            θ (r,) after the last update, β̂ (p,) of the last evaluated θ, and the number of iterations.
        """
        theta = self._theta(theta)
        self.history = {key: [] for key in ("theta", "beta", "loglik", "score", "ai", "delta", "update")}
        for _ in range(max_iter):
            beta, score, ai, loglik = self.ai_step(y, x, theta, require_loglik=require_loglik)
            delta = torch.linalg.solve(ai, score)
            updated, change = self.update(theta, delta, eta, lb, ub)
            record = {
                "theta": theta,
                "beta": beta,
                "loglik": loglik,
                "score": score,
                "ai": ai,
                "delta": delta,
                "update": change,
            }
            for key, value in record.items():
                self.history[key].append(value)
            theta = updated
            if verbose and self.grid.is_root:
                print(self._progress(max_iter, eta, verbose), end="\n" if verbose > 1 else "\r", file=sys.stderr, flush=True)
            if self.is_converged(check_score, check_delta, check_loglik, tol_score, tol_delta, tol_loglik):
                break
        return theta, self.history["beta"][-1], len(self.history["theta"])

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
        logliks = self.history.get("loglik", [])
        if len(logliks) < 2:
            return False
        checks = [
            (check_score, float(self.history["score"][-1].norm()), tol_score),
            (check_delta, float(self.history["delta"][-1].norm()), tol_delta),
            (check_loglik and not bool(logliks[-1].isnan()), abs(float(logliks[-1] - logliks[-2])), tol_loglik),
        ]
        return all(value < tolerance for enabled, value, tolerance in checks if enabled)

    def _progress(self, max_iter: int, eta: float, verbose: int) -> str:
        """The last iteration of ``optimize`` in words."""
        number, last = len(self.history["theta"]), {key: values[-1] for key, values in self.history.items()}
        if verbose == 1:
            return f"iteration {number} of at most {max_iter}"
        change = float(last["loglik"] - self.history["loglik"][-2]) if number > 1 else math.nan
        norms = {key: f"{float(last[key].norm()):.4g}" for key in ("score", "delta", "update")}
        return (
            f"iteration {number}: |score| {norms['score']}, |step| {norms['delta']}, eta {eta:g}, "
            f"|clipped step| {norms['update']}, logL {float(last['loglik']):.6f} ({change:+.3g})"
        )

    # What the methods share.

    @property
    def _num_parameters(self) -> int:
        return len(self.covariance.parameters)

    def _step(self, y: Tensor, x: Tensor, theta: Tensor) -> Step:
        return ai_step(self._problem(y, x), self._theta(theta), self._phase)

    def _theta(self, theta: Tensor) -> Tensor:
        values = torch.as_tensor(theta, dtype=torch.float64).detach().cpu()
        if values.shape != (self._num_parameters,):
            raise InputError(
                f"theta: {tuple(values.shape)} values given for {self._num_parameters} parameters "
                f"({', '.join(self.covariance.parameters)})"
            )
        if not bool(torch.isfinite(values).all()):
            raise InputError(f"theta: {values.tolist()} is not finite")
        return values

    def _problem(self, y: Tensor, x: Tensor) -> Problem:
        n, device = self.covariance.size, self.grid.device
        if y.shape != (n,) or x.ndim != 2 or x.shape[0] != n:
            raise InputError(
                f"y {tuple(y.shape)} and x {tuple(x.shape)} must have {n} rows, as V has; x must have two dimensions"
            )
        if not bool(torch.isfinite(y).all() and torch.isfinite(x).all()):
            raise InputError("y and x must be finite")
        return Problem(
            self.covariance, y.double().to(device), Design.of(x.double().to(device)), self.grid, self.layout, jitter=self.jitter
        )

    def _bounds(self, problem: Problem, constrain: bool) -> tuple[Tensor, Tensor]:
        """Of θ: those of the parameters, unless variances are not constrained. Local."""
        lower, upper = self.covariance.map.bounds()
        smallest = SMALLEST_RESIDUAL * float(residuals(problem).var())
        independent = {p.name for t in self.covariance.terms if isinstance(t, Identity | Heterogeneous) for p in t.parameters}
        for parameter, k in zip(self.covariance.map.parameters, self.covariance.map.source, strict=True):
            if k >= 0 and parameter.unit == "loading" and lower[k] == 0:
                lower[k] = smallest**0.5
            if k < 0 or parameter.unit != "variance" or lower[k] == -math.inf:
                continue
            if not constrain:
                lower[k] = -math.inf
            elif parameter.name in independent:
                lower[k] = smallest
        return lower, upper


def _evaluate(problem: Problem, request: Request, phase: PhaseProgress) -> Step | float:
    """What the driver asks for. Collective."""
    if request.how.is_complete:
        return ai_step(problem, request.theta, phase, request.how)
    return log_likelihood(problem, request.theta, phase, request.how.dtype)


def _check_start(parameters: tuple[str, ...], theta: Tensor, lower: Tensor, upper: Tensor) -> None:
    """Refuse a start outside the bounds. Local."""
    for name, value, least, most in zip(parameters, theta.tolist(), lower.tolist(), upper.tolist(), strict=True):
        if not least <= value <= most:
            side, bound = ("below", least) if value < least else ("above", most)
            raise ConfigError(f"start: {name} = {value:g} is {side} its bound {bound:g}; start within it or do not constrain")


def _layout(size: int, grid: ProcessGrid, tile_size: int | None) -> TileLayout:
    """The tiling asked for, or a good one."""
    if tile_size is None:
        return TileLayout(size, choose_tile_size(size, grid.shape, on_gpu=grid.device.type != "cpu"), grid.shape)
    layout = TileLayout(size, tile_size, grid.shape)
    idle = layout.ranks_without_tile()
    if idle:
        ranks = f"{'rank' if len(idle) == 1 else 'ranks'} {', '.join(map(str, idle))}"
        raise ConfigError(
            f"solver.tile_size={tile_size}: {size} samples make {layout.num_tiles} tiles a side, which leaves {ranks} of the "
            f"{grid.shape.rows} x {grid.shape.columns} grid without a tile; use at most {choose_tile_size(size, grid.shape)}, "
            "or fewer ranks"
        )
    return layout
