"""Samples, tiles and pieces of tiles: how terms and those who use them say which numbers are meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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


def distinct(codes: Indices) -> tuple[Indices, Indices]:
    """First sample of each code, and which of these each sample repeats."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return first.astype(np.int64), inverse.astype(np.int64)


@dataclass(frozen=True)
class Piece:
    """Part of a tile: its numbers on ``rows`` x ``columns``, counted within the tile.

    Attributes:
        tile: number of the tile among those asked for.
        rows, columns: slices, or int64 indices.
        values: (rows, columns), or (rows,) for the diagonal of a tile that is diagonal.
        done: how much of the pass over this term is done with this piece.
    """

    tile: int
    rows: Index
    columns: Index
    values: Tensor
    done: float

    @property
    def is_diagonal(self) -> bool:
        """Whether ``values`` is the diagonal of a diagonal tile."""
        return self.values.ndim == 1

    def with_values(self, values: Tensor) -> Piece:
        """Other numbers in the same place."""
        return replace(self, values=values)


def same_sample(rows: Samples, columns: Samples, device: torch.device) -> Tensor | None:
    """1.0 where row and column are the same sample (rows, columns); None where none is. Decided on the host."""
    if isinstance(rows, range) and isinstance(columns, range):
        if rows.start >= columns.stop or columns.start >= rows.stop:
            return None
    elif np.intersect1d(as_indices(rows), as_indices(columns)).size == 0:
        return None
    here, there = (torch.from_numpy(as_indices(samples)).to(device) for samples in (rows, columns))
    return (here[:, None] == there[None, :]).double()
