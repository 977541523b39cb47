"""Cholesky factor of a tiled symmetric matrix, right-looking, with lookahead.

Legend: n rows, T tiles a side, b rows a tile; P x Q ranks; k the tile that is eliminated, A what V has become by then.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from openreml_dist.grid import Progress, no_progress
from openreml_dist.linalg.panels import Panel, two_panels
from openreml_dist.linalg.pivot import Pivots
from openreml_dist.linalg.triangular import solve_lower, solve_lower_transposed
from openreml_dist.linalg.updates import Travelling, Update, multiply_upper_, overlap
from openreml_dist.tiled import TiledSymmetric


@dataclass(frozen=True)
class CholeskyFactor:
    """L with V = LLᵀ: its tiles, and log|V|."""

    L: TiledSymmetric
    log_determinant: float

    def half_solve(self, B: Tensor) -> Tensor:
        """L⁻¹B for a replicated B (n, m), so that (L⁻¹B)ᵀ(L⁻¹B) = BᵀV⁻¹B. Collective."""
        return solve_lower(self.L, B.to(self.L.dtype)).to(B.dtype)

    def half_solve_transposed(self, B: Tensor) -> Tensor:
        """L⁻ᵀB for a replicated B (n, m): of independent columns, with covariance V⁻¹. Collective."""
        return solve_lower_transposed(self.L, B.to(self.L.dtype)).to(B.dtype)

    def quadratic(self, B: Tensor) -> Tensor:
        """BᵀV⁻¹B (m, m) for a replicated B (n, m), from L⁻¹B alone. Collective."""
        half = self.half_solve(B)
        return half.mT @ half

    def __matmul__(self, B: Tensor) -> Tensor:
        """V⁻¹B for a replicated B (n, m), computed in the precision of the tiles. Collective."""
        return solve_lower_transposed(self.L, solve_lower(self.L, B.to(self.L.dtype))).to(B.dtype)


def cholesky_(V: TiledSymmetric, progress: Progress = no_progress) -> CholeskyFactor:
    """Factor V = LLᵀ in place, right-looking by tiles; panel k + 1 is made and sent while panel k is used.

    Collective: every rank of ``V.grid`` calls it. Cost: n³/3 flops; a rank receives at most n²/2 · (1/P + 1/Q) numbers in
    panels, and n b/Q in diagonal tiles.

    Args:
        V: [in, out] lower tiles (n, n), float64 or float32; on exit the tiles of L.
        progress: told the finished part of the flops.
    Raises:
        NotPositiveDefiniteError: on every rank, with the order of the failing leading minor.
    References: LAPACK dpotrf; SLATE src/potrf.cc.
    """
    T = V.layout.num_tiles
    pivots, (panel, coming) = Pivots(V), two_panels(V, rows_too=False)
    overlap(_make_panel(V, pivots, panel, 0), [], V.grid.counters, V.on_accelerator)
    for k in range(T - 1):
        # A[j:, j] −= L[j:, k] · L[j, k]ᵀ  for each block column j > k, the next one first
        _update(V, panel, k + 1).run_(V.grid.counters)
        remaining = [_update(V, panel, j) for j in range(k + 2, T) if j in V.slabs]
        overlap(_make_panel(V, pivots, coming, k + 1), remaining, V.grid.counters, V.on_accelerator)
        panel.release()
        panel, coming = coming, panel
        progress(1 - (1 - (k + 1) / T) ** 3)
    progress(1.0)
    return CholeskyFactor(V, pivots.finish())


def _update(V: TiledSymmetric, panel: Panel, j: int) -> Update:
    """The update of block column j: empty where this rank has no tile of it."""
    if j not in V.slabs:
        nothing = V.empty(0, 0)
        return Update(nothing, nothing, nothing)
    return Update(V.slabs[j], panel.left(j, V.layout.num_tiles), panel.right(j))


def _make_panel(V: TiledSymmetric, pivots: Pivots, panel: Panel, k: int) -> Travelling:
    """Column k of L, in its place and on every rank that needs it. Collective; pauses where numbers travel."""
    yield from panel.arrange(k)
    # L[k, k] = chol(A[k, k]), and its inverse as the pivot
    if V.owns(k, k):
        L_kk = pivots.factor(k)
        V.tile(k, k).copy_(L_kk)
        panel.pivot.copy_(pivots.inverse_of_factor(L_kk))
    yield from panel.send_pivot(k)
    # L[k+1:, k] = A[k+1:, k] · L[k, k]⁻ᵀ
    below = panel.left(k + 1, V.layout.num_tiles)
    if k in V.slabs:
        multiply_upper_(V.below(k, k + 1), panel.pivot, below, V.grid.counters)
    yield from panel.send(k)
    if k in V.slabs:
        V.below(k, k + 1).copy_(below)
