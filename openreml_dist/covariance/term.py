"""What a covariance term offers: tiles of itself and of its derivatives, never a matrix.

Legend: n samples; m parameters η; a tile is given by the samples of its rows and columns. A pass over many tiles takes them in
pieces, in whatever order suits the term: a stored matrix gives them chunk by chunk, so that none is decoded twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from openreml_dist.compat.dense_view import DenseView
from openreml_dist.covariance.checks import samples_of
from openreml_dist.covariance.indices import EVERYTHING, Indices, Piece, Samples, Spans, distinct, same_sample, take
from openreml_dist.covariance.parameters import Parameter, ParameterMap, Quantity
from openreml_dist.covariance.products import Work, add_piece_

Spread = Callable[[Tensor], Tensor]


class Term(DenseView, ABC):
    """A symmetric n x n matrix V(η), known by its entries.

    Whoever writes one gives ``entries``, and ``derivatives`` where they are known; all else follows. A tile that is zero is
    None, so that it costs nothing. All methods are local: they read or generate, and ask no other rank. Only the two products
    ``add_times_`` and ``add_derivatives_times_`` may communicate, of a term that says so (``is_sharded``).

    Attributes:
        name: in messages.
        size: n.
        parameters: m of them.
        is_stored: entries are read, or otherwise cost less in a pass than tile by tile: a product with it is taken in the
            order of its pieces.
        is_sparse: most tiles are zero: a product asks it before factors whose entries would be of no use.
        is_diagonal: V is known to be diagonal.
        is_identity: V is I, without parameters.
        is_kernel: one variance times a relationship matrix that is stored or made of features.
        has_product: products with block vectors have a cheaper way than tiles.
        is_sharded: ranks hold different data, and a product communicates: every rank calls it, outside of ``grid.together``,
            and it makes a failure of one that of all.
    """

    name: str
    size: int
    parameters: tuple[Parameter, ...] = ()
    is_stored: bool = False
    is_sparse: bool = False
    is_diagonal: bool = False
    is_identity: bool = False
    is_kernel: bool = False
    has_product: bool = False
    is_sharded: bool = False

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

    def start(self, squares: Tensor, proportion: float) -> Tensor:
        """η (m,) from which to begin: the diagonal of V is about ``proportion`` times ``squares``.

        Args:
            squares: (n,) squared residuals of y on X, on the CPU; ones in a product whose scale is another factor's.
            proportion: of the phenotypic variance.
        """
        return torch.tensor(
            [_start_of(parameter, proportion * float(squares.mean())) for parameter in self.parameters]
        ).double()

    def summary(self, eta: Tensor) -> dict[Quantity, Tensor]:
        """What a reader wants to see beside η, by name, differentiable in η (m,): correlations, variances of a factorised G."""
        return {}

    def selected(self, samples: Indices) -> Term:
        """The term on ``samples`` of it, in any order, repeated or not: ZVZᵀ with a one-hot Z."""
        return Selected(self, samples)

    @property
    def _map(self) -> ParameterMap:
        return ParameterMap.of(self.parameters)

    # What spares work, where it is known.

    @property
    def distinct_rows(self) -> tuple[Indices, Indices] | None:
        """Samples whose rows are all that there are, and which of them each sample repeats; None if unknown."""
        return None

    @property
    def groups(self) -> Indices | None:
        """(n,) first sample of each sample's level where V is ZZᵀ of a factor, perhaps times one variance; None for others."""
        return None

    def whole_diagonal(self, eta: Tensor, device: torch.device) -> Tensor | None:
        """The diagonal (n,) of V(η) where V has nothing beside it, zeros for a variance of zero; None for all others."""
        return None

    # Products with block vectors: each rank adds its part, and the caller sums over ranks once for all terms.

    def add_times_(self, product: Tensor, B: Tensor, eta: Tensor, work: Work, factor: float = 1.0) -> None:
        """Add this rank's part of ``factor`` V(η)B; by default from its tiles.

        Args:
            product: (n, m) [in, out], in the precision of B.
            B: (n, m), the same on every rank.
            eta: (m,) of the term, on the CPU.
            work: which part is this rank's.
            factor: of the product.
        """
        own, pieces = self.scaled_pieces(work.spans, eta, work.device)
        for piece in pieces:
            add_piece_(product, piece, work.spans[piece.tile], B, own * factor)
            work.progress(piece.done)

    def add_derivatives_times_(
        self, products: Sequence[Tensor | None], B: Tensor, eta: Tensor, work: Work, factors: Sequence[float]
    ) -> None:
        """Add this rank's part of ``factors[k]`` ∂V/∂η_k B for every k; by default from its tiles, in one pass.

        Args:
            products: (n, m) each [in, out]; None for a parameter that is not asked for, and one tensor more than once for
                parameters that are one θ.
            B, eta, work: as for ``add_times_``.
            factors: ∂η_k/∂θ.
        """
        for k, piece in self.dpieces(work.spans, eta, work.device):
            product = products[k]
            if product is not None:
                add_piece_(product, piece, work.spans[piece.tile], B, factors[k])
                work.progress(piece.done)

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
    """A term whose V is diagonal, given by its diagonal: O(n) in all, products included, whose pieces are diagonals."""

    is_sparse = True
    is_diagonal = True

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

    def whole_diagonal(self, eta: Tensor, device: torch.device) -> Tensor | None:
        """V_ii for every sample."""
        return self.diagonal(range(self.size), eta, device)

    def selected(self, samples: Indices) -> Term:
        """The term on ``samples`` of it; diagonal again where none comes twice."""
        return (SelectedDiagonal if len(np.unique(samples)) == len(samples) else Selected)(self, samples)


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

    @property
    def distinct_rows(self) -> tuple[Indices, Indices] | None:
        """One for each sample of V that is selected."""
        return distinct(self.index)

    def _distinct(self, rows: Samples, columns: Samples, device: torch.device) -> tuple[Indices, Indices, Spread]:
        """The samples of V in a tile, each once, and what makes the tile of their entries."""
        (few_rows, to_rows), (few_columns, to_columns) = (
            np.unique(take(self.index, samples), return_inverse=True) for samples in (rows, columns)
        )
        here, there = (torch.from_numpy(places).to(device) for places in (to_rows, to_columns))

        def spread(values: Tensor) -> Tensor:
            return values.index_select(1, there).index_select(0, here)  # the few rows first: then whole rows are copied

        return few_rows, few_columns, spread

    def start(self, squares: Tensor, proportion: float) -> Tensor:
        """That of V, its squares the means over the samples that are one of V; the mean of all where none is."""
        index = torch.from_numpy(self.index)
        counts = torch.zeros(self.term.size, dtype=torch.float64).index_add_(0, index, torch.ones_like(squares))
        sums = torch.zeros_like(counts).index_add_(0, index, squares)
        return self.term.start(torch.where(counts > 0, sums / counts.clamp_min(1), squares.mean()), proportion)

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

    def start(self, squares: Tensor, proportion: float) -> Tensor:
        """As for any selection."""
        return Selected(self.term, self.index).start(squares, proportion)


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
