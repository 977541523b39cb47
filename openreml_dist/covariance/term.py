"""What a covariance term offers: tiles of itself and of its derivatives, never a matrix.

Legend: n samples; m parameters η; a tile is given by the samples of its rows and columns. A pass over many tiles takes them in
pieces, in whatever order suits the term: a stored matrix gives them chunk by chunk, so that none is decoded twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openreml_dist.compat.dense_view import DenseView
from openreml_dist.covariance.parameters import Parameter, ParameterMap, Quantity

Indices = NDArray[np.int64]
Samples = range | Indices
"""Rows or columns of a tile: a range, or any samples in any order."""

Spans = Sequence[tuple[range, range]]
"""Rows and columns of tiles; any two ranges are equal or disjoint."""

Index = slice | Tensor
EVERYTHING = slice(None)


def as_indices(samples: Samples) -> Indices:
    """The samples as an array (count,)."""
    return np.arange(samples.start, samples.stop) if isinstance(samples, range) else samples


Number = TypeVar("Number", bound=np.generic)


def take(values: NDArray[Number], samples: Samples) -> NDArray[Number]:
    """``values[samples]``, a view for a range."""
    return values[samples.start : samples.stop] if isinstance(samples, range) else values[samples]


def all_pairs(rows: Index, columns: Index) -> tuple[Index, Index]:
    """An index for every row with every column."""
    return (rows[:, None] if isinstance(rows, Tensor) and isinstance(columns, Tensor) else rows), columns


def samples_at(index: Index, span: range) -> Samples:
    """The samples at an index within a tile."""
    return span[index] if isinstance(index, slice) else index.numpy() + span.start


@dataclass(frozen=True)
class Piece:
    """Part of a tile: its numbers on ``rows`` x ``columns``, counted within the tile.

    Attributes:
        tile: number of the tile among those asked for.
        rows, columns: slices, or int64 indices.
        values: (rows, columns), or (rows,) for the diagonal of a tile that is diagonal.
        share: how much of the pass over this term is done with this piece.
    """

    tile: int
    rows: Index
    columns: Index
    values: Tensor
    share: float

    @property
    def is_diagonal(self) -> bool:
        """Whether ``values`` is the diagonal of a diagonal tile."""
        return self.values.ndim == 1

    def with_values(self, values: Tensor) -> Piece:
        """Other numbers in the same place."""
        return replace(self, values=values)


class Term(DenseView, ABC):
    """A symmetric n x n matrix V(η), known by its entries.

    Whoever writes one gives ``entries``, and ``derivatives`` where they are known; all else follows. A tile that is zero is
    None, so that it costs nothing. All methods are local: they read or generate, and ask no other rank.

    Attributes:
        name: in messages.
        size: n.
        parameters: m of them.
        is_stored: entries are read, or otherwise cost less in a pass than tile by tile: a product with it is taken in the
            order of its pieces.
        is_sparse: most tiles are zero: a product asks it before factors whose entries would be of no use.
    """

    name: str
    size: int
    parameters: tuple[Parameter, ...] = ()
    is_stored: bool = False
    is_sparse: bool = False

    @abstractmethod
    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """V(η) on ``rows`` x ``columns``, float64 (float32 where it is stored so); differentiable in η (m,)."""

    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """∂V/∂η_k on ``rows`` x ``columns`` for every k; by default by forward-mode differentiation of ``entries``."""
        if not self.parameters:
            return []
        if self.entries(rows, columns, eta, device) is None:
            return [None] * len(self.parameters)

        def at(point: Tensor) -> Tensor:
            values = self.entries(rows, columns, point, device)
            assert values is not None
            return values

        return forward_derivatives(at, eta.to(device))

    def start(self, squares: Tensor, share: float) -> Tensor:
        """η (m,) from which to begin: the diagonal of V is about ``share`` times ``squares``.

        Args:
            squares: (n,) squared residuals of y on X, on the CPU; ones in a product whose scale is another factor's.
            share: of the phenotypic variance.
        """
        return torch.tensor([_start_of(parameter, share * float(squares.mean())) for parameter in self.parameters]).double()

    def summary(self, eta: Tensor) -> dict[Quantity, Tensor]:
        """What a reader wants to see beside η, by name, differentiable in η (m,): correlations, variances of a factorised G."""
        return {}

    def selected(self, samples: Indices) -> Term:
        """The term on ``samples`` of it, in any order, repeated or not: ZVZᵀ with a one-hot Z."""
        from openreml_dist.covariance.selected import Selected

        return Selected(self, samples)

    @property
    def _map(self) -> ParameterMap:
        return ParameterMap.of(self.parameters)

    # Tiles, one by one and in passes.

    def tile(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """V(η) on ``rows`` x ``columns``."""
        return self.entries(rows, columns, eta, device)

    def dtile(self, k: int, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """∂V/∂η_k on ``rows`` x ``columns``."""
        return self.derivatives(rows, columns, eta, device)[k]

    def pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[Piece]:
        """Pieces of V(η) on all ``spans``."""
        for number, (rows, columns) in enumerate(spans):
            values = self.entries(rows, columns, eta, device)
            if values is not None:
                yield Piece(number, EVERYTHING, EVERYTHING, values, (number + 1) / len(spans))

    def joint_pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[tuple[Piece, Sequence[Tensor | None]]]:
        """Pieces of V(η), each with ∂V/∂η_k in the same place for every k, in one pass over what is stored."""
        if not self.parameters:
            yield from ((piece, []) for piece in self.pieces(spans, eta, device))
            return
        for number, (rows, columns) in enumerate(spans):
            values = self.entries(rows, columns, eta, device)
            if values is not None:
                piece = Piece(number, EVERYTHING, EVERYTHING, values, (number + 1) / len(spans))
                yield piece, self.derivatives(rows, columns, eta, device)

    def dpieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[tuple[int, Piece]]:
        """(k, piece of ∂V/∂η_k) on all ``spans`` for all k, in one pass over what is stored."""
        for piece, derivatives in self.joint_pieces(spans, eta, device):
            for k, values in enumerate(derivatives):
                if values is not None:
                    yield k, piece.with_values(values)

    def scaled_pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> tuple[float, Iterator[Piece]]:
        """A factor and pieces whose product is V(η) on all ``spans``."""
        return 1.0, self.pieces(spans, eta, device)


class DiagonalTerm(Term):
    """A term whose V is diagonal, given by its diagonal: O(n) in all."""

    is_sparse = True

    @abstractmethod
    def diagonal(self, samples: Samples, eta: Tensor, device: torch.device) -> Tensor:
        """V_ii for the samples (count,)."""

    @abstractmethod
    def diagonal_derivatives(self, samples: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor]:
        """∂V_ii/∂η_k for the samples (count,), for every k."""

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """V_ii where row and column are the same sample; None where none is."""
        same = same_sample(rows, columns, device)
        return None if same is None else same * self.diagonal(rows, eta, device)[:, None]

    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """∂V_ii/∂η_k where row and column are the same sample."""
        same = same_sample(rows, columns, device)
        if same is None:
            return [None] * len(self.parameters)
        return [same * values[:, None] for values in self.diagonal_derivatives(rows, eta, device)]

    def pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[Piece]:
        """The diagonals alone."""
        for number, (rows, columns) in enumerate(spans):
            if rows == columns:
                yield Piece(number, EVERYTHING, EVERYTHING, self.diagonal(rows, eta, device), (number + 1) / len(spans))

    def joint_pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[tuple[Piece, Sequence[Tensor | None]]]:
        """The diagonals alone."""
        for piece in self.pieces(spans, eta, device):
            yield piece, self.diagonal_derivatives(spans[piece.tile][0], eta, device)

    def selected(self, samples: Indices) -> Term:
        """The term on ``samples`` of it; diagonal again where none comes twice."""
        from openreml_dist.covariance.selected import Selected, SelectedDiagonal

        return (SelectedDiagonal if len(np.unique(samples)) == len(samples) else Selected)(self, samples)


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

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """σ²K on ``rows`` x ``columns``, float64."""
        K = self.K.entries(rows, columns, eta[:0], device)
        return None if K is None else K.double() * eta[0]  # not in the precision of a float32 tile

    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """K on ``rows`` x ``columns``."""
        return [self.K.entries(rows, columns, eta[:0], device)]

    def start(self, squares: Tensor, share: float) -> Tensor:
        """σ² such that the mean of σ²K_ii is the mean of ``share`` times ``squares``."""
        return torch.tensor([share * float(squares.mean()) / mean_diagonal(self.K, NO_PARAMETERS)], dtype=torch.float64)

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


NO_PARAMETERS = torch.zeros(0, dtype=torch.float64)
MEAN_OF = 64  # first samples whose mean diagonal stands for that of all: a stored K is read in one place


def mean_diagonal(term: Term, eta: Tensor) -> float:
    """The mean of V_ii over the first samples; 1 where it is zero."""
    few = range(min(MEAN_OF, term.size))
    V = term.entries(few, few, eta, torch.device("cpu"))
    return 1.0 if V is None else float(V.diagonal().double().mean()) or 1.0


def same_sample(rows: Samples, columns: Samples, device: torch.device) -> Tensor | None:
    """1.0 where row and column are the same sample (rows, columns); None where none is. Decided on the host."""
    if isinstance(rows, range) and isinstance(columns, range):
        if rows.start >= columns.stop or columns.start >= rows.stop:
            return None
    elif np.intersect1d(as_indices(rows), as_indices(columns)).size == 0:
        return None
    here, there = (torch.from_numpy(as_indices(samples)).to(device) for samples in (rows, columns))
    return (here[:, None] == there[None, :]).double()


def forward_derivatives(function: Callable[[Tensor], Tensor], point: Tensor) -> list[Tensor]:
    """∂f/∂x_k for every k, by one forward-mode pass each: r is small, the tile is large."""
    derivatives: list[Tensor] = []
    for tangent in torch.eye(len(point), dtype=point.dtype, device=point.device):
        derivatives.append(torch.func.jvp(function, (point,), (tangent,))[1])
    return derivatives


def _start_of(parameter: Parameter, variance: float) -> float:
    """A value well inside the bounds."""
    if parameter.unit == "variance":
        return variance
    low, high = max(parameter.lower, -1.0), min(parameter.upper, 1.0)
    return 0.5 * (low + high) + 0.15 * (high - low)
