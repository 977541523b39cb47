"""Which SNPs of a genotype store a GRM is computed from."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from openreml_dist.config import GrmConfig
from openreml_dist.errors import InputError
from openreml_dist.prep.filters import usable_variants
from openreml_dist.prep.progress import progress, say
from openreml_dist.prep.tasks import TaskPool
from openreml_dist.store.genotype_counts import GenotypeCounts, concatenate_counts, count_genotypes
from openreml_dist.store.genotypes import GenotypeStore, open_dosages
from openreml_dist.store.grm import GrmVariants

_SAMPLES_AT_ONCE = 50_000


@dataclass(frozen=True, eq=False)
class Partition:
    """A GRM to be made: ``genome`` or a chromosome, its SNPs, and whether some of their genotypes are missing."""

    name: str
    variants: GrmVariants
    any_missing: bool


def genotype_counts(pool: TaskPool, store: GenotypeStore) -> GenotypeCounts:
    """The counts that the import stored, or else one pass over the genotypes."""
    if store.counts is not None:
        return store.counts
    edges = [*range(0, store.dosages.num_variants, store.dosages.variants_chunk), store.dosages.num_variants]
    calls = [(store.path, start, stop) for start, stop in pairwise(edges)]
    parts = {}
    with progress("Counting genotypes", len(calls)) as advance:
        for index, counts in pool.run(count_variants, calls):
            parts[index] = counts
            advance(1)
    return concatenate_counts([parts[index] for index in range(len(calls))])


def count_variants(path: str, start: int, stop: int) -> GenotypeCounts:
    """Task: count the genotypes of the variants ``start`` .. ``stop`` - 1 over all samples."""
    dosages = open_dosages(path)
    hom_ref, het, hom_alt = (np.zeros(stop - start, dtype=np.int64) for _ in range(3))
    for first in range(0, dosages.num_samples, _SAMPLES_AT_ONCE):
        samples = slice(first, min(first + _SAMPLES_AT_ONCE, dosages.num_samples))
        part = count_genotypes(dosages.read(slice(start, stop), samples))
        hom_ref += part.hom_ref
        het += part.het
        hom_alt += part.hom_alt
    return GenotypeCounts(hom_ref, het, hom_alt, dosages.num_samples)


def select_variants(store: GenotypeStore, counts: GenotypeCounts, settings: GrmConfig) -> list[Partition]:
    """Apply the filters, say what they left out, and divide the SNPs by ``settings.by``.

    Allele frequencies are those of all samples of the store.

    Raises:
        InputError: no SNP is left.
    """
    kept, tally = usable_variants(
        store.chromosome,
        store.biallelic,
        counts,
        autosomes_only=settings.autosomes_only,
        max_missing=settings.max_missing,
        min_maf=settings.min_maf,
    )
    index = np.flatnonzero(kept)
    say(f"variants: {tally}; kept {len(index):,} of {len(kept):,}")
    if not len(index):
        raise InputError(f"{store.path}: no variant is left for the relationship matrix")
    if settings.by == "genome":
        return [_partition("genome", index, counts)]
    chromosome = store.chromosome[index]
    return [_partition(name, index[chromosome == name], counts) for name in dict.fromkeys(chromosome.tolist())]


def _partition(name: str, index: NDArray[np.int64], counts: GenotypeCounts) -> Partition:
    selected = counts.take(index)
    return Partition(name, GrmVariants(index, selected.allele_frequency), bool((selected.called < counts.num_samples).any()))
