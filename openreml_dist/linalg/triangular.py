"""Triangular solves with the tiles of a Cholesky factor and a few replicated right-hand sides.

Legend: L lower tiles (n, n), T a side, b rows a tile; B (n, m) replicated, m small; P x Q ranks.

Both go tile row by tile row, so that on many ranks their cost is latency: one message a tile along each direction of the grid
that has more than one rank. Whatever the next tile does not need is computed while a message travels. Right-hand sides are
held as rows, (m, n): BLAS multiplies few rows with a slab several times faster than a slab with few columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openreml_dist.tiled import TiledSymmetric


def solve_lower(L: TiledSymmetric, B: Tensor) -> Tensor:
    """Z = L⁻¹B by forward substitution, replicated.

    Collective. Cost: n² m flops over all ranks; a rank receives at most n m (2 + 1/Q) numbers in T (1 + 1/Q)
    messages and a sum; on a single grid column n m.

    Args:
        L: tiles of the factor.
        B: (n, m), the same on every rank.
    """
    grid, layout, T = L.grid, L.layout, L.layout.num_tiles
    Z = torch.zeros(B.shape[1], len(B), dtype=B.dtype, device=B.device)  # Zᵀ, the tiles of this grid column
    done = torch.zeros(B.shape[1], L.rows.length, dtype=B.dtype, device=B.device)  # this rank's share of Σ_{j<k} Z_jᵀ L_kjᵀ

    def update_(k: int, first: int, end: int) -> None:
        """Add Z[k]ᵀ L[i, k]ᵀ for the tile rows ``first`` ≤ i < ``end`` of this rank."""
        place = slice(L.rows.start(first), L.rows.start(end))
        if k in L.slabs and place.start < place.stop:
            L_ik = L.below(k, first)[: place.stop - place.start]
            done[:, place].addmm_(Z[:, _columns(L, k)], L_ik.mT)
            grid.counters.flops += 2 * L_ik.numel() * len(Z)

    for k in range(T):
        Z_k = _right_side(B, L, k)
        # Z[k] = L[k, k]⁻¹ (B[k] − Σ_{j<k} L[k, j] Z[j])
        if grid.row == k % grid.shape.rows:
            summed = done[:, L.rows.rows(k)].contiguous()
            grid.sum_in_row_to_(summed, column=k % grid.shape.columns).wait()
            if L.owns(k, k):
                Z_k = torch.linalg.solve_triangular(L.tile(k, k).mT, Z_k - summed, upper=True, left=False).contiguous()
                grid.counters.flops += layout.extent(k) * Z_k.numel()
        if grid.column == k % grid.shape.columns:
            transfer = grid.broadcast_in_column_(Z_k, row=k % grid.shape.rows)
        if k > 0:
            update_(k - 1, k + 1, T)
        if grid.column == k % grid.shape.columns:
            transfer.wait()
            Z[:, _columns(L, k)] = Z_k
            update_(k, k + 1, k + 2)
    return grid.sum_in_row_(Z).mT.contiguous()


def solve_lower_transposed(L: TiledSymmetric, Z: Tensor) -> Tensor:
    """L⁻ᵀZ by backward substitution, replicated.

    Collective. Cost: n² m flops over all ranks; a rank receives at most n m (2 + 1/P) numbers in T (1 + 1/P)
    messages and a sum; on a single grid row n m.

    Args:
        L: tiles of the factor.
        Z: (n, m), the same on every rank.
    """
    grid, layout, T = L.grid, L.layout, L.layout.num_tiles
    B = torch.zeros(Z.shape[1], L.rows.length, dtype=Z.dtype, device=Z.device)  # Bᵀ, the tiles of this grid row

    def add_(summed: Tensor, k: int, first: int, end: int) -> None:
        """Add B[i]ᵀ L[i, k] for the tile rows ``first`` ≤ i < ``end`` of this rank."""
        place = slice(L.rows.start(first), L.rows.start(end))
        if k in L.slabs and place.start < place.stop:
            L_ik = L.below(k, first)[: place.stop - place.start]
            summed.addmm_(B[:, place], L_ik)
            grid.counters.flops += 2 * L_ik.numel() * len(B)

    coming = _right_side(Z, L, T - 1).zero_()
    for k in reversed(range(T)):
        summed, B_k = coming, _right_side(Z, L, k)
        # B[k] = L[k, k]⁻ᵀ (Z[k] − Σ_{i>k} L[i, k]ᵀ B[i])
        if grid.column == k % grid.shape.columns:
            add_(summed, k, k + 1, k + 2)
            transfer = grid.sum_in_column_to_(summed, row=k % grid.shape.rows)
        if k > 0:
            coming = _right_side(Z, L, k - 1).zero_()
            add_(coming, k - 1, k + 1, T)
        if grid.column == k % grid.shape.columns:
            transfer.wait()
            if L.owns(k, k):
                B_k = torch.linalg.solve_triangular(L.tile(k, k), B_k - summed, upper=False, left=False).contiguous()
                grid.counters.flops += layout.extent(k) * B_k.numel()
        if grid.row == k % grid.shape.rows:
            grid.broadcast_in_row_(B_k, column=k % grid.shape.columns).wait()
            B[:, L.rows.rows(k)] = B_k
    whole = torch.zeros(Z.shape[1], len(Z), dtype=Z.dtype, device=Z.device)
    whole[:, L.rows.indices(Z.device)] = B
    return grid.sum_in_column_(whole).mT.contiguous()


def _columns(L: TiledSymmetric, k: int) -> slice:
    span = L.layout.span(k)
    return slice(span.start, span.stop)


def _right_side(B: Tensor, L: TiledSymmetric, k: int) -> Tensor:
    """B[k]ᵀ, a copy (m, rows of tile k)."""
    return B[_columns(L, k)].mT.clone(memory_format=torch.contiguous_format)
