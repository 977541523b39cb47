"""The n x b panel of one elimination step, and how it reaches every rank that multiplies with it.

A step updates each lower tile by A_ij −= U_i U_jᵀ. Rank (p, q) needs U_i for its tile rows i ≡ p (mod P) on the left and
U_j for its tile columns j ≡ q (mod Q) on the right. What one grid column (row) has computed is sent along the grid rows
(columns); the other side then needs the tiles that a peer in the same grid column (row) holds.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from openreml_dist.tiled import BlockCyclic, TiledSymmetric


class Strip:
    """Tiles U_i of a panel for the tile rows (or columns) of one part of the grid, packed one after the other."""

    def __init__(self, part: BlockCyclic, V: TiledSymmetric) -> None:
        self.part = part
        self._memory = torch.empty(part.length * V.layout.tile_size, dtype=V.dtype, device=V.device)
        self.resize(V.layout.tile_size)

    def resize(self, b: int) -> None:
        """Use the memory for tiles of b columns; the contents are lost unless b is unchanged."""
        self._values = self._memory[: self.part.length * b].view(-1, b)

    def tile(self, i: int) -> Tensor:
        """U_i, a view (rows of tile i, b)."""
        return self._values[self.part.rows(i)]

    def since(self, i: int) -> Tensor:
        """All tiles from i on, a view."""
        return self._values[self.part.start(i) :]

    def before(self, i: int) -> Tensor:
        """All tiles before i, a view."""
        return self._values[: self.part.start(i)]


class Panel:
    """One panel: ``left`` for the tile rows of this rank, ``right`` for its tile columns.

    The memory, n(1/P + 1/Q) b numbers, serves every step.
    """

    def __init__(self, V: TiledSymmetric) -> None:
        self.grid = V.grid
        self.left = Strip(V.rows, V)
        self.right = Strip(V.columns, V)

    def resize(self, b: int) -> None:
        """Prepare for a pivot of b columns."""
        self.left.resize(b)
        self.right.resize(b)

    def share_below(self, k: int) -> None:
        """Send U_i, i > k, from the left of grid column k mod Q to every left and right that needs it.

        Collective. A rank receives at most (n − (k+1)b)(1/P + 1/Q) b numbers.
        """
        self.grid.broadcast_in_row_(self.left.since(k + 1), column=k % self.grid.shape.columns)
        below = [j for j in self.right.part.tiles if j > k]
        _copy_tiles(self.left, self.right, below, self.grid.row, self.grid.broadcast_in_column_)

    def share_before(self, k: int) -> None:
        """Send U_j, j < k, from the right of grid row k mod P to every right and left that needs it.

        Collective. A rank receives at most kb(1/P + 1/Q) b numbers.
        """
        self.grid.broadcast_in_column_(self.right.before(k), row=k % self.grid.shape.rows)
        before = [i for i in self.left.part.tiles if i < k]
        _copy_tiles(self.right, self.left, before, self.grid.column, self.grid.broadcast_in_row_)


def _copy_tiles(source: Strip, target: Strip, tiles: list[int], here: int, broadcast_: Callable[[Tensor, int], None]) -> None:
    """Fill ``tiles`` of ``target``, each from the peer whose ``source`` holds it; this rank is peer ``here``."""
    parts = source.part.parts
    if parts == 1:  # nothing to exchange, nothing to pack
        for i in tiles:
            target.tile(i).copy_(source.tile(i))
        return
    for peer in range(parts):
        held = [i for i in tiles if i % parts == peer]
        if not held:
            continue
        if peer == here:
            packed = torch.cat([source.tile(i) for i in held])
        else:
            rows = sum(len(target.tile(i)) for i in held)
            packed = target.tile(held[0]).new_empty(rows, target.tile(held[0]).shape[1])
        broadcast_(packed, peer)
        first = 0
        for i in held:
            tile = target.tile(i)
            tile.copy_(packed[first : first + len(tile)])
            first += len(tile)
