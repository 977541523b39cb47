"""The model without any random term but the residual, in closed form."""

from __future__ import annotations

import math

from torch import Tensor

from openreml_dist.reml.dense.projection import Design


def null_log_likelihood(y: Tensor, x: Tensor) -> float:
    """max ℓ(σ²) for V = σ²I: σ̂² = RSS/(n−p), ℓ = −½((n−p)(log σ̂² + 1) + log|XᵀX|). Local.

    Args:
        y: (n,).
        x: (n, p).
    """
    X = Design.of(x)
    residuals = y - X.Q @ (X.Q.mT @ y)
    degrees_of_freedom = len(y) - X.Q.shape[1]
    variance = float(residuals.square().sum()) / degrees_of_freedom
    return -0.5 * (degrees_of_freedom * (math.log(variance) + 1) + X.log_gram_determinant)
