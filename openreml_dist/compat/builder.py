"""What ``REML`` takes for V(θ), made into a ``Covariance``: by tiles, or from functions on whole matrices.

Legend: n samples, r parameters θ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.compat.dense_view import check_dense
from openreml_dist.covariance import Covariance, DenseMatrix, Term
from openreml_dist.covariance.dense import MatrixFunction, WholeMatrix
from openreml_dist.errors import InputError
from openreml_dist.grid import ProcessGrid
from openreml_dist.layout import TileLayout


@dataclass(frozen=True)
class DenseBuilder:
    """V(θ) by functions; how many samples and parameters it has shows when they are used.

    Attributes:
        to_v: from θ (r,) to V (n, n).
        to_dv: from θ to ∂V/∂θ (r, n, n); None differentiates ``to_v``.
        names: of the parameters; None numbers them.
    """

    to_v: MatrixFunction
    to_dv: MatrixFunction | None
    names: tuple[str, ...] | None = None

    def covariance(self, n: int | None, theta: Tensor) -> Covariance:
        """For n samples (None asks V), for θ of the length and the precision of ``theta``. Local."""
        if theta.ndim != 1:
            raise InputError(f"theta has shape {tuple(theta.shape)}; one number a parameter is needed")
        names = self.names or tuple(f"theta_{k}" for k in range(len(theta)))
        size = len(self.to_v(theta)) if n is None else n
        dtype = theta.dtype if theta.is_floating_point() else torch.float64
        return Covariance([DenseMatrix(size, self.to_v, names, self.to_dv, dtype)])


VBuilder = Covariance | Term | WholeMatrix


def covariance_builder(
    v_builder: VBuilder | None, map_theta_to_v: MatrixFunction | None, map_theta_to_dv: MatrixFunction | None
) -> Covariance | DenseBuilder:
    """V(θ) from whichever is given, the builder before the functions.

    Raises:
        TypeError: for a builder that is no covariance, or functions that cannot be called.
        ValueError: if neither is given.
    """
    if isinstance(v_builder, Covariance):
        return v_builder
    if isinstance(v_builder, Term):
        return Covariance([v_builder])
    if isinstance(v_builder, WholeMatrix):
        return DenseBuilder(v_builder.map_theta_to_v, v_builder.map_theta_to_dv, tuple(v_builder.param_names))
    if v_builder is not None:
        raise TypeError(f"v_builder must be a Covariance or a Term, or have their methods; {type(v_builder).__name__} has not")
    if map_theta_to_v is None:
        raise ValueError("V is needed: give v_builder or map_theta_to_v")
    for function in (map_theta_to_v, map_theta_to_dv):
        if function is not None and not callable(function):
            raise TypeError(f"map_theta_to_v and map_theta_to_dv must be functions, not {type(function).__name__}")
    return DenseBuilder(map_theta_to_v, map_theta_to_dv)


def whole_matrices(covariance: Covariance, theta: Tensor) -> tuple[Tensor, Tensor]:
    """V (n, n) and ∂V/∂θ (r, n, n) at θ (r,): assembled as one tile each. Local.

    Raises:
        InputError: if they are too large.
    """
    n, r = covariance.size, len(covariance.parameters)
    check_dense(n, 1 + r)
    alone = ProcessGrid.single()
    one_tile = TileLayout(n, n, alone.shape)
    V = covariance.assemble(theta, alone, one_tile).tile(0, 0)
    dV = torch.zeros(r, n, n, dtype=torch.float64)
    for k, V_k in enumerate(covariance.derivatives(theta, alone, one_tile)):
        dV[k] = V_k.tile(0, 0)
    return V, dV
