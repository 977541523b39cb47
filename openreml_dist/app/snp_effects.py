"""Effects of the SNPs behind the GRMs of a fit, as GCTA's ``--blup-snp`` has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from openreml_dist.app.inputs.snp_source import SnpSource
from openreml_dist.grid import ProcessGrid
from openreml_dist.prep.genotype_sums import weighted_sums
from openreml_dist.reml import FitResult
from openreml_dist.reml.prediction import Predictor
from openreml_dist.store.genotypes import open_dosages, open_genotypes, read_variant_labels


@dataclass(frozen=True, eq=False)
class SnpEffects:
    """Effects of the counted alleles of m SNPs.

    Attributes:
        names, alleles: (m,).
        values: (m, K + 1) in each genetic component, and the residual's column of GCTA last.
    """

    names: NDArray[np.str_]
    alleles: NDArray[np.str_]
    values: NDArray[np.float64]


def effects_behind_grms(
    source: SnpSource, samples: NDArray[np.int64], grid: ProcessGrid, fit: FitResult, predictor: Predictor
) -> SnpEffects:
    """Of the SNPs that the GRMs of a fit were made from. Collective: each rank reads a part of the genotypes.

    Args:
        source: SNPs.
        samples: (n,) place of each analysed sample in the store.
        grid: the ranks.
        fit: with K genetic variances and the residual's.
        predictor: at its estimates.
    """
    Py = predictor.Py.double().cpu().numpy()
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
    values = per_allele * members * (fit.theta.numpy() / members.sum(axis=0))
    return SnpEffects(*read_variant_labels(open_genotypes(source.path), source.variants.index), values)
