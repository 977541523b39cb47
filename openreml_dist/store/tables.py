"""Readers of phenotype and covariate tables: FID and IID, then the columns of values.

A table is separated by white space, tabs, commas or semicolons. It has a header where its first line begins with the names FID
and IID, or IID alone (also #FID and #IID, in any case); anything else is data, as GCTA reads it. Identifiers are always text:
``001`` stays ``001`` and an individual may be called ``NA``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import InputError
from openreml_dist.store.matching import pair_keys
from openreml_dist.store.tables_fields import MISSING_CODES, Missing, Strings, encode, numbers, sort_levels
from openreml_dist.store.tables_text import Block, Layout, find_layout, first_duplicate, read_blocks


@dataclass(frozen=True)
class Table:
    """A table whose rows are samples."""

    layout: Layout
    family_id: Strings  # (n,), 0 where the table has none
    sample_id: Strings  # (n,)

    @property
    def path(self) -> str:
        """The file."""
        return self.layout.path

    @property
    def matches_iid_alone(self) -> bool:
        """The table has no family ids."""
        return "FID" not in self.layout.ids


@dataclass(frozen=True)
class Phenotype(Table):
    """One column of a phenotype table. A missing value is NaN."""

    name: str  # from the header, or trait1 for the first column
    column: int  # 1 is the first behind the identifiers
    values: NDArray[np.float64]  # (n,); a case is 1 and a control 0
    coding: str | None  # "0/1" or "1/2" where the table holds these two values alone: case/control


@dataclass(frozen=True)
class QuantitativeCovariates(Table):
    """A table of numbers. A missing value is NaN."""

    names: tuple[str, ...]  # from the header, or qcovar1, qcovar2, ...
    values: NDArray[np.float64]  # (n, columns)


@dataclass(frozen=True)
class DiscreteCovariates(Table):
    """A table of factors. A missing value has code -1."""

    names: tuple[str, ...]  # from the header, or covar1, covar2, ...
    codes: NDArray[np.int32]  # (n, columns), places in ``levels``
    levels: tuple[tuple[str, ...], ...]  # of each column, sorted: as numbers where all are numbers, else as text


def read_phenotype(path: str, column: int | str = 1, missing: Sequence[str] = MISSING_CODES) -> Phenotype:
    """Read one column of a phenotype table; see ``read_phenotypes``."""
    return read_phenotypes(path, [column], missing)[0]


def read_phenotypes(path: str, columns: Sequence[int | str], missing: Sequence[str] = MISSING_CODES) -> list[Phenotype]:
    """Read columns of a phenotype table.

    Args:
        path: the table.
        columns: 1 is the first column behind the identifiers; or a name of the header. A number written as text is a number
            unless the header has that very name.
        missing: codes of a missing value.
    Raises:
        InputError: a missing or ragged file, no such column, one without a value, a sample twice, a value that is not a finite
            number.
    """
    layout, codes = find_layout(path), Missing(tuple(missing))
    chosen = [_column_place(layout, column) for column in columns]
    ids, parts = _read(layout, lambda block: np.column_stack([numbers(layout, block, place, codes) for place in chosen]))
    table = np.concatenate(parts)
    phenotypes = []
    for place, values in zip(chosen, table.T, strict=True):
        name = layout.header[place] if layout.header else f"trait{place + 1}"
        _refuse_empty(layout, place, np.isnan(values), codes)
        coding = _case_control_coding(values)
        values = np.ascontiguousarray(values - 1.0 if coding == "1/2" else values)  # noqa: PLW2901
        phenotypes.append(Phenotype(layout, *ids, name, place + 1, values, coding))
    return phenotypes


def read_quantitative(path: str, missing: Sequence[str] = MISSING_CODES) -> QuantitativeCovariates:
    """Read a table of quantitative covariates, all of its columns.

    Raises:
        InputError: a missing or ragged file, a sample twice, a column without a value, a value that is not a finite number.
    """
    layout, codes = find_layout(path), Missing(tuple(missing))
    all_of = range(layout.num_columns)
    ids, parts = _read(layout, lambda block: np.column_stack([numbers(layout, block, place, codes) for place in all_of]))
    values: NDArray[np.float64] = np.concatenate(parts)
    for place, column in enumerate(values.T):
        _refuse_empty(layout, place, np.isnan(column), codes)
    return QuantitativeCovariates(layout, *ids, _names(layout, "qcovar"), values)


def read_discrete(path: str, missing: Sequence[str] = MISSING_CODES) -> DiscreteCovariates:
    """Read a table of discrete covariates, all of its columns, values as text.

    Raises:
        InputError: a missing or ragged file, a sample twice, or a column without a value.
    """
    layout, unknown = find_layout(path), Missing(tuple(missing))
    seen: list[dict[str, int]] = [{} for _ in range(layout.num_columns)]

    def encoded(block: Block) -> NDArray[np.int32]:
        return np.column_stack([encode(tokens, codes, unknown) for tokens, codes in zip(block.columns, seen, strict=True)])

    ids, parts = _read(layout, encoded)
    codes: NDArray[np.int32] = np.concatenate(parts)
    levels = []
    for j, codes_of in enumerate(seen):
        _refuse_empty(layout, j, codes[:, j] < 0, unknown)
        ordered = sort_levels(list(codes_of))
        rank = np.full(len(ordered) + 1, -1, np.int32)  # the last place answers for code -1
        rank[[codes_of[level] for level in ordered]] = np.arange(len(ordered), dtype=np.int32)
        codes[:, j] = rank[codes[:, j]]
        levels.append(tuple(ordered))
    return DiscreteCovariates(layout, *ids, _names(layout, "covar"), codes, tuple(levels))


def _read(layout: Layout, parse: Callable[[Block], NDArray[Any]]) -> tuple[tuple[Strings, Strings], list[NDArray[Any]]]:
    """Parse all blocks of a table. Returns (family_id, sample_id) and what ``parse`` made of each block."""
    family_id: list[str] = []
    sample_id: list[str] = []
    parts = []
    for block in read_blocks(layout):
        family_id += block.family_id
        sample_id += block.sample_id
        parts.append(parse(block))
    if not parts:
        raise InputError(f"{layout.path} has a header and no samples")
    alone = "FID" not in layout.ids
    repeated = first_duplicate(sample_id if alone else pair_keys(family_id, sample_id))
    if repeated is not None:
        shown = f"{sample_id[repeated]} (IID)" if alone else f"{family_id[repeated]}:{sample_id[repeated]} (FID:IID)"
        raise InputError(f"{layout.path}: sample {shown} is there twice")
    return (np.array(family_id, object), np.array(sample_id, object)), parts


def _refuse_empty(layout: Layout, place: int, absent: NDArray[np.bool_], missing: Missing) -> None:
    if absent.all():
        column = layout.header[place] if layout.header else str(place + 1)
        raise InputError(
            f"{layout.path}: column {column} has no value: all {len(absent):,} samples are missing there (missing is {missing})"
        )


def _names(layout: Layout, prefix: str) -> tuple[str, ...]:
    return layout.header or tuple(f"{prefix}{j + 1}" for j in range(layout.num_columns))


def _column_place(layout: Layout, column: int | str) -> int:
    """Place of a value column, from 0, by its number or name."""
    if layout.header and str(column) in layout.header:
        return layout.header.index(str(column))
    try:
        number = int(str(column))
    except ValueError:
        number = 0
    if 1 <= number <= layout.num_columns:
        return number - 1
    known = f"names {', '.join(layout.header)}" if layout.header else "no header, so a column is chosen by its number"
    raise InputError(
        f"{layout.path}: no column {column!r}; it has {layout.num_columns} behind {' and '.join(layout.ids)}, {known}"
    )


def _case_control_coding(values: NDArray[np.float64]) -> str | None:
    """0/1 or 1/2 where the values are these two alone."""
    present = set(np.unique(values[~np.isnan(values)]).tolist())
    return {frozenset({0.0, 1.0}): "0/1", frozenset({1.0, 2.0}): "1/2"}.get(frozenset(present))
