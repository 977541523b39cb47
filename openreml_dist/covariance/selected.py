"""A term on some samples of it: repeated records, one factor of a Kronecker product."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from openreml_dist.covariance.checks import samples_of
from openreml_dist.covariance.parameters import Quantity
from openreml_dist.covariance.term import DiagonalTerm, Indices, Samples, Term, take

Spread = Callable[[Tensor], Tensor]


class Selected(Term):
    """ZVZᵀ with a one-hot Z: entry (i, j) is V at (index i, index j), asked for tile by tile.

    Args:
        term: V (m, m).
        index: (n,) sample of V for each sample of this term.
    """

    def __init__(self, term: Term, index: Indices) -> None:
        self.term = term
        self.index = samples_of(index, term.size, term.name)
        self.name = term.name
        self.size = len(self.index)
        self.parameters = term.parameters
        self.is_sparse = term.is_sparse

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """V at the selected samples."""
        few_rows, few_columns, spread = self._distinct(rows, columns, device)
        values = self.term.entries(few_rows, few_columns, eta, device)
        return None if values is None else spread(values)

    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """∂V/∂η_k at the selected samples."""
        few_rows, few_columns, spread = self._distinct(rows, columns, device)
        slopes = self.term.derivatives(few_rows, few_columns, eta, device)
        return [None if values is None else spread(values) for values in slopes]

    def _distinct(self, rows: Samples, columns: Samples, device: torch.device) -> tuple[Indices, Indices, Spread]:
        """The samples of V in a tile, each once, and what makes the tile of their entries."""
        (few_rows, to_rows), (few_columns, to_columns) = (
            np.unique(take(self.index, samples), return_inverse=True) for samples in (rows, columns)
        )
        here, there = (torch.from_numpy(places).to(device) for places in (to_rows, to_columns))

        def spread(values: Tensor) -> Tensor:
            return values.index_select(1, there).index_select(0, here)  # the few rows first: then whole rows are copied

        return few_rows, few_columns, spread

    def start(self, squares: Tensor, share: float) -> Tensor:
        """That of V, its squares the means over the samples that are one of V; the mean of all where none is."""
        index = torch.from_numpy(self.index)
        counts = torch.zeros(self.term.size, dtype=torch.float64).index_add_(0, index, torch.ones_like(squares))
        sums = torch.zeros_like(counts).index_add_(0, index, squares)
        return self.term.start(torch.where(counts > 0, sums / counts.clamp_min(1), squares.mean()), share)

    def summary(self, eta: Tensor) -> dict[Quantity, Tensor]:
        """That of V."""
        return self.term.summary(eta)

    def selected(self, samples: Indices) -> Term:
        """V at samples of the samples."""
        return self.term.selected(self.index[samples])


class SelectedDiagonal(DiagonalTerm):
    """A diagonal term on some samples of it, none of them twice, so that it stays diagonal.

    Args:
        term: diagonal, of size m.
        index: (n,) sample of it for each sample of this term, all different.
    """

    def __init__(self, term: DiagonalTerm, index: Indices) -> None:
        self.term = term
        self.index = samples_of(index, term.size, term.name)
        self.name = term.name
        self.size = len(self.index)
        self.parameters = term.parameters

    def diagonal(self, samples: Samples, eta: Tensor, device: torch.device) -> Tensor:
        """That of the term."""
        return self.term.diagonal(take(self.index, samples), eta, device)

    def diagonal_derivatives(self, samples: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor]:
        """Those of the term."""
        return self.term.diagonal_derivatives(take(self.index, samples), eta, device)

    def selected(self, samples: Indices) -> Term:
        """The term at samples of the samples."""
        return self.term.selected(self.index[samples])

    def start(self, squares: Tensor, share: float) -> Tensor:
        """As for any selection."""
        return Selected(self.term, self.index).start(squares, share)
