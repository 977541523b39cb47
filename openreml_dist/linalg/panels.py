"""The n x b panel of one elimination step, and how it reaches every rank that multiplies with it.

A step updates each lower tile by A_ij −= U_i U_jᵀ. Rank (p, q) needs U_i for its tile rows i ≡ p (mod P) on the left and U_j for
its tile columns j ≡ q (mod Q) on the right. What one grid column (row) has computed is sent along the grid rows (columns); the
other side then needs the tiles that a peer in the same grid column (row) holds.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from openreml_dist.tiled import BlockCyclic, TiledSymmetric


class Panel:
    """Tiles U_i of one panel: ``left`` (rows of this grid row, b) and ``right`` (columns of this grid column, b), packed.

    The buffers serve every step; ``resize`` gives the contiguous views for a pivot of b columns.
    """

    def __init__(self, V: TiledSymmetric) -> None:
        self.V = V
        b = V.layout.tile_size
        self._left = torch.empty(V.rows.length * b, dtype=V.dtype, device=V.device)
        self._right = torch.empty(V.columns.length * b, dtype=V.dtype, device=V.device)
        self.resize(b)

    def resize(self, b: int) -> None:
        """Use the buffers for a pivot of b columns; their contents are lost unless b is unchanged."""
        self.left = self._left[: self.V.rows.length * b].view(-1, b)
        self.right = self._right[: self.V.columns.length * b].view(-1, b)

    def share_below(self, k: int) -> None:
        """Send U_i, i > k, from the left of grid column k mod Q to every left and right that needs it.

        Collective. A rank receives at most (n − (k+1)b)(1/P + 1/Q) b numbers.
        """
        V, grid = self.V, self.V.grid
        grid.broadcast_in_row_(self.left[V.rows.start(k + 1) :], column=k % grid.shape.columns)
        tiles = [j for j in V.columns.tiles if j > k]
        self._cross(self.left, V.rows, self.right, V.columns, tiles, grid.row, grid.broadcast_in_column_)

    def share_before(self, k: int) -> None:
        """Send U_j, j < k, from the right of grid row k mod P to every right and left that needs it.

        Collective. A rank receives at most kb(1/P + 1/Q) b numbers.
        """
        V, grid = self.V, self.V.grid
        grid.broadcast_in_column_(self.right[: V.columns.start(k)], row=k % grid.shape.rows)
        tiles = [i for i in V.rows.tiles if i < k]
        self._cross(self.right, V.columns, self.left, V.rows, tiles, grid.column, grid.broadcast_in_row_)

    @staticmethod
    def _cross(
        source: Tensor,
        source_part: BlockCyclic,
        target: Tensor,
        target_part: BlockCyclic,
        tiles: list[int],
        here: int,
        broadcast_: Callable[[Tensor, int], None],
    ) -> None:
        """Copy ``tiles`` into ``target``, each from the peer whose ``source`` holds it."""
        for peer in range(source_part.parts):
            held = [i for i in tiles if i % source_part.parts == peer]
            if not held:
                continue
            if peer == here:
                pieces = [source[source_part.rows(i)] for i in held]
                packed = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
            else:
                packed = target.new_empty(sum(target_part.layout.extent(i) for i in held), target.shape[1])
            broadcast_(packed, peer)
            for i, piece in zip(held, packed.split([target_part.layout.extent(i) for i in held]), strict=True):
                target[target_part.rows(i)] = piece
