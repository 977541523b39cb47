"""What the data say of θ and of functions of it: variances to first order, and what is not determined at all.

Legend: r parameters θ, d directions along which ℓ does not change; AI average information.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.reml.trust import NOTHING

SINGULAR = 1e-9  # eigenvalue of an information matrix with unit diagonal
LEAST_PART = 0.1  # of a parameter in a direction of unit length
ALONG = 1e-6  # of a gradient in an undetermined direction, relative to the sum of its parts: zero but for rounding


@dataclass(frozen=True)
class Sampling:
    """The sampling covariance of θ̂, for functions of it too.

    Attributes:
        covariance: (r, r) generalised inverse of the information on the free parameters; 0 for those that are held.
        undetermined: (r, d) basis of the directions along which ℓ does not change.
        told: (r,) parameters that have a standard error: not held, and without a part in those directions.
        unknown: (r,) parameters that ℓ does not depend on at all, whose value is that of the start.
    """

    covariance: Tensor
    undetermined: Tensor
    told: Tensor
    unknown: Tensor

    @classmethod
    def of(cls, AI: Tensor, held: Tensor, unknown: Tensor | None = None, ridges: Tensor | None = None) -> Sampling:
        """From the average information (r, r), some parameters (r,) being held on a bound, or because they are unknown or tied.

        A free parameter without any information is not told either; nothing else depends on it. Of what is tied the
        directions are given in which ℓ does not change, ``ridges`` (r, d). Local.
        """
        covariance, undetermined, told = torch.zeros_like(AI), AI.new_zeros(len(AI), 0), torch.zeros_like(held)
        places = torch.nonzero(~held & (AI.diagonal() > NOTHING)).flatten()
        if len(places):
            scale = AI.diagonal()[places].rsqrt()
            values, vectors = torch.linalg.eigh(scale[:, None] * AI[places][:, places] * scale)
            known = values > SINGULAR
            directions = scale[:, None] * vectors
            covariance[places[:, None], places] = (directions[:, known] / values[known]) @ directions[:, known].mT
            undetermined = AI.new_zeros(len(AI), int((~known).sum()))
            undetermined[places] = directions[:, ~known]
            told[places] = ~(vectors[:, ~known].abs() > LEAST_PART).any(dim=1)
        if ridges is not None:
            undetermined = torch.cat([undetermined, ridges], dim=1)
            told = told & ~(ridges != 0).any(dim=1)
        return cls(covariance, undetermined, told, torch.zeros_like(held) if unknown is None else unknown)

    @classmethod
    def of_covariance(cls, covariance: Tensor) -> Sampling:
        """From a covariance (r, r) with nan for what has no standard error. Local."""
        told = ~covariance.diagonal().isnan()
        return cls(covariance.nan_to_num(nan=0.0), covariance.new_zeros(len(told), 0), told, torch.zeros_like(told))

    @property
    def of_theta(self) -> Tensor:
        """(r, r), nan in the rows and columns of parameters that are not told."""
        both = self.told[:, None] & self.told
        return torch.where(both, self.covariance, torch.nan)

    @property
    def confounded(self) -> list[int]:
        """Parameters with a part in an undetermined direction."""
        return torch.nonzero((self.undetermined != 0).any(dim=1) & ~self.told).flatten().tolist()

    def determines(self, gradient: Tensor) -> bool:
        """Whether a function with this gradient (r,) has one value on all of the ridge that is the top of ℓ."""
        along = (gradient @ self.undetermined).abs()
        on_the_ridge = (along <= ALONG * (gradient.abs() @ self.undetermined.abs())).all()
        return bool(on_the_ridge) and not bool((gradient[self.unknown] != 0).any())

    def se(self, gradient: Tensor) -> float | None:
        """Standard error of a function with this gradient (r,), by the delta method; None if it has none."""
        if not self.determines(gradient) or not bool((self.covariance.diagonal() > 0).any()):
            return None
        return float((gradient @ self.covariance @ gradient).clamp_min(0).sqrt())
