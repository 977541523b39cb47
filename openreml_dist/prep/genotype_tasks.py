"""Tasks of the PLINK import, each over a block of variants: count, filter, write."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openreml_dist.prep.filters import Mask, Tally, VariantFilters, filter_variants
from openreml_dist.store.genotype_counts import GenotypeCounts, count_genotypes
from openreml_dist.store.genotypes_writer import resume_genotypes
from openreml_dist.store.plink import BedFile

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class BlockQuality:
    """What is known of a block of variants after its genotypes were counted.

    Attributes:
        variants: indices of the variants kept, in the ``.bed``.
        counts, hwe_p_value: of those.
        called: (n,) how many of those have a call, by sample.
        tally: those left out.
        digests: 32 bytes a kept variant, sha256 of its genotypes.
    """

    variants: Indices
    counts: GenotypeCounts
    hwe_p_value: NDArray[np.float64]
    called: Indices
    tally: Tally
    digests: bytes


def count_missing(bed: BedFile, variants: Indices) -> Indices:
    """(n,) missing calls of each sample over the variants."""
    missing: Indices = np.count_nonzero(bed.read(variants, None) < 0, axis=0)
    return missing


def count_block(bed: BedFile, variants: Indices, samples: Mask | None, filters: VariantFilters) -> BlockQuality:
    """Count the genotypes of a block of variants over the kept samples and apply the filters."""
    dosage = bed.read(variants, samples)
    counts = count_genotypes(dosage)
    kept, p_value, tally = filter_variants(counts, filters)
    rows = dosage[kept]
    return BlockQuality(
        variants=variants[kept],
        counts=counts.take(kept),
        hwe_p_value=p_value[kept],
        called=np.count_nonzero(rows >= 0, axis=0),
        tally=tally,
        digests=b"".join(hashlib.sha256(row.tobytes()).digest() for row in rows),
    )


def write_partition(bed: BedFile, out: str, partition: int) -> None:
    """Write one partition of the store at ``out``, which knows which variants and samples of the ``.bed`` it holds."""
    writer = resume_genotypes(out)
    variants, source_samples = writer.source_indices(partition)
    samples = np.zeros(bed.num_samples, dtype=np.bool_)
    samples[source_samples] = True
    writer.write_partition(partition, bed.read_packed(variants, samples))
