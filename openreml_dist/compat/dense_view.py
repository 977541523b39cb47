"""A covariance as whole matrices, for looking at it and for programs that want them: small n only.

The names are those of the matrices of torch-openreml 0.1.0a0, so that either can stand for the other.

Legend: n samples; r parameters θ of the solver, η (r,) the natural ones that they stand for (variances, correlations).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openreml_dist.errors import InputError

Samples = range | NDArray[np.int64]
CPU = torch.device("cpu")
DENSE_LIMIT = 2**30  # bytes of all whole matrices of one call


def check_dense(n: int, matrices: int) -> None:
    """Refuse whole matrices (n, n) that would not fit.

    Raises:
        InputError: if they take more than ``DENSE_LIMIT`` bytes.
    """
    needed = 8 * matrices * n**2
    if needed > DENSE_LIMIT:
        raise InputError(
            f"{matrices} whole matrices of {n:,} x {n:,} numbers take {needed / 1e9:.1f} GB, but {DENSE_LIMIT / 1e9:.1f} GB is "
            "the most for looking at a small model; Covariance.assemble and Covariance.derivatives give them by tiles"
        )


class Named(Protocol):
    """A parameter, of which a whole matrix shows the name."""

    @property
    def name(self) -> str: ...  # noqa: D102


class NaturalValues(Protocol):
    """How η (r,) depends on θ (r,), each on its own."""

    def eta(self, theta: Tensor) -> Tensor:
        """η at θ, differentiable."""
        ...

    def slopes(self, theta: Tensor) -> list[float]:
        """∂η_i/∂θ_i for every i."""
        ...


class DenseView(ABC):
    """What a term also offers: itself as a whole matrix, as a function of the solver's θ. Local.

    Attributes:
        dense_dtype, dense_device: of the whole matrices; None is that of θ.
    """

    name: str
    size: int
    parameters: tuple[Named, ...]
    dense_dtype: torch.dtype | None = None
    dense_device: torch.device | str | None = None

    @abstractmethod
    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """V(η) on ``rows`` x ``columns``; None where it is zero."""

    @abstractmethod
    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """∂V/∂η_k on ``rows`` x ``columns`` for every k."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self.size, self.size

    @property
    def param_names(self) -> list[str]:
        """Names of the r parameters."""
        return [parameter.name for parameter in self.parameters]

    @property
    def num_params(self) -> int:
        """r."""
        return len(self.parameters)

    def trans_params(self, theta: Tensor) -> Tensor:
        """η (r,), the natural values of θ (r,)."""
        return self._map.eta(self._checked(theta))

    def __call__(self, theta: Tensor | None = None) -> Tensor:
        """V(θ) (n, n), differentiable in θ (r,); without parameters θ can be left out."""
        theta = self._checked(theta)
        check_dense(self.size, 1)
        everything = range(self.size)
        V = self.entries(everything, everything, self._map.eta(theta.double()), CPU)
        return self._given(torch.zeros(self.shape) if V is None else V, theta)

    def grad(self, theta: Tensor | None = None) -> tuple[Tensor, list[str]]:
        """∂V/∂θ_k for every k (r, n, n), and the names of the parameters."""
        theta = self._checked(theta)
        check_dense(self.size, self.num_params)
        everything = range(self.size)
        slopes = self._map.slopes(theta)
        derivatives = self.derivatives(everything, everything, self._map.eta(theta.double()), CPU)
        dV = torch.zeros(self.num_params, *self.shape, dtype=torch.float64)
        for k, (slope, values) in enumerate(zip(slopes, derivatives, strict=True)):
            if values is not None:
                dV[k] = slope * values
        return self._given(dV, theta), self.param_names

    def map_theta_to_v(self, theta: Tensor | None = None) -> Tensor:
        """V(θ) (n, n)."""
        return self(theta)

    def map_theta_to_dv(self, theta: Tensor | None = None) -> Tensor:
        """∂V/∂θ_k for every k (r, n, n)."""
        return self.grad(theta)[0]

    def __repr__(self) -> str:
        """The kind, the size, the parameters."""
        names = f", parameters: {', '.join(self.param_names)}" if self.parameters else ""
        return f"{type(self).__name__}({self.size} x {self.size}{names})"

    @property
    @abstractmethod
    def _map(self) -> NaturalValues:
        """From the solver's θ to η."""

    def _checked(self, theta: Tensor | None) -> Tensor:
        theta = torch.zeros(0) if theta is None else theta
        if theta.shape != (self.num_params,):
            raise InputError(
                f"{type(self).__name__}: theta has shape {tuple(theta.shape)}, but there are {self.num_params} parameters"
                f" ({', '.join(self.param_names)})"
            )
        return theta

    def _given(self, matrices: Tensor, theta: Tensor) -> Tensor:
        dtype = self.dense_dtype or (theta.dtype if theta.is_floating_point() else torch.get_default_dtype())
        return matrices.to(device=self.dense_device or theta.device, dtype=dtype)
