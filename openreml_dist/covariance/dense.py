"""V(θ) given as a whole matrix by a function, for small n: every rank calls it.

Legend: n samples; r parameters θ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from openreml_dist.compat.dense_view import check_dense
from openreml_dist.covariance.indices import Samples, as_indices
from openreml_dist.covariance.parameters import Parameter
from openreml_dist.covariance.term import Term, forward_derivatives
from openreml_dist.errors import InputError

MatrixFunction = Callable[[Tensor], Tensor]


@runtime_checkable
class WholeMatrix(Protocol):
    """A matrix of another package, known by its methods, such as those of torch-openreml."""

    param_names: Sequence[str]
    num_params: int

    def map_theta_to_v(self, theta: Tensor) -> Tensor:
        """V(θ) (n, n)."""
        ...

    def map_theta_to_dv(self, theta: Tensor) -> Tensor:
        """∂V/∂θ_k for every k (r, n, n)."""
        ...


class DenseMatrix(Term):
    """V(θ) (n, n) from a function of θ; the last one is kept.

    Args:
        n: samples.
        map_theta_to_v: from θ (r,) to V (n, n).
        names: of the r parameters; they have no bounds.
        map_theta_to_dv: from θ to ∂V/∂θ_k for every k (r, n, n); by default by forward-mode differentiation of V.
        dtype: of the θ that the functions are given.
    Raises:
        InputError: if the whole matrices are too large.
    """

    def __init__(
        self,
        n: int,
        map_theta_to_v: MatrixFunction,
        names: Sequence[str],
        map_theta_to_dv: MatrixFunction | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        check_dense(n, 1 + len(names))
        self.name = "V"
        self.size = n
        self.parameters = tuple(Parameter(name, "unspecified") for name in names)
        self._v = _LastValue(map_theta_to_v, (n, n), "map_theta_to_v", dtype)
        jacobian = map_theta_to_dv or (lambda theta: torch.stack(forward_derivatives(map_theta_to_v, theta)))
        self._dv = _LastValue(jacobian, (len(names), n, n), "map_theta_to_dv", dtype)

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """V at ``rows`` x ``columns``."""
        return _at(self._v(eta), rows, columns).to(device)

    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """∂V/∂θ_k at ``rows`` x ``columns``."""
        return [_at(dV_k, rows, columns).to(device) for dV_k in self._dv(eta)]

    def start(self, squares: Tensor, proportion: float) -> Tensor:
        """None is known.

        Raises:
            InputError: always.
        """
        raise InputError(
            "start: what the parameters of a given function mean is not known; give a value for each of "
            + ", ".join(self.param_names)
        )


class _LastValue:
    """A function of θ whose last value is kept, float64; θ is a plain tensor, not one that is differentiated."""

    def __init__(self, function: MatrixFunction, shape: tuple[int, ...], name: str, dtype: torch.dtype) -> None:
        self._function = function
        self._shape = shape
        self._name = name
        self._dtype = dtype
        self._theta: Tensor | None = None
        self._value = torch.empty(0)

    def __call__(self, theta: Tensor) -> Tensor:
        if self._theta is None or not torch.equal(self._theta, theta):
            value = self._function(theta.to(self._dtype))
            if not isinstance(value, Tensor) or value.shape != self._shape:
                found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise InputError(f"{self._name} must give a tensor of shape {self._shape}, not {found}")
            self._value = value.detach().double().cpu()
            self._theta = theta.clone()
        return self._value


def _at(V: Tensor, rows: Samples, columns: Samples) -> Tensor:
    if isinstance(rows, range) and isinstance(columns, range):
        return V[rows.start : rows.stop, columns.start : columns.stop]
    here, there = (torch.from_numpy(as_indices(samples)) for samples in (rows, columns))
    return V[here[:, None], there[None, :]]
