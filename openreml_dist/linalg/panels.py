"""The n x b panel of one elimination step, and how it reaches every rank that multiplies with it.

A step updates each lower tile by A_ij −= U_i U_jᵀ. Rank (p, q) needs U_i for its tile rows i ≡ p (mod P) on the left and
U_j for its tile columns j ≡ q (mod Q) on the right. What one grid column (row) has computed is sent along the grid rows
(columns); the other side then needs the tiles that a peer in the same grid column (row) holds.

Numbers travel while the caller computes: what sends them is a generator that pauses wherever there is something to wait for.
Where all ranks share a host, nothing is sent: they see the same panel.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from torch import Tensor

from openreml_dist.grid import Transfer
from openreml_dist.linalg.updates import Travelling
from openreml_dist.tiled import BlockCyclic, TiledSymmetric


class Strip:
    """Tiles U_i of a panel for one part of the grid: those before the pivot, then those after it, each by i mod ``groups``.

    So the tiles of one group on one side of the pivot are one matrix without gaps.
    """

    def __init__(self, part: BlockCyclic, groups: int, memory: Tensor) -> None:
        self.part = part
        self.groups = groups
        self._memory = memory

    def arrange(self, k: int) -> None:
        """Make room for the panel of pivot k; what was there is lost."""
        layout = self.part.layout
        self._k = k
        self._values = self._memory[: self.part.length * layout.extent(k)].view(-1, layout.extent(k))
        self._elsewhere: dict[int, Tensor] = {}
        self._runs: dict[tuple[bool, int], tuple[list[int], list[int]]] = {}  # tiles of a group, and where each begins and ends
        position = 0
        for after in (False, True):
            for group in range(self.groups):
                tiles = [i for i in self.part.tiles if i != k and (i > k) == after and i % self.groups == group]
                starts = list(accumulate(map(layout.extent, tiles), initial=position))
                position = starts[-1]
                self._runs[after, group] = tiles, starts

    def tile(self, i: int) -> Tensor:
        """U_i, a view (rows of tile i, b)."""
        return self._elsewhere[i] if i in self._elsewhere else self.run(i, i + 1, i % self.groups)

    def tiles(self, first: int, end: int, group: int) -> list[int]:
        """The tiles ``first`` ≤ i < ``end`` of a group, all on one side of the pivot, ascending."""
        tiles, _ = self._runs[first > self._k, group]
        return tiles[bisect_left(tiles, first) : bisect_left(tiles, end)]

    def run(self, first: int, end: int, group: int) -> Tensor:
        """These tiles as one matrix: a view."""
        tiles, starts = self._runs[first > self._k, group]
        return self._values[starts[bisect_left(tiles, first)] : starts[bisect_left(tiles, end)]]

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

    Args:
        V: what is eliminated.
        outgoing: where the left tiles of a message are put together, if the rows before the pivot are of the panel too.
    """

    def __init__(self, V: TiledSymmetric, outgoing: Tensor | None = None) -> None:
        P, Q = V.grid.shape.rows, V.grid.shape.columns
        self.V = V
        self.grid = V.grid
        self.outgoing = outgoing
        # the columns are grouped as they arrive: from one peer of the grid column after the other
        if Q == 1:
            self._rows = self._columns = self._strip(V.columns, P)
        elif P == 1:
            self._rows = self._columns = self._strip(V.rows, P)
        else:
            self._rows, self._columns = self._strip(V.rows, 1), self._strip(V.columns, P)
        self._row_group = V.grid.row if Q == 1 else 0
        self._pivot_memory = V.empty(V.layout.tile_size**2)

    def _strip(self, part: BlockCyclic, groups: int) -> Strip:
        return Strip(part, groups, self.V.empty(part.length * self.V.layout.tile_size))

    def arrange(self, k: int) -> Travelling:
        """Prepare for pivot k; what was there is lost."""
        b = self.V.layout.extent(k)
        for strip in {self._rows, self._columns}:  # often one
            strip.arrange(k)
        self.pivot = self._pivot_memory[: b * b].view(b, b)
        yield from ()

    def release(self) -> None:
        """Say that this rank no longer needs what is there."""

    def left(self, first: int, end: int) -> Tensor:
        """U_i of this rank's tile rows ``first`` ≤ i < ``end``, all on one side of the pivot: a view."""
        return self._rows.run(first, end, self._row_group)

    def right(self, j: int) -> Tensor:
        """U_j of a tile column of this rank: a view."""
        return self._columns.tile(j)

    def send_pivot(self, k: int) -> Travelling:
        """Send the pivot from the owner of tile (k, k) along its grid column, and its grid row if that is of the panel too.

        Collective.
        """
        row, column = k % self.grid.shape.rows, k % self.grid.shape.columns
        transfers = []
        if self.grid.column == column:
            transfers.append(self.grid.broadcast_in_column_(self.pivot, row))
        if self.grid.row == row and self.outgoing is not None:
            transfers.append(self.grid.broadcast_in_row_(self.pivot, column))
        yield transfers
        wait(transfers)

    def send(self, k: int) -> Travelling:
        """Send each U_i, i > k, from the left of grid column k mod Q to every left and right that needs it.

        And, with memory for outgoing, each U_j, j < k, from the right of grid row k mod P. Collective. A rank receives at most
        (n − (k+1)b)(1/P + 1/Q) b numbers, and kb(1/P + 1/Q) b for the rows before.
        """
        T, grid = self.V.layout.num_tiles, self.grid
        transfers = [grid.broadcast_in_row_(self.left(k + 1, T), column=k % grid.shape.columns)]
        if self.outgoing is not None:
            transfers.append(grid.broadcast_in_column_(self._columns.before(k), row=k % grid.shape.rows))
        yield transfers
        wait(transfers)
        transfers = self._copy_after(k)
        arriving = [] if self.outgoing is None else self._copy_before(k, self.outgoing)
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

    def _copy_before(self, k: int, outgoing: Tensor) -> list[tuple[list[int], Tensor, Transfer]]:
        """Begin to fill the left tiles i < k, each from the peer in the grid row whose right holds it.

        The left is in the order of the slabs, so that what arrives in one message is put in its places afterwards.
        """
        arriving, used, b = [], 0, self.V.layout.extent(k)
        for peer in range(self.grid.shape.columns if self.grid.shape.columns > 1 else 0):
            tiles = [i for i in self.V.rows.tiles if i < k and i % self.grid.shape.columns == peer]
            rows = sum(map(self.V.layout.extent, tiles))
            packed = outgoing[used * b : (used + rows) * b].view(rows, b)
            used += rows
            if peer == self.grid.column:
                _gather(self._columns, tiles, packed)
            arriving.append((tiles, packed, self.grid.broadcast_in_row_(packed, peer)))
        return arriving


