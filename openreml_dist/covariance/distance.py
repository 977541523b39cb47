"""Correlation by distance: exponential and Matérn kernels of coordinates.

Legend: d Euclidean distance; ℓ range; u = √(2ν) d/ℓ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openreml_dist.covariance.checks import finite_numbers
from openreml_dist.covariance.indices import Samples, take
from openreml_dist.covariance.parameters import Parameter
from openreml_dist.covariance.term import Term
from openreml_dist.errors import InputError

SMOOTHNESS = (0.5, 1.5, 2.5)


class Matern(Term):
    """Matérn correlation of smoothness ν = ½, 3/2 or 5/2, in closed form.

        ν = ½:   e^(−u)
        ν = 3/2: (1 + u) e^(−u)
        ν = 5/2: (1 + u + u²/3) e^(−u)

    Args:
        coordinates: (n,) or (n, dimensions).
        smoothness: ν.
        name: the parameter is ``name.range``, ℓ in units of the coordinates.
    References: Rasmussen & Williams (2006), Gaussian Processes for Machine Learning, (4.16)-(4.17).
    """

    def __init__(self, coordinates: NDArray[np.number] | Sequence[float], smoothness: float, name: str) -> None:
        points = finite_numbers(coordinates, name, "finite coordinates are")
        points = points[:, None] if points.ndim == 1 else points
        if smoothness not in SMOOTHNESS:
            raise InputError(f"{name}: Matérn smoothness {smoothness:g} is none of {', '.join(map(str, SMOOTHNESS))}")
        if points.ndim != 2:
            raise InputError(f"{name}: coordinates (samples, dimensions) are needed, not an array of shape {points.shape}")
        extent = float(np.linalg.norm(points.max(axis=0) - points.min(axis=0)))
        if extent == 0:
            raise InputError(f"{name}: all samples have the same coordinates, so that no range can be estimated")
        self._points = points
        self._extent = extent
        self._smoothness = smoothness
        self.name = name
        self.size = len(points)
        self.parameters = (Parameter(f"{name}.range", "range", lower=1e-6 * extent, upper=1e3 * extent),)

    def _scaled(self, rows: Samples, columns: Samples, length: Tensor, device: torch.device) -> Tensor:
        """u (rows, columns)."""
        here, there = (torch.tensor(take(self._points, samples), device=device) for samples in (rows, columns))
        d = torch.cdist(here, there, compute_mode="donot_use_mm_for_euclid_dist")  # the other way cancels near 0
        return math.sqrt(2 * self._smoothness) * d / length

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """The correlation."""
        u = self._scaled(rows, columns, eta[0], device)
        polynomial = {0.5: torch.ones_like(u), 1.5: 1 + u, 2.5: 1 + u + u.square() / 3}[self._smoothness]
        return polynomial * torch.exp(-u)

    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """By ℓ: u e^(−u)/ℓ, u² e^(−u)/ℓ, u²(1 + u) e^(−u)/(3ℓ)."""
        u = self._scaled(rows, columns, eta[0], device)
        polynomial = {0.5: u, 1.5: u.square(), 2.5: u.square() * (1 + u) / 3}[self._smoothness]
        return [polynomial * torch.exp(-u) / eta[0]]

    def start(self, squares: Tensor, proportion: float) -> Tensor:
        """A tenth of the extent."""
        return torch.tensor([0.1 * self._extent], dtype=torch.float64)


class Exponential(Matern):
    """e^(−d/ℓ), the Matérn kernel of smoothness ½."""

    def __init__(self, coordinates: NDArray[np.number] | Sequence[float], name: str) -> None:
        super().__init__(coordinates, 0.5, name)
