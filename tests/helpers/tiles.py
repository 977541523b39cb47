"""Between dense symmetric matrices and tiles on a grid."""

from __future__ import annotations

import torch
from torch import Tensor

from openreml_dist.grid import ProcessGrid
from openreml_dist.layout import TileLayout
from openreml_dist.tiled import TiledSymmetric


def tiled(matrix: Tensor, grid: ProcessGrid, tile_size: int) -> TiledSymmetric:
    """The lower tiles of a dense matrix that every rank knows. Local."""
    V = TiledSymmetric(TileLayout(len(matrix), tile_size, grid.shape), grid, matrix.dtype)
    for i, j, tile in V.tiles():
        rows, columns = V.layout.span(i), V.layout.span(j)
        tile.copy_(matrix[rows.start : rows.stop, columns.start : columns.stop])
    return V


def gathered(V: TiledSymmetric) -> Tensor:
    """The dense lower triangle, zero above, on every rank. Collective."""
    matrix = torch.zeros(V.size, V.size, dtype=V.dtype)
    for i, j, tile in V.tiles():
        rows, columns = V.layout.span(i), V.layout.span(j)
        matrix[rows.start : rows.stop, columns.start : columns.stop] = tile
    return V.grid.sum_(matrix).tril()


def mirrored(lower: Tensor) -> Tensor:
    """The symmetric matrix of a lower triangle."""
    return lower + lower.tril(-1).mT


def positive_definite_matrix(n: int, seed: int, condition: float = 1e3) -> Tensor:
    """(n, n) with eigenvalues from 1 to ``condition``, evenly spaced on the log scale."""
    generator = torch.Generator().manual_seed(seed)
    Q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    eigenvalues = torch.logspace(0, torch.tensor(condition).log10().item(), n, dtype=torch.float64)
    matrix = (Q * eigenvalues) @ Q.mT
    return 0.5 * (matrix + matrix.mT)
