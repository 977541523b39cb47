"""Structures under the names and in the parameters of torch-openreml 0.1.0a0: what the solver moves has no bounds.

θ of a variance σ² is log σ; θ of a correlation ρ between two limits is log((ρ − low)/(high − ρ)). Parameters are named by their
kind; an operator puts the place of its operand before that: ``op_0/sigma^2``.

Legend: n samples; r parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from openreml_dist.covariance.component import VarianceComponent
from openreml_dist.covariance.correlation import AR1Correlation, CompoundSymmetry, Exchangeable
from openreml_dist.covariance.identity import Heterogeneous, IdentityMatrix
from openreml_dist.covariance.parameters import Log, Logit, Transform
from openreml_dist.covariance.scaled import Scaled
from openreml_dist.covariance.term import Term
from openreml_dist.errors import InputError

LOG_DEVIATION = Log(scale=0.5)  # θ = ½ log σ²


class ScalarMatrix(VarianceComponent):
    """σ²I on n samples; ``sigma^2``. Arguments of this and of the next: see ``parametrise``."""

    def __init__(
        self,
        n: int,
        param_names: Sequence[str] | None = None,
        trans: Sequence[Transform] | None = None,
        no_grad_index: Sequence[int] | None = None,
    ) -> None:
        super().__init__(IdentityMatrix(n), "scalar")
        parametrise(self, ["sigma^2"], [LOG_DEVIATION], param_names, trans, no_grad_index)


class DiagonalMatrix(Heterogeneous):
    """A variance for each of n samples, on the diagonal; ``sigma^2_0``, ``sigma^2_1``, ..."""

    def __init__(
        self,
        n: int,
        param_names: Sequence[str] | None = None,
        trans: Sequence[Transform] | None = None,
        no_grad_index: Sequence[int] | None = None,
    ) -> None:
        super().__init__(np.arange(n), "diagonal")
        names = [f"sigma^2_{i}" for i in range(n)]
        parametrise(self, names, [LOG_DEVIATION] * n, param_names, trans, no_grad_index)


class AR1Matrix(Scaled):
    """σ²ρ^|i−j|, −1 < ρ < 1; ``sigma^2``, ``rho``."""

    def __init__(
        self,
        n: int,
        param_names: Sequence[str] | None = None,
        trans: Sequence[Transform] | None = None,
        no_grad_index: Sequence[int] | None = None,
    ) -> None:
        super().__init__(AR1Correlation(n, "ar1"), "ar1")
        self.shown = {}
        parametrise(self, ["sigma^2", "rho"], [LOG_DEVIATION, Logit()], param_names, trans, no_grad_index)


class CompoundSymmetricMatrix(CompoundSymmetry):
    """σ² on the diagonal, ρσ² elsewhere, −1/(n−1) < ρ < 1; ``sigma^2``, ``rho``."""

    def __init__(
        self,
        n: int,
        param_names: Sequence[str] | None = None,
        trans: Sequence[Transform] | None = None,
        no_grad_index: Sequence[int] | None = None,
    ) -> None:
        super().__init__(n, "compound symmetric")
        transforms = [LOG_DEVIATION, Logit(-1 / (n - 1), 1.0)]
        parametrise(self, ["sigma^2", "rho"], transforms, param_names, trans, no_grad_index)


class EquicorrelationMatrix(Exchangeable):
    """1 on the diagonal, ρ elsewhere, −1/(n−1) < ρ < 1; ``rho``."""

    def __init__(
        self,
        n: int,
        param_names: Sequence[str] | None = None,
        trans: Sequence[Transform] | None = None,
        no_grad_index: Sequence[int] | None = None,
    ) -> None:
        super().__init__(n, "equicorrelation")
        parametrise(self, ["rho"], [Logit(-1 / (n - 1), 1.0)], param_names, trans, no_grad_index)


def parametrise(
    term: Term,
    names: Sequence[str],
    transforms: Sequence[Transform],
    param_names: Sequence[str] | None,
    trans: Sequence[Transform] | None,
    no_grad_index: Sequence[int] | None,
) -> None:
    """Give the r parameters of a term names and transforms.

    Args:
        term: [in, out] with parameters of its own.
        names, transforms: the usual ones.
        param_names: r others.
        trans: r other transforms, or one for all.
        no_grad_index: in vain: ``Covariance(..., fixed={name: value})`` keeps a parameter where it is.
    Raises:
        InputError: for another number of names or of transforms, or any ``no_grad_index``.
    """
    kind, r = type(term).__name__, len(names)
    if no_grad_index:
        raise InputError(f"{kind}: no_grad_index is not supported; give the value in Covariance(..., fixed={{name: value}})")
    chosen_names = names if param_names is None else param_names
    chosen = transforms if trans is None else [*trans] * (r if len(trans) == 1 else 1)
    if len(chosen_names) != r or len(chosen) != r:
        raise InputError(f"{kind} has {r} parameters; {len(chosen_names)} names and {len(chosen)} transforms are given")
    for transform in chosen:
        if not isinstance(transform, Transform):
            raise TypeError(f"{kind}: trans holds transforms such as Log() or Logit(), not {type(transform).__name__}")
    term.parameters = tuple(
        replace(parameter, name=name, transform=transform, anonymous=True)
        for parameter, name, transform in zip(term.parameters, chosen_names, chosen, strict=True)
    )
