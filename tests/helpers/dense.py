"""REML as the textbooks write it, with n x n matrices: the oracle of the tests.

Legend: n samples, p fixed effects, r parameters; V (n, n), dV the r matrices ∂V/∂θ_k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DenseStep:
    """What ``ai_step`` must find."""

    loglik: float
    score: Tensor
    AI: Tensor
    beta: Tensor
    beta_covariance: Tensor
    P: Tensor


def dense_step(V: Tensor, dV: Sequence[Tensor], X: Tensor, y: Tensor) -> DenseStep:
    """Everything at one θ, in float64."""
    V_inv = torch.linalg.inv(V)
    information = X.mT @ V_inv @ X
    beta_covariance = torch.linalg.inv(information)
    P = V_inv - V_inv @ X @ beta_covariance @ X.mT @ V_inv
    Py = P @ y
    T = torch.stack([V_k @ Py for V_k in dV], dim=1)
    score = torch.stack([0.5 * (Py @ V_k @ Py - (P * V_k).sum()) for V_k in dV])
    loglik = -0.5 * (torch.logdet(V) + torch.logdet(information) + y @ Py)
    return DenseStep(float(loglik), score, 0.5 * T.mT @ P @ T, beta_covariance @ X.mT @ V_inv @ y, beta_covariance, P)
