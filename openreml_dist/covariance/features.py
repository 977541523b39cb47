"""A relationship matrix from its features, ZZᵀ/m, never stored."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openreml_dist.covariance.term import Indices, Samples, Term, VarianceComponent
from openreml_dist.errors import InputError


class FeatureMatrix(Term):
    """ZZᵀ/m for features Z (n, m) that every rank holds, without parameters. A tile of b rows costs 2b²m flops.

    Args:
        Z: (n, m), such as standardised genotypes.
        name: in messages.
    """

    def __init__(self, Z: Tensor | NDArray[np.floating], name: str) -> None:
        values = torch.as_tensor(Z)
        if values.ndim != 2 or values.numel() == 0 or not bool(torch.isfinite(values).all()):
            raise InputError(f"{name}: features must be finite, of shape (samples, features), not {tuple(values.shape)}")
        self._Z = values
        self.name = name
        self.size = len(values)

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """Z[rows] Z[columns]ᵀ/m, float64."""
        here, there = (self._rows(samples).to(device).double() for samples in (rows, columns))
        return here @ there.mT / self._Z.shape[1]

    def _rows(self, samples: Samples) -> Tensor:
        return self._Z[samples.start : samples.stop] if isinstance(samples, range) else self._Z[torch.from_numpy(samples)]

    def selected(self, samples: Indices) -> FeatureMatrix:
        """The features of some samples."""
        return FeatureMatrix(self._rows(samples), self.name)


class FeatureKernel(VarianceComponent):
    """σ²ZZᵀ/m for features Z (n, m): effects of m features, each with variance σ²/m."""

    def __init__(self, Z: Tensor | NDArray[np.floating], name: str = "genetic") -> None:
        super().__init__(FeatureMatrix(Z, name), name)
