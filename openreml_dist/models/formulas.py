"""Fixed effects from a formula: y and X, with the columns that are collinear named."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from openreml_dist.collinear import refuse_collinear
from openreml_dist.errors import InputError
from openreml_dist.models.names import decoded, encoded, renamed
from openreml_dist.store.tables_fields import is_number

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 5  # columns in a message


def _parsed_as(text: str, formula: str) -> Any:
    """A formula, parsed; ``text`` has words for its names.

    Raises:
        InputError: with what is wrong.
    """
    from formulaic import Formula
    from formulaic.errors import FormulaicError

    try:
        return Formula(text)
    except (FormulaicError, SyntaxError) as error:
        raise InputError(f"formula {formula!r}: {_first_line(error)}") from error


def columns_of(formula: str) -> tuple[str, ...]:
    """Columns of the table that a formula needs."""
    text, names = encoded(formula)
    return tuple(sorted(names.get(str(word), str(word)) for word in _parsed_as(text, formula).required_variables))


def factors_of(formula: str) -> frozenset[str]:
    """Columns that a formula takes for factors: ``C(column)``."""
    text, names = encoded(formula)
    return frozenset(names.get(word, word) for word in re.findall(r"\bC\(\s*(\w+)", text))


def response_columns(formula: str) -> tuple[str, ...]:
    """Columns of the left-hand side, none without one."""
    left, tilde, _ = encoded(formula)[0].partition("~")
    return columns_of(f"{decoded(left, encoded(formula)[1], '`')} - 1") if tilde and left.strip() else ()


def covariates(formula: str, records: pd.DataFrame) -> tuple[NDArray[np.float64], tuple[str, ...], tuple[str, ...]]:
    """Values (n, p), names (p,) and covariates (p,) of the columns of the right-hand side.

    A factor has a column for every level but the first, and is one covariate: ``C(batch)`` of ``C(batch)[T.b1]``.

    Raises:
        InputError: for an expression that cannot be evaluated, or a value that is not finite.
    """
    matrix, terms = _matrices(formula, encoded(formula)[0].rpartition("~")[2].strip(), records)
    values, names = matrix.to_numpy(np.float64), tuple(map(str, matrix.columns))
    for name, column in zip(names, values.T, strict=True):
        if not np.isfinite(column).all():
            raise InputError(f"formula {formula!r}: {name} is not finite in {int((~np.isfinite(column)).sum())} records")
    return values, names, terms


def response(formula: str, records: pd.DataFrame) -> tuple[NDArray[np.float64], str]:
    """Values (n,) and name of the left-hand side.

    Raises:
        InputError: without one, for several, for text or a constant.
    """
    text, words = encoded(formula)
    left, tilde, _ = text.partition("~")
    if not tilde or not left.strip():
        raise InputError(f"formula {formula!r} has no response: write it as 'response ~ 1 + covariate'")
    name = decoded(left.strip(), words)
    for column in response_columns(formula):
        _refuse_word(records, column, formula)
    matrix, _ = _matrices(formula, f"{left.strip()} - 1", records)
    if matrix.shape[1] != 1:
        more = ", ..." if matrix.shape[1] > SHOWN else ""
        shown = ", ".join(map(str, matrix.columns[:SHOWN]))
        raise InputError(f"formula {formula!r}: the response must be one column of numbers, not {shown}{more}")
    y = matrix.to_numpy(np.float64)[:, 0]
    if not np.isfinite(y).all():
        raise InputError(f"formula {formula!r}: the response is not finite in {int((~np.isfinite(y)).sum())} records")
    if y.min() == y.max():
        raise InputError(f"the response {name} is constant: all {len(y):,} analysed records are {y[0]:g}")
    return y, name


def by_trait(
    X: NDArray[np.float64], names: tuple[str, ...], terms: tuple[str, ...], trait: Sequence[str]
) -> tuple[NDArray[np.float64], tuple[str, ...], tuple[str, ...]]:
    """Every effect for every trait of its own; those that no record of a trait has are left out."""
    of, traits = np.array(trait), dict.fromkeys(trait)
    blocks = [np.where((of == one)[:, None], X, 0.0) for one in traits]
    joined = np.hstack(blocks)
    present = np.flatnonzero(joined.any(axis=0))
    of_traits = [(f"{one}:{name}", f"{one}:{term}") for one in traits for name, term in zip(names, terms, strict=True)]
    return joined[:, present], tuple(of_traits[j][0] for j in present), tuple(of_traits[j][1] for j in present)


def checked(X: NDArray[np.float64], names: tuple[str, ...]) -> NDArray[np.float64]:
    """X, if it can be fitted.

    Raises:
        InputError: for as many effects as records, and for collinear columns, which are named.
    """
    if X.shape[1] >= len(X):
        raise InputError(f"{X.shape[1]:,} fixed effects for {len(X):,} analysed records; there must be fewer effects")
    refuse_collinear(X, list(names))
    return X


def _matrices(formula: str, text: str, records: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The columns that ``text``, a side of the formula with words for its names, makes of the records; the term of each."""
    import pandas as pd
    from formulaic.errors import FormulaicError

    names = encoded(formula)[1]
    _refuse_nearly_numbers(formula, records)
    try:
        made = _parsed_as(text, formula).get_model_matrix(renamed(records, names), na_action="ignore")
    except (FormulaicError, ValueError, TypeError, SyntaxError) as error:
        raise InputError(f"formula {formula!r}: {decoded(_first_line(error), names)}") from error
    matrix = pd.DataFrame(made)
    term_of = {j: decoded(str(term), names) for term, places in made.model_spec.term_indices.items() for j in places}
    matrix.columns = pd.Index([decoded(str(column), names) for column in matrix.columns])
    return matrix, tuple("Intercept" if term_of[j] == "1" else term_of[j] for j in range(matrix.shape[1]))


def _refuse_nearly_numbers(formula: str, records: pd.DataFrame) -> None:
    """Raise where most values of a column that the formula takes as it is are numbers, and it is one of text.

    Raises:
        InputError: with the first value that is no number.
    """
    for column in columns_of(formula):
        if column in records and column not in factors_of(formula) and _is_text(records[column]):
            counts = Counter(map(str, records[column]))
            num_numbers = sum(count for value, count in counts.items() if is_number(value))
            if num_numbers > len(records) / 2:
                if num_numbers == len(records):
                    raise InputError(
                        f"formula {formula!r}: column {column} holds numbers as text; make them numbers, or write C({column})"
                    )
                hint = f"as {num_numbers:,} of {len(records):,} values are; if {column} is a factor, write C({column})"
                _refuse_word(records, column, formula, hint)


def _is_text(values: Any) -> bool:
    """Whether a formula takes a column for a factor although nobody called it one, as a categorical column is."""
    return bool(values.dtype.kind == "O") and values.dtype.name != "category"


def _refuse_word(records: pd.DataFrame, column: str, formula: str, hint: str = "") -> None:
    """Raise for the first value of a column of text that is no number."""
    if column not in records or not _is_text(records[column]):
        return
    for place, value in enumerate(records[column]):
        if not is_number(str(value)):
            more = f", {hint}" if hint else ": the response must be one column of numbers"
            raise InputError(f"formula {formula!r}: column {column}, record {place + 1:,}: {value!r} is not a number{more}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
