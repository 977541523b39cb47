"""σ²ZᵀWZ of standardised genotypes that no rank holds all of: known by its products alone."""

from __future__ import annotations

import torch
from torch import Tensor

from openreml_dist.covariance.component import VarianceComponent
from openreml_dist.covariance.indices import Indices, Samples
from openreml_dist.covariance.products import Work
from openreml_dist.covariance.term import Term
from openreml_dist.errors import InputError
from openreml_dist.genotypes import GenotypeOperator


class MarkerMatrix(Term):
    """Zᵀ diag(w) Z for genotypes Z (m, n) that are dealt to the ranks by samples, without parameters.

    Args:
        Z: the genotypes.
        weights: (m,) w.
        name: in messages.
    """

    has_product = True
    is_sharded = True

    def __init__(self, Z: GenotypeOperator, weights: Tensor, name: str) -> None:
        self.Z = Z
        self.weights = weights
        self.name = name
        self.size = Z.num_samples

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """Refused: a tile would need the genotypes of other ranks' samples.

        Raises:
            InputError: says which engine can do without.
        """
        raise InputError(
            f"{self.name}: genotypes are known by their products alone; an engine of tiles needs a relationship matrix, which "
            "openreml-grm makes"
        )

    def add_times_(self, product: Tensor, B: Tensor, eta: Tensor, work: Work, factor: float = 1.0) -> None:
        """Zᵀ(w ∘ ZB), this rank's samples of it. Collective. 4nm flops a column of B, over all ranks."""
        weighted = (factor * self.weights.to(B.dtype))[:, None] * self.Z.of_samples(B)
        own = self.Z.samples
        product[own.start : own.stop] += self.Z.of_own_variants(weighted)

    def selected(self, samples: Indices) -> Term:
        """Refused likewise."""
        raise InputError(f"{self.name}: genotypes of a fit have one record a sample")


class Markers(VarianceComponent):
    """σ²Zᵀ diag(w) Z: effects of m SNPs, that of SNP j with variance w_j σ²."""

    is_kernel = True
    K: MarkerMatrix

    def __init__(self, Z: GenotypeOperator, weights: Tensor, name: str = "genetic") -> None:
        super().__init__(MarkerMatrix(Z, weights, name), name)
