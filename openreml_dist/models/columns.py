"""Columns of a table as labels, levels and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of n records without a data frame, for models that need no more of them: pandas takes long to import."""

    num_records: int
    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        """Their number n."""
        return self.num_records

    def __contains__(self, name: object) -> bool:
        """Whether there is such a column."""
        return name in self.columns

    def __getitem__(self, name: str) -> NDArray[Any]:
        """A column (n,)."""
        return self.columns[name]


def joined_labels(records: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.str_]:
    """Labels of the combinations of columns, ``a:b``."""
    parts = [labels_of(records, column) for column in columns]
    return np.array([":".join(values) for values in zip(*parts, strict=True)])


def labels_of(records: pd.DataFrame, column: str) -> NDArray[np.str_]:
    """Values as text; a whole number read as a float, because others are missing, without its ``.0``."""
    values = records[column]
    if values.dtype.kind == "f" and bool((values == values.round()).all()):
        values = values.astype("int64")
    return np.asarray(values.astype(str), str)


def levels_of(records: pd.DataFrame, column: str) -> tuple[list[str], NDArray[np.int64]]:
    """Levels that occur, in the order of a categorical column or else sorted, and the place of each record's among them."""
    import pandas as pd

    values = records[column]
    if isinstance(values.dtype, pd.CategoricalDtype):
        used = values.cat.remove_unused_categories()
        return list(map(str, used.cat.categories)), np.asarray(used.cat.codes, np.int64)
    levels, codes = np.unique(labels_of(records, column), return_inverse=True)
    return levels.tolist(), np.asarray(codes, np.int64)


def numbers_of(records: pd.DataFrame, column: str, name: str) -> NDArray[np.float64]:
    """Values (n,) as finite numbers.

    Raises:
        InputError: with the first that is none, for the term ``name``.
    """
    import pandas as pd

    values = pd.to_numeric(records[column], errors="coerce").to_numpy(np.float64)
    if not np.isfinite(values).all():
        bad = records[column].iloc[int(np.flatnonzero(~np.isfinite(values))[0])]
        raise InputError(f"{name}: {column} must be a number, not {bad!r}")
    return values
