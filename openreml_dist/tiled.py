"""A symmetric n x n matrix as lower tiles, dealt to the ranks of a process grid.

Legend: n rows, T tiles a side; tile (i, j), i ≥ j, on rank (i mod P, j mod Q).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.grid import ProcessGrid
from openreml_dist.layout import TileLayout


class Workspace:
    """Memory of one tiled matrix after another, of whichever precision: making the next one overwrites the last.

    Args:
        dtype: of the widest of them that is expected.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._number_bytes = torch.empty((), dtype=dtype).element_size()
        self._slabs: dict[int, Tensor] = {}

    def zeros(self, j: int, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The slab of block column j, (height, width), all zero. Local."""
        number_bytes = torch.empty((), dtype=dtype).element_size()
        if j not in self._slabs or len(self._slabs[j]) < height * width * number_bytes:
            size = height * width * max(number_bytes, self._number_bytes)
            self._slabs[j] = torch.empty(size, dtype=torch.uint8, device=device)
        return self._slabs[j][: height * width * number_bytes].view(dtype).view(height, width).zero_()


class TiledSymmetric:
    """Lower tiles of a symmetric (n, n) matrix; a rank stores one slab for each of its block columns.

    The slab of block column j stacks this rank's tiles (i, j), i ≥ j, in one contiguous (rows, columns of tile j) tensor,
    so that a rank-b update of all of them is one GEMM. All ranks together store n²/2 words (and half a tile on each
    diagonal tile).

    Local: making and indexing it needs no other rank.

    Args:
        layout: n, tile size and grid.
        grid: this rank's place.
        dtype: float64 or float32.
        workspace: memory to use, by default new memory.
    """

    def __init__(
        self,
        layout: TileLayout,
        grid: ProcessGrid,
        dtype: torch.dtype = torch.float64,
        workspace: Workspace | None = None,
    ) -> None:
        workspace = workspace or Workspace(dtype)
        self.layout = layout
        self.grid = grid
        self.dtype = dtype
        self.rows = BlockCyclic(layout, grid.row, grid.shape.rows)
        self.columns = BlockCyclic(layout, grid.column, grid.shape.columns)
        self.slabs: dict[int, Tensor] = {}
        for j in self.columns.tiles:
            height = self.rows.length - self.rows.start(j)
            if height > 0:
                self.slabs[j] = workspace.zeros(j, height, layout.extent(j), dtype, grid.device)

    @property
    def size(self) -> int:
        """Rows n of the whole matrix."""
        return self.layout.size

    @property
    def device(self) -> torch.device:
        """Where this rank keeps its tiles."""
        return self.grid.device

    @property
    def on_accelerator(self) -> bool:
        """Whether the host runs ahead of the device."""
        return self.device.type != "cpu"

    def owns(self, i: int, j: int) -> bool:
        """Whether this rank stores tile (i, j)."""
        return self.layout.owner(i, j) == self.grid.rank

    def tile(self, i: int, j: int) -> Tensor:
        """Tile (i, j), i ≥ j, as a view into its slab. Local: only on its owner."""
        top = self.rows.start(i) - self.rows.start(j)
        return self.slabs[j][top : top + self.layout.extent(i)]

    def tiles(self) -> Iterator[tuple[int, int, Tensor]]:
        """This rank's tiles (i, j, view), column by column."""
        for i, j in self.layout.tiles(self.grid.rank):
            yield i, j, self.tile(i, j)

    def below(self, j: int, first: int) -> Tensor:
        """This rank's part of block column j in tile rows ≥ first ≥ j, as a view (rows, columns of tile j)."""
        return self.slabs[j][self.rows.start(first) - self.rows.start(j) :]

    def empty(self, *shape: int) -> Tensor:
        """An uninitialised tensor of this precision on this device."""
        return torch.empty(*shape, dtype=self.dtype, device=self.device)

    def num_bytes(self) -> int:
        """Bytes of this rank's slabs."""
        return sum(slab.numel() * slab.element_size() for slab in self.slabs.values())


@dataclass(frozen=True)
class BlockCyclic:
    """The tile rows (or columns) ``part``, ``part + parts``, ... of a layout, packed one after the other."""

    layout: TileLayout
    part: int
    parts: int

    @property
    def tiles(self) -> range:
        """Tile indices, ascending."""
        return range(self.part, self.layout.num_tiles, self.parts)

    @property
    def length(self) -> int:
        """Rows in all."""
        return self.start(self.layout.num_tiles)

    def start(self, i: int) -> int:
        """Packed position of the first row of this part that lies in tile i or after it."""
        before = len(range(self.part, i, self.parts))  # whole tiles, unless the ragged last one is among them
        ragged = self.layout.num_tiles * self.layout.tile_size - self.layout.size
        last_is_before = before > 0 and self.part + (before - 1) * self.parts == self.layout.num_tiles - 1
        return before * self.layout.tile_size - (ragged if last_is_before else 0)

    def rows(self, i: int) -> slice:
        """Packed position of tile i, which must be of this part."""
        return slice(self.start(i), self.start(i) + self.layout.extent(i))

    def indices(self, device: torch.device) -> Tensor:
        """Row of the whole matrix at each packed position, int64 (length,)."""
        spans = [torch.arange(span.start, span.stop, device=device) for span in map(self.layout.span, self.tiles)]
        return torch.cat(spans) if spans else torch.empty(0, dtype=torch.int64, device=device)
