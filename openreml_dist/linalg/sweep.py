"""Inverse and log-determinant of a tiled symmetric positive definite matrix in one sweep.

Legend: n rows, T tiles a side, b rows a tile; P x Q ranks; k the pivot tile, A what V has become by then, U the panel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.grid import Progress, no_progress
from openreml_dist.linalg.panels import Panel, two_panels
from openreml_dist.linalg.pivot import Pivots
from openreml_dist.linalg.updates import Travelling, Update, multiply_lower_, multiply_upper_, overlap
from openreml_dist.tiled import TiledSymmetric


@dataclass(frozen=True)
class Inverse:
    """V⁻¹: its lower tiles, and log|V|."""

    tiles: TiledSymmetric
    log_determinant: float

    def __matmul__(self, B: Tensor) -> Tensor:
        """V⁻¹B for a replicated B (n, m), computed in the precision of the tiles. Collective."""
        return multiply(self.tiles, B.to(self.tiles.dtype)).to(B.dtype)

    def quadratic(self, B: Tensor) -> Tensor:
        """BᵀV⁻¹B (m, m) for a replicated B (n, m). Collective."""
        return B.mT @ (self @ B)


def sweep_inverse_(V: TiledSymmetric, progress: Progress = no_progress) -> Inverse:
    """Replace V by V⁻¹, tile by tile as pivot; statisticians know it as the sweep operator.

    Every step is one rank-b update of the whole triangle, so that the ranks are busy alike from the first step to the last; the
    panel of step k + 1 is made and sent while that of step k is used.

    Collective: every rank of ``V.grid`` calls it. Cost: n³ flops; a rank receives at most n²(1/P + 1/Q) numbers in panels, and
    n b (1/P + 1/Q) in pivots.

    Args:
        V: [in, out] lower tiles (n, n), diagonal tiles full; on exit those of V⁻¹.
        progress: told the finished part of the flops.
    Raises:
        NotPositiveDefiniteError: on every rank, with the order of the failing leading minor.
    References: Bientinesi, Gunter & van de Geijn (2008), ACM TOMS 35(1):3, the one-sweep inversion; Goodnight (1979), The
        American Statistician 33:149, the sweep operator.
    """
    T = V.layout.num_tiles
    pivots, (panel, coming) = Pivots(V), two_panels(V, rows_too=True)
    overlap(_make_panel(V, pivots, panel, 0), [], V.grid.counters, V.on_accelerator)
    for k in range(T):
        _write_pivot(V, panel, k)
        if k + 1 < T:
            for update in _updates_of_next_pivot(V, panel, k):
                update.run_(V.grid.counters)
        next_panel = _make_panel(V, pivots, coming, k + 1) if k + 1 < T else iter(())
        overlap(next_panel, list(_remaining_updates(V, panel, k)), V.grid.counters, V.on_accelerator)
        panel.release()
        panel, coming = coming, panel
        progress((k + 1) / T)
    return Inverse(V, pivots.finish())


def _make_panel(V: TiledSymmetric, pivots: Pivots, panel: Panel, k: int) -> Travelling:
    """The panel of pivot k, on every rank that needs it. Collective; pauses where numbers travel."""
    yield from panel.arrange(k)
    # L⁻¹ with LLᵀ = A[k, k], on the ranks that hold tiles of row or column k
    if V.owns(k, k):
        panel.pivot.copy_(pivots.inverse_of_factor(pivots.factor(k)))
    yield from panel.send_pivot(k)
    # U[j] = (L⁻¹ A[k, j])ᵀ for j < k
    if V.grid.row == k % V.grid.shape.rows:
        for j in V.columns.tiles:
            if j < k:
                multiply_upper_(V.tile(k, j).mT, panel.pivot, panel.right(j), V.grid.counters)
    # U[i] = A[i, k] L⁻ᵀ for i > k
    if k in V.slabs:
        multiply_upper_(V.below(k, k + 1), panel.pivot, panel.left(k + 1, V.layout.num_tiles), V.grid.counters)
    yield from panel.send(k)


def _updates_of_next_pivot(V: TiledSymmetric, panel: Panel, k: int) -> Iterator[Update]:
    """A[i, j] −= s_i U[i] U[j]ᵀ where i or j is k + 1; A[k + 1, k] is written with the pivot. Local."""
    T = V.layout.num_tiles
    if k + 1 in V.slabs:
        yield Update(V.slabs[k + 1], panel.left(k + 1, T), panel.right(k + 1))
    if V.grid.row == (k + 1) % V.grid.shape.rows:
        for j in V.columns.tiles:
            if j < k:
                yield Update(V.tile(k + 1, j), panel.left(k + 1, k + 2), panel.right(j))


def _remaining_updates(V: TiledSymmetric, panel: Panel, k: int) -> Iterator[Update]:
    """A[i, j] −= s_i U[i] U[j]ᵀ for all other i, j ≠ k, with s_i = −1 for i < k and +1 for i > k. Local."""
    T = V.layout.num_tiles
    for j, slab in V.slabs.items():
        if j < k:
            top = V.rows.start(k) - V.rows.start(j)
            yield Update(slab[:top], panel.left(j, k), panel.right(j), sign=-1)
            yield Update(V.below(j, k + 2), panel.left(k + 2, T), panel.right(j))
        elif j > k + 1:
            yield Update(slab, panel.left(j, T), panel.right(j))


def _write_pivot(V: TiledSymmetric, panel: Panel, k: int) -> None:
    """Row and column k of the inverse so far. Local."""
    L_inv = panel.pivot
    # A[k, j] = L⁻ᵀ U[j]ᵀ for j < k
    if V.grid.row == k % V.grid.shape.rows:
        for j in V.columns.tiles:
            if j < k:
                multiply_lower_(panel.right(j), L_inv, V.tile(k, j).mT, V.grid.counters)
    # A[i, k] = −U[i] L⁻¹ for i > k
    if k in V.slabs:
        multiply_lower_(panel.left(k + 1, V.layout.num_tiles), L_inv, V.below(k, k + 1), V.grid.counters).neg_()
    # A[k, k] = L⁻ᵀ L⁻¹
    if V.owns(k, k):
        multiply_lower_(L_inv.mT, L_inv, V.tile(k, k), V.grid.counters)


def multiply(A: TiledSymmetric, B: Tensor) -> Tensor:
    """AB for a symmetric A in lower tiles and a replicated B, replicated.

    Collective. Cost: 2 n² m flops over all ranks; one sum of n m numbers.

    Args:
        A: lower tiles (n, n), diagonal tiles full.
        B: (n, m), the same on every rank.
    """
    A.grid.counters.flops += sum(2 * (slab.numel() + A.below(j, j + 1).numel()) for j, slab in A.slabs.items()) * B.shape[1]
    mine = A.rows.indices(B.device)
    B_T = B.mT.contiguous()  # BLAS multiplies few rows with a slab several times faster than a slab with few columns
    B_rows = B_T[:, mine]
    rows = torch.zeros_like(B_rows)  # Σ_j A[i, j] B[j] over this rank's tiles on and below the diagonal
    product = torch.zeros_like(B_T)
    for j, slab in A.slabs.items():
        span = slice(A.layout.span(j).start, A.layout.span(j).stop)
        rows[:, A.rows.start(j) :].addmm_(B_T[:, span], slab.mT)
        # the mirror images A[j, i] = A[i, j]ᵀ of the tiles below the diagonal
        product[:, span].addmm_(B_rows[:, A.rows.start(j + 1) :], A.below(j, j + 1))
    product.index_add_(1, mine, rows)
    del B_T, B_rows, rows
    return A.grid.sum_(product).mT.contiguous()
