"""Triangular solves with the tiles of a Cholesky factor and a few replicated right-hand sides.

Legend: L lower tiles (n, n); B (n, m) replicated, m small; both solves are by tile rows, so their cost is latency: two small
collectives a tile.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openreml_dist.tiled import TiledSymmetric


def solve_lower(L: TiledSymmetric, B: Tensor) -> Tensor:
    """Z = L⁻¹B by forward substitution, replicated.

    Collective. Cost: n² m flops over all ranks; a rank receives at most 2 n m numbers in 2 T messages.

    Args:
        L: tiles of the factor.
        B: (n, m), the same on every rank.
    """
    grid, layout = L.grid, L.layout
    Z = B.clone(memory_format=torch.contiguous_format)
    done = torch.zeros(L.rows.length, B.shape[1], dtype=B.dtype, device=B.device)  # this rank's share of Σ_{j<k} L_kj Z_j
    for k in range(layout.num_tiles):
        Z_k = Z[layout.span(k).start : layout.span(k).stop]
        # Z[k] = L[k, k]⁻¹ (B[k] − Σ_{j<k} L[k, j] Z[j])
        if grid.row == k % grid.shape.rows:
            summed = grid.sum_in_row_(done[L.rows.rows(k)])
            if L.owns(k, k):
                Z_k.copy_(torch.linalg.solve_triangular(L.tile(k, k), Z_k - summed, upper=False))
                grid.counters.flops += len(Z_k) * Z_k.numel()
        grid.broadcast_(Z_k, layout.owner(k, k))
        if k in L.slabs:
            done[L.rows.start(k + 1) :].addmm_(L.below(k, k + 1), Z_k)
            grid.counters.flops += 2 * L.below(k, k + 1).numel() * B.shape[1]
    return Z


def solve_lower_transposed(L: TiledSymmetric, Z: Tensor) -> Tensor:
    """L⁻ᵀZ by backward substitution, replicated.

    Collective. Cost: n² m flops over all ranks; a rank receives at most 2 n m numbers in 2 T messages.

    Args:
        L: tiles of the factor.
        Z: (n, m), the same on every rank.
    """
    grid, layout = L.grid, L.layout
    B = Z.clone(memory_format=torch.contiguous_format)
    mine = L.rows.indices(B.device)
    for k in reversed(range(layout.num_tiles)):
        B_k = B[layout.span(k).start : layout.span(k).stop]
        # B[k] = L[k, k]⁻ᵀ (Z[k] − Σ_{i>k} L[i, k]ᵀ B[i])
        if grid.column == k % grid.shape.columns:
            summed = torch.zeros_like(B_k)
            if k in L.slabs:
                summed.addmm_(L.below(k, k + 1).mT, B[mine[L.rows.start(k + 1) :]])
                grid.counters.flops += 2 * L.below(k, k + 1).numel() * B.shape[1]
            grid.sum_in_column_(summed)
            if L.owns(k, k):
                B_k.copy_(torch.linalg.solve_triangular(L.tile(k, k).mT, B_k - summed, upper=True))
                grid.counters.flops += len(B_k) * B_k.numel()
        grid.broadcast_(B_k, layout.owner(k, k))
    return B
