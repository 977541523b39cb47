"""Sums of standardised genotypes over weighted samples, streamed over a genotype store: the work behind effects of SNPs.

    α = (σ²/m) Wᵀ P y,    so that W α = û for the GRM K = WWᵀ/m

with W (n, m) the standardised genotypes of ``relationship``. A missing genotype counts as the mean, and the sum of a SNP is
divided by its call rate in the n samples, as GCTA does: then W α is û but for the genotypes that are missing, since a
GRM with missing genotypes divides each pair of samples by its own number of SNPs.

References: Strandén & Garrick (2009), J Dairy Sci 92:2971; Yang et al. (2011), AJHG 88:76.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from openreml_dist.prep.grm_variants import count_variants
from openreml_dist.prep.relationship import VARIANTS_AT_ONCE, Matrix, standardise, variant_blocks
from openreml_dist.store.genotype_counts import GenotypeCounts, concatenate_counts
from openreml_dist.store.genotypes import DosageReader, GenotypeStore
from openreml_dist.store.grm import GrmVariants


def weighted_sums(
    dosages: DosageReader,
    variants: GrmVariants,
    samples: NDArray[np.int64],
    weights: Matrix,
    *,
    part: tuple[int, int] = (0, 1),
    threads: int = 1,
) -> Matrix:
    """Wᵀ times ``weights``, divided by the call rate: (m, c) float64, zeros for SNPs of other parts.

    2 m c flops for each sample of the store. A thread holds the genotypes of one chunk, and 512 SNPs of it in float64.

    Args:
        dosages: genotypes.
        variants: m SNPs and the frequencies that standardise them.
        samples: (n,) places in the store.
        weights: (n, c).
        part: which of how many parts of the rows of chunks to read.
        threads: that read and multiply.
    Raises:
        InputError: a chunk is damaged.
    """
    spread = np.zeros((dosages.num_samples, weights.shape[1] + 1))
    spread[samples, :-1] = weights
    spread[samples, -1] = 1.0  # to count the calls
    blocks = [*variant_blocks(variants, dosages.variants_chunk)][part[0] :: part[1]]
    sums = np.zeros((len(variants.index), weights.shape[1]))
    with ThreadPoolExecutor(threads, thread_name_prefix="snp-effects") as pool:
        for block, found in zip(blocks, pool.map(partial(_block_sums, dosages, spread), blocks), strict=True):
            called = found[:, -1:]
            scale = np.divide(len(samples), called, out=np.zeros_like(called), where=called > 0)
            sums[np.searchsorted(variants.index, block.index)] = found[:, :-1] * scale
    return sums


def _block_sums(dosages: DosageReader, spread: Matrix, block: GrmVariants) -> Matrix:
    """Σ_i w_si ``spread``_i, and in the last column Σ_i ``spread``_i over the called, for the SNPs of one row of chunks."""
    stored = slice(int(block.index[0]), int(block.index[-1]) + 1)
    sums = np.zeros((len(block.index), spread.shape[1]))
    width = dosages.samples_chunk
    for first in range(0, dosages.num_samples, width):
        here = slice(first, min(first + width, dosages.num_samples))
        genotypes = dosages.read(stored, here)[block.index - stored.start]
        for start in range(0, len(block.index), VARIANTS_AT_ONCE):
            some = slice(start, start + VARIANTS_AT_ONCE)
            sums[some, :-1] += standardise(genotypes[some], block.allele_frequency[some]) @ spread[here, :-1]
            sums[some, -1] += (genotypes[some] >= 0) @ spread[here, -1]
    return sums


def known_counts(store: GenotypeStore, threads: int = 1) -> GenotypeCounts:
    """The genotype counts that name a store: those of its import, or else of one pass over the genotypes."""
    if store.counts is not None:
        return store.counts
    edges = [*range(0, store.dosages.num_variants, store.dosages.variants_chunk), store.dosages.num_variants]
    with ThreadPoolExecutor(threads, thread_name_prefix="count-genotypes") as pool:
        return concatenate_counts([*pool.map(lambda span: count_variants(store.path, *span), pairwise(edges))])
