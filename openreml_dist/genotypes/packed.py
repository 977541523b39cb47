"""Genotypes of some samples, two bits each, unpacked a tile of samples at a time, or a part of one on a CUDA device.

Legend: n samples here, m SNPs; a tile is (m, b/4) bytes of b samples, four to a byte, the first in the lowest bits, in the code
of PLINK's ``.bed``: 0 two counted alleles, 1 missing, 2 one, 3 none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openreml_dist.grid import Progress, no_progress

ALLELES = (2.0, 0.0, 1.0, 0.0)  # counted alleles by code; a missing genotype has none of them, and its mean elsewhere
MISSING = 1
IN_A_BYTE = 4
TILE_BYTES = 32e6  # of an unpacked tile in float32: it is read twice, by both products
DEVICE_TILE_BYTES = (
    512e6  # of what is unpacked at once on a CUDA device, where the operations on little take as long as on more
)
DEVICE_TILE = 32_768  # samples of a tile there: a kernel has blocks of work for all processors, and unpacks in registers
SMALLEST_TILE = 64  # samples
READ_BYTES = 64e6  # of codes that are taken apart at once


class GenotypeReader(Protocol):
    """Where packed genotypes come from: a file or a store."""

    def read_packed(self, variants: slice) -> NDArray[np.uint8]:
        """(variants, ⌈N/4⌉) bytes of all N samples of the source, in the code above."""
        ...


@dataclass
class PackedGenotypes:
    """The genotypes of n samples at m SNPs, a quarter of a byte each, on one device.

    Attributes:
        tiles: (m, b/4) uint8 each, the last one filled up with missing genotypes.
        num_samples: n.
        has_missing: (tiles,) whether any genotype of a tile is missing.
        cache_bytes: memory that unpacked tiles may be kept in, the first ones that fit.
        at_once: samples that are unpacked at once, a multiple of 4; whole tiles without it.
    """

    tiles: list[Tensor]
    num_samples: int
    has_missing: list[bool]
    cache_bytes: float = 0.0
    at_once: int | None = None
    _kept: dict[tuple[int, int, torch.dtype], Tensor] = field(default_factory=dict, repr=False)
    _scratch: dict[torch.dtype, Tensor] = field(default_factory=dict, repr=False)
    _tables: dict[torch.dtype, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(
        cls,
        source: GenotypeReader,
        variants: NDArray[np.int64],
        samples: NDArray[np.int64],
        device: torch.device,
        cache_bytes: float = 0.0,
        progress: Progress = no_progress,
        widest: int | None = None,
    ) -> PackedGenotypes:
        """Some SNPs and samples of a source, read once, block by block of SNPs. Local.

        Args:
            source: of the genotypes.
            variants: (m,) places in the source, ascending.
            samples: (n,) places in the source, in any order.
            device: that keeps them.
            cache_bytes: as above.
            progress: told the proportion that is read.
            widest: samples of a tile at most, a multiple of 64; None for no limit.
        """
        held = cls.empty(len(variants), len(samples), device, cache_bytes, widest)
        byte, shift = (torch.from_numpy(numbers).to(device) for numbers in (samples // IN_A_BYTE, samples % IN_A_BYTE * 2))
        shift = shift.to(torch.uint8)
        for rows, packed in _blocks(source, variants, block_rows(len(samples))):
            held.put_((torch.from_numpy(packed).to(device)[:, byte] >> shift) & 3, rows)
            progress(rows.stop / len(variants))
        return held

    @classmethod
    def empty(
        cls, m: int, n: int, device: torch.device, cache_bytes: float = 0.0, widest: int | None = None
    ) -> PackedGenotypes:
        """Memory for n samples at m SNPs, in tiles as the device wants them, or no wider ones than asked for. Local."""
        on_device = device.type == "cuda"
        at_once = tile_width(m, DEVICE_TILE_BYTES if on_device else TILE_BYTES)
        width = max(DEVICE_TILE, at_once) if on_device else at_once
        if widest is not None:
            at_once = width = min(at_once, widest)
        widths = [min(width, n - start) for start in range(0, n, width)]
        tiles = [torch.empty(m, -(-width // IN_A_BYTE), dtype=torch.uint8, device=device) for width in widths]
        return cls(tiles, n, [False] * len(tiles), cache_bytes, at_once)

    def put_(self, codes: Tensor, rows: slice) -> None:
        """Codes (rows, n) uint8 of some SNPs, unpacked, in their place. Local."""
        start = 0
        for number, tile in enumerate(self.tiles):
            of_tile = codes[:, start : start + IN_A_BYTE * tile.shape[1]]
            self.has_missing[number] |= bool((of_tile == MISSING).any())
            tile[rows] = pack(of_tile)
            start += IN_A_BYTE * tile.shape[1]

    @property
    def num_variants(self) -> int:
        """m."""
        return len(self.tiles[0]) if self.tiles else 0

    @property
    def width(self) -> int:
        """Samples of a tile but the last."""
        return IN_A_BYTE * self.tiles[0].shape[1] if len(self.tiles) > 1 else self.num_samples

    def tile(self, number: int, means: Tensor) -> Tensor:
        """The counts of alleles (m, b) of one tile, until the next is asked for; arguments as of ``unpacked``. Local."""
        left = self.num_samples - number * self.width
        return self._part(number, 0, self.tiles[number], means)[:, : min(self.width, left)]

    def unpacked(self, means: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Samples of every tile with their counts of alleles G (m, b), in the precision of the means, until the next. Local.

        Args:
            means: (m,) that stand for missing genotypes.
        """
        start = 0
        for number, tile in enumerate(self.tiles):
            step = (self.at_once or IN_A_BYTE * tile.shape[1]) // IN_A_BYTE
            for first in range(0, tile.shape[1], max(1, step)):
                part = tile[:, first : first + step]
                samples = slice(start, min(start + IN_A_BYTE * part.shape[1], self.num_samples))
                yield samples, self._part(number, first, part, means)[:, : samples.stop - samples.start]
                start = samples.stop

    def _part(self, number: int, first: int, part: Tensor, means: Tensor) -> Tensor:
        """Of a tile from its byte ``first`` on, unpacked."""
        key = number, first, means.dtype
        if key in self._kept:
            return self._kept[key]
        size = IN_A_BYTE * part.numel() * means.element_size()
        is_kept = sum(kept.numel() * kept.element_size() for kept in self._kept.values()) + size <= self.cache_bytes
        alleles, missing = self._table(means)
        G = _looked_up(part, alleles, None if is_kept else self._scratch)
        if self.has_missing[number]:
            G.addcmul_(_looked_up(part, missing), means[:, None])
        if is_kept:
            self._kept[key] = G
        return G

    def _table(self, means: Tensor) -> tuple[Tensor, Tensor]:
        """(256, 4) counts of alleles of the codes of a byte, and which of them are missing."""
        if means.dtype not in self._tables:
            is_missing = [float(code == MISSING) for code in range(IN_A_BYTE)]
            self._tables[means.dtype] = _table_of(ALLELES, means), _table_of(is_missing, means)
        return self._tables[means.dtype]


