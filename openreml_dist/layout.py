"""Which rank owns which tile: the arithmetic of a block-cyclic lower triangle, without any process group.

Legend: n rows and columns, T tiles a side, P x Q ranks; tile (i, j) with i ≥ j belongs to the rank at (i mod P, j mod Q).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import ConfigError

CPU_TILE_SIZE = 192  # no power of two: rows 2,048 bytes apart share cache sets; a multiple of 48, as MKL likes; 5 to 20 %
GPU_TILE_SIZE = 1024
QUARTERS = (4, 3, 2)  # of these sizes may be taken for balance


@dataclass(frozen=True)
class GridShape:
    """P x Q process grid, ranks numbered row by row; on one host they may see the same panels instead of sending them."""

    rows: int
    columns: int
    shares_memory: bool = False

    def __post_init__(self) -> None:
        """Refuse an empty grid."""
        if self.rows < 1 or self.columns < 1:
            raise ConfigError(f"grid: {self.rows} x {self.columns} is not a process grid; both sides must be at least 1")

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self.rows * self.columns

    def coordinates(self, rank: int) -> tuple[int, int]:
        """Grid row and column of a rank."""
        return divmod(rank, self.columns)

    def rank(self, row: int, column: int) -> int:
        """Rank at a grid row and column."""
        return row * self.columns + column

    @staticmethod
    def choose(num_ranks: int, rows: int | None = None, columns: int | None = None) -> GridShape:
        """The requested grid, or one as square as ``num_ranks`` allows with rows ≥ columns.

        A panel is a block column: the more grid rows share it, the less the others wait for it.

        Raises:
            ConfigError: if rows x columns is not the number of ranks.
        """
        if rows is None and columns is None:
            rows = num_ranks // max(d for d in range(1, math.isqrt(num_ranks) + 1) if num_ranks % d == 0)
        if rows is None:
            rows = num_ranks // (columns or 1)
        if columns is None:
            columns = num_ranks // rows if rows > 0 else 0
        if rows * columns != num_ranks:
            raise ConfigError(
                f"grid: {rows} x {columns} needs {rows * columns} ranks, but {num_ranks} "
                f"{'was' if num_ranks == 1 else 'were'} started; set grid.rows and grid.columns to match, or leave both out"
            )
        return GridShape(rows, columns)


@dataclass(frozen=True)
class TileLayout:
    """Lower triangle of an n x n matrix in square tiles dealt to a process grid; the last tile is ragged.

    Local: pure arithmetic, any rank may ask about any other.
    """

    size: int
    tile_size: int
    grid: GridShape

    def __post_init__(self) -> None:
        """Refuse an empty matrix or tile."""
        if self.size < 1:
            raise ConfigError(f"a matrix of {self.size} rows cannot be tiled")
        if self.tile_size < 1:
            raise ConfigError(f"solver.tile_size: {self.tile_size} is not a tile size; it must be at least 1")

    @property
    def num_tiles(self) -> int:
        """Tiles a side, T."""
        return -(-self.size // self.tile_size)

    def span(self, i: int) -> range:
        """Rows (or columns) of the matrix in tile row (column) i."""
        return range(i * self.tile_size, min((i + 1) * self.tile_size, self.size))

    def extent(self, i: int) -> int:
        """Rows in tile row i: ``tile_size``, less in the last."""
        return min(self.tile_size, self.size - i * self.tile_size)

    def owner(self, i: int, j: int) -> int:
        """Rank that stores tile (i, j), i ≥ j."""
        return self.grid.rank(i % self.grid.rows, j % self.grid.columns)

    def tile_rows(self, grid_row: int) -> range:
        """Tile rows dealt to a grid row, ascending."""
        return range(grid_row, self.num_tiles, self.grid.rows)

    def tile_columns(self, grid_column: int) -> range:
        """Tile columns dealt to a grid column, ascending."""
        return range(grid_column, self.num_tiles, self.grid.columns)

    def tiles(self, rank: int) -> list[tuple[int, int]]:
        """Tiles (i, j), i ≥ j, that a rank stores, column by column."""
        row, column = self.grid.coordinates(rank)
        return [(i, j) for j in self.tile_columns(column) for i in self.tile_rows(row) if i >= j]

    def spans(self, rank: int) -> list[tuple[range, range]]:
        """Rows and columns of the matrix in each of ``tiles(rank)``."""
        return [(self.span(i), self.span(j)) for i, j in self.tiles(rank)]

    def words(self) -> NDArray[np.int64]:
        """Numbers that each rank stores, (P, Q)."""
        T, P, Q = self.num_tiles, self.grid.rows, self.grid.columns
        extent = np.array([self.extent(i) for i in range(T)])
        in_row, in_column = (np.arange(T)[:, None] % parts == np.arange(parts) for parts in (P, Q))
        rows_since = np.cumsum((in_row * extent[:, None])[::-1], axis=0)[::-1]  # (T, P): matrix rows in tile rows ≥ j
        words: NDArray[np.int64] = (rows_since * extent[:, None]).T @ in_column
        return words

    def ranks_without_tile(self) -> list[int]:
        """Ranks that store nothing, because there are too few tiles for the grid."""
        return np.flatnonzero(self.words() == 0).tolist()


def choose_tile_size(size: int, grid: GridShape, on_gpu: bool = False) -> int:
    """Tile size that keeps GEMM fast, the grid balanced and, where n allows it, every rank busy.

    Of 192 (CPU) or 1024 (GPU) rows and some smaller sizes the one where the fullest rank is done first, if a number of a tile
    of b rows takes 1 + 192/b (1 + 1024/b): the rate that GEMM and all that is done once a tile were measured to reach together.
    Still smaller where a rank would be left without a tile.
    """
    largest = GPU_TILE_SIZE if on_gpu else CPU_TILE_SIZE

    def relative_time(tile_size: int) -> float:
        return float(TileLayout(size, tile_size, grid).words().max()) * (1 + largest / tile_size)

    tile_size = min((largest * quarters // 4 for quarters in QUARTERS), key=relative_time)
    while tile_size > 1 and TileLayout(size, tile_size, grid).ranks_without_tile():
        tile_size = -(-tile_size // 2)
    return tile_size
