"""Least and greatest θ, and which of them a model has.

Legend: r parameters θ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from openreml_dist.covariance import Covariance

SHRINKAGE = 0.1  # of a parameter in one step towards a bound where its slope vanishes
DISTANCE = 1e-6  # of such a bound that is kept, over that of the start
NEARER = 0.01  # the same, where ℓ still rises towards it
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
        fixed: (r,) parameters that keep their value, which is both of their bounds.
        beside: (r,) where ``lower`` was before vanishing bounds were approached; −inf for the others.
        tied: (r,) parameters that keep their value, since others make up for them.
        ridges: (r, d) how: directions along which ℓ does not change, each with one tied parameter.
    """

    lower: Tensor
    upper: Tensor
    vanishing: Tensor
    fixed: Tensor
    beside: Tensor
    tied: Tensor
    ridges: Tensor

    @classmethod
    def of(cls, lower: Tensor, upper: Tensor | None = None) -> Bounds:
        """Bounds without ``vanishing`` ones; by default none above."""
        upper = torch.full_like(lower, math.inf) if upper is None else upper
        none = torch.zeros_like(lower, dtype=torch.bool)
        return cls(lower, upper, none, none, torch.full_like(lower, -math.inf), none, lower.new_zeros(len(lower), 0))

    def clip(self, theta: Tensor) -> Tensor:
        """The nearest θ within the bounds."""
        return torch.minimum(torch.maximum(theta, self.lower), self.upper)

    def fixing(self, which: Tensor, theta: Tensor) -> Bounds:
        """Some parameters keep their value in θ."""
        lower, upper = (torch.where(which, theta, bound) for bound in (self.lower, self.upper))
        return replace(self, lower=lower, upper=upper, vanishing=self.vanishing & ~which, fixed=self.fixed | which)

    def beside_vanishing(self, start: Tensor) -> Bounds:
        """Keep a distance from vanishing bounds, which are 0, relative to that of the start."""
        beside = torch.where(self.vanishing, DISTANCE * start, -math.inf)
        return replace(self, lower=torch.where(self.vanishing, beside, self.lower), beside=beside)

    def nearer_vanishing(self, which: Tensor) -> Bounds:
        """A hundredth of that distance for some of them."""
        return replace(self, lower=torch.where(which & self.vanishing, NEARER * self.lower, self.lower))

    def for_step_from(self, theta: Tensor) -> Bounds:
        """Bounds of one step from θ."""
        nearest = torch.maximum(self.lower, SHRINKAGE * theta)
        return replace(self, lower=torch.where(self.vanishing, nearest, self.lower))

    def holding(self, theta: Tensor, score: Tensor) -> Tensor:
        """(r,) parameters that are on a bound and would go beyond it, or keep their value."""
        return self.fixed | self.tied | ((theta <= self.lower) & (score <= 0)) | ((theta >= self.upper) & (score >= 0))

    def open_ridges(self, held: Tensor) -> Tensor:
        """(r, d) those ridges that no parameter on a bound (r,) closes: there one of the tied is at its best on its own."""
        closed = ((self.ridges != 0) & (held & ~self.tied)[:, None]).any(dim=0)
        return self.ridges[:, ~closed]


def bounds_of_model(covariance: Covariance, phenotypic: float, constrain: bool) -> Bounds:
    """Those of the parameters, unless variances are not constrained; independent residuals stay above zero. Local.

    Args:
        covariance: the model.
        phenotypic: variance of y beside the fixed effects.
        constrain: variances stay at or above their bound; correlations and ranges always keep theirs.
    """
    lower, upper = covariance.map.bounds()
    vanishing = torch.zeros_like(lower, dtype=torch.bool)
    independent = {parameter.name for term in covariance.terms if term.is_diagonal for parameter in term.parameters}
    for parameter, k in zip(covariance.map.parameters, covariance.map.source, strict=True):
        if k < 0 or lower[k] == -math.inf:
            continue
        vanishing[k] = parameter.vanishes
        if parameter.unit == "variance" and not constrain:
            lower[k] = -math.inf
        elif parameter.name in independent:
            lower[k] = SMALLEST_RESIDUAL * phenotypic
    return replace(Bounds.of(lower, upper), vanishing=vanishing)
