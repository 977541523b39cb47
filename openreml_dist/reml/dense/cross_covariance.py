"""Covariances between effects and records, made or read in panels that the ranks share, and never held whole.

Legend: n records, m targets; C (m, n) a term between targets and records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.covariance import Term
from openreml_dist.covariance.indices import Indices
from openreml_dist.grid import ProcessGrid, Progress
from openreml_dist.linalg import quadratic_forms
from openreml_dist.tiled import TiledSymmetric

SMALLEST_BLOCK = 16  # columns of Cᵀ that every rank holds
LARGEST_PANEL = 2048  # targets read at once: as many as rows of a stored chunk, so that few chunks are read often
SQUARE = 256  # targets whose own variances are read from one square of the term


@dataclass(frozen=True)
class CrossCovariance:
    """C = term[targets, records] at η. A rank makes it for its share of the records.

    Attributes:
        term: on all samples.
        eta: its parameters, on the CPU.
        records: (n,) samples of the term.
        targets: (m,) samples of the term.
        grid: the ranks.
        tile_size: of the fit; the smaller the part of V on a rank, the narrower the blocks.
    """

    term: Term
    eta: Tensor
    records: Indices
    targets: Indices
    grid: ProcessGrid
    tile_size: int

    @property
    def block_width(self) -> int:
        """Columns of Cᵀ that every rank holds at a time. Local."""
        return max(SMALLEST_BLOCK, self.tile_size // max(self.grid.shape.rows, self.grid.shape.columns))

    @property
    def mine(self) -> slice:
        """The records of this rank. Local."""
        n, ranks = len(self.records), self.grid.shape.size
        return slice(n * self.grid.rank // ranks, n * (self.grid.rank + 1) // ranks)

    def times(self, B: Tensor, A: TiledSymmetric | None, progress: Progress) -> tuple[Tensor, Tensor]:
        """CB (m, q), and the diagonal of C A Cᵀ (m,), zeros without A.

        Collective. Cost: 2 n m q flops, and n² m with A; one sum of m q numbers, and sums of n m in all with A. A rank holds
        four blocks of n x ``block_width`` numbers, less than the panels of a factorisation.

        Args:
            B: (n, q), the same on every rank.
            A: lower tiles (n, n), or None.
            progress: told the finished part.
        """
        m, mine = len(self.targets), B[self.mine]
        products, forms = B.new_zeros(m, B.shape[1]), B.new_zeros(m)
        for panel in slices(m, min(LARGEST_PANEL, self.grid.shape.size * self.block_width)):
            part = self._rows(panel)
            if part is not None:
                products[panel] = part.mT @ mine
            if A is not None:
                forms[panel] = self._forms(part, A, panel.stop - panel.start)
            progress(panel.stop / m)
        return self.grid.sum_(products), forms

    def _rows(self, panel: slice) -> Tensor | None:
        """This rank's rows of Cᵀ for some targets, float64; None where they are zero. Collective."""
        with self.grid.together(f"reading {self.term.name}"):
            part = self.term.entries(self.records[self.mine], self.targets[panel], self.eta, self.grid.device)
        return None if part is None else part.double()

    def _forms(self, part: Tensor | None, A: TiledSymmetric, width: int) -> Tensor:
        """The diagonal of C A Cᵀ (width,) for one panel, whose blocks of Cᵀ are summed from the parts. Collective."""
        forms = torch.zeros(width, dtype=torch.float64, device=A.device)
        for block in slices(width, self.block_width):
            C_T = torch.zeros(A.size, block.stop - block.start, dtype=torch.float64, device=A.device)
            if part is not None:
                C_T[self.mine] = part[:, block]
            forms[block] = quadratic_forms(A, self.grid.sum_(C_T))
        return forms


def prior_variances(term: Term, eta: Tensor, targets: Indices, grid: ProcessGrid) -> Tensor:
    """The diagonal of a term at targets (m,), float64, from squares that the ranks share. Collective: one sum of m numbers."""
    values = torch.zeros(len(targets), dtype=torch.float64, device=grid.device)
    with grid.together(f"reading {term.name}"):
        for square in [*slices(len(targets), SQUARE)][grid.rank :: grid.shape.size]:
            entries = term.entries(targets[square], targets[square], eta, grid.device)
            if entries is not None:
                values[square] = entries.diagonal()
    return grid.sum_(values)


def slices(count: int, width: int) -> Iterator[slice]:
    """0 .. ``count`` − 1 in slices of at most ``width``."""
    for start in range(0, count, width):
        yield slice(start, min(start + width, count))
