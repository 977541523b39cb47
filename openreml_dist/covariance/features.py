"""A relationship matrix from its features, ZZᵀ/m, never stored."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openreml_dist.covariance.component import VarianceComponent
from openreml_dist.covariance.indices import Indices, Samples
from openreml_dist.covariance.products import Work
from openreml_dist.covariance.term import Term
from openreml_dist.errors import InputError

WORK_BYTES = 16e6  # of the features that are multiplied at once


class FeatureMatrix(Term):
    """ZZᵀ/m for features Z (n, m) that every rank holds, without parameters. A tile of b rows costs 2b²m flops.

    Args:
        Z: (n, m), such as standardised genotypes.
        name: in messages.
    """

    has_product = True

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

    def add_times_(self, product: Tensor, B: Tensor, eta: Tensor, work: Work, factor: float = 1.0) -> None:
        """Z(ZᵀB)/m over this rank's part of the features. 4nm flops a column of B, over all ranks."""
        own = work.part_of(self._Z.shape[1])
        width = max(1, int(WORK_BYTES / (8 * self.size)))
        for start in range(own.start, own.stop, width):
            Z = self._Z[:, start : min(start + width, own.stop)].to(B.device, B.dtype)
            product.addmm_(Z, Z.mT @ B, alpha=factor / self._Z.shape[1])
            work.progress((min(start + width, own.stop) - own.start) / len(own))

    def _rows(self, samples: Samples) -> Tensor:
        return self._Z[samples.start : samples.stop] if isinstance(samples, range) else self._Z[torch.from_numpy(samples)]

    def selected(self, samples: Indices) -> FeatureMatrix:
        """The features of some samples."""
        return FeatureMatrix(self._rows(samples), self.name)


class FeatureKernel(VarianceComponent):
    """σ²ZZᵀ/m for features Z (n, m): effects of m features, each with variance σ²/m."""

    is_kernel = True

    def __init__(self, Z: Tensor | NDArray[np.floating], name: str = "genetic") -> None:
        super().__init__(FeatureMatrix(Z, name), name)
