"""The n x b panel of one elimination step, and how it reaches every rank that multiplies with it.

A step updates each lower tile by A_ij −= U_i U_jᵀ. Rank (p, q) needs U_i for its tile rows i ≡ p (mod P) on the left and
U_j for its tile columns j ≡ q (mod Q) on the right. What one grid column (row) has computed is sent along the grid rows
(columns); the other side then needs the tiles that a peer in the same grid column (row) holds.

Numbers travel while the caller computes: what sends them is a generator that pauses wherever there is something to wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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
        """Use the memory for tiles of b columns; the contents are lost unless b is unchanged."""
        self.values = self._memory[: self.part.length * b].view(-1, b)

    def tile(self, i: int) -> Tensor:
        """U_i, a view (rows of tile i, b)."""
        return self.values[self.part.rows(i)]

    def between(self, first: int, end: int) -> Tensor:
        """All tiles from ``first`` to before ``end``, a view."""
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

    def share(self, k: int, packing: Packing, with_rows_before: bool) -> Travelling:
        """Send each U_i, i > k, from the left of grid column k mod Q to every left and right that needs it.

        And, if wanted, each U_j, j < k, from the right of grid row k mod P. Collective. A rank receives at most
        (n − (k+1)b)(1/P + 1/Q) b numbers, and kb(1/P + 1/Q) b for the rows before.

        Yields:
            The messages that are under way.
        """
        T, grid = self.V.layout.num_tiles, self.grid
        transfers = [grid.broadcast_in_row_(self.left.between(k + 1, T), column=k % grid.shape.columns)]
        if with_rows_before:
            transfers.append(grid.broadcast_in_column_(self.right.between(0, k), row=k % grid.shape.rows))
        yield transfers
        wait(transfers)
        copies = [_Copy(self.left, self.right, range(k + 1, T), grid.row, grid.broadcast_in_column_, packing.of_right)]
        if with_rows_before:
            copies.append(_Copy(self.right, self.left, range(k), grid.column, grid.broadcast_in_row_, packing.of_left))
        yield [transfer for copy in copies for transfer in copy.transfers]
        for copy in copies:
            copy.finish()


@dataclass(frozen=True)
class Packing:
    """Memory where tiles are put together for one message; empty where no message needs it. One serves all panels."""

    of_left: Tensor
    of_right: Tensor

    @classmethod
    def of(cls, V: TiledSymmetric, with_rows_before: bool) -> Packing:
        """Room for the panels of V: none if the grid is square, or a single row (column) of ranks."""
        P, Q = V.grid.shape.rows, V.grid.shape.columns
        rows = V.rows.length if with_rows_before and Q > 1 and P != Q else 0
        columns = V.columns.length if P > 1 and P != Q else 0
        return cls(V.empty(rows * V.layout.tile_size), V.empty(columns * V.layout.tile_size))


class _Copy:
    """Fill a range of tiles of ``target``, each from the peer whose ``source`` holds it; this rank is peer ``here``.

    Started when made; the tiles are there after ``finish``.
    """

    def __init__(
        self, source: Strip, target: Strip, tiles: range, here: int, broadcast_: Callable[[Tensor, int], Transfer], room: Tensor
    ) -> None:
        self._source, self._target = source, target
        self._tiles = [i for i in target.part.tiles if i in tiles]
        self._packed: list[tuple[list[int], Tensor]] = []
        self.transfers: list[Transfer] = []
        if source.part.parts == 1:  # nothing to exchange
            return
        if source.part.parts == target.part.parts:  # a square grid: one peer holds them all, in their order
            peer = target.part.part
            values = (source if peer == here else target).between(tiles.start, tiles.stop)
            self.transfers.append(broadcast_(values, peer))
            if peer != here:
                self._tiles = []  # they arrive in place
            return
        b, used = target.values.shape[1], 0
        for peer in range(source.part.parts):
            held = [i for i in self._tiles if i % source.part.parts == peer]
            rows = sum(len(target.tile(i)) for i in held)
            packed = room[used : used + rows * b].view(rows, b)
            used += rows * b
            if peer == here:
                for i, part in _unpacked(held, packed, target):
                    part.copy_(source.tile(i))
            self.transfers.append(broadcast_(packed, peer))
            self._packed.append((held, packed))

    def finish(self) -> None:
        """Wait for the numbers and put them in their places."""
        wait(self.transfers)
        if not self._packed:
            for i in self._tiles:
                self._target.tile(i).copy_(self._source.tile(i))
        for held, packed in self._packed:
            for i, part in _unpacked(held, packed, self._target):
                self._target.tile(i).copy_(part)


def _unpacked(held: list[int], packed: Tensor, target: Strip) -> Iterator[tuple[int, Tensor]]:
    """Each tile with its place in the message."""
    first = 0
    for i in held:
        rows = len(target.tile(i))
        yield i, packed[first : first + rows]
        first += rows


def multiply_(A: Tensor, B: Tensor, out: Tensor, counters: Counters) -> Tensor:
    """out = AB, counted. Local."""
    torch.mm(A, B, out=out)
    counters.flops += 2 * out.numel() * A.shape[1]
    return out


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
