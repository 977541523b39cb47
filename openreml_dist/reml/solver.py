"""``Solver``: one covariance model on one grid of ranks; it does not change, and fits as many y and X as are given to it.

Legend: n samples, p fixed effects, r parameters θ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from openreml_dist.covariance import Covariance
from openreml_dist.errors import ConfigError, InputError
from openreml_dist.grid import PhaseProgress, ProcessGrid, silent
from openreml_dist.layout import TileLayout, choose_tile_size
from openreml_dist.reml.dense.engine import DenseEngine, DenseOptions
from openreml_dist.reml.dense.prediction import DensePredictor
from openreml_dist.reml.dense.problem import Problem
from openreml_dist.reml.fitting import FitOptions, fit
from openreml_dist.reml.outcome import Iteration, Stopping
from openreml_dist.reml.result import FitResult

NEAR_THE_TOP = 0.02  # standard errors: ℓ is 2e-4 below its largest value, most of which the quadratic model knows


@dataclass(frozen=True)
class Solver:
    """REML for y ~ N(Xβ, V(θ)). Collective: every rank of the grid makes one, and calls each method with the same arguments.

    Attributes:
        covariance: V(θ).
        grid: the ranks.
        layout: which of them has which tile of V.
        jitter: added to the diagonal of V(θ).
        phase: told which phase begins.
    """

    covariance: Covariance
    grid: ProcessGrid
    layout: TileLayout
    jitter: float = 0.0
    phase: PhaseProgress = silent

    @classmethod
    def of(
        cls,
        covariance: Covariance,
        grid: ProcessGrid | None = None,
        tile_size: int | None = None,
        jitter: float = 0.0,
        phase: PhaseProgress = silent,
    ) -> Solver:
        """On all ranks of the default process group (this process alone without one), in tiles of a good size.

        Raises:
            ConfigError: if a rank would own no tile with the ``tile_size`` given.
        """
        grid = grid if grid is not None else ProcessGrid.connect()
        return cls(covariance, grid, choose_layout(covariance.size, grid, tile_size), jitter, phase)

    def problem(self, y: Tensor, x: Tensor) -> Problem:
        """y (n,) and X (n, p) of any precision, checked. Local.

        Raises:
            InputError: for the wrong shape, values that are not finite, dependent columns of X.
        """
        return Problem.of(self.covariance, y, x, self.grid, self.layout, self.jitter)

    def engine(self, y: Tensor, x: Tensor, traces: str = "auto", num_probes: int | None = None, seed: int = 1) -> DenseEngine:
        """What evaluates θ for y (n,) and X (n, p); arguments as of ``fit``. Local."""
        return DenseEngine(self.problem(y, x), DenseOptions(traces, num_probes, seed), self.phase)

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
        """Estimate θ by AI-REML in a trust region, within bounds. Collective.

        Args:
            y: (n,).
            x: (n, p).
            start: (r,) values of θ, or a method: ``haseman-elston`` for a sum of variance components, ``equal`` shares of the
                phenotypic variance for any V but that of functions, ``auto`` the first where it can be.
            constrain: keep variances at or above zero (independent residuals at or above 1e-6 of the phenotypic variance);
                correlations and ranges always stay within their limits.
            stopping: tolerances.
            traces: ``exact`` evaluates every iterate exactly in float64; ``auto`` does so at the end, after cheaper iterations;
                ``hutchinson`` has traces from random probes in float32, with a Monte-Carlo error that the result states.
            num_probes: random probes; None is 64, and 384 for ``hutchinson``, which leave an error below 0.02 standard errors.
            seed: of the probes, which are the same on every grid.
            report: called on rank 0 with every iterate as it is accepted.
        Raises:
            InputError: for data of the wrong shape, values that are not finite, dependent columns of X.
            ConfigError: for a start outside the bounds.
            NotPositiveDefiniteError: if V is not positive definite at the start.
        """
        engine = self.engine(y, x, traces, num_probes, seed)
        values = start if isinstance(start, str) else self.parameters(start)
        return fit(engine, values, FitOptions(constrain, stopping or Stopping(), report))

    def largest_loglik(
        self,
        y: Tensor,
        x: Tensor,
        *,
        options: FitOptions | None = None,
        traces: str = "auto",
        num_probes: int | None = None,
        seed: int = 1,
    ) -> float:
        """max ℓ(θ), good to the third decimal, for about half the cost of ``fit``: the θ itself is not wanted. Collective.

        ℓ is flat at its top: it is evaluated within a fiftieth of a standard error, and what is missing is added from there.
        Arguments and errors are those of ``fit``.
        """
        engine = DenseEngine(self.problem(y, x), DenseOptions(traces, num_probes, seed, loglik_alone=True), self.phase)
        options = FitOptions() if options is None else options
        stopping = replace(options.stopping, tolerance_theta=NEAR_THE_TOP)
        found = fit(engine, "auto", replace(options, stopping=stopping))
        return found.loglik + found.iterations[-1].next_step.gain

    def predictor(self, y: Tensor, x: Tensor, at: FitResult | Tensor, error_variances: bool = False) -> DensePredictor:
        """Random effects at the θ of a fit or at any other θ (r,), with their error variances or without. Collective.

        Cost: n³ flops for error variances; else none after a fit, n³/3 at another θ.
        """
        problem, theta = self.problem(y, x), self.parameters(at.theta if isinstance(at, FitResult) else at)
        if isinstance(at, FitResult) and at.Py is not None and not error_variances:
            return DensePredictor(problem, theta, at.Py, at.beta, None, self.phase)
        return DensePredictor.at(problem, theta, self.phase, error_variances)

    def parameters(self, theta: Tensor) -> Tensor:
        """θ (r,) float64 on the CPU, checked. Local.

        Raises:
            InputError: for another number of values, or values that are not finite.
        """
        values = torch.as_tensor(theta, dtype=torch.float64).detach().cpu()
        names = self.covariance.parameters
        if values.shape != (len(names),):
            raise InputError(f"theta: {tuple(values.shape)} values given for {len(names)} parameters ({', '.join(names)})")
        if not bool(torch.isfinite(values).all()):
            raise InputError(f"theta: {values.tolist()} is not finite")
        return values


def choose_layout(size: int, grid: ProcessGrid, tile_size: int | None) -> TileLayout:
    """The tiling asked for, or a good one.

    Raises:
        ConfigError: if a rank would own no tile with the tile size given.
    """
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
