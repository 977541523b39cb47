"""P = V⁻¹ − V⁻¹X(XᵀV⁻¹X)⁻¹XᵀV⁻¹, applied and read by tiles, never formed.

Legend: n samples, p fixed effects; X = QR with orthonormal Q.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openreml_dist.linalg import CholeskyFactor, Inverse, diagonal
from openreml_dist.reml.fixed import FixedDesign
from openreml_dist.tiled import TiledSymmetric


class Projection:
    """P = V⁻¹ − WWᵀ with W (n, p) = V⁻¹QC⁻ᵀ and CCᵀ = QᵀV⁻¹Q, from an inverse or a factor of V.

    Collective to make and to apply.
    """

    def __init__(self, V_inv: Inverse | CholeskyFactor, X: FixedDesign, V_inv_Q: Tensor) -> None:
        self._V_inv = V_inv
        self._X = X
        self._C = torch.linalg.cholesky(X.Q.mT @ V_inv_Q)
        self.W = torch.linalg.solve_triangular(self._C, V_inv_Q.mT, upper=False).mT.contiguous()

    @classmethod
    def with_product(cls, V_inv: Inverse | CholeskyFactor, X: FixedDesign, B: Tensor) -> tuple[Projection, Tensor]:
        """P, and PB for a replicated B (n, m), from one product with V⁻¹. Collective."""
        p = X.Q.shape[1]
        product = V_inv @ torch.cat([X.Q, B], dim=1)
        P = cls(V_inv, X, product[:, :p])
        return P, product[:, p:] - P.W @ (P.W.mT @ B)

    def __matmul__(self, B: Tensor) -> Tensor:
        """PB for a replicated B (n,) or (n, m). Collective."""
        columns = B if B.ndim == 2 else B[:, None]
        PB: Tensor = self._V_inv @ columns - self.W @ (self.W.mT @ columns)
        return PB.reshape(B.shape)

    def quadratic(self, B: Tensor) -> Tensor:
        """BᵀPB (m, m) for a replicated B (n, m). Collective; with a factor it costs half of a product."""
        WB = self.W.mT @ B
        BPB: Tensor = self._V_inv.quadratic(B) - WB.mT @ WB
        return BPB

    @property
    def tiles(self) -> TiledSymmetric:
        """The tiles of V⁻¹. Local; not with a factor."""
        assert isinstance(self._V_inv, Inverse)
        return self._V_inv.tiles

    @property
    def log_determinants(self) -> float:
        """log|V| + log|XᵀV⁻¹X|."""
        return self._V_inv.log_determinant + fixed_log_determinant(self._C, self._X)

    @property
    def diagonal_of_inverse(self) -> Tensor:
        """(V⁻¹)_ii (n,). Collective."""
        return diagonal(self.tiles)

    @property
    def F(self) -> Tensor:
        """(p, p) with FFᵀ = (XᵀV⁻¹X)⁻¹. Local."""
        return fixed_effect_factor(self._C, self._X)

    @property
    def XF(self) -> Tensor:
        """XF (n, p) = QC⁻ᵀ = VW: the sampling covariance of Xβ̂ is its product with its transpose. Local."""
        XF_T: Tensor = torch.linalg.solve_triangular(self._C, self._X.Q.mT, upper=False)
        return XF_T.mT

    def fixed_effects(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """β̂ (p,) = (XᵀV⁻¹X)⁻¹XᵀV⁻¹y and its sampling covariance (p, p). Local."""
        F = self.F
        return F @ (self.W.mT @ y), F @ F.mT


def fixed_effect_factor(C: Tensor, X: FixedDesign) -> Tensor:
    """F = R⁻¹C⁻ᵀ with FFᵀ = (XᵀV⁻¹X)⁻¹, from CCᵀ = QᵀV⁻¹Q. Local."""
    C_inv_T = torch.linalg.solve_triangular(C.mT, torch.eye(len(C), dtype=C.dtype, device=C.device), upper=True)
    F: Tensor = torch.linalg.solve_triangular(X.R, C_inv_T, upper=True)
    return F


def fixed_log_determinant(C: Tensor, X: FixedDesign) -> float:
    """log|XᵀV⁻¹X| from CCᵀ = QᵀV⁻¹Q. Local."""
    return 2 * float(C.diagonal().log().sum()) + X.log_gram_determinant
