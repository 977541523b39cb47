"""What a covariance term offers: tiles of itself and of its derivatives, never a matrix.

Legend: n samples; r parameters θ; a tile is given by the ranges of its rows and columns. A pass over many tiles takes them in
pieces, in whatever order suits the term: a stored matrix gives them chunk by chunk, so that none is decoded twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Spans = Sequence[tuple[range, range]]
"""Rows and columns of tiles; any two ranges are equal or disjoint."""

Index = slice | Tensor
EVERYTHING = slice(None)


def all_pairs(rows: Index, columns: Index) -> tuple[Index, Index]:
    """An index for every row with every column."""
    return (rows[:, None] if isinstance(rows, Tensor) and isinstance(columns, Tensor) else rows), columns


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


class Term(ABC):
    """One summand of V(θ).

    A tile that is zero is None, so that it costs nothing. All methods are local: they read or generate, and ask no other rank.
    """

    name: str
    size: int
    parameters: tuple[str, ...]
    lower_bounds: tuple[float, ...]  # of the parameters, when they are constrained

    @abstractmethod
    def tile(self, rows: range, columns: range, theta: Tensor, device: torch.device) -> Tensor | None:
        """The term at θ (len(parameters),) on ``rows`` x ``columns``."""

    @abstractmethod
    def dtile(self, k: int, rows: range, columns: range, theta: Tensor, device: torch.device) -> Tensor | None:
        """Its derivative by parameter k on ``rows`` x ``columns``."""

    def scaled_pieces(self, spans: Spans, theta: Tensor, device: torch.device) -> tuple[float, Iterator[Piece]]:
        """A factor and pieces whose product is the term at θ on all ``spans``."""
        tiles = (self.tile(rows, columns, theta, device) for rows, columns in spans)
        return 1.0, _whole_tiles(tiles, len(spans))

    def dpieces(self, k: int, spans: Spans, theta: Tensor, device: torch.device) -> Iterator[Piece]:
        """Pieces of the derivative by parameter k on all ``spans``."""
        return _whole_tiles((self.dtile(k, rows, columns, theta, device) for rows, columns in spans), len(spans))


class VarianceComponent(Term):
    """σ²K: one variance times a fixed relationship matrix K, which a subclass gives by tiles."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.parameters = (name,)
        self.lower_bounds = (0.0,)

    @abstractmethod
    def relationship(self, rows: range, columns: range, device: torch.device) -> Tensor | None:
        """K on ``rows`` x ``columns``, float32 or float64."""

    def tile(self, rows: range, columns: range, theta: Tensor, device: torch.device) -> Tensor | None:
        """σ²K on ``rows`` x ``columns``, float64."""
        K = self.relationship(rows, columns, device)
        return None if K is None else K.double() * float(theta[0])  # not in the precision of a float32 tile

    def dtile(self, k: int, rows: range, columns: range, theta: Tensor, device: torch.device) -> Tensor | None:  # noqa: ARG002
        """K on ``rows`` x ``columns``."""
        return self.relationship(rows, columns, device)

    def scaled_pieces(self, spans: Spans, theta: Tensor, device: torch.device) -> tuple[float, Iterator[Piece]]:
        """σ² and the pieces of K."""
        return float(theta[0]), self.dpieces(0, spans, theta, device)


def _whole_tiles(tiles: Iterator[Tensor | None], count: int) -> Iterator[Piece]:
    for number, values in enumerate(tiles):
        if values is not None:
            yield Piece(number, EVERYTHING, EVERYTHING, values, (number + 1) / count)
