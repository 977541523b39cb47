"""A stored relationship matrix, such as a GRM, read chunk by chunk from where it lies."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openreml_dist.covariance.checks import samples_of
from openreml_dist.covariance.component import VarianceComponent
from openreml_dist.covariance.indices import EVERYTHING, Index, Indices, Piece, Samples, Spans, all_pairs, take
from openreml_dist.covariance.term import Term
from openreml_dist.errors import InputError

READ_AHEAD = 2  # chunks that are read while another is used

Chunk = tuple[int, int]


class KernelSource(Protocol):
    """Where the numbers come from: a store, or an array in memory.

    Attributes:
        chunk_size: rows and columns of the square chunks in which the source holds its lower triangle.
        in_memory: a chunk costs nothing to read again.
    """

    @property
    def chunk_size(self) -> int: ...  # noqa: D102

    @property
    def in_memory(self) -> bool: ...  # noqa: D102

    def read_chunk(self, i: int, j: int) -> NDArray[np.floating]:
        """Chunk (i, j), j ≤ i, clipped to the matrix; a diagonal chunk is full. Called from threads."""
        ...


class StoredMatrix(Term):
    """K from a source, without parameters, for the samples at ``index`` of the source.

    In a pass over many tiles each chunk of the source is read once, the next ones while one is used. The tiles of a rank stay
    in host memory, in the precision of the source, while ``cache_bytes`` last; later passes read chunks for the others alone.

    Args:
        source: reader of the stored matrix.
        index: (n,) row of the source for each sample.
        name: in messages.
        cache_bytes: host memory that this rank may spend on tiles.
    """

    is_stored = True

    def __init__(self, source: KernelSource, index: Indices, name: str, cache_bytes: int = 0) -> None:
        self.name = name
        self.size = len(index)
        self._source = source
        self._index = index
        self._cache_bytes = cache_bytes
        self._room = 0 if source.in_memory else cache_bytes
        self._cached: dict[tuple[range, range], Tensor] = {}

    @property
    def chunk_size(self) -> int:
        """Rows of a chunk of the source."""
        return self._source.chunk_size

    def selected(self, samples: Indices) -> StoredMatrix:
        """The same source for samples of the samples."""
        chosen = self._index[samples_of(samples, self.size, self.name)]
        return StoredMatrix(self._source, chosen, self.name, self._cache_bytes)

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """K on ``rows`` x ``columns``, in the precision of the source."""
        if isinstance(rows, range) and isinstance(columns, range):
            cached = self._cached.get((rows, columns))
            if cached is not None:
                return cached.to(device)
        tile = torch.empty(0)
        shape = (len(rows), len(columns))
        for piece in self._read([(rows, columns)], [0], torch.device("cpu")):
            if piece.values.shape == shape:
                return piece.values.to(device)
            tile = tile if tile.numel() else torch.empty(shape, dtype=piece.values.dtype)
            _put(tile, piece)
        return tile.to(device)

    def pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[Piece]:
        """Pieces of K: whole tiles that are kept, then parts of the others, chunk by chunk."""
        wanted: list[int] = []
        for number, span in enumerate(spans):
            if span in self._cached:
                done = (number - len(wanted) + 1) / len(spans)
                yield Piece(number, EVERYTHING, EVERYTHING, self._cached[span].to(device, non_blocking=True), done)
            else:
                wanted.append(number)
        kept = self._room_for(spans, wanted)
        tiles: dict[int, Tensor] = {}
        done = 1 - len(wanted) / max(1, len(spans))
        for piece in self._read(spans, wanted, device):
            if piece.tile in kept:
                if piece.tile not in tiles:
                    shape = tuple(map(len, spans[piece.tile]))
                    tiles[piece.tile] = torch.empty(shape, dtype=piece.values.dtype, pin_memory=device.type == "cuda")
                _put(tiles[piece.tile], piece)
            yield Piece(piece.tile, piece.rows, piece.columns, piece.values, done + (1 - done) * piece.done)
        self._cached |= {spans[number]: tile for number, tile in tiles.items()}  # now that they are complete
        self._room -= sum(tile.numel() * tile.element_size() for tile in tiles.values())

    def _room_for(self, spans: Spans, wanted: Sequence[int]) -> frozenset[int]:
        """Which tiles fit into what is left of the budget, in float32, the precision of stores."""
        sizes = np.cumsum([4 * len(spans[number][0]) * len(spans[number][1]) for number in wanted])
        return frozenset(wanted[: int(np.searchsorted(sizes, self._room, side="right"))])

    def _read(self, spans: Sequence[tuple[Samples, Samples]], wanted: Sequence[int], device: torch.device) -> Iterator[Piece]:
        """Pieces of the ``wanted`` tiles, every chunk under them read once."""
        plan = self._plan(spans, wanted)
        chunks = sorted(plan)
        total = sum(map(len, plan.values()))
        done = 0
        for chunk, values in zip(chunks, _read_ahead(self._chunk, chunks, self._source.in_memory, device), strict=True):
            for part in plan[chunk]:
                done += 1
                yield Piece(part.tile, part.rows, part.columns, part.of(values), done / total)

    def _chunk(self, chunk: Chunk) -> Tensor:
        return torch.from_numpy(self._source.read_chunk(*chunk))

    def _plan(self, spans: Sequence[tuple[Samples, Samples]], wanted: Sequence[int]) -> dict[Chunk, list[_Part]]:
        """Which parts of which tiles each chunk gives."""
        groups: dict[range, dict[int, tuple[Index, Index]]] = {}

        def grouped(samples: Samples) -> dict[int, tuple[Index, Index]]:
            if not isinstance(samples, range):
                return _by_chunk(self._index[samples], self._source.chunk_size)
            if samples not in groups:
                groups[samples] = _by_chunk(take(self._index, samples), self._source.chunk_size)
            return groups[samples]

        plan: dict[Chunk, list[_Part]] = {}
        for number in wanted:
            row_groups, column_groups = map(grouped, spans[number])
            for a, (to_rows, from_rows) in row_groups.items():
                for b, (to_columns, from_columns) in column_groups.items():
                    part = _Part(number, to_rows, to_columns, from_rows, from_columns, mirrored=a < b)
                    plan.setdefault((max(a, b), min(a, b)), []).append(part)
        return plan


class Kernel(VarianceComponent):
    """σ²K with K from a source, for the samples at ``index`` of the source.

    Args:
        source: reader of the stored matrix.
        index: (n,) row of the source for each analysed sample.
        name: name of the component.
        cache_bytes: host memory that this rank may spend on tiles.
    """

    is_kernel = True
    K: StoredMatrix

    def __init__(self, source: KernelSource, index: Indices, name: str = "genetic", cache_bytes: int = 0) -> None:
        super().__init__(StoredMatrix(source, index, name, cache_bytes), name)

    @classmethod
    def from_array(cls, K: Tensor | NDArray[np.floating], name: str = "genetic") -> Kernel:
        """σ²K for a symmetric matrix (n, n) in memory; small n, since every rank that calls this holds K.

        Raises:
            InputError: if K is not square, not finite or not symmetric.
        """
        matrix = torch.as_tensor(K)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
            raise InputError(f"kernel {name}: a square matrix is needed, not one of shape {tuple(matrix.shape)}")
        if not bool(torch.isfinite(matrix).all()):
            raise InputError(f"kernel {name}: the matrix has values that are not finite")
        if not torch.allclose(matrix, matrix.mT, rtol=1e-6, atol=1e-8):
            raise InputError(f"kernel {name}: the matrix is not symmetric")
        return cls(_Array(matrix), np.arange(matrix.shape[0]), name)


@dataclass(frozen=True)
class _Part:
    """``rows`` x ``columns`` of a tile are ``from_rows`` x ``from_columns`` of a chunk, or of its mirror image."""

    tile: int
    rows: Index
    columns: Index
    from_rows: Index
    from_columns: Index
    mirrored: bool

    def of(self, chunk: Tensor) -> Tensor:
        source = chunk.mT if self.mirrored else chunk
        return source[all_pairs(self.from_rows, self.from_columns)]


def _by_chunk(index: Indices, chunk_size: int) -> dict[int, tuple[Index, Index]]:
    """Chunk number -> (positions in the tile, positions in the chunk); consecutive ones as slices, which are views."""
    chunk = index // chunk_size
    groups: dict[int, tuple[Index, Index]] = {}
    for number in np.unique(chunk).tolist():
        positions = np.flatnonzero(chunk == number)
        whole = len(positions) == len(index)
        groups[number] = (
            EVERYTHING if whole else _as_slice(positions),
            _as_slice(index[positions] - number * chunk_size),
        )
    return groups


def _as_slice(positions: Indices) -> Index:
    if len(positions) and bool((np.diff(positions) == 1).all()):
        return slice(int(positions[0]), int(positions[-1]) + 1)
    return torch.from_numpy(positions)


def _put(tile: Tensor, piece: Piece) -> None:
    tile[all_pairs(piece.rows, piece.columns)] = piece.values.cpu()


def _read_ahead(
    read: Callable[[Chunk], Tensor], chunks: Sequence[Chunk], in_memory: bool, device: torch.device
) -> Iterator[Tensor]:
    """The chunks in order on the device, the next ones being read by threads while one is used."""
    if in_memory:
        yield from (read(chunk).to(device) for chunk in chunks)
        return

    def fetch(chunk: Chunk) -> Tensor:
        return read(chunk).pin_memory() if device.type == "cuda" else read(chunk)

    with ThreadPoolExecutor(READ_AHEAD, thread_name_prefix="read-ahead") as threads:
        pending: deque[Future[Tensor]] = deque()
        for number in range(len(chunks)):
            while len(pending) <= READ_AHEAD and number + len(pending) < len(chunks):
                pending.append(threads.submit(fetch, chunks[number + len(pending)]))
            yield pending.popleft().result().to(device, non_blocking=True)


class _Array:
    """A matrix in memory as a source of one chunk; tiles of consecutive samples are views."""

    in_memory = True

    def __init__(self, matrix: Tensor) -> None:
        self._matrix: NDArray[np.floating] = matrix.detach().cpu().numpy()
        self.chunk_size = len(matrix)

    def read_chunk(self, i: int, j: int) -> NDArray[np.floating]:
        assert (i, j) == (0, 0)
        return self._matrix
