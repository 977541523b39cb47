"""Effects of the SNPs behind the GRMs of a fit, as GCTA's ``--blup-snp`` has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from openreml_dist.errors import InputError
from openreml_dist.grid import ProcessGrid
from openreml_dist.prep.snp_effects import known_counts, weighted_sums
from openreml_dist.store.files import absolute
from openreml_dist.store.genotypes import open_dosages, open_genotypes
from openreml_dist.store.grm import GrmVariants, open_grm, read_variants


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
        variants = read_variants(path)
        if variants is None:
            raise InputError(f"output.snp_effects: {path} does not name its SNPs; make it with openreml-grm source={genotypes}")
        if open_grm(path).attributes.get("input_digest") != digest:
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


def snp_effects(
    source: SnpSource, samples: NDArray[np.int64], variances: Sequence[float], Py: NDArray[np.float64], grid: ProcessGrid
) -> NDArray[np.float64]:
    """Effect of the counted allele of each SNP in each genetic component, and the residual's column of GCTA last: (m, K + 1).

    Collective: each rank reads its share of the genotypes.

    Args:
        source: SNPs.
        samples: (n,) place of each analysed sample in the store.
        variances: K genetic ones and the residual.
        Py: (n,).
        grid: the ranks.
    """
    with grid.together("reading genotypes for the effects of SNPs"):
        sums = weighted_sums(
            open_dosages(source.path),
            source.variants,
            samples,
            Py[:, None],
            part=(grid.rank, grid.shape.size),
            threads=torch.get_num_threads(),
        )
    sums = grid.sum_(torch.from_numpy(sums).to(grid.device)).cpu().numpy()
    p = source.variants.allele_frequency
    members = np.column_stack([source.members, np.ones(len(p), np.bool_)])
    per_allele = sums / np.sqrt(2 * p * (1 - p))[:, None]
    return np.asarray(per_allele * members * (np.asarray(variances) / members.sum(axis=0)))
