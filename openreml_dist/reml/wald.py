"""Wald tests of fixed effects.

Legend: p fixed effects β̂ with sampling covariance B = (XᵀV⁻¹X)⁻¹ at θ̂, which is taken as known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from openreml_dist.errors import InputError
from openreml_dist.reml.result import FitResult

SINGULAR = 1e-12  # squared pivot of a sampling correlation matrix


@dataclass(frozen=True)
class WaldTest:
    """H₀: some effects are all zero. ``statistic`` is χ² with ``df`` degrees of freedom in large samples."""

    statistic: float
    df: int
    pvalue: float


def wald_test(fit: FitResult, columns: Sequence[int]) -> WaldTest:
    """β̂_Sᵀ (B_SS)⁻¹ β̂_S for the effects of some columns S of X, such as all of one factor. Local.

    Raises:
        InputError: without columns, for columns that X lacks or that come twice, and where B_SS is singular.
    """
    p, chosen = len(fit.beta), list(columns)
    if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= column < p for column in chosen):
        raise InputError(f"Wald test: columns {chosen} are not some of the {p} columns of X, each once")
    B = fit.beta_covariance[chosen][:, chosen]
    scale = B.diagonal().sqrt()
    L, info = torch.linalg.cholesky_ex(B / (scale[:, None] * scale))
    if int(info) or not bool((L.diagonal().square() > SINGULAR).all()):
        raise InputError(
            f"Wald test: the sampling covariance of the effects of columns {chosen} is singular, so that they cannot be tested "
            "together; test fewer of them"
        )
    z = torch.linalg.solve_triangular(L, (fit.beta[chosen] / scale)[:, None], upper=False)
    statistic = float(z.square().sum())
    return WaldTest(statistic, len(chosen), chi2_tail(statistic, len(chosen)))


def chi2_tail(x: float, df: int) -> float:
    """P(χ²_df > x) for x ≥ 0; χ²₀ is 0, and never above x."""
    if df == 0:
        return 0.0
    return float(torch.special.gammaincc(torch.tensor(df / 2, dtype=torch.float64), torch.tensor(x / 2, dtype=torch.float64)))
