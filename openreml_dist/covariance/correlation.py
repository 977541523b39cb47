"""Correlation structures of ordered and of exchangeable samples.

Legend: ρ correlation; d distance between two samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openreml_dist.covariance.checks import count_of, finite_numbers
from openreml_dist.covariance.indices import Samples, as_indices, take
from openreml_dist.covariance.parameters import Parameter
from openreml_dist.covariance.term import Term
from openreml_dist.errors import InputError


class AR1Correlation(Term):
    """First-order autoregressive correlation: ρ^d, d the distance between two positions on a line.

    Two samples at one position are correlated by 1. Positions between the integers need 0 < ρ, the continuous-time process.

    Args:
        positions: (n,) of the samples, such as field rows or days; or n for 0, 1, ..., n − 1.
        name: the parameter is ``name.correlation``.
    """

    def __init__(self, positions: int | Sequence[float] | NDArray[np.number], name: str) -> None:
        where = np.arange(count_of(positions, name)) if np.isscalar(positions) else positions
        self._positions = finite_numbers(where, name, "finite positions are")
        if self._positions.ndim != 1:
            raise InputError(f"{name}: one position a sample is needed, not an array of shape {self._positions.shape}")
        if np.ptp(self._positions) == 0:
            raise InputError(f"{name}: all samples have the same position, so that no correlation can be estimated")
        self.name = name
        self.size = len(self._positions)
        integral = bool((self._positions == np.rint(self._positions)).all())
        self.parameters = (Parameter.correlation(f"{name}.correlation", lower=-1.0 if integral else 0.0),)

    def _distances(self, rows: Samples, columns: Samples, device: torch.device) -> Tensor:
        here, there = (torch.tensor(take(self._positions, samples), device=device) for samples in (rows, columns))
        return (here[:, None] - there[None, :]).abs()

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """ρ^d."""
        return torch.pow(eta[0], self._distances(rows, columns, device))

    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """d ρ^(d−1), 0 for d = 0."""
        d = self._distances(rows, columns, device)
        return [torch.where(d == 0, 0.0, d * torch.pow(eta[0], d - 1))]


class Exchangeable(Term):
    """1 on the diagonal, ρ elsewhere: any two samples are correlated alike (equicorrelation).

    Args:
        n: samples.
        name: the parameter is ``name.correlation``.
    """

    def __init__(self, n: int, name: str) -> None:
        if count_of(n, name) < 2:
            raise InputError(f"{name}: a correlation needs at least 2 samples")
        self.name = name
        self.size = n
        self.parameters = (Parameter.correlation(f"{name}.correlation", lower=-1 / (n - 1)),)

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """1 where row and column are the same sample, else ρ."""
        same = _equal(rows, columns, device)
        return same + (1 - same) * eta[0]

    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """0 where row and column are the same sample, else 1."""
        return [1 - _equal(rows, columns, device)]


class CompoundSymmetry(Term):
    """σ² on the diagonal, ρσ² elsewhere.

    Args:
        n: samples.
        name: parameters are ``name.variance`` and ``name.correlation``.
    """

    def __init__(self, n: int, name: str) -> None:
        self._shape = Exchangeable(n, name)
        self.name = name
        self.size = n
        self.parameters = (Parameter.variance(f"{name}.variance"), *self._shape.parameters)

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """σ² times the correlation."""
        shape = self._shape.entries(rows, columns, eta[1:], device)
        assert shape is not None
        return eta[0] * shape

    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """The correlation; σ² off the diagonal."""
        return [
            self._shape.entries(rows, columns, eta[1:], device),
            eta[0] * (1 - _equal(rows, columns, device)),
        ]


def _equal(rows: Samples, columns: Samples, device: torch.device) -> Tensor:
    here, there = (torch.tensor(as_indices(samples), device=device) for samples in (rows, columns))
    return (here[:, None] == there[None, :]).double()
