"""Genotypes of one chromosome: founders or full siblings, with missing calls, as they will stand in the .bed file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import ConfigError
from openreml_dist.prep.simulate_founders import MIN_MAF, RECOMBINATION_RATE, Alleles, FounderModel, Positions

Genotypes: TypeAlias = NDArray[np.int8]

MISSING = -127  # bed-reader's missing call
SPACING = 10_000  # base pairs a variant, while a chromosome stays below MAX_LENGTH
MAX_LENGTH = 100_000_000  # base pairs
MIN_LENGTH = 1_000_000  # base pairs
MIN_SPACING = 1000  # base pairs a variant; the founder models have about two common sites there
MIN_MORGANS = 0.5  # every chromosome has at least one chiasma in a meiosis
SPARE = 1.25  # founder sites a variant: some become rare in the sample
ATTEMPTS = 4  # each with twice the length and sites of the one before
BLOCK_ALLELES = 4_000_000  # worked on at a time


@dataclass(frozen=True)
class Pedigree:
    """Full siblings: samples of a family stand together."""

    num_samples: int
    family_size: int  # 1 is unrelated people, who are founders themselves

    @property
    def num_families(self) -> int:
        """Families; the last may be smaller than the others."""
        return -(-self.num_samples // self.family_size)

    @property
    def num_haplotypes(self) -> int:
        """Founder haplotypes: two a founder, two founder parents a family."""
        return 2 * self.num_samples if self.family_size == 1 else 4 * self.num_families

    @property
    def family(self) -> NDArray[np.int64]:
        """Family of each sample, from 0 (num_samples,)."""
        return np.arange(self.num_samples) // self.family_size


@dataclass(frozen=True)
class Chromosome:
    """Variants of one chromosome in increasing order of position."""

    positions: Positions  # (variants,) base pairs, from 1
    genotypes: Genotypes  # (variants, samples) copies of A1, the minor allele, all known
    observed: Genotypes  # the same with missing calls


def simulate_chromosome(
    pedigree: Pedigree, num_variants: int, missing_rate: float, founders: FounderModel, rng: np.random.Generator
) -> Chromosome:
    """Simulate variants with an observed minor allele frequency of at least ``MIN_MAF``.

    Memory: about SPARE x num_variants x (founder haplotypes + 2 x samples) bytes.

    Args:
        pedigree: who is related to whom.
        num_variants: how many to return.
        missing_rate: of calls.
        founders: the model of founder haplotypes.
        rng: of this chromosome.
    Raises:
        ConfigError: the founder model gives too few common variants, as for very few samples.
    """
    length = max(MIN_LENGTH, min(num_variants * SPACING, max(MAX_LENGTH, num_variants * MIN_SPACING)))
    num_sites = int(SPARE * num_variants) + 20
    for _ in range(ATTEMPTS):
        positions, haplotypes = founders(pedigree.num_haplotypes, num_sites, length, rng)
        genotypes = _sample_genotypes(pedigree, positions, haplotypes, length, rng)
        observed = _lose_calls(genotypes, missing_rate, rng)
        frequency = _allele_frequency(observed)
        common = np.flatnonzero((frequency >= MIN_MAF) & (frequency <= 1 - MIN_MAF))
        if len(common) >= num_variants:
            chosen = np.sort(rng.choice(common, num_variants, replace=False))
            return _minor_allele_first(positions[chosen], genotypes[chosen], observed[chosen], frequency[chosen])
        length, num_sites = 2 * length, 2 * num_sites
    raise ConfigError(
        f"no {num_variants:,} variants with a minor allele frequency of {MIN_MAF} or more were found on a chromosome for "
        f"{pedigree.num_samples:,} samples; lower num_variants or missing_genotypes, or raise num_samples"
    )


def _sample_genotypes(
    pedigree: Pedigree, positions: Positions, haplotypes: Alleles, length: int, rng: np.random.Generator
) -> Genotypes:
    """Derived alleles of each sample (variants, samples), from two founder haplotypes or a gamete of each parent."""
    if pedigree.family_size == 1:
        return (haplotypes[:, 0::2] + haplotypes[:, 1::2]).astype(np.int8)
    father, mother = 4 * pedigree.family, 4 * pedigree.family + 2
    gametes = (_gametes(positions, haplotypes, parent, length, rng) for parent in (father, mother))
    return sum(gametes, np.zeros((len(positions), pedigree.num_samples), np.uint8)).astype(np.int8)


def _gametes(
    positions: Positions, haplotypes: Alleles, parent: NDArray[np.int64], length: int, rng: np.random.Generator
) -> Alleles:
    """One gamete of each parent, whose haplotypes are columns ``parent`` and ``parent + 1``; crossovers after Haldane."""
    morgans = max(MIN_MORGANS, length * RECOMBINATION_RATE) / length * np.diff(positions, prepend=positions[0])
    switch_rate = -0.5 * np.expm1(-2 * morgans)
    switch_rate[0] = 0.5
    gametes = np.empty((len(positions), len(parent)), np.uint8)
    step = max(1, BLOCK_ALLELES // max(1, len(positions)))
    for start in range(0, len(parent), step):
        first = parent[start : start + step]
        switches = rng.random((len(positions), len(first))) < switch_rate[:, None]
        second_haplotype = np.logical_xor.accumulate(switches, axis=0)
        gametes[:, start : start + step] = np.where(second_haplotype, haplotypes[:, first + 1], haplotypes[:, first])
    return gametes


def _lose_calls(genotypes: Genotypes, missing_rate: float, rng: np.random.Generator) -> Genotypes:
    """The genotypes with missing calls; the same array where there are none."""
    if missing_rate == 0:
        return genotypes
    observed = genotypes.copy()
    step = max(1, BLOCK_ALLELES // observed.shape[1])
    for start in range(0, len(observed), step):
        block = observed[start : start + step]
        block[rng.random(block.shape) < missing_rate] = MISSING
    return observed


def _allele_frequency(observed: Genotypes) -> NDArray[np.float64]:
    """Frequency of the counted allele among the known calls (variants,); 0 where no call is known."""
    known = observed != MISSING
    count = np.sum(observed, axis=1, where=known, dtype=np.int64)
    frequency: NDArray[np.float64] = count / np.maximum(2 * known.sum(axis=1), 1)
    return frequency


def _minor_allele_first(
    positions: Positions, genotypes: Genotypes, observed: Genotypes, frequency: NDArray[np.float64]
) -> Chromosome:
    """Count the other allele where the counted one is the major allele."""
    flip = frequency > 0.5
    flipped_observed = observed.copy()
    flipped_observed[flip] = np.where(observed[flip] == MISSING, MISSING, 2 - observed[flip])
    genotypes[flip] = 2 - genotypes[flip]
    return Chromosome(positions, genotypes, flipped_observed)
