"""What stays the same while θ changes: the model, the data, the grid and the tiling.

Legend: n samples, p fixed effects, r parameters θ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.covariance import Covariance
from openreml_dist.errors import InputError
from openreml_dist.grid import ProcessGrid, Progress
from openreml_dist.layout import TileLayout
from openreml_dist.reml.fixed import FixedDesign
from openreml_dist.tiled import TiledSymmetric, Workspace


@dataclass(frozen=True)
class Problem:
    """y ~ N(Xβ, V(θ) + jitter·I), V in tiles.

    Attributes:
        covariance: V(θ), n x n.
        y: (n,), on every rank, less its fit by least squares: Py is the same, and a large mean costs no digits of it.
        fit: (p,) the coefficients of that fit; β̂ is their sum with that of ``y``.
        X: (n, p), on every rank.
        grid: the ranks.
        layout: which of them has which tile.
        jitter: added to the diagonal.
        workspace: memory for the tiles, used again by every evaluation.
    """

    covariance: Covariance
    y: Tensor
    fit: Tensor
    X: FixedDesign
    grid: ProcessGrid
    layout: TileLayout
    jitter: float = 0.0
    workspace: Workspace | None = None

    @classmethod
    def of(
        cls, covariance: Covariance, y: Tensor, X: Tensor, grid: ProcessGrid, layout: TileLayout, jitter: float = 0.0
    ) -> Problem:
        """From y (n,) and X (n, p) of any precision, checked. Local.

        Raises:
            InputError: for the wrong shape, values that are not finite, dependent columns of X, y among their combinations.
        """
        n, device = covariance.size, grid.device
        if y.shape != (n,) or X.ndim != 2 or X.shape[0] != n:
            raise InputError(
                f"y {tuple(y.shape)} and x {tuple(X.shape)} must have {n} rows, as V has; x must have two dimensions"
            )
        if not bool(torch.isfinite(y).all() and torch.isfinite(X).all()):
            raise InputError("y and x must be finite")
        y, design = y.double().to(device), FixedDesign.of(X.double().to(device))
        e = design.residuals(y)
        return cls(covariance, design.residuals(e), design.coefficients(y), design, grid, layout, jitter)

    def assembled(self, theta: Tensor, dtype: torch.dtype, progress: Progress) -> TiledSymmetric:
        """The tiles of V(θ) + jitter·I. Collective."""
        V = TiledSymmetric(self.layout, self.grid, dtype, self.workspace)
        self.covariance.assemble_(V, theta, progress)
        if self.jitter:
            for i, j, tile in V.tiles():
                if i == j:
                    tile.diagonal().add_(self.jitter)
        return V

    def derivatives_times(self, u: Tensor, theta: Tensor, dtype: torch.dtype, progress: Progress) -> Tensor:
        """T (n, r) with t_k = V_k u for u (n,). Collective."""
        products = self.covariance.times(u[:, None].to(dtype), theta, self.grid, self.layout, progress)
        return products[:, :, 0].mT.to(u.dtype).contiguous()
