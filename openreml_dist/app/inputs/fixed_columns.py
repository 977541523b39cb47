"""The design matrix X of the fixed effects of GCTA's tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openreml_dist.collinear import refuse_collinear
from openreml_dist.errors import InputError
from openreml_dist.store.tables import DiscreteCovariates, QuantitativeCovariates

MAX_LEVELS = 2000


@dataclass(frozen=True)
class FixedColumns:
    """Fixed effects of n analysed samples."""

    X: NDArray[np.float64]  # (n, p), the intercept first
    names: tuple[str, ...]  # p names
    terms: tuple[str, ...]  # of each column, the covariate that it belongs to
    report: list[str]  # lines for the terminal


def build_design(
    num_samples: int,
    qcovar: QuantitativeCovariates | None,
    qcovar_rows: NDArray[np.int64] | None,
    covar: DiscreteCovariates | None,
    covar_rows: NDArray[np.int64] | None,
) -> FixedColumns:
    """Intercept, quantitative covariates as they are, discrete ones as indicators of every level but the first.

    Levels are those of the analysed samples.

    Args:
        num_samples: n.
        qcovar: table, or None.
        qcovar_rows: its row of each analysed sample (n,).
        covar: table, or None.
        covar_rows: its row of each analysed sample (n,).
    Raises:
        InputError: a covariate in both tables, as many fixed effects as samples, a factor of very many levels, or collinear
            columns, which are named.
    """
    if qcovar is not None and covar is not None and (both := sorted({*qcovar.names}.intersection(covar.names))):
        raise InputError(f"{covar.path}: there is a column {both[0]!r} in {qcovar.path} already; rename one or leave it out")
    names = ["intercept", *(qcovar.names if qcovar is not None else ())]
    terms, report = [*names], []
    factors: list[NDArray[np.int64]] = []
    if covar is not None and covar_rows is not None:
        for j, name in enumerate(covar.names):
            present, places = np.unique(covar.codes[covar_rows, j], return_inverse=True)
            _check_levels(covar, name, len(present))
            levels = [covar.levels[j][code] for code in present]
            base = f"reference {name}={levels[0]}" if len(levels) > 1 else f"only {name}={levels[0]}, so no column"
            report.append(f"covariate {name}: {len(levels)} levels, {base}")
            names += [f"{name}={level}" for level in levels[1:]]
            terms += [name] * (len(levels) - 1)
            factors.append(places.astype(np.int64))
    if len(names) >= num_samples:
        hint = f"; most are levels of {most}: if it is a number, it belongs to data.qcovar" if (most := _largest(terms)) else ""
        raise InputError(
            f"{len(names):,} fixed effects for {num_samples:,} analysed samples; there must be fewer effects{hint}"
        )

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
    refuse_collinear(X, names)
    return FixedColumns(X, tuple(names), tuple(terms), report)


def _largest(terms: list[str]) -> str | None:
    """The covariate that has more than half of the columns."""
    name, count = Counter(terms).most_common(1)[0]
    return name if count > len(terms) / 2 else None


def _check_levels(covar: DiscreteCovariates, name: str, num_levels: int) -> None:
    if num_levels > MAX_LEVELS:
        raise InputError(
            f"{covar.path}: the discrete covariate {name} has {num_levels:,} levels, above {MAX_LEVELS:,}; "
            "if it is a number, give it as a quantitative covariate (data.qcovar)"
        )
