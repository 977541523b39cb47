"""Effects of the SNPs behind the GRMs of a fit, as GCTA's ``--blup-snp`` has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from openreml_dist.app.inputs.snp_source import SnpSource
from openreml_dist.grid import ProcessGrid
from openreml_dist.prep.genotype_sums import weighted_sums
from openreml_dist.store.genotypes import open_dosages


def snp_effects(
    source: SnpSource, samples: NDArray[np.int64], variances: Sequence[float], Py: NDArray[np.float64], grid: ProcessGrid
) -> NDArray[np.float64]:
    """Effect of the counted allele of each SNP in each genetic component, and the residual's column of GCTA last: (m, K + 1).

    Collective: each rank reads a part of the genotypes.

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
