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
    """Tiles U_i of a panel for one part of the grid: those before the pivot, then those after it, each by i mod ``groups``.

    So the tiles of one group on one side of the pivot are one matrix without gaps.
    """

    def __init__(self, part: BlockCyclic, groups: int, V: TiledSymmetric) -> None:
        self.part = part
        self.groups = groups
        self._memory = V.empty(part.length * V.layout.tile_size)

    def arrange(self, k: int) -> None:
        """Make room for the panel of pivot k; what was there is lost."""
        layout = self.part.layout
        self._values = self._memory[: self.part.length * layout.extent(k)].view(-1, layout.extent(k))
        self._elsewhere: dict[int, Tensor] = {}
        self._start: dict[int, int] = {}
        position = 0
        for i in sorted((i for i in self.part.tiles if i != k), key=lambda i: (i > k, i % self.groups, i)):
            self._start[i] = position
            position += layout.extent(i)

    def tile(self, i: int) -> Tensor:
        """U_i, a view (rows of tile i, b)."""
        elsewhere = self._elsewhere.get(i)
        if elsewhere is not None:
            return elsewhere
        return self._values[self._start[i] : self._start[i] + self.part.layout.extent(i)]

    def tiles(self, first: int, end: int, group: int) -> list[int]:
        """The tiles ``first`` ≤ i < ``end`` of a group, ascending."""
        return [i for i in self.part.tiles if first <= i < end and i % self.groups == group]

    def run(self, first: int, end: int, group: int) -> Tensor:
        """These tiles, all on one side of the pivot: a view."""
        tiles = self.tiles(first, end, group)
        start = self._start[tiles[0]] if tiles else 0
        return self._values[start : start + sum(map(self.part.layout.extent, tiles))]

    def before(self, k: int) -> Tensor:
        """All tiles before the pivot k: a view."""
        return self._values[: self.part.start(k)]

    def borrow(self, source: Strip, tiles: Iterable[int]) -> None:
        """Have these tiles where another strip has them."""
        self._elsewhere |= {i: source.tile(i) for i in tiles}


class Panel:
    """One panel: U_i for the tile rows of this rank on the left, U_j for its tile columns on the right, its ``pivot`` (b, b).

    The memory, (n (1/P + 1/Q) + b) b numbers, serves every step. On a single grid row or column it is (n + b) b: there one side
    has all that the other needs.
    """

    def __init__(self, V: TiledSymmetric) -> None:
        b, (P, Q) = V.layout.tile_size, (V.grid.shape.rows, V.grid.shape.columns)
        self.V = V
        self.grid = V.grid
        # the columns are grouped as they arrive: from one peer of the grid column after the other
        if Q == 1:
            self._rows = self._columns = Strip(V.columns, P, V)
        elif P == 1:
            self._rows = self._columns = Strip(V.rows, P, V)
        else:
            self._rows, self._columns = Strip(V.rows, 1, V), Strip(V.columns, P, V)
        self._row_group = V.grid.row if Q == 1 else 0
        self._pivot_memory = V.empty(b * b)

    def arrange(self, k: int) -> None:
        """Prepare for pivot k; what was there is lost."""
        b = self.V.layout.extent(k)
        for strip in {self._rows, self._columns}:  # often one
            strip.arrange(k)
        self.pivot = self._pivot_memory[: b * b].view(b, b)

    def left(self, first: int, end: int) -> Tensor:
        """U_i of this rank's tile rows ``first`` ≤ i < ``end``, all on one side of the pivot: a view."""
        return self._rows.run(first, end, self._row_group)

    def right(self, j: int) -> Tensor:
        """U_j of a tile column of this rank: a view."""
        return self._columns.tile(j)

    def share(self, k: int, packing: Tensor | None = None) -> Travelling:
        """Send each U_i, i > k, from the left of grid column k mod Q to every left and right that needs it.

        And, with memory for packing, each U_j, j < k, from the right of grid row k mod P. Collective. A rank receives at most
        (n − (k+1)b)(1/P + 1/Q) b numbers, and kb(1/P + 1/Q) b for the rows before.

        Yields:
            The messages that are under way.
        """
        T, grid = self.V.layout.num_tiles, self.grid
        transfers = [grid.broadcast_in_row_(self.left(k + 1, T), column=k % grid.shape.columns)]
        if packing is not None:
            transfers.append(grid.broadcast_in_column_(self._columns.before(k), row=k % grid.shape.rows))
        yield transfers
        wait(transfers)
        transfers = self._copy_after(k)
        arriving = [] if packing is None else self._copy_before(k, packing)
        yield transfers + [transfer for _, _, transfer in arriving]
        wait(transfers)
        for tiles, packed, transfer in arriving:
            transfer.wait()
            for i, part in _places(packed, self._rows, tiles):
                self._rows.tile(i).copy_(part)

    def _copy_after(self, k: int) -> list[Transfer]:
        """Begin to fill the right tiles i > k, each from the peer in the grid column whose left holds it."""
        T, transfers = self.V.layout.num_tiles, []
        for peer in range(self.grid.shape.rows):
            sent = self._columns.run(k + 1, T, peer)
            if peer == self.grid.row and self._rows is not self._columns:
                tiles, mine = self._columns.tiles(k + 1, T, peer), self.left(k + 1, T)
                if len(sent) == len(mine):  # all of the left, which can be sent as it lies
                    self._columns.borrow(self._rows, tiles)
                    sent = mine
                else:
                    _gather(self._rows, tiles, sent)
            transfers.append(self.grid.broadcast_in_column_(sent, peer))
        return transfers

    def _copy_before(self, k: int, packing: Tensor) -> list[tuple[list[int], Tensor, Transfer]]:
        """Begin to fill the left tiles i < k, each from the peer in the grid row whose right holds it.

        The left is in the order of the slabs, so that what arrives in one message is put in its places afterwards.
        """
        arriving, used, b = [], 0, self.V.layout.extent(k)
        for peer in range(self.grid.shape.columns if self.grid.shape.columns > 1 else 0):
            tiles = [i for i in self.V.rows.tiles if i < k and i % self.grid.shape.columns == peer]
            rows = sum(map(self.V.layout.extent, tiles))
            packed = packing[used * b : (used + rows) * b].view(rows, b)
            used += rows
            if peer == self.grid.column:
                _gather(self._columns, tiles, packed)
            arriving.append((tiles, packed, self.grid.broadcast_in_row_(packed, peer)))
        return arriving


def packing_for(V: TiledSymmetric) -> Tensor:
    """Memory where the left tiles of a message are put together; one serves all panels."""
    return V.empty(V.rows.length * V.layout.tile_size if V.grid.shape.columns > 1 else 0)


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
