"""σ²V: a variance before a correlation structure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from openreml_dist.covariance.component import mean_diagonal
from openreml_dist.covariance.indices import Indices, Piece, Samples, Spans
from openreml_dist.covariance.operator import Joint, Operator, renamed, times_each
from openreml_dist.covariance.parameters import Parameter, Quantity
from openreml_dist.covariance.products import Work
from openreml_dist.covariance.term import Term


class Scaled(Operator):
    """σ²V: a variance before a correlation structure.

    Args:
        term: V.
        name: of the variance.
    """

    def __init__(self, term: Term, name: str) -> None:
        super().__init__(term)
        self.size = term.size
        self.is_sparse = term.is_sparse
        self.is_diagonal = term.is_diagonal
        self.is_sharded = term.is_sharded
        # by tiles, V and its derivatives are read in one pass: worth more than the product of a part of V
        self.has_product = term.is_sharded or (term.has_product and not term.is_stored)
        self.parameters = (Parameter.variance(name), *term.parameters)
        self.name = name

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """σ²V."""
        V = self.operands[0].entries(rows, columns, eta[1:], device)
        return None if V is None else V.double() * eta[0]

    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """V, then σ² times those of V."""
        slopes = self.operands[0].derivatives(rows, columns, eta[1:], device)
        return [self.operands[0].entries(rows, columns, eta[1:], device), *times_each(slopes, eta[0])]

    def pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[Piece]:
        """σ² times the pieces of V."""
        for piece in self.operands[0].pieces(spans, eta[1:], device):
            yield piece.with_values(piece.values.double() * eta[0])

    def joint_pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[Joint]:
        """σ² times the pieces of V."""
        for piece, slopes in self.operands[0].joint_pieces(spans, eta[1:], device):
            yield piece.with_values(piece.values.double() * eta[0]), [piece.values, *times_each(slopes, eta[0])]

    def scaled_pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> tuple[float, Iterator[Piece]]:
        """σ² and the pieces of V."""
        return float(eta[0]), self.operands[0].pieces(spans, eta[1:], device)

    def whole_diagonal(self, eta: Tensor, device: torch.device) -> Tensor | None:
        """σ² times that of V."""
        if float(eta[0]) == 0:
            return torch.zeros(self.size, dtype=torch.float64, device=device)
        diagonal = self.operands[0].whole_diagonal(eta[1:], device)
        return None if diagonal is None else float(eta[0]) * diagonal

    def add_times_(self, product: Tensor, B: Tensor, eta: Tensor, work: Work, factor: float = 1.0) -> None:
        """σ² times VB, as it suits V."""
        if self.has_product:
            self.operands[0].add_times_(product, B, eta[1:], work, float(eta[0]) * factor)
        else:
            super().add_times_(product, B, eta, work, factor)

    def add_derivatives_times_(
        self, products: Sequence[Tensor | None], B: Tensor, eta: Tensor, work: Work, factors: Sequence[float]
    ) -> None:
        """VB, then σ² times those of V, as it suits V."""
        if not self.has_product:
            super().add_derivatives_times_(products, B, eta, work, factors)
            return
        V, inner = self.operands[0], [factor * float(eta[0]) for factor in factors[1:]]
        if products[0] is not None:
            V.add_times_(products[0], B, eta[1:], work, factors[0])
        if any(product is not None for product in products[1:]):
            V.add_derivatives_times_(products[1:], B, eta[1:], work, inner)

    def start(self, squares: Tensor, proportion: float) -> Tensor:
        """σ² such that the mean of σ²V_ii is that of ``proportion`` times ``squares``, with V as a correlation."""
        V = self.operands[0]
        eta = V.start(torch.ones_like(squares), 1.0)
        return torch.cat([(proportion * squares.double().mean() / mean_diagonal(V, eta)).reshape(1), eta])

    def summary(self, eta: Tensor) -> dict[Quantity, Tensor]:
        """That of V."""
        return self.operands[0].summary(eta[1:])

    def selected(self, samples: Indices) -> Term:
        """σ² times V on the samples."""
        return renamed(Scaled(self.operands[0].selected(samples), self.name), self)
