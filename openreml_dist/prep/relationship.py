"""Blocks of the genomic relationship matrix by the definition of GCTA (Yang et al. 2011, AJHG 88:76), the diagonal alike.

    A_jk = (1 / N_jk) Σ_s w_sj w_sk,   w_sj = (x_sj - 2 p_s) / sqrt(2 p_s (1 - p_s)),

x_sj ALT alleles of sample j at SNP s, p_s the frequency of ALT, the sum over the N_jk SNPs that both samples have called.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import InputError
from openreml_dist.store.genotype_counts import Dosage
from openreml_dist.store.genotypes import DosageReader, open_dosages
from openreml_dist.store.grm import GrmVariants
from openreml_dist.store.grm_writer import resume_grm

Matrix = NDArray[np.float64]
Frequencies = NDArray[np.float64]

VARIANTS_AT_ONCE = 512  # of one float64 block of genotypes


def write_tiles(genotypes: str, out: str, i: int, columns: tuple[int, int]) -> int:
    """Compute and write the tiles (i, columns[0]) .. (i, columns[1] - 1) of the unfinished GRM store ``out``.

    The genotypes are decoded once for all of them.

    Returns:
        The number of tiles.
    """
    writer = resume_grm(out)
    first, last = (writer.span(j) for j in (columns[0], columns[1] - 1))
    block = relationship_block(open_dosages(genotypes), writer.variants(), writer.span(i), slice(first.start, last.stop))
    for j in range(*columns):
        span = writer.span(j)
        writer.write_tile(i, j, block[:, span.start - first.start : span.stop - first.start])
    return columns[1] - columns[0]


def relationship_block(dosages: DosageReader, variants: GrmVariants, rows: slice, columns: slice) -> Matrix:
    """A[rows, columns] in float64, for ranges of samples.

    2 m ``rows`` ``columns`` flops for m SNPs, twice that with missing genotypes. Holds three such blocks (five with missing
    genotypes), and the genotypes of one row of chunks.

    Raises:
        InputError: the genotypes are damaged, or two samples have no SNP in common.
    """
    total = np.zeros((rows.stop - rows.start, columns.stop - columns.start))
    missing = MissingPairs(*total.shape)
    inside = None  # where the rows are among the columns
    if columns.start <= rows.start and rows.stop <= columns.stop:
        inside = slice(rows.start - columns.start, rows.stop - columns.start)
    for block in variant_blocks(variants, dosages.variants_chunk):
        stored = slice(int(block.index[0]), int(block.index[-1]) + 1)
        of_columns = dosages.read(stored, columns)[block.index - stored.start]
        of_rows = of_columns[:, inside] if inside else dosages.read(stored, rows)[block.index - stored.start]
        for start in range(0, len(block.index), VARIANTS_AT_ONCE):
            some = slice(start, start + VARIANTS_AT_ONCE)
            w_columns = standardise(of_columns[some], block.allele_frequency[some])
            w_rows = w_columns[:, inside] if inside else standardise(of_rows[some], block.allele_frequency[some])
            total += w_rows.T @ w_columns
            missing.add(of_rows[some], of_columns[some])
    num_variants = missing.called_in_both(len(variants.index))
    if np.any(num_variants == 0):
        j, k = np.argwhere(num_variants == 0)[0]
        pair = f"{rows.start + j + 1} and {columns.start + k + 1}"
        raise InputError(f"{dosages.path}: samples number {pair} have no SNP that both have called")
    total /= num_variants
    return total


def variant_blocks(variants: GrmVariants, variants_chunk: int) -> Iterator[GrmVariants]:
    """The SNPs, those of one row of chunks of the genotype store at a time."""
    chunk = variants.index // variants_chunk
    for number in np.unique(chunk).tolist():
        yield GrmVariants(variants.index[chunk == number], variants.allele_frequency[chunk == number])


def standardise(dosage: Dosage, frequency: NDArray[np.float64]) -> Matrix:
    """w = (x - 2p) / sqrt(2p(1-p)) in float64 for SNPs (rows) and samples; 0, the mean, for missing genotypes."""
    w = dosage.astype(np.float64)
    w -= 2 * frequency[:, None]
    w /= np.sqrt(2 * frequency * (1 - frequency))[:, None]
    w *= dosage >= 0
    return w


class MissingPairs:
    """Counts, for pairs of samples, the SNPs that are missing in one or both. Costs nothing until a genotype is missing."""

    def __init__(self, height: int, width: int) -> None:
        """Start with no SNP missing."""
        self._rows = np.zeros(height)
        self._columns = np.zeros(width)
        self._both: Matrix | None = None

    def add(self, rows: Dosage, columns: Dosage) -> None:
        """Count the missing genotypes of some SNPs, (SNPs, height) and (SNPs, width)."""
        missing_rows, missing_columns = (np.asarray(dosage < 0, dtype=np.float32) for dosage in (rows, columns))
        of_rows, of_columns = missing_rows.any(axis=1), missing_columns.any(axis=1)
        if not (of_rows.any() or of_columns.any()):
            return
        self._rows += missing_rows.sum(axis=0)
        self._columns += missing_columns.sum(axis=0)
        if self._both is None:
            self._both = np.zeros((len(self._rows), len(self._columns)))
        shared = of_rows & of_columns
        self._both += missing_rows[shared].T @ missing_columns[shared]

    def called_in_both(self, num_variants: int) -> Matrix:
        """N_jk = m - u_j - u_k + u_jk, with u the SNPs missing in one sample or in both; (1, 1) where nothing is missing."""
        if self._both is None:
            return np.full((1, 1), float(num_variants))
        return num_variants - self._rows[:, None] - self._columns + self._both
