"""Which variants of the genotypes of a fit are used, by counts that the ranks find together."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from openreml_dist.errors import InputError
from openreml_dist.grid import ProcessGrid
from openreml_dist.prep.filters import usable_variants
from openreml_dist.store.genotype_counts import GenotypeCounts
from openreml_dist.store.genotype_source import GenotypeSource


def count_together(source: GenotypeSource, grid: ProcessGrid) -> GenotypeSource:
    """The source with its counts: where none are stored, of one pass over the genotypes, of which every rank reads a part.

    Collective.

    Raises:
        InputError: what is read is damaged.
    """
    if source.stored_counts is not None:
        return source
    chunks, ranks = -(-source.num_variants // source.variants_chunk), grid.shape.size
    first, last = (
        min(source.num_variants, source.variants_chunk * (chunks * rank // ranks)) for rank in (grid.rank, grid.rank + 1)
    )
    sums = torch.zeros((3, source.num_variants), dtype=torch.int64)
    with grid.together("counting the genotypes"):
        if first < last:
            part = source.count((first, last), torch.get_num_threads())
            sums[:, first:last] = torch.from_numpy(np.stack([part.hom_ref, part.het, part.hom_alt]))
    hom_ref, het, hom_alt = grid.sum_(sums.to(grid.device)).cpu().numpy()
    return source.counted(GenotypeCounts(hom_ref, het, hom_alt, source.num_samples))


def usable(source: GenotypeSource) -> tuple[NDArray[np.int64], str]:
    """The variants (m,) that ``openreml-grm`` would take as it stands, by their place in the source, and a line on the others.

    Raises:
        InputError: there is none.
    """
    kept, tally = usable_variants(source.chromosome, source.biallelic, source.counts)
    index = np.flatnonzero(kept)
    if not len(index):
        raise InputError(f"{source.path}: no variant can be used: {tally}")
    return index, f"variants: {tally}; kept {len(index):,} of {len(kept):,}"
