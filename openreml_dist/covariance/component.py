"""σ²K: one variance times a fixed matrix, the term of which most models are made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from openreml_dist.covariance.indices import Indices, Piece, Samples, Spans
from openreml_dist.covariance.parameters import Parameter
from openreml_dist.covariance.products import Work
from openreml_dist.covariance.term import Term

NO_PARAMETERS = torch.zeros(0, dtype=torch.float64)
MEAN_OF = 64  # first samples whose mean diagonal stands for that of all: a stored K is read in one place


class VarianceComponent(Term):
    """σ²K: one variance times a matrix K without parameters.

    Args:
        K: the matrix, by its entries.
        name: of the component and of its variance.
    """

    def __init__(self, K: Term, name: str) -> None:
        assert not K.parameters, f"{name}: K has parameters; use Scaled"
        self.K = K
        self.name = name
        self.size = K.size
        self.parameters = (Parameter.variance(name),)
        self.is_stored = K.is_stored
        self.is_sparse = K.is_sparse
        self.is_diagonal = K.is_diagonal
        self.has_product = K.has_product
        self.is_sharded = K.is_sharded

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """σ²K on ``rows`` x ``columns``, float64."""
        K = self.K.entries(rows, columns, eta[:0], device)
        return None if K is None else K.double() * eta[0]  # not in the precision of a float32 tile

    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """K on ``rows`` x ``columns``."""
        return [self.K.entries(rows, columns, eta[:0], device)]

    def start(self, squares: Tensor, proportion: float) -> Tensor:
        """σ² such that the mean of σ²K_ii is the mean of ``proportion`` times ``squares``."""
        return torch.tensor([proportion * float(squares.mean()) / mean_diagonal(self.K, NO_PARAMETERS)], dtype=torch.float64)

    @property
    def distinct_rows(self) -> tuple[Indices, Indices] | None:
        """Those of K."""
        return self.K.distinct_rows

    @property
    def groups(self) -> Indices | None:
        """Those of K."""
        return self.K.groups

    def whole_diagonal(self, eta: Tensor, device: torch.device) -> Tensor | None:
        """σ² times that of K."""
        if float(eta[0]) == 0:
            return torch.zeros(self.size, dtype=torch.float64, device=device)
        diagonal = self.K.whole_diagonal(eta[1:], device)
        return None if diagonal is None else float(eta[0]) * diagonal

    def add_times_(self, product: Tensor, B: Tensor, eta: Tensor, work: Work, factor: float = 1.0) -> None:
        """σ² times KB, as it suits K."""
        self.K.add_times_(product, B, eta[:0], work, float(eta[0]) * factor)

    def add_derivatives_times_(
        self, products: Sequence[Tensor | None], B: Tensor, eta: Tensor, work: Work, factors: Sequence[float]
    ) -> None:
        """KB, as it suits K."""
        if products[0] is not None:
            self.K.add_times_(products[0], B, eta[:0], work, factors[0])

    def selected(self, samples: Indices) -> VarianceComponent:
        """σ² times K on ``samples`` of it."""
        component = VarianceComponent(self.K.selected(samples), self.name)
        component.parameters = self.parameters  # with their transform
        return component

    def pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[Piece]:
        """Pieces of σ²K."""
        for piece in self.K.pieces(spans, eta[:0], device):
            yield piece.with_values(piece.values.double() * eta[0])

    def joint_pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[tuple[Piece, Sequence[Tensor | None]]]:
        """Pieces of σ²K and of K."""
        for piece in self.K.pieces(spans, eta[:0], device):
            yield piece.with_values(piece.values.double() * eta[0]), [piece.values]

    def dpieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[tuple[int, Piece]]:
        """Pieces of K."""
        for piece in self.K.pieces(spans, eta[:0], device):
            yield 0, piece

    def scaled_pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> tuple[float, Iterator[Piece]]:
        """σ² and the pieces of K."""
        return float(eta[0]), self.K.pieces(spans, eta[:0], device)


def mean_diagonal(term: Term, eta: Tensor) -> float:
    """The mean of V_ii over the first samples; 1 where it is zero."""
    few = range(min(MEAN_OF, term.size))
    V = term.entries(few, few, eta, torch.device("cpu"))
    return 1.0 if V is None else float(V.diagonal().double().mean()) or 1.0
