"""The genotypes behind the GRMs of a fit: which SNPs those are, and whether they are the ones that the GRMs were made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import InputError
from openreml_dist.prep.genotype_sums import known_counts
from openreml_dist.store.files import absolute
from openreml_dist.store.gcta import PREFIX
from openreml_dist.store.genotypes import open_genotypes
from openreml_dist.store.grm import GrmVariants, read_variants
from openreml_dist.store.kernels import open_kernel


@dataclass(frozen=True, eq=False)
class SnpSource:
    """The genotypes that the GRMs of a fit were made from.

    Attributes:
        path: of the store.
        variants: the m SNPs of all GRMs together.
        members: (m, K) whether a SNP is among those of a GRM.
        num_missing: SNPs with a missing genotype, whose effects are approximate.
    """

    path: str
    variants: GrmVariants
    members: NDArray[np.bool_]
    num_missing: int


def open_snp_source(genotypes: str, grms: Sequence[str], threads: int) -> SnpSource:
    """Check that all GRMs were made from these genotypes. Local; a store of another program is read once, to be known again.

    Raises:
        InputError: for GRMs that do not name their SNPs, or that were made from other genotypes.
    """
    store = open_genotypes(absolute(genotypes))
    counts = known_counts(store, threads)
    digest = store.digest(counts)
    made_from: list[GrmVariants] = []
    for path in grms:
        variants = None if path.startswith(PREFIX) else read_variants(path)
        if variants is None:
            raise InputError(f"output.snp_effects: {path} does not name its SNPs; make it with openreml-grm source={genotypes}")
        if open_kernel(path).attributes.get("input_digest") != digest:
            raise InputError(
                f"output.snp_effects: {path} was made from other genotypes than those of {genotypes}: other samples or "
                "variants. Give the store that openreml-grm read"
            )
        made_from.append(variants)
    index = np.unique(np.concatenate([variants.index for variants in made_from]))
    frequency = np.zeros(len(index))
    for variants in made_from:
        frequency[np.searchsorted(index, variants.index)] = variants.allele_frequency
    members = np.column_stack([np.isin(index, variants.index) for variants in made_from])
    num_missing = int((counts.called[index] < counts.num_samples).sum())
    return SnpSource(store.path, GrmVariants(index, frequency), members, num_missing)
