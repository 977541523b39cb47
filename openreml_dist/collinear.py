"""Which columns of a design matrix are combinations of others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import InputError

COLLINEAR_TOLERANCE = 1e-7  # what a column of unit length has beyond the others; its square is what XᵀV⁻¹X sees in float64
SMALLEST_COEFFICIENT = 1e-6  # a column has a part in a combination above it
BLOCK_ROWS = 100_000


def refuse_collinear(X: NDArray[np.float64], names: list[str]) -> None:
    """Raise InputError naming the columns of X (n, p) to leave out, and of which others each is a combination."""
    combinations = find_collinear(X)
    if not combinations:
        return
    lines = []
    for column, others in combinations.items():
        if not others:
            lines.append(f"{names[column]} is zero for every analysed sample")
        elif others == [0] and names[0].lower() == "intercept":
            lines.append(f"{names[column]} is constant, a multiple of the intercept")
        else:
            lines.append(f"{names[column]} is a combination of {', '.join(names[other] for other in others)}")
    raise InputError("the fixed effects are collinear; leave these columns out:\n  " + "\n  ".join(lines))


def find_collinear(X: NDArray[np.float64]) -> dict[int, list[int]]:
    """Columns that are combinations of columns before them, by a QR decomposition with limited pivoting.

    As in R's ``lm``, columns keep their order, except that a dependent one moves behind all others: so the intercept is never
    the one to blame. Columns are scaled to unit length. Cost: 2np² flops.

    Args:
        X: (n, p).
    Returns:
        Each dependent column with the columns it is a combination of, which is empty for a column of zeros.
    """
    lengths = np.linalg.norm(X, axis=0)
    R = np.zeros((0, X.shape[1]))  # p x p after the loop, with the inner products of the scaled X
    for start in range(0, len(X), BLOCK_ROWS):
        block = X[start : start + BLOCK_ROWS] / np.where(lengths > 0, lengths, 1.0)
        R = np.asarray(np.linalg.qr(np.vstack([R, block]), mode="r"), np.float64)
    basis = np.zeros((R.shape[0], 0))
    independent: list[int] = []
    dependent: dict[int, list[int]] = {}
    for column in range(X.shape[1]):
        rest = R[:, column]
        for _ in range(2):  # the second pass removes what rounding left of the first
            rest = rest - basis @ (basis.T @ rest)
        length = np.linalg.norm(rest)
        if length > COLLINEAR_TOLERANCE:
            basis = np.column_stack([basis, rest / length])
            independent.append(column)
        else:
            coefficients = np.linalg.lstsq(R[:, independent], R[:, column])[0]
            dependent[column] = [
                other
                for other, coefficient in zip(independent, coefficients, strict=True)
                if abs(coefficient) > SMALLEST_COEFFICIENT
            ]
    return dependent
