"""Best linear unbiased predictions from products with genotypes: of individuals, of SNPs, of new samples.

Legend: n samples, m SNPs, K components; α_k the effects of the SNPs in component k, per standardised genotype.

    α̂_k = θ_k w_k ∘ Z P y,   û_k = Zᵀα̂_k,   ŷ = xβ̂ + Zᵀ Σ_k α̂_k

References: Strandén & Garrick (2009), J Dairy Sci 92:2971.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.covariance import Covariance, Term
from openreml_dist.covariance.indices import Indices
from openreml_dist.errors import ConfigError
from openreml_dist.genotypes import GenotypeOperator
from openreml_dist.reml.prediction import Effects, NewRecords
from openreml_dist.reml.stochastic.problem import Problem


def effects_per_allele(Z: GenotypeOperator, weights: Tensor, theta: Tensor, Py: Tensor) -> Tensor:
    """(m, K + 1) float64 on the CPU: α̂ for a counted allele, and last σ_e² ZPy/m likewise, as GCTA has it. Collective."""
    ZPy = Z.of_samples(Py[:, None])
    m = len(ZPy)
    theta = theta.to(ZPy.device)
    variances = torch.cat([theta[:-1] * weights, theta[-1].expand(m, 1) / m], dim=1)
    return (variances * ZPy * Z.scale[:, None]).cpu()


@dataclass
class MarkerPredictor:
    """What is needed to predict at one θ.

    Attributes:
        problem: genotypes and data.
        names: of the K components and the residual.
        theta: (K + 1,) on the CPU.
        Py: (n,).
    """

    problem: Problem
    names: tuple[str, ...]
    theta: Tensor
    Py: Tensor

    def snp_effects(self) -> Tensor:
        """α̂ (m, K), float64 on the CPU. Collective. Cost: 2nm flops."""
        ZPy = self.problem.Z.of_samples(self.Py[:, None])
        return (self.theta[:-1].to(ZPy.device) * self.problem.weights * ZPy).cpu()

    def snp_effects_per_allele(self) -> Tensor:
        """As ``effects_per_allele``. Collective."""
        return effects_per_allele(self.problem.Z, self.problem.weights, self.theta, self.Py)

    def records(self) -> list[Effects]:
        """û of every component at the n records, and σ_e² Py, the residual. Collective. Cost: 2nm(K + 1) flops."""
        u = self.problem.Z.of_variants(self.snp_effects().to(self.Py.device)).cpu()
        residual = (float(self.theta[-1]) * self.Py).cpu()
        return [Effects(name, values) for name, values in zip(self.names, [*u.mT, residual], strict=True)]

    def effects(self, name: str, whole: Term, records: Indices, targets: Indices | None = None) -> Effects:  # noqa: ARG002
        """Refused: a new sample is predicted from ``snp_effects``.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{name}: new samples are predicted from the effects of SNPs, which output.blup=true writes")

    def new_records(self, whole: Covariance, records: Indices, targets: Indices, x: Tensor) -> NewRecords:  # noqa: ARG002
        """Refused likewise.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("new samples are predicted from the effects of SNPs, which output.blup=true writes")
