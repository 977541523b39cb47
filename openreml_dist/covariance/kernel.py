"""A stored relationship matrix, such as a GRM, read by tiles from where it lies."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openreml_dist.covariance.term import VarianceComponent
from openreml_dist.errors import InputError


class KernelSource(Protocol):
    """Where the numbers come from: a store, or an array in memory."""

    def read(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.floating]:
        """K[rows][:, columns], (len(rows), len(columns)), reading no more than needed for it."""
        ...


class Kernel(VarianceComponent):
    """σ²K with K from a source, for the samples at ``index`` of the source.

    A rank reads a tile when it first needs it and keeps it, in host memory and in the precision of the source, while
    ``cache_bytes`` last; later passes read only the others.

    Args:
        source: reader of the stored matrix.
        index: (n,) row of the source for each analysed sample.
        name: name of the component.
        cache_bytes: host memory that this rank may spend on tiles.
    """

    def __init__(self, source: KernelSource, index: NDArray[np.int64], name: str = "genetic", cache_bytes: int = 0) -> None:
        super().__init__(name, len(index))
        self._source = source
        self._index = index
        self._room = cache_bytes
        self._cached: dict[tuple[range, range], Tensor] = {}

    @classmethod
    def from_array(cls, K: Tensor | NDArray[np.floating], name: str = "genetic") -> Kernel:
        """σ²K for a symmetric matrix (n, n) in memory; small n, since every rank that calls this holds K.

        Raises:
            InputError: if K is not square, not finite or not symmetric.
        """
        matrix = torch.as_tensor(K)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise InputError(f"kernel {name}: a square matrix is needed, not one of shape {tuple(matrix.shape)}")
        if not bool(torch.isfinite(matrix).all()):
            raise InputError(f"kernel {name}: the matrix has values that are not finite")
        if not torch.allclose(matrix, matrix.mT, rtol=1e-6, atol=1e-8):
            raise InputError(f"kernel {name}: the matrix is not symmetric")
        return cls(_Array(matrix), np.arange(matrix.shape[0]), name)

    def relationship(self, rows: range, columns: range, device: torch.device) -> Tensor | None:
        """K on ``rows`` x ``columns``."""
        tile = self._cached.get((rows, columns))
        if tile is None:
            tile = torch.as_tensor(
                self._source.read(self._index[rows.start : rows.stop], self._index[columns.start : columns.stop])
            )
            num_bytes = tile.numel() * tile.element_size()
            if num_bytes <= self._room:
                self._room -= num_bytes
                self._cached[rows, columns] = tile
        return tile.to(device)


class _Array:
    """A matrix in memory as a source; tiles of consecutive samples are views."""

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix

    def read(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.floating]:
        first_row, first_column = int(rows[0]), int(columns[0])
        tile = self._matrix[first_row : first_row + len(rows), first_column : first_column + len(columns)]
        return tile.detach().cpu().numpy()