class SharedPanel(Panel):
    """A panel in memory that all ranks of the grid see, on one host: (n + b) b numbers for all of them together.

    Every rank writes its part where all others read it. What travels is a signal that a rank has written, or that it no longer
    needs what is there.
    """

    def __init__(self, V: TiledSymmetric, rows_too: bool) -> None:
        b, layout = V.layout.tile_size, V.layout
        self.V = V
        self.grid = V.grid
        self.rows_too = rows_too
        memory = self.grid.shared_memory((layout.size + b) * b, V.dtype)
        self._rows = self._columns = Strip(BlockCyclic(layout, 0, 1), V.grid.shape.rows, memory[: layout.size * b])
        self._row_group = V.grid.row
        self._pivot_memory = memory[layout.size * b :]
        self._released = Transfer()

    def arrange(self, k: int) -> Travelling:
        """Prepare for pivot k, once no rank needs what is there."""
        yield [self._released]
        self._released.wait()
        yield from super().arrange(k)

    def release(self) -> None:
        """Say that this rank no longer needs what is there. Collective."""
        self._released = self.grid.announce(range(self.grid.shape.size))

    def send_pivot(self, k: int) -> Travelling:
        """Say on the owner of tile (k, k) that the pivot is there. Collective."""
        return self._announce([self.V.layout.owner(k, k)])

    def send(self, k: int) -> Travelling:
        """Say on all ranks of grid column k mod Q, and of grid row k mod P, that their parts are there. Collective."""
        shape = self.grid.shape
        writers = {shape.rank(row, k % shape.columns) for row in range(shape.rows)}
        if self.rows_too:
            writers |= {shape.rank(k % shape.rows, column) for column in range(shape.columns)}
        return self._announce(writers)

    def _announce(self, ranks: Iterable[int]) -> Travelling:
        written = self.grid.announce(ranks)
        yield [written]
        written.wait()


def two_panels(V: TiledSymmetric, rows_too: bool) -> tuple[Panel, Panel]:
    """The panel that is used and the one that travels, of the rows after the pivot or also of those before it. Collective."""
    if V.grid.shape.shares_memory:
        return SharedPanel(V, rows_too), SharedPanel(V, rows_too)
    outgoing = V.empty(V.rows.length * V.layout.tile_size if V.grid.shape.columns > 1 else 0) if rows_too else None
    return Panel(V, outgoing), Panel(V, outgoing)


def _gather(source: Strip, tiles: Sequence[int], place: Tensor) -> None:
    """Put tiles one after the other."""
    for i, part in _places(place, source, tiles):
        part.copy_(source.tile(i))


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
