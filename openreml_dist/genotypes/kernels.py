"""Products with packed genotypes by Triton: codes become numbers in registers, and tensor cores multiply them.

    T = GᵀU   _times_variants      A += GT   _add_times_samples      G (m, b) allele counts of a tile, missing ones at μ

0, 1 and 2 are exact in bfloat16. A float32 number is the sum of three bfloat16 ones (the first two of them leave 2⁻¹⁷ of it,
the first 2⁻⁹), so a product in s slices is s products of bfloat16 with float32 sums, and every genotype is unpacked once for
all of them. A missing genotype counts as μ rounded to bfloat16; for what that leaves, δ ≤ 2⁻⁹ μ, a second product has 1 in
its place, and one slice less: of δ ∘ U, or times δ when it is done. Tiles without missing genotypes do without.

Both products of a Gram matrix cannot share one unpacking in registers: Tᵀ is known only after the last SNP. The packed tile,
a quarter of a byte a genotype, is read twice instead, which is less than writing and reading it unpacked.

Imported where a CUDA device is used, and Triton is there (or its interpreter, in tests): nothing else here needs it.

Legend: m SNPs, b samples of a tile, c vectors, C of them with those that fill whole blocks up, s slices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from openreml_dist.genotypes.packed import IN_A_BYTE, PackedGenotypes

BLOCK_VECTORS = (16, 32, 64, 128)
INTERPRETED = triton.knobs.runtime.interpret
OPERAND = tl.float32 if INTERPRETED else tl.bfloat16  # NumPy, which the interpreter multiplies by, has no bfloat16


@triton.jit
def _codes(packed):  # type: ignore[no-untyped-def]
    """(r, b/4) bytes as (r, b) codes, times 8: by how much to shift a constant of four bytes."""
    shift = tl.arange(0, 4) * 2
    codes = ((packed.to(tl.int32) << 3)[:, :, None] >> shift[None, None, :]) & 24
    return tl.reshape(codes, (packed.shape[0], 4 * packed.shape[1]))


@triton.jit  # type: ignore[untyped-decorator]
def _imputed(codes, rounded_mean, HAS_MISSING: tl.constexpr, NUMBER: tl.constexpr):  # type: ignore[no-untyped-def]
    """Counts of alleles (r, b), with a bfloat16 number (r, 1) where they are missing; by integers, faster than conversions."""
    bits = ((0x007F0080 >> codes) & 0xFF) << 7  # exponents of 2, none, 1 and 0 from the lowest byte on
    if HAS_MISSING:
        bits = tl.where(codes == 8, rounded_mean.to(tl.int16, bitcast=True).to(tl.int32), bits)
    return bits.to(tl.int16).to(tl.bfloat16, bitcast=True).to(NUMBER)


@triton.jit  # type: ignore[untyped-decorator]
def _missing(codes, NUMBER: tl.constexpr):  # type: ignore[no-untyped-def]
    """1 where a genotype is missing (r, b), 0 elsewhere."""
    return (((0x00007F00 >> codes) & 0xFF) << 7).to(tl.int16).to(tl.bfloat16, bitcast=True).to(NUMBER)


@triton.jit  # type: ignore[untyped-decorator]
def _times_variants(  # type: ignore[no-untyped-def]
    tile,
    U,
    rest_U,
    rounded_mean,
    T,
    num_variants,
    num_samples,
    row_bytes,
    columns,
    HAS_MISSING: tl.constexpr,
    SLICES: tl.constexpr,
    VARIANTS: tl.constexpr,
    SAMPLES: tl.constexpr,
    VECTORS: tl.constexpr,
    NUMBER: tl.constexpr,
):
    """T (b, C) float32 of tile (m, b/4), U (s, m, C), δ ∘ U (s − 1, m, C), μ (m,) bfloat16; a program makes a block of T."""
    vector = tl.program_id(0) * VECTORS + tl.arange(0, VECTORS)
    byte = tl.program_id(1) * (SAMPLES // 4) + tl.arange(0, SAMPLES // 4)
    total = tl.zeros((SAMPLES, VECTORS), tl.float32)
    for start in range(0, num_variants, VARIANTS):
        variant = start + tl.arange(0, VARIANTS).to(tl.int64)[:, None]
        is_one = variant < num_variants
        packed = tl.load(tile + variant * row_bytes + byte[None, :], mask=is_one & (byte < row_bytes)[None, :], other=0)
        codes = _codes(packed)
        rounded = tl.load(rounded_mean + variant, mask=is_one, other=0.0)
        G = tl.trans(_imputed(codes, rounded, HAS_MISSING, NUMBER))
        for s in tl.static_range(SLICES):
            u = tl.load(U + (s * num_variants + variant) * columns + vector[None, :], mask=is_one, other=0.0).to(NUMBER)
            total = tl.dot(G, u, total, input_precision="ieee")
        if HAS_MISSING and SLICES > 1:
            is_missing = tl.trans(_missing(codes, NUMBER))
            for s in tl.static_range(SLICES - 1):
                u = tl.load(rest_U + (s * num_variants + variant) * columns + vector[None, :], mask=is_one, other=0.0).to(
                    NUMBER
                )
                total = tl.dot(is_missing, u, total, input_precision="ieee")
    sample = tl.program_id(1) * SAMPLES + tl.arange(0, SAMPLES).to(tl.int64)[:, None]
    tl.store(T + sample * columns + vector[None, :], total, mask=sample < num_samples)


@triton.jit  # type: ignore[untyped-decorator]
def _add_times_samples(  # type: ignore[no-untyped-def]
    tile,
    T,
    rest_mean,
    rounded_mean,
    A,
    num_variants,
    num_samples,
    row_bytes,
    columns,
    HAS_MISSING: tl.constexpr,
    SLICES: tl.constexpr,
    VARIANTS: tl.constexpr,
    SAMPLES: tl.constexpr,
    VECTORS: tl.constexpr,
    NUMBER: tl.constexpr,
):
    """A (m, C) float32 += of tile (m, b/4), T (s, b, C) and μ (m,) bfloat16, δ (m,); a program makes a block of A."""
    vector = tl.program_id(0) * VECTORS + tl.arange(0, VECTORS)
    variant = tl.program_id(1) * VARIANTS + tl.arange(0, VARIANTS).to(tl.int64)[:, None]
    is_one = variant < num_variants
    total = tl.zeros((VARIANTS, VECTORS), tl.float32)
    of_missing = tl.zeros((VARIANTS, VECTORS), tl.float32)
    rounded = tl.load(rounded_mean + variant, mask=is_one, other=0.0)
    for start in range(0, num_samples, SAMPLES):
        byte = start // 4 + tl.arange(0, SAMPLES // 4)
        packed = tl.load(tile + variant * row_bytes + byte[None, :], mask=is_one & (byte < row_bytes)[None, :], other=0)
        codes = _codes(packed)
        G = _imputed(codes, rounded, HAS_MISSING, NUMBER)
        sample = start + tl.arange(0, SAMPLES).to(tl.int64)[:, None]
        for s in tl.static_range(SLICES):
            t = tl.load(T + (s * num_samples + sample) * columns + vector[None, :], mask=sample < num_samples, other=0.0).to(
                NUMBER
            )
            total = tl.dot(G, t, total, input_precision="ieee")
            if HAS_MISSING and s < SLICES - 1:
                of_missing = tl.dot(_missing(codes, NUMBER), t, of_missing, input_precision="ieee")
    if HAS_MISSING:
        total += tl.load(rest_mean + variant, mask=is_one, other=0.0) * of_missing
    place = variant * columns + vector[None, :]
    tl.store(A + place, tl.load(A + place, mask=is_one, other=0.0) + total, mask=is_one)


@dataclass(frozen=True)
class Tile:
    """Codes (m, b/4) of the samples ``samples``."""

    bytes: Tensor
    samples: slice
    has_missing: bool

    @property
    def num_samples(self) -> int:
        """b, without those that fill the last byte up."""
        return int(self.samples.stop - self.samples.start)


@dataclass(frozen=True)
class Products:
    """Products of the genotypes of some samples with float32 vectors, on their device.

    Attributes:
        packed: the genotypes.
        slices: bfloat16 numbers that a float32 one is taken apart into. 3 is all of it; 2 leaves 2⁻¹⁷, 1 leaves 2⁻⁹.
    """

    packed: PackedGenotypes
    slices: int

    def of_variants(self, U: Tensor, mean: Tensor) -> Tensor:
        """GᵀU (n, c) of U (m, c), μ (m, 1). Local. Cost: 2nmcs flops (2s − 1 for s where genotypes are missing), nm/4 bytes."""
        made = [T for _, T in self._tiles_times(U, mean)]
        return torch.cat([U.new_empty(0, U.shape[1]), *(T[:, : U.shape[1]] for T in made)])

    def of_samples(self, B: Tensor, mean: Tensor) -> Tensor:
        """GB (m, c) of B (n, c). Local. Cost: as ``of_variants``."""
        A = B.new_zeros(len(mean), whole_blocks(B.shape[1]))
        for tile in self._tiles():
            self._add_(A, tile, B[tile.samples], mean)
        return A[:, : B.shape[1]]

    def gram(self, U: Tensor, mean: Tensor) -> Tensor:
        """(G − μ1ᵀ)(G − μ1ᵀ)ᵀU (m, c). Local. Cost: twice that of ``of_variants``."""
        A = U.new_zeros(len(mean), whole_blocks(U.shape[1]))
        shift, total = mean.mT @ U, U.new_zeros(1, U.shape[1])
        for tile, made in self._tiles_times(U, mean):
            T = made[:, : U.shape[1]] - shift
            self._add_(A, tile, T, mean)
            total += T.sum(dim=0)
        return A[:, : U.shape[1]].addmm(mean, total, alpha=-1)

    def _tiles_times(self, U: Tensor, mean: Tensor) -> Iterator[tuple[Tile, Tensor]]:
        """Every tile, and GᵀU (b, C) of it."""
        rounded, rest = _rounded(mean)
        parts = in_slices(U, self.slices)
        rests = in_slices(rest * U, self.slices - 1) if self.slices > 1 and any(self.packed.has_missing) else parts
        for tile in self._tiles():
            T = U.new_empty(tile.num_samples, parts.shape[2])
            self._launch(_times_variants, tile, (parts, rests, rounded, T))
            yield tile, T

    def _add_(self, A: Tensor, tile: Tile, T: Tensor, mean: Tensor) -> None:
        """A (m, C) += G T for T (b, c) of a tile."""
        rounded, rest = _rounded(mean)
        self._launch(_add_times_samples, tile, (in_slices(T, self.slices), rest, rounded, A))

    def _launch(self, kernel: Any, tile: Tile, tensors: tuple[Tensor, ...]) -> None:
        (m, row_bytes), b, columns = tile.bytes.shape, tile.num_samples, tensors[0].shape[2]
        how = launch(kernel, columns, self.slices, tile.has_missing)
        made, block = (b, how["SAMPLES"]) if kernel is _times_variants else (m, how["VARIANTS"])
        with torch.cuda.device_of(tile.bytes):  # type: ignore[no-untyped-call]
            kernel[columns // how["VECTORS"], triton.cdiv(made, block)](tile.bytes, *tensors, m, b, row_bytes, columns, **how)

    def _tiles(self) -> Iterator[Tile]:
        start, n = 0, self.packed.num_samples
        for codes, has_missing in zip(self.packed.tiles, self.packed.has_missing, strict=True):
            tile = Tile(codes, slice(start, min(start + IN_A_BYTE * codes.shape[1], n)), has_missing)
            yield tile
            start = tile.samples.stop


def launch(kernel: Any, columns: int, slices: int, has_missing: bool) -> dict[str, Any]:
    """Blocks and warps of a kernel. Local."""
    two_products = has_missing and slices > 1
    widest = 64 if two_products and kernel is _add_times_samples else 128  # that kernel has two sums in registers
    vectors = max(size for size in BLOCK_VECTORS if columns % size == 0 and size <= widest)
    summed = 32 if two_products else 64
    across = {"VARIANTS": summed, "SAMPLES": 128} if kernel is _times_variants else {"VARIANTS": 128, "SAMPLES": summed}
    warps = {"num_warps": 4 if vectors < 64 else 8, "num_stages": 3 if slices == 1 else 2}
    return {"HAS_MISSING": has_missing, "SLICES": slices, "VECTORS": vectors, "NUMBER": OPERAND, **across, **warps}


def whole_blocks(vectors: int) -> int:
    """Columns that ``vectors`` are filled up to. Local."""
    for size in BLOCK_VECTORS:
        if vectors <= size:
            return size
    return -(-vectors // BLOCK_VECTORS[-1]) * BLOCK_VECTORS[-1]


def in_slices(V: Tensor, count: int) -> Tensor:
    """V (r, c) float32 as (count, r, C) bfloat16 whose sum over the first dimension it is, filled up with zeros. Local."""
    slices = V.new_zeros(count, len(V), whole_blocks(V.shape[1]), dtype=torch.bfloat16)
    rest = V
    for number in range(count):
        here = slices[number, :, : V.shape[1]].copy_(rest)
        rest = rest - here.float()
    return slices


def _rounded(mean: Tensor) -> tuple[Tensor, Tensor]:
    """μ in bfloat16, and δ that this leaves of it in float32."""
    rounded = mean.bfloat16().contiguous()
    return rounded, (mean - rounded.float()).contiguous()
