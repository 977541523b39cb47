"""Independent residuals, of one variance or of one a group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openreml_dist.covariance.checks import coded, count_of, finite_numbers
from openreml_dist.covariance.component import VarianceComponent
from openreml_dist.covariance.indices import Samples, take
from openreml_dist.covariance.parameters import Parameter
from openreml_dist.covariance.term import DiagonalTerm
from openreml_dist.errors import InputError


class IdentityMatrix(DiagonalTerm):
    """I on n samples, without parameters.

    Args:
        n: samples.
        dtype, device: of the whole matrix that a call gives.
    """

    is_identity = True

    def __init__(self, n: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> None:
        self.name = "identity"
        self.size = count_of(n, self.name)
        self.dense_dtype, self.dense_device = dtype, device

    def diagonal(self, samples: Samples, eta: Tensor, device: torch.device) -> Tensor:
        """Ones, of which one is stored."""
        return torch.ones((), dtype=torch.float64, device=device).expand(len(samples))

    def diagonal_derivatives(self, samples: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor]:
        """None."""
        return []


class Identity(VarianceComponent):
    """σ²I on n samples."""

    def __init__(self, size: int, name: str = "residual") -> None:
        super().__init__(IdentityMatrix(size), name)


class Weighted(DiagonalTerm):
    """A diagonal of given numbers, without parameters: for records that are means, the inverse of how many they are of.

    Args:
        diagonal: (n,) positive.
        name: in messages.
    """

    def __init__(self, diagonal: NDArray[np.floating] | Sequence[float], name: str = "weights") -> None:
        self._values = finite_numbers(diagonal, name, "positive numbers are")
        if self._values.ndim != 1 or not bool((self._values > 0).all()):
            raise InputError(f"{name}: positive numbers are needed, one a sample")
        self.name = name
        self.size = len(self._values)

    def diagonal(self, samples: Samples, eta: Tensor, device: torch.device) -> Tensor:
        """The numbers."""
        return torch.tensor(take(self._values, samples), device=device)

    def diagonal_derivatives(self, samples: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor]:
        """None."""
        return []


class Heterogeneous(DiagonalTerm):
    """A residual variance for each group: σ²_g on the diagonal, g the group of a sample.

    Args:
        groups: group of each of the n samples, numbers or strings.
        name: parameters are ``name.group``.
    """

    def __init__(self, groups: Sequence[object] | NDArray[np.generic], name: str = "residual") -> None:
        self.labels, self._codes = coded(groups, name)
        self.name = name
        self.size = len(self._codes)
        self.parameters = tuple(Parameter.variance(f"{name}.{label}") for label in self.labels)

    def diagonal(self, samples: Samples, eta: Tensor, device: torch.device) -> Tensor:
        """σ²_g."""
        return eta.to(device)[torch.tensor(take(self._codes, samples), device=device)]

    def diagonal_derivatives(self, samples: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor]:
        """1 where the sample is of the group."""
        codes = torch.tensor(take(self._codes, samples), device=device)
        return [(codes == g).double() for g in range(len(self.labels))]

    def start(self, squares: Tensor, proportion: float) -> Tensor:
        """The proportion of each group's own variance."""
        codes = torch.from_numpy(self._codes)
        sums = torch.zeros(len(self.labels), dtype=torch.float64).index_add_(0, codes, squares.double())
        return proportion * sums / torch.bincount(codes)
