"""From the observed to the liability scale of a disease."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LiabilityScale:
    """A disease with prevalence K in the population, of whose cases a sample has a proportion P.

    Attributes:
        prevalence: K.
        sample_proportion: P.
    """

    prevalence: float
    sample_proportion: float

    @property
    def factor(self) -> float:
        """h²_L / h²_O = K²(1−K)² / (z² P(1−P)), z the normal density at the threshold (Lee et al. 2011, AJHG 88:294)."""
        K, P = self.prevalence, self.sample_proportion
        threshold = float(torch.special.ndtri(torch.tensor(1 - K, dtype=torch.float64)))
        z = math.exp(-(threshold**2) / 2) / math.sqrt(2 * math.pi)
        return (K * (1 - K)) ** 2 / (z**2 * P * (1 - P))
