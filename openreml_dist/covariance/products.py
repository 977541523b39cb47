"""One rank's part of a product with block vectors: what work is its own, and what a piece of a tile adds.

Legend: n samples; B (n, m) block vectors, the same on every rank. A product is the sum over ranks of what each of them adds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from openreml_dist.covariance.indices import Index, Piece, Spans
from openreml_dist.grid import ProcessGrid, Progress, no_progress


@dataclass(frozen=True)
class Work:
    """What is this rank's own in a product with a term.

    Attributes:
        grid: the ranks.
        spans: tiles of the lower triangle that are this rank's.
        progress: told the proportion of the term that is done.
    """

    grid: ProcessGrid
    spans: Spans
    progress: Progress = no_progress

    @property
    def device(self) -> torch.device:
        """Where tiles are made."""
        return self.grid.device

    def part_of(self, count: int) -> range:
        """This rank's of ``count`` samples or features: consecutive, as many as any other has to within one."""
        rank, ranks = self.grid.rank, self.grid.shape.size
        return range(rank * count // ranks, (rank + 1) * count // ranks)

    def operand(self, number: int, count: int) -> Work:
        """The same work, for one of ``count`` terms that are multiplied one after the other."""
        return replace(self, progress=lambda done: self.progress((number + done) / count))


def add_piece_(product: Tensor, piece: Piece, span: tuple[range, range], B: Tensor, factor: float) -> None:
    """Add what ``factor`` times a piece of a symmetric matrix, and its mirror image, contribute to the matrix times B."""
    rows, columns = positions(piece, span)
    values = times_factor(piece.values.to(B.dtype), factor)
    if piece.is_diagonal:
        product[rows] += values[:, None] * B[rows]
        return
    product[rows] += values @ B[columns]
    if span[0] != span[1]:  # the mirror image above the diagonal
        product[columns] += values.mT @ B[rows]


def times_factor(values: Tensor, factor: float) -> Tensor:
    """``factor`` times ``values``; those themselves for 1."""
    return values if factor == 1 else values * factor


def positions(piece: Piece, span: tuple[range, range]) -> tuple[Index, Index]:
    """Rows and columns of the whole matrix."""
    return _shifted(piece.rows, span[0]), _shifted(piece.columns, span[1])


def _shifted(index: Index, span: range) -> Index:
    if isinstance(index, Tensor):
        return index + span.start
    within = span[index]
    return slice(within.start, within.stop)
