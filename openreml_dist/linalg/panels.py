"""The n x b panel of one elimination step, and how it reaches every rank that multiplies with it.

A step updates each lower tile by A_ij −= U_i U_jᵀ. Rank (p, q) needs U_i for its tile rows i ≡ p (mod P) on the left and
U_j for its tile columns j ≡ q (mod Q) on the right. What one grid column (row) has computed is sent along the grid rows
(columns); the other side then needs the tiles that a peer in the same grid column (row) holds.

Numbers travel while the caller computes: what sends them is a generator that pauses wherever there is something to wait for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.grid import Counters, Transfer
from openreml_dist.tiled import BlockCyclic, TiledSymmetric


class Strip:
    """Tiles U_i of a panel for the tile rows (or columns) of one part of the grid, packed one after the other."""

    def __init__(self, part: BlockCyclic, V: TiledSymmetric) -> None:
        self.part = part
        self._memory = V.empty(part.length * V.layout.tile_size)
        self.resize(V.layout.tile_size)

    def resize(self, b: int) -> None:
        """Use the memory for tiles of b columns, in ascending order; the contents are lost unless b is unchanged."""
        self.values = self._memory[: self.part.length * b].view(-1, b)
        self._elsewhere: dict[int, Tensor] = {}

    def group_since(self, first: int, groups: int) -> list[tuple[list[int], Tensor]]:
        """Store the tiles from ``first`` on by i mod ``groups``, so that those of one peer follow each other.

        Returns:
            For each group its tiles, ascending, and their place.
        """
        places, position = [], self.part.start(first)
        for group in range(groups):
            tiles = [i for i in self.part.tiles if i >= first and i % groups == group]
            begun = position
            for i in tiles:
                self._elsewhere[i] = self.values[position : position + self.part.layout.extent(i)]
                position += self.part.layout.extent(i)
            places.append((tiles, self.values[begun:position]))
        return places

    def borrow(self, source: Strip, tiles: Iterable[int]) -> None:
        """Have them where another strip has them."""
        self._elsewhere |= {i: source.tile(i) for i in tiles}

    def tile(self, i: int) -> Tensor:
        """U_i, a view (rows of tile i, b)."""
        elsewhere = self._elsewhere.get(i)
        return self.values[self.part.rows(i)] if elsewhere is None else elsewhere

    def between(self, first: int, end: int) -> Tensor:
        """All tiles from ``first`` to before ``end``, a view; not of tiles that are grouped."""
        return self.values[self.part.start(first) : self.part.start(end)]


class Panel:
    """One panel: ``left`` for the tile rows of this rank, ``right`` for its tile columns, ``pivot`` (b, b) of the pivot tile.

    The memory, (n (1/P + 1/Q) + b) b numbers, serves every step.
    """

    def __init__(self, V: TiledSymmetric) -> None:
        b = V.layout.tile_size
        self.V = V
        self.grid = V.grid
        self.left = Strip(V.rows, V)
        self.right = Strip(V.columns, V)
        self._pivot_memory = V.empty(b * b)
        self.resize(b)

    def resize(self, b: int) -> None:
        """Prepare for a pivot of b columns."""
        self.left.resize(b)
        self.right.resize(b)
        self.pivot = self._pivot_memory[: b * b].view(b, b)

    def share(self, k: int, packing: Tensor | None = None) -> Travelling:
        """Send each U_i, i > k, from the left of grid column k mod Q to every left and right that needs it.

        And, with memory for packing, each U_j, j < k, from the right of grid row k mod P. Collective. A rank receives at most
        (n − (k+1)b)(1/P + 1/Q) b numbers, and kb(1/P + 1/Q) b for the rows before.

        Yields:
            The messages that are under way.
        """
        T, grid = self.V.layout.num_tiles, self.grid
        transfers = [grid.broadcast_in_row_(self.left.between(k + 1, T), column=k % grid.shape.columns)]
        if packing is not None:
            transfers.append(grid.broadcast_in_column_(self.right.between(0, k), row=k % grid.shape.rows))
        yield transfers
        wait(transfers)
        transfers = self._copy_below(k)
        arriving = [] if packing is None else self._copy_before(k, packing)
        yield transfers + [transfer for _, _, transfer in arriving]
        wait(transfers)
        for tiles, packed, transfer in arriving:
            transfer.wait()
            for i, part in _places(packed, self.left, tiles):
                self.left.tile(i).copy_(part)

    def _copy_below(self, k: int) -> list[Transfer]:
        """Begin to fill the right tiles i > k, each from the peer in the grid column whose left holds it."""
        transfers, mine = [], self.left.between(k + 1, self.V.layout.num_tiles)
        for peer, (tiles, place) in enumerate(self.right.group_since(k + 1, self.grid.shape.rows)):
            sent = place
            if peer == self.grid.row:
                # the left is sent as it lies where all of it goes, as on one grid column, or where none is sent
                if len(place) == len(mine) or self.grid.shape.rows == 1:
                    sent = mine
                    self.right.borrow(self.left, tiles)
                else:
                    _gather(self.left, tiles, place)
            transfers.append(self.grid.broadcast_in_column_(sent, peer))
        return transfers

    def _copy_before(self, k: int, packing: Tensor) -> list[tuple[list[int], Tensor, Transfer]]:
        """Begin to fill the left tiles i < k, each from the peer in the grid row whose right holds it.

        The left is in the order of the slabs, so that what arrives in one message is put in its places afterwards.
        """
        arriving, used, b = [], 0, self.left.values.shape[1]
        for peer in range(self.grid.shape.columns):
            tiles = [i for i in self.left.part.tiles if i < k and i % self.grid.shape.columns == peer]
            rows = sum(self.left.part.layout.extent(i) for i in tiles)
            packed = packing[used * b : (used + rows) * b].view(rows, b)
            used += rows
            if peer == self.grid.column:
                _gather(self.right, tiles, packed)
            arriving.append((tiles, packed, self.grid.broadcast_in_row_(packed, peer)))
        return arriving


def packing_for(V: TiledSymmetric) -> Tensor:
    """Memory where the left tiles of a message are put together; one serves all panels."""
    return V.empty(V.rows.length * V.layout.tile_size)


def _gather(source: Strip, tiles: Sequence[int], place: Tensor) -> None:
    """Put tiles one after the other."""
    for i, part in _places(place, source, tiles):
        part.copy_(source.tile(i))


def multiply_lower_(A: Tensor, L: Tensor, out: Tensor, counters: Counters) -> Tensor:
    """out = AL with a lower triangular L (b, b), a quarter of whose zeros are left out. Local."""
    b = len(L)
    h = b // 2
    torch.mm(A, L[:, : b - h], out=out[:, : b - h])
    torch.mm(A[:, b - h :], L[b - h :, b - h :], out=out[:, b - h :])
    counters.flops += 2 * len(A) * (b * (b - h) + h * h)
    return out


def multiply_upper_(A: Tensor, L: Tensor, out: Tensor, counters: Counters) -> Tensor:
    """out = ALᵀ with a lower triangular L (b, b), a quarter of whose zeros are left out. Local."""
    b = len(L)
    h = b // 2
    torch.mm(A[:, :h], L[:h, :h].mT, out=out[:, :h])
    torch.mm(A, L[h:].mT, out=out[:, h:])
    counters.flops += 2 * len(A) * (b * (b - h) + h * h)
    return out


def _places(packed: Tensor, strip: Strip, tiles: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """Each tile with its place among those that are put one after the other."""
    first = 0
    for i in tiles:
        rows = strip.part.layout.extent(i)
        yield i, packed[first : first + rows]
        first += rows


def wait(transfers: Iterable[Transfer]) -> None:
    """Wait for all of them."""
    for transfer in transfers:
        transfer.wait()


@dataclass(frozen=True)
class Update:
    """C −= sign · A Bᵀ for a part of one slab."""

    C: Tensor
    A: Tensor
    B: Tensor
    sign: int = 1

    @property
    def flops(self) -> int:
        """Two for each number of C and column of A."""
        return 2 * self.C.numel() * self.A.shape[1]

    def run_(self, counters: Counters) -> None:
        """Do it. Local."""
        if self.C.numel():
            self.C.addmm_(self.A, self.B.mT, alpha=-self.sign)
            counters.flops += self.flops


Travelling = Iterator[Sequence[Transfer]]
"""What makes and sends a panel: pauses with the messages that are under way, and goes on when they have arrived."""

PAUSES = 3  # at most: for the pivot, the panel, the other side of it


def overlap(travelling: Travelling, updates: Sequence[Update], counters: Counters, on_accelerator: bool) -> None:
    """Do the updates of one panel while the next one travels.

    On the CPU what sends it is resumed as soon as its messages have arrived. The host of an accelerator runs ahead of it and
    cannot know; there it is resumed after each quarter of the flops, and the device waits for the messages in its own order.
    """
    total, done, quarters = sum(update.flops for update in updates), 0, 1
    under_way = next(travelling, None)
    for update in updates:
        update.run_(counters)
        done += update.flops
        while under_way is not None:
            if on_accelerator:
                ready = done * (PAUSES + 1) >= total * quarters
                quarters += ready
            else:
                ready = all(transfer.has_arrived() for transfer in under_way)
            if not ready:
                break
            under_way = next(travelling, None)
    for _ in travelling:
        pass
