"""The fixed effects' design X, orthogonalised: badly scaled covariates do no harm, since P depends on the span of X alone.

Legend: n samples, p fixed effects; e residuals of y on X by least squares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.errors import InputError

NOTHING_LEFT = 1e-12  # of y, after its fit on X


@dataclass(frozen=True)
class FixedDesign:
    """X = QR: Q (n, p) orthonormal, R (p, p) upper triangular."""

    Q: Tensor
    R: Tensor

    @classmethod
    def of(cls, X: Tensor) -> FixedDesign:
        """Orthogonalise X (n, p). Local.

        Raises:
            InputError: if X has more columns than rows, or linearly dependent columns.
        """
        n, p = X.shape
        if n <= p:
            raise InputError(f"{n} samples cannot estimate {p} fixed effects and a residual variance")
        scale = torch.linalg.vector_norm(X, dim=0)
        if not bool((scale > 0).all()):
            raise InputError(f"fixed effects: column {int(scale.argmin()) + 1} of X is zero")
        Q, R = torch.linalg.qr(X / scale)
        smallest = R.diagonal().abs()
        if bool((smallest < 1e-9).any()):
            raise InputError(
                f"fixed effects: column {int(smallest.argmin()) + 1} of X is a combination of the columns before it"
            )
        return cls(Q.contiguous(), R * scale)

    @property
    def log_gram_determinant(self) -> float:
        """log|XᵀX|."""
        return 2 * float(self.R.diagonal().abs().log().sum())

    def projected(self, B: Tensor) -> Tensor:
        """(I − QQᵀ)B for B (n,) or (n, m). Local."""
        MB: Tensor = B - self.Q @ (self.Q.mT @ B)
        return MB

    def coefficients(self, y: Tensor) -> Tensor:
        """(p,) R⁻¹Qᵀy, of the least-squares fit of y (n,). Local."""
        b: Tensor = torch.linalg.solve_triangular(self.R, (self.Q.mT @ y)[:, None], upper=True)
        return b[:, 0]

    def residuals(self, y: Tensor) -> Tensor:
        """e (n,), y less its least-squares fit on X. Local.

        Raises:
            InputError: if nothing is left, on every rank.
        """
        e = self.projected(y)
        if float(e.norm()) <= NOTHING_LEFT * float(y.norm()):
            raise InputError("y is constant, or a linear combination of the columns of x: there is no variance to estimate")
        return e


def null_log_likelihood(y: Tensor, x: Tensor) -> float:
    """max ℓ(σ²) for V = σ²I: σ̂² = RSS/(n−p), ℓ = −½((n−p)(log σ̂² + 1) + log|XᵀX|). Local.

    Args:
        y: (n,).
        x: (n, p).
    """
    X = FixedDesign.of(x)
    e = X.residuals(y)
    degrees_of_freedom = len(y) - X.Q.shape[1]
    variance = float(e.square().sum()) / degrees_of_freedom
    return -0.5 * (degrees_of_freedom * (math.log(variance) + 1) + X.log_gram_determinant)
