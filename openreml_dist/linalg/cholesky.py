"""Cholesky factor of a tiled symmetric matrix, right-looking.

Legend: n rows, T tiles a side, b rows a tile; P x Q ranks; k the tile that is eliminated, A what V has become by then.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.grid import Progress, no_progress
from openreml_dist.linalg.panels import Panel
from openreml_dist.linalg.pivot import Pivots
from openreml_dist.linalg.triangular import solve_lower, solve_lower_transposed
from openreml_dist.tiled import TiledSymmetric


@dataclass(frozen=True)
class CholeskyFactor:
    """L with V = LLᵀ: its tiles, and log|V|."""

    L: TiledSymmetric
    log_determinant: float

    def half_solve(self, B: Tensor) -> Tensor:
        """L⁻¹B for a replicated B (n, m), so that (L⁻¹B)ᵀ(L⁻¹B) = BᵀV⁻¹B. Collective."""
        return solve_lower(self.L, B.to(self.L.dtype)).to(B.dtype)

    def __matmul__(self, B: Tensor) -> Tensor:
        """V⁻¹B for a replicated B (n, m), computed in the precision of the tiles. Collective."""
        return solve_lower_transposed(self.L, solve_lower(self.L, B.to(self.L.dtype))).to(B.dtype)


def cholesky_(V: TiledSymmetric, progress: Progress = no_progress) -> CholeskyFactor:
    """Factor V = LLᵀ in place, right-looking by tiles.

    Collective: every rank of ``V.grid`` calls it. Cost: n³/3 flops; a rank receives at most n²/2 · (1/P + 1/Q) numbers in
    panels, and n b/Q in diagonal tiles.

    Args:
        V: [in, out] lower tiles (n, n), float64 or float32; on exit the tiles of L.
        progress: told the finished share of the flops.
    Raises:
        NotPositiveDefiniteError: on every rank, with the order of the failing leading minor.
    References: LAPACK dpotrf; SLATE src/potrf.cc.
    """
    grid, layout = V.grid, V.layout
    pivots, panel = Pivots(V), Panel(V)
    for k in range(layout.num_tiles):
        panel.resize(layout.extent(k))
        if grid.column == k % grid.shape.columns:
            # L[k, k] = chol(A[k, k])
            L_kk = _share_diagonal_tile(V, pivots, k)
            # L[k+1:, k] = A[k+1:, k] · L[k, k]⁻ᵀ
            if k in V.slabs:
                below = V.below(k, k + 1)
                below.copy_(torch.linalg.solve_triangular(L_kk.mT, below, upper=True, left=False))
                panel.left.since(k + 1).copy_(below)
        panel.share_below(k)
        # A[j:, j] −= L[j:, k] · L[j, k]ᵀ  for each block column j > k
        for j in V.slabs:
            if j > k:
                V.slabs[j].addmm_(panel.left.since(j), panel.right.tile(j).mT, alpha=-1)
        progress(1 - (1 - (k + 1) / layout.num_tiles) ** 3)
    return CholeskyFactor(V, pivots.finish())


def _share_diagonal_tile(V: TiledSymmetric, pivots: Pivots, k: int) -> Tensor:
    """Factor tile (k, k) on its owner and send L[k, k] down grid column k mod Q. Collective over that grid column."""
    b = V.layout.extent(k)
    if V.owns(k, k):
        L_kk = pivots.factor(k)
        V.tile(k, k).copy_(L_kk)
    else:
        L_kk = torch.empty(b, b, dtype=V.dtype, device=V.device)
    V.grid.broadcast_in_column_(L_kk, row=k % V.grid.shape.rows)
    return L_kk
