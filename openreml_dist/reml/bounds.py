"""Least and greatest θ, and which of them a model has.

Legend: r parameters θ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.covariance import Covariance, DiagonalTerm, VarianceComponent

SHRINKAGE = 0.1  # of a parameter in one step towards a bound where its slope vanishes
DISTANCE = 1e-4  # of such a bound that is kept, over that of the start
SMALLEST_RESIDUAL = 1e-6  # of the phenotypic variance: where the bound of an identity term lies, since V must stay invertible


@dataclass(frozen=True)
class Bounds:
    """Least and greatest θ.

    Attributes:
        lower: (r,), −inf for none.
        upper: (r,), inf for none.
        vanishing: (r,) parameters whose slope is zero on their lower bound whatever the data say, such as the diagonal of a
            Cholesky factor at 0: whoever steps onto it can neither leave it nor tell whether it is right. ``lower`` is then
            beside it, where the score has a sign, and is approached a factor at a time.
    """

    lower: Tensor
    upper: Tensor
    vanishing: Tensor

    @classmethod
    def of(cls, lower: Tensor, upper: Tensor | None = None) -> Bounds:
        """Bounds without ``vanishing`` ones; by default none above."""
        upper = torch.full_like(lower, float("inf")) if upper is None else upper
        return cls(lower, upper, torch.zeros_like(lower, dtype=torch.bool))

    def clip(self, theta: Tensor) -> Tensor:
        """The nearest θ within the bounds."""
        return torch.minimum(torch.maximum(theta, self.lower), self.upper)

    def beside_vanishing(self, start: Tensor) -> Bounds:
        """Keep a distance from vanishing bounds, relative to that of the start."""
        beside = self.lower + DISTANCE * (start - self.lower)
        return Bounds(torch.where(self.vanishing, beside, self.lower), self.upper, self.vanishing)

    def for_step_from(self, theta: Tensor) -> Bounds:
        """Bounds of one step from θ."""
        nearest = torch.maximum(self.lower, SHRINKAGE * theta)
        return Bounds(torch.where(self.vanishing, nearest, self.lower), self.upper, self.vanishing)

    def holding(self, theta: Tensor, score: Tensor) -> Tensor:
        """(r,) parameters that are on a bound and would go beyond it."""
        return ((theta <= self.lower) & (score <= 0)) | ((theta >= self.upper) & (score >= 0))


def bounds_of_model(covariance: Covariance, phenotypic: float, constrain: bool) -> Bounds:
    """Those of the parameters, unless variances are not constrained; independent residuals stay above zero. Local.

    Args:
        covariance: the model.
        phenotypic: variance of y beside the fixed effects.
        constrain: variances stay at or above their bound; correlations and ranges always keep theirs.
    """
    lower, upper = covariance.map.bounds()
    vanishing = torch.zeros_like(lower, dtype=torch.bool)
    independent = {
        parameter.name
        for term in covariance.terms
        if isinstance(term.K if isinstance(term, VarianceComponent) else term, DiagonalTerm)
        for parameter in term.parameters
    }
    for parameter, k in zip(covariance.map.parameters, covariance.map.source, strict=True):
        if k < 0 or lower[k] == -math.inf:
            continue
        vanishing[k] = parameter.vanishes
        if parameter.unit == "variance" and not constrain:
            lower[k] = -math.inf
        elif parameter.name in independent:
            lower[k] = SMALLEST_RESIDUAL * phenotypic
    return Bounds(lower, upper, vanishing)
