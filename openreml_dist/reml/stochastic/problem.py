"""What stays the same while θ changes: genotypes, annotation, data, and the blocks of neighbouring SNPs.

Legend: n samples, p fixed effects, m SNPs, K components, b SNPs of a block; X = QR with orthonormal Q, M = I − QQᵀ.

    V(θ) = Zᵀ D Z + σ_e² I,   D_j = Σ_k θ_k w_jk     Z (m, n) standardised genotypes, w_k ≥ 0 with Σ_j w_jk = 1
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.errors import InputError
from openreml_dist.genotypes import GenotypeOperator
from openreml_dist.reml.fixed import FixedDesign

BLOCK = 1024  # neighbouring SNPs, as far as linkage disequilibrium reaches
SIZES = (1e-12, 1e12)  # of y: its squares and their inverses are numbers in single precision


@dataclass(frozen=True)
class Problem:
    """y ~ N(Xβ, V(θ)), known by products with genotypes.

    Attributes:
        Z: the genotypes.
        weights: (m, K) w.
        y: (n,) float64, replicated, less its least-squares fit on X: P y is the same, and a large mean costs no digits.
        fit: (p,) the coefficients of that fit; β̂ is their sum with that of ``y``.
        X: (n, p), replicated.
        ZQ: (m, p) float64.
        ZMy: (m,) float64.
        grams: (blocks, b, b) float32 with the diagonal blocks of ZMZᵀ, the last filled up with zeros.
    """

    Z: GenotypeOperator
    weights: Tensor
    y: Tensor
    fit: Tensor
    X: FixedDesign
    ZQ: Tensor
    ZMy: Tensor
    grams: Tensor

    @classmethod
    def of(cls, Z: GenotypeOperator, annotation: Tensor, y: Tensor, X: Tensor, block: int = BLOCK) -> Problem:
        """From y (n,), X (n, p) and the part (m, K) of each SNP in each component, not negative.

        Collective. Cost: 2nm(b + 2p) flops.

        Raises:
            InputError: for the wrong shape, values that are not finite or negative, dependent columns of X, y among their
                combinations, y of a size that single precision does not reach.
        """
        n, m, device = Z.num_samples, Z.num_variants, Z.frequency.device
        if y.shape != (n,) or X.ndim != 2 or len(X) != n or annotation.ndim != 2 or len(annotation) != m:
            raise InputError(
                f"y {tuple(y.shape)} and x {tuple(X.shape)} must have {n} rows, the annotation {tuple(annotation.shape)} {m}"
            )
        if not bool(torch.isfinite(y).all() and torch.isfinite(X).all() and torch.isfinite(annotation).all()):
            raise InputError("y, x and the annotation must be finite")
        total = annotation.double().sum(dim=0)
        if bool((annotation < 0).any()) or not bool((total > 0).all()):
            raise InputError("annotation: a component needs a SNP, and no SNP may have a negative part in one")
        design = FixedDesign.of(X.double().to(device))
        weights = (annotation.double() / total).to(device)
        y = y.double().to(device)
        e = design.residuals(y)
        size = float(e.square().mean().sqrt())
        if not SIZES[0] < size < SIZES[1]:
            raise InputError(f"y varies by {size:.1g}, whose square leaves single precision: multiply y by {1 / size:.0e}")
        fit, e = design.coefficients(y), design.residuals(e)
        ZQy = Z.of_samples(torch.cat([design.Q, e[:, None]], dim=1))
        ZQ, ZMy = ZQy[:, :-1].contiguous(), ZQy[:, -1].contiguous()
        grams = Z.block_grams(min(block, m))
        for gram, within in zip(grams, in_blocks(ZQ, grams), strict=True):
            gram.sub_(within @ within.mT)
        return cls(Z, weights, e, fit, design, ZQ, ZMy, grams)

    @property
    def num_samples(self) -> int:
        """n."""
        return self.Z.num_samples

    @property
    def degrees_of_freedom(self) -> int:
        """n − p."""
        return self.num_samples - self.X.Q.shape[1]

    @property
    def own_diagonal(self) -> Tensor:
        """(m,) float64, the diagonal of ZMZᵀ."""
        return self.grams.diagonal(dim1=1, dim2=2).double().reshape(-1)[: self.Z.num_variants]

    def projected_gram(self, V: Tensor) -> Tensor:
        """ZMZᵀV (m, c) for V (m, c), in its precision. Collective. Cost: 4nmc flops."""
        ZQ = self.ZQ.to(V.dtype)
        return self.Z.gram(V).sub_(ZQ @ (ZQ.mT @ V))

    def without_fixed(self, B: Tensor) -> Tensor:
        """MB (n, c). Local."""
        Q = self.X.Q
        return B - Q @ (Q.mT @ B)


def in_blocks(V: Tensor, blocks: Tensor) -> Tensor:
    """V (m, c) as (blocks, b, c), filled up with zeros. Local."""
    count, size = blocks.shape[:2]
    return torch.nn.functional.pad(V, (0, 0, 0, count * size - len(V))).view(count, size, -1)
