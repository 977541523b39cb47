"""Genotypes at two bits each, as the body of a PLINK 1 ``.bed`` file has them, SNP by SNP.

| code | A1 (ALT) alleles |
|---|---|
| 00 | two |
| 01 | missing |
| 10 | one |
| 11 | none |

Four samples a byte, the first in the lowest bits; the bits behind the last sample are 0. With d the ALT count, 3 where it is
missing, the code is the complement of the Gray code of d: 3 ^ d ^ (d >> 1).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from openreml_dist.store.genotype_counts import Dosage, GenotypeCounts

Packed = NDArray[np.uint8]

SAMPLES_PER_BYTE = 4
_LOW_BITS = np.uint64(0x5555_5555_5555_5555)
_DOSAGE_OF_CODE = (2, -1, 1, 0)
_BYTES_AT_ONCE = 1 << 16


def _dosages_of_bytes() -> NDArray[np.int32]:
    """The four dosages of each byte, as one number of four bytes."""
    byte = np.arange(256)
    codes = np.stack([byte >> shift & 3 for shift in (0, 2, 4, 6)], axis=1)
    return np.array(_DOSAGE_OF_CODE, np.int8)[codes].view(np.int32)[:, 0]


_DOSAGES = _dosages_of_bytes()


def packed_width(num_samples: int) -> int:
    """Bytes of a variant."""
    return -(-num_samples // SAMPLES_PER_BYTE)


def pack(dosage: Dosage) -> Packed:
    """ALT counts 0, 1, 2 as int8 (m, n) to codes (m, ceil(n/4)); anything else is missing."""
    m, n = dosage.shape
    packed = np.empty((m, packed_width(n)), np.uint8)
    for some in _row_blocks(m, packed.shape[1]):
        alleles = np.full((len(packed[some]), SAMPLES_PER_BYTE * packed.shape[1]), 2, np.uint8)  # 2: code 0, for the padding
        np.minimum(dosage[some].view(np.uint8), 3, out=alleles[:, :n])
        quads = (3 ^ alleles ^ (alleles >> 1)).view("<u4")  # the codes of four samples, a byte each
        packed[some] = (quads | quads >> 6 | quads >> 12 | quads >> 18).astype(np.uint8)
    return packed


def unpack(packed: Packed, samples: slice) -> Dosage:
    """Codes (m, ceil(n/4)) to ALT counts of some samples, int8 (m, samples) in C order, -1 missing."""
    first = samples.start // SAMPLES_PER_BYTE
    some = packed[:, first : packed_width(samples.stop)]
    quads = np.empty(some.shape, np.int32)
    for rows in _row_blocks(*some.shape):
        np.take(_DOSAGES, some[rows], out=quads[rows], mode="clip")
    offset = samples.start - SAMPLES_PER_BYTE * first
    return np.ascontiguousarray(quads.view(np.int8)[:, offset : offset + samples.stop - samples.start])


def clear_padding_(packed: Packed, num_samples: int) -> None:
    """Set the bits behind the last sample to 0."""
    used = num_samples % SAMPLES_PER_BYTE
    if used:
        packed[:, -1] &= (1 << 2 * used) - 1


def count_packed(packed: Packed, num_samples: int) -> GenotypeCounts:
    """Count the genotypes of each variant, whose bits behind the last sample are 0."""
    hom_ref, het, hom_alt = np.empty((3, len(packed)), np.int64)
    for some in _row_blocks(*packed.shape):
        words = np.zeros((len(packed[some]), -(-packed.shape[1] // 8)), np.uint64)
        words.view(np.uint8)[:, : packed.shape[1]] = packed[some]
        low, high = words & _LOW_BITS, words >> np.uint64(1) & _LOW_BITS
        num_low, num_high, num_both = (np.bitwise_count(bits).sum(axis=1, dtype=np.int64) for bits in (low, high, low & high))
        hom_ref[some], het[some] = num_both, num_high - num_both
        hom_alt[some] = num_samples - num_low - num_high + num_both
    return GenotypeCounts(hom_ref, het, hom_alt, num_samples)


def _row_blocks(num_rows: int, width: int) -> Iterator[slice]:
    """Rows of ``width`` bytes, as many at a time as stay in the cache with what they become."""
    step = max(1, _BYTES_AT_ONCE // max(1, width))
    return (slice(start, start + step) for start in range(0, num_rows, step))
