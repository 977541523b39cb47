"""Inverse and log-determinant of a tiled symmetric positive definite matrix in one sweep.

Legend: n rows, T tiles a side, b rows a tile; P x Q ranks; k the pivot tile, A what V has become by then, U the panel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.grid import Progress, no_progress
from openreml_dist.linalg.panels import Panel
from openreml_dist.linalg.pivot import Pivots, inverse_of_triangle
from openreml_dist.tiled import TiledSymmetric


@dataclass(frozen=True)
class Inverse:
    """V⁻¹: its lower tiles, and log|V|."""

    tiles: TiledSymmetric
    log_determinant: float

    def __matmul__(self, B: Tensor) -> Tensor:
        """V⁻¹B for a replicated B (n, m), computed in the precision of the tiles. Collective."""
        return multiply(self.tiles, B.to(self.tiles.dtype)).to(B.dtype)


def sweep_inverse_(V: TiledSymmetric, progress: Progress = no_progress) -> Inverse:
    """Replace V by V⁻¹, tile by tile as pivot; statisticians know it as the sweep operator.

    Every step is one rank-b update of the whole triangle, so that the ranks are busy alike from the first step to the last.

    Collective: every rank of ``V.grid`` calls it. Cost: n³ flops; a rank receives at most n²(1/P + 1/Q) numbers in panels, and
    n b (1/P + 1/Q) in pivots.

    Args:
        V: [in, out] lower tiles (n, n), diagonal tiles full; on exit those of V⁻¹.
        progress: told the finished share of the flops.
    Raises:
        NotPositiveDefiniteError: on every rank, with the order of the failing leading minor.
    References: Bientinesi, Gunter & van de Geijn (2008), ACM TOMS 35(1):3, the one-sweep inversion; Goodnight (1979), The
        American Statistician 33:149, the sweep operator.
    """
    pivots, panel = Pivots(V), Panel(V)
    for k in range(V.layout.num_tiles):
        panel.resize(V.layout.extent(k))
        L_inv = _share_pivot(V, pivots, k)  # L⁻¹ with LLᵀ = A[k, k]
        _compute_panel(V, panel, L_inv, k)
        panel.share_before(k)
        panel.share_below(k)
        _update(V, panel, k)
        _write_pivot(V, panel, L_inv, k)
        progress((k + 1) / V.layout.num_tiles)
    return Inverse(V, pivots.finish())


def _share_pivot(V: TiledSymmetric, pivots: Pivots, k: int) -> Tensor:
    """L⁻¹ of the pivot on the ranks that hold tiles of row or column k; unset elsewhere. Collective."""
    grid, b = V.grid, V.layout.extent(k)
    row, column = k % grid.shape.rows, k % grid.shape.columns
    L_inv = inverse_of_triangle(pivots.factor(k)) if V.owns(k, k) else torch.empty(b, b, dtype=V.dtype, device=V.device)
    if grid.column == column:
        grid.broadcast_in_column_(L_inv, row)
    if grid.row == row:
        grid.broadcast_in_row_(L_inv, column)
    return L_inv


def _compute_panel(V: TiledSymmetric, panel: Panel, L_inv: Tensor, k: int) -> None:
    """The parts of the panel that this rank's tiles of row and column k give. Local."""
    # U[j] = (L⁻¹ A[k, j])ᵀ for j < k
    if V.grid.row == k % V.grid.shape.rows:
        for j in V.columns.tiles:
            if j < k:
                torch.mm(V.tile(k, j).mT, L_inv.mT, out=panel.right.tile(j))
    # U[i] = A[i, k] L⁻ᵀ for i > k
    if k in V.slabs:
        torch.mm(V.below(k, k + 1), L_inv.mT, out=panel.left.since(k + 1))


def _update(V: TiledSymmetric, panel: Panel, k: int) -> None:
    """A[i, j] −= s_i U[i] U[j]ᵀ for all i, j ≠ k, with s_i = −1 for i < k and +1 for i > k. Local."""
    panel.left.before(k).neg_()
    if k % V.grid.shape.rows == V.grid.row:
        panel.left.tile(k).zero_()  # row k is written afterwards
    for j, slab in V.slabs.items():
        if j != k:
            slab.addmm_(panel.left.since(j), panel.right.tile(j).mT, alpha=-1)


def _write_pivot(V: TiledSymmetric, panel: Panel, L_inv: Tensor, k: int) -> None:
    """Row and column k of the inverse so far. Local."""
    # A[k, j] = L⁻ᵀ U[j]ᵀ for j < k
    if V.grid.row == k % V.grid.shape.rows:
        for j in V.columns.tiles:
            if j < k:
                V.tile(k, j).copy_(L_inv.mT @ panel.right.tile(j).mT)
    # A[i, k] = −U[i] L⁻¹ for i > k
    if k in V.slabs:
        V.below(k, k + 1).copy_(panel.left.since(k + 1) @ L_inv).neg_()
    # A[k, k] = L⁻ᵀ L⁻¹
    if V.owns(k, k):
        V.tile(k, k).copy_(L_inv.mT @ L_inv)


def multiply(A: TiledSymmetric, B: Tensor) -> Tensor:
    """AB for a symmetric A in lower tiles and a replicated B, replicated.

    Collective. Cost: 2 n² m flops over all ranks; one sum of n m numbers.

    Args:
        A: lower tiles (n, n), diagonal tiles full.
        B: (n, m), the same on every rank.
    """
    mine = A.rows.indices(B.device)
    B_rows = B[mine]
    rows = torch.zeros_like(B_rows)  # Σ_j A[i, j] B[j] over this rank's tiles on and below the diagonal
    product = torch.zeros_like(B, memory_format=torch.contiguous_format)
    for j, slab in A.slabs.items():
        span = A.layout.span(j)
        rows[A.rows.start(j) :].addmm_(slab, B[span.start : span.stop])
        # the mirror images A[j, i] = A[i, j]ᵀ of the tiles below the diagonal
        product[span.start : span.stop].addmm_(A.below(j, j + 1).mT, B_rows[A.rows.start(j + 1) :])
    product.index_add_(0, mine, rows)
    return A.grid.sum_(product)
