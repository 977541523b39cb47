"""The pivot of one elimination step: the Cholesky factor of a diagonal tile, and what is summed up over all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from openreml_dist.errors import NotPositiveDefiniteError
from openreml_dist.tiled import TiledSymmetric


class Pivots:
    """log|V| and the first failing leading minor, gathered on the owners of diagonal tiles and reduced once at the end."""

    def __init__(self, V: TiledSymmetric) -> None:
        self.V = V
        self._log_determinant = torch.zeros(1, dtype=torch.float64, device=V.device)
        self._failing = torch.zeros(1, dtype=torch.int64, device=V.device)  # n + 1 − order of the first failing minor, or 0

    def factor(self, k: int) -> Tensor:
        """L with LLᵀ = A_kk, row-major. Local: on the owner of tile (k, k).

        The factor of a tile that is not positive definite is unusable; the elimination goes on, ``finish`` raises.
        """
        L, info = torch.linalg.cholesky_ex(self.V.tile(k, k))
        order = info + k * self.V.layout.tile_size
        self._failing = torch.where((info > 0) & (self._failing == 0), self.V.size + 1 - order, self._failing)
        self._log_determinant += 2 * L.diagonal().double().log().sum()
        self.V.grid.counters.flops += L.shape[0] ** 3 // 3
        row_major: Tensor = L.contiguous()  # LAPACK's is column-major, and a collective would send its transpose
        return row_major

    def inverse_of_factor(self, L: Tensor) -> Tensor:
        """L⁻¹ of a lower triangular tile, row-major. Local."""
        identity = torch.eye(L.shape[0], dtype=L.dtype, device=L.device)
        inverse: Tensor = torch.linalg.solve_triangular(L, identity, upper=False)
        self.V.grid.counters.flops += L.shape[0] ** 3
        return inverse.contiguous()

    def finish(self) -> float:
        """log|V|. Collective.

        Raises:
            NotPositiveDefiniteError: on every rank, with the order of the failing leading minor.
        """
        n, grid = self.V.size, self.V.grid
        order = n + 1 - int(grid.max_(self._failing).item())
        if order <= n:
            raise NotPositiveDefiniteError(f"V is not positive definite: its leading minor of order {order} of {n} fails")
        return float(grid.sum_(self._log_determinant).item())
