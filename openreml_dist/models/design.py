"""Fixed effects from a formula: y and X, with the columns that are collinear named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from openreml_dist.collinear import refuse_collinear
from openreml_dist.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def parsed(formula: str) -> Any:
    """The formula, parsed.

    Raises:
        InputError: with what is wrong.
    """
    from formulaic import Formula
    from formulaic.errors import FormulaicError

    try:
        return Formula(formula)
    except (FormulaicError, SyntaxError) as error:
        raise InputError(f"formula {formula!r}: {_first_line(error)}") from error


def columns_of(formula: str) -> tuple[str, ...]:
    """Columns of the table that a formula needs."""
    return tuple(sorted(map(str, parsed(formula).required_variables)))


def covariates(formula: str, records: pd.DataFrame) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Values (n, p) and names (p,) of the right-hand side.

    Raises:
        InputError: for an expression that cannot be evaluated, or a value that is not finite.
    """
    matrix = _matrices(formula.rpartition("~")[2].strip(), records)
    values, names = matrix.to_numpy(np.float64), tuple(map(str, matrix.columns))
    for name, column in zip(names, values.T, strict=True):
        if not np.isfinite(column).all():
            raise InputError(f"formula {formula!r}: {name} is not finite in {int((~np.isfinite(column)).sum())} records")
    return values, names


def response(formula: str, records: pd.DataFrame) -> tuple[NDArray[np.float64], str]:
    """Values (n,) and name of the left-hand side.

    Raises:
        InputError: without one, for several, for text or a constant.
    """
    left, tilde, _ = formula.partition("~")
    if not tilde or not left.strip():
        raise InputError(f"formula {formula!r} has no response: write it as 'response ~ 1 + covariate'")
    matrix = _matrices(f"{left.strip()} - 1", records)
    if matrix.shape[1] != 1:
        raise InputError(f"formula {formula!r}: the response must be one column of numbers, not {', '.join(matrix.columns)}")
    y = matrix.to_numpy(np.float64)[:, 0]
    if not np.isfinite(y).all():
        raise InputError(f"formula {formula!r}: the response is not finite in {int((~np.isfinite(y)).sum())} records")
    if y.min() == y.max():
        raise InputError(f"the response {left.strip()} is constant: all {len(y):,} analysed records are {y[0]:g}")
    return y, left.strip()


def by_trait(
    X: NDArray[np.float64], names: tuple[str, ...], trait: Sequence[str]
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Every effect for every trait of its own; those that no record of a trait has are left out."""
    of, traits = np.array(trait), dict.fromkeys(trait)
    blocks = [np.where((of == one)[:, None], X, 0.0) for one in traits]
    all_names = [f"{one}:{name}" for one in traits for name in names]
    joined = np.hstack(blocks)
    present = [bool(column.any()) for column in joined.T]
    return joined[:, present], tuple(name for name, there in zip(all_names, present, strict=True) if there)


def checked(X: NDArray[np.float64], names: tuple[str, ...]) -> NDArray[np.float64]:
    """X, if it can be fitted.

    Raises:
        InputError: for as many effects as records, and for collinear columns, which are named.
    """
    if X.shape[1] >= len(X):
        raise InputError(f"{X.shape[1]:,} fixed effects for {len(X):,} analysed records; there must be fewer effects")
    refuse_collinear(X, list(names))
    return X


def _matrices(formula: str, records: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd
    from formulaic.errors import FormulaicError

    try:
        return pd.DataFrame(parsed(formula).get_model_matrix(records, na_action="ignore"))
    except (FormulaicError, ValueError, TypeError, SyntaxError) as error:
        raise InputError(f"formula {formula!r}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
