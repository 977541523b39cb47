"""A term on some samples of it: repeated records, one factor of a Kronecker product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from openreml_dist.covariance.checks import samples_of
from openreml_dist.covariance.parameters import Quantity
from openreml_dist.covariance.term import DiagonalTerm, Indices, Samples, Term, take


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

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """V at the selected samples."""
        return self.term.entries(take(self.index, rows), take(self.index, columns), eta, device)

    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """∂V/∂η_k at the selected samples."""
        return self.term.derivatives(take(self.index, rows), take(self.index, columns), eta, device)

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
