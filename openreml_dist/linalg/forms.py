"""Quadratic forms and the diagonal of a tiled symmetric matrix.

Legend: n rows; tile (i, j) of the lower triangle, i ≥ j, on one rank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openreml_dist.tiled import TiledSymmetric


def quadratic_forms(A: TiledSymmetric, B: Tensor) -> Tensor:
    """bᵀAb for every column b of a replicated B: half the flops of AB, and n times fewer numbers to send.

    Collective. Cost: n² m flops over all ranks; one sum of m numbers.

    Args:
        A: lower tiles (n, n), diagonal tiles full.
        B: (n, m), the same on every rank.
    Returns:
        (m,) in the precision of B, the same on every rank.
    """
    B = B.to(A.dtype)
    A.grid.counters.flops += sum(2 * slab.numel() for slab in A.slabs.values()) * B.shape[1]
    B_rows = B[A.rows.indices(B.device)]
    forms = torch.zeros(B.shape[1], dtype=torch.float64, device=B.device)
    for j, slab in A.slabs.items():
        span = A.layout.span(j)
        products = (slab @ B[span.start : span.stop]).mul_(B_rows[A.rows.start(j) :])
        forms += 2 * products.sum(dim=0, dtype=torch.float64)  # tiles below the diagonal, and their mirror images
        if A.owns(j, j):
            forms -= products[: A.layout.extent(j)].sum(dim=0, dtype=torch.float64)
    return A.grid.sum_(forms)


def diagonal(A: TiledSymmetric) -> Tensor:
    """A_ii (n,), the same on every rank. Collective: one sum of n numbers."""
    values = torch.zeros(A.size, dtype=A.dtype, device=A.device)
    for i, j, tile in A.tiles():
        if i == j:
            span = A.layout.span(i)
            values[span.start : span.stop] = tile.diagonal()
    return A.grid.sum_(values)
