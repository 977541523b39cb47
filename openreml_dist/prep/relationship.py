"""Blocks of the genomic relationship matrix by the definition of GCTA (Yang et al. 2011, AJHG 88:76), the diagonal alike.

    A_jk = (1 / N_jk) Σ_s w_sj w_sk,   w_sj = (x_sj - 2 p_s) / sqrt(2 p_s (1 - p_s)),

x_sj ALT alleles of sample j at SNP s, p_s the frequency of ALT, the sum over the N_jk SNPs that both samples have called.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import InputError
from openreml_dist.prep.pair_sums import Block, MissingPairs, Sums
from openreml_dist.prep.products import Arithmetic, Matrix, NumpyArithmetic, standardise
from openreml_dist.store.genotype_counts import Dosage
from openreml_dist.store.genotypes import DosageReader, open_dosages
from openreml_dist.store.grm import GrmVariants
from openreml_dist.store.grm_writer import resume_grm

__all__ = ["VARIANTS_AT_ONCE", "Matrix", "relationship_block", "relationship_blocks", "standardise", "write_tiles"]

VARIANTS_AT_ONCE = 512  # of one float64 block of genotypes
_PARTS_OF_A_THREAD = 4  # of the SNPs, at least, so that all end at about the same time
_READERS_OF_A_GPU = 4


def write_tiles(genotypes: str, out: str, runs: list[tuple[int, tuple[int, int]]], device: str, threads: int) -> int:
    """Compute and write tiles of the unfinished GRM store ``out``: (i, first) .. (i, end - 1) of each run (i, (first, end)).

    The genotypes are decoded once for all of them.

    Returns:
        The number of tiles.
    """
    writer = resume_grm(out)
    blocks = [(writer.span(i), slice(writer.span(first).start, writer.span(end - 1).stop)) for i, (first, end) in runs]
    arithmetic: Arithmetic = NumpyArithmetic()
    if device == "cuda":
        from openreml_dist.prep.products_torch import gpu_of_this_worker

        arithmetic, threads = gpu_of_this_worker(), max(threads, _READERS_OF_A_GPU)
    found = relationship_blocks(open_dosages(genotypes), writer.variants(), blocks, arithmetic, threads)
    for (i, (first, end)), (_, columns), block in zip(runs, blocks, found, strict=True):
        for j in range(first, end):
            span = writer.span(j)
            writer.write_tile(i, j, block[:, span.start - columns.start : span.stop - columns.start])
    return sum(end - first for _, (first, end) in runs)


def relationship_block(dosages: DosageReader, variants: GrmVariants, rows: slice, columns: slice) -> Matrix:
    """A[rows, columns] for ranges of samples, multiplied in float64. Raises InputError as ``relationship_blocks`` does."""
    return next(relationship_blocks(dosages, variants, [(rows, columns)], NumpyArithmetic(np.float64)))


def relationship_blocks(
    dosages: DosageReader, variants: GrmVariants, blocks: Sequence[Block], arithmetic: Arithmetic, threads: int = 1
) -> Iterator[Matrix]:
    """A[rows, columns] in float64 for several ranges of samples, from one pass over the genotypes.

    2 m ``rows`` ``columns`` flops for m SNPs, twice that with missing genotypes; half of it where the rows are the last of the
    columns. Holds the blocks (twice with missing genotypes), and in each thread the genotypes of some 2,000 SNPs.

    Args:
        dosages, variants: genotypes, and which of them.
        blocks: rows and columns.
        arithmetic: where and how to multiply.
        threads: each takes some rows of chunks in turn.
    Raises:
        InputError: the genotypes are damaged, or two samples have no SNP in common.
    """
    samples = HeldSamples([span for block in blocks for span in block])
    held = [(samples.place(rows), samples.place(columns)) for rows, columns in blocks]
    products = Sums(held, arithmetic)
    missing = MissingPairs(held, arithmetic, samples.count)

    def add(block: GrmVariants) -> None:
        dosage = samples.read(dosages, block.index)
        for start in range(0, len(block.index), arithmetic.variants_at_once):
            some = slice(start, start + arithmetic.variants_at_once)
            products.add(arithmetic.standardised(dosage[some], block.allele_frequency[some]))
            missing.add(dosage[some])

    parts = variant_blocks(variants, dosages.variants_chunk * _rows_of_chunks(dosages, arithmetic, threads))
    if threads == 1:
        for part in parts:
            add(part)
    else:
        with ThreadPoolExecutor(threads, thread_name_prefix="relationships") as pool:
            for _ in pool.map(add, parts):
                pass
    for number, (rows, columns) in enumerate(blocks):
        num_variants = missing.called_in_both(number, len(variants.index))
        if np.any(num_variants == 0):
            j, k = np.argwhere(num_variants == 0)[0]
            pair = f"{rows.start + j + 1} and {columns.start + k + 1}"
            raise InputError(f"{dosages.path}: samples number {pair} have no SNP that both have called")
        total = products.matrix(number)
        total /= num_variants
        yield total


def _rows_of_chunks(dosages: DosageReader, arithmetic: Arithmetic, threads: int) -> int:
    """Rows of chunks that fill a product, fewer where threads would be left without work."""
    rows = -(-dosages.num_variants // dosages.variants_chunk)
    return max(1, min(arithmetic.variants_at_once // dosages.variants_chunk, rows // (_PARTS_OF_A_THREAD * threads)))


def variant_blocks(variants: GrmVariants, variants_chunk: int) -> Iterator[GrmVariants]:
    """The SNPs, those of one row of chunks of the genotype store at a time."""
    chunk = variants.index // variants_chunk
    for number in np.unique(chunk).tolist():
        yield GrmVariants(variants.index[chunk == number], variants.allele_frequency[chunk == number])


class HeldSamples:
    """The samples that some blocks need, in order and each once: a few ranges."""

    def __init__(self, spans: Sequence[slice]) -> None:
        """Join ranges that touch."""
        self._ranges: list[slice] = []
        for span in sorted(spans, key=lambda span: span.start):
            if self._ranges and span.start <= self._ranges[-1].stop:
                last = self._ranges.pop()
                self._ranges.append(slice(last.start, max(last.stop, span.stop)))
            else:
                self._ranges.append(span)
        self.count = sum(span.stop - span.start for span in self._ranges)

    def place(self, span: slice) -> slice:
        """Where a range of samples is among those held."""
        before = sum(min(max(span.start - held.start, 0), held.stop - held.start) for held in self._ranges)
        return slice(before, before + span.stop - span.start)

    def read(self, dosages: DosageReader, index: NDArray[np.int64]) -> Dosage:
        """(SNPs, held samples) of a row of chunks."""
        first, end = int(index[0]), int(index[-1]) + 1
        parts = [dosages.read(slice(first, end), span) for span in self._ranges]
        dosage = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return dosage if len(index) == end - first else dosage[index - first]