def pack(codes: Tensor) -> Tensor:
    """Codes (m, n) uint8 as (m, b/4) bytes, n filled up with missing ones to b, a multiple of 4. Local."""
    m, n = codes.shape
    whole = torch.nn.functional.pad(codes, (0, -n % IN_A_BYTE), value=MISSING).view(m, -1, IN_A_BYTE)
    return whole[:, :, 0] | whole[:, :, 1] << 2 | whole[:, :, 2] << 4 | whole[:, :, 3] << 6


def tile_width(num_variants: int, unpacked_bytes: float = TILE_BYTES) -> int:
    """Samples of a tile, a multiple of 64. Local."""
    fit = int(unpacked_bytes / (4 * max(1, num_variants)))
    return max(SMALLEST_TILE, fit // SMALLEST_TILE * SMALLEST_TILE)


def block_rows(num_samples: int) -> int:
    """SNPs that are read at once. Local."""
    return max(1, int(READ_BYTES / max(1, num_samples)))


def _blocks(source: GenotypeReader, variants: NDArray[np.int64], rows: int) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    """Places of some SNPs among those that are wanted, and their bytes."""
    for start in range(0, len(variants), rows):
        wanted = variants[start : start + rows]
        stored = slice(int(wanted[0]), int(wanted[-1]) + 1)
        packed = source.read_packed(stored)
        yield slice(start, start + len(wanted)), packed[wanted - stored.start] if len(wanted) < len(packed) else packed


def _table_of(values: Sequence[float], like: Tensor) -> Tensor:
    """(256, 4) for the four codes of a byte."""
    codes = torch.arange(256)[:, None] >> torch.arange(0, 8, 2) & 3
    return torch.tensor(values)[codes].to(like.device, like.dtype).contiguous()


def _looked_up(tile: Tensor, table: Tensor, scratch: dict[torch.dtype, Tensor] | None = None) -> Tensor:
    """(m, b) values of a tile (m, b/4), in memory that is used again if there is a ``scratch``."""
    values, scratch = _four_at_once(table), {} if scratch is None else scratch
    index = _memory(scratch, torch.int32, tile.numel(), tile.device).copy_(tile.reshape(-1))
    found = _memory(scratch, values.dtype, tile.numel() * values[0].numel(), tile.device).view(-1, *values.shape[1:])
    torch.index_select(values, 0, index, out=found)
    return (torch.view_as_real(found).view(table.dtype) if found.is_complex() else found).view(len(tile), -1)


def _four_at_once(table: Tensor) -> Tensor:
    """Rows of four float32 (256, 4) as one number of 16 bytes each (256,), which a CPU copies faster; others as they are."""
    if table.dtype != torch.float32:
        return table
    return torch.view_as_complex(table.view(torch.float64).view(-1, 1, 2))[:, 0]


def _memory(scratch: dict[torch.dtype, Tensor], dtype: torch.dtype, size: int, device: torch.device) -> Tensor:
    if dtype not in scratch or len(scratch[dtype]) < size:
        scratch[dtype] = torch.empty(size, dtype=dtype, device=device)
    return scratch[dtype][:size]
