"""The design matrix X of the fixed effects, and which of its columns are collinear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import InputError
from openreml_dist.store.tables import DiscreteCovariates, QuantitativeCovariates

COLLINEAR_TOLERANCE = 1e-7  # what a column of unit length has beyond the others; its square is what XᵀV⁻¹X sees in float64
SHARE_TOLERANCE = 1e-6  # a column has a part in a combination above it
MAX_LEVELS = 2000
BLOCK_ROWS = 100_000


@dataclass(frozen=True)
class Design:
    """Fixed effects of n analysed samples."""

    X: NDArray[np.float64]  # (n, p), the intercept first
    names: tuple[str, ...]  # p names
    report: list[str]  # lines for the terminal


def build_design(
    num_samples: int,
    qcovar: QuantitativeCovariates | None,
    qcovar_rows: NDArray[np.int64] | None,
    covar: DiscreteCovariates | None,
    covar_rows: NDArray[np.int64] | None,
) -> Design:
    """Intercept, quantitative covariates as they are, discrete ones as indicators of every level but the first.

    Levels are those of the analysed samples.

    Args:
        num_samples: n.
        qcovar: table, or None.
        qcovar_rows: its row of each analysed sample (n,).
        covar: table, or None.
        covar_rows: its row of each analysed sample (n,).
    Raises:
        InputError: as many fixed effects as samples, a factor of very many levels, or collinear columns, which are named.
    """
    names = ["intercept", *(qcovar.names if qcovar is not None else ())]
    report = []
    factors: list[NDArray[np.int64]] = []
    if covar is not None and covar_rows is not None:
        for j, name in enumerate(covar.names):
            present, places = np.unique(covar.codes[covar_rows, j], return_inverse=True)
            _check_levels(covar, name, len(present))
            levels = [covar.levels[j][code] for code in present]
            base = f"reference {name}={levels[0]}" if len(levels) > 1 else f"only {name}={levels[0]}, so no column"
            report.append(f"covariate {name}: {len(levels)} levels, {base}")
            names += [f"{name}={level}" for level in levels[1:]]
            factors.append(places.astype(np.int64))
    if len(names) >= num_samples:
        raise InputError(f"{len(names):,} fixed effects for {num_samples:,} analysed samples; there must be fewer effects")

    X = np.zeros((num_samples, len(names)))
    X[:, 0] = 1.0
    column = 1
    if qcovar is not None and qcovar_rows is not None:
        column += len(qcovar.names)
        X[:, 1:column] = qcovar.values[qcovar_rows]
    for places in factors:
        carriers = np.flatnonzero(places)
        X[carriers, column + places[carriers] - 1] = 1.0
        column += int(places.max())
    _refuse_collinear(X, names)
    return Design(X, tuple(names), report)


def _check_levels(covar: DiscreteCovariates, name: str, num_levels: int) -> None:
    if num_levels > MAX_LEVELS:
        raise InputError(
            f"{covar.layout.path}: the discrete covariate {name} has {num_levels:,} levels, above {MAX_LEVELS:,}; "
            "if it is a number, give it as a quantitative covariate (data.qcovar)"
        )


def _refuse_collinear(X: NDArray[np.float64], names: list[str]) -> None:
    combinations = find_collinear(X)
    if not combinations:
        return
    lines = []
    for column, others in combinations.items():
        if not others:
            lines.append(f"{names[column]} is zero for every analysed sample")
        elif others == [0]:
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
            shares = np.linalg.lstsq(R[:, independent], R[:, column])[0]
            dependent[column] = [
                other for other, share in zip(independent, shares, strict=True) if abs(share) > SHARE_TOLERANCE
            ]
    return dependent
