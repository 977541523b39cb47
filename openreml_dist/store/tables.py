"""Readers of phenotype and covariate tables: FID and IID, then the columns of values.

A table is separated by white space, tabs or commas. It has a header where its first line begins with the names FID and IID (or
#FID IID, in any case); anything else is data, as GCTA reads it. Lines are read in blocks, so that a table of many columns is
never held as text. Identifiers are always text: ``001`` stays ``001`` and an individual may be called ``NA``.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import InputError
from openreml_dist.store.tables_text import Block, Layout, find_layout, first_duplicate, read_blocks

Strings: TypeAlias = NDArray[np.object_]
Ids: TypeAlias = Sequence[str] | NDArray[np.str_] | NDArray[np.object_]

MISSING_TOKENS = ("NA", "-9", "nan", "NaN", "")
MISSING_NUMBER = -9.0


@dataclass(frozen=True)
class Phenotype:
    """One column of a phenotype table. A missing value is NaN."""

    layout: Layout
    family_id: Strings  # (n,)
    sample_id: Strings  # (n,)
    name: str  # from the header, or trait1 for the first column
    column: int  # 1 is the first behind FID and IID
    values: NDArray[np.float64]  # (n,); a case is 1 and a control 0
    coding: str | None  # "0/1" or "1/2" where the table holds these two values alone: case/control


@dataclass(frozen=True)
class QuantitativeCovariates:
    """A table of numbers. A missing value is NaN."""

    layout: Layout
    family_id: Strings  # (n,)
    sample_id: Strings  # (n,)
    names: tuple[str, ...]  # from the header, or qcovar1, qcovar2, ...
    values: NDArray[np.float64]  # (n, columns)


@dataclass(frozen=True)
class DiscreteCovariates:
    """A table of factors. A missing value has code -1."""

    layout: Layout
    family_id: Strings  # (n,)
    sample_id: Strings  # (n,)
    names: tuple[str, ...]  # from the header, or covar1, covar2, ...
    codes: NDArray[np.int32]  # (n, columns), places in ``levels``
    levels: tuple[tuple[str, ...], ...]  # of each column, sorted: as numbers where all are numbers, else as text


def read_phenotype(path: str, column: int | str = 1) -> Phenotype:
    """Read one column of a phenotype table.

    Args:
        path: the table.
        column: 1 is the first column behind FID and IID; or a name of the header. A number written as text is a number unless
            the header has that very name.
    Raises:
        InputError: a missing or ragged file, no such column, FID:IID twice, a value that is not a finite number.
    """
    layout = find_layout(path)
    place = _column_place(layout, column)
    ids, parts = _read(layout, lambda block: _numbers(layout, block, place))
    values: NDArray[np.float64] = np.concatenate(parts)
    coding = _case_control_coding(values)
    if coding == "1/2":
        values = values - 1.0
    name = layout.header[place] if layout.header else f"trait{place + 1}"
    return Phenotype(layout, *ids, name, place + 1, values, coding)


def read_quantitative(path: str) -> QuantitativeCovariates:
    """Read a table of quantitative covariates, all of its columns.

    Raises:
        InputError: a missing or ragged file, FID:IID twice, a value that is not a finite number.
    """
    layout = find_layout(path)
    places = range(layout.num_columns)
    ids, parts = _read(layout, lambda block: np.column_stack([_numbers(layout, block, place) for place in places]))
    return QuantitativeCovariates(layout, *ids, _names(layout, "qcovar"), np.concatenate(parts))


def read_discrete(path: str) -> DiscreteCovariates:
    """Read a table of discrete covariates, all of its columns, values as text.

    Raises:
        InputError: a missing or ragged file, or FID:IID twice.
    """
    layout = find_layout(path)
    seen: list[dict[str, int]] = [{} for _ in range(layout.num_columns)]

    def encode(block: Block) -> NDArray[np.int32]:
        return np.column_stack([_encode(tokens, codes) for tokens, codes in zip(block.columns, seen, strict=True)])

    ids, parts = _read(layout, encode)
    codes: NDArray[np.int32] = np.concatenate(parts)
    levels = []
    for j, codes_of in enumerate(seen):
        ordered = sort_levels(list(codes_of))
        rank = np.full(len(ordered) + 1, -1, np.int32)  # the last place answers for code -1
        rank[[codes_of[level] for level in ordered]] = np.arange(len(ordered), dtype=np.int32)
        codes[:, j] = rank[codes[:, j]]
        levels.append(tuple(ordered))
    return DiscreteCovariates(layout, *ids, _names(layout, "covar"), codes, tuple(levels))


def sort_levels(levels: Sequence[str]) -> list[str]:
    """Sort the levels of a factor: as numbers where all of them are numbers, else as text."""
    try:
        return sorted(levels, key=lambda level: (float(level), level))
    except ValueError:
        return sorted(levels)


def pair_keys(family_id: Ids, sample_id: Ids) -> Strings:
    """One text for each FID and IID, equal only where both are equal. Returns an (n,) array of objects."""
    keys = np.empty(len(sample_id), object)
    keys[:] = [f"{family}\t{sample}" for family, sample in zip(family_id, sample_id, strict=True)]
    return keys


def _read(layout: Layout, parse: Callable[[Block], NDArray[Any]]) -> tuple[tuple[Strings, Strings], list[NDArray[Any]]]:
    """Parse all blocks of a table. Returns (family_id, sample_id) and what ``parse`` made of each block."""
    family_id: list[str] = []
    sample_id: list[str] = []
    parts = []
    try:
        for block in read_blocks(layout):
            family_id += block.family_id
            sample_id += block.sample_id
            parts.append(parse(block))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {layout.path}: {error}") from error
    if not parts:
        raise InputError(f"{layout.path} has a header and no samples")
    repeated = first_duplicate(pair_keys(family_id, sample_id))
    if repeated is not None:
        raise InputError(f"{layout.path}: sample {family_id[repeated]}:{sample_id[repeated]} (FID:IID) is there twice")
    return (np.array(family_id, object), np.array(sample_id, object)), parts


def _numbers(layout: Layout, block: Block, place: int) -> NDArray[np.float64]:
    """One column of a block as numbers, NaN where missing."""
    import pandas as pd

    tokens = np.array(block.columns[place], object)
    missing = pd.Series(tokens, dtype=object).isin(MISSING_TOKENS).to_numpy()
    tokens[missing] = "nan"
    try:
        values = tokens.astype(np.float64)
    except ValueError:
        _refuse_token(layout, block, place, tokens)
    if "_" in "".join(tokens):  # Python reads 1_000 as a number
        _refuse_token(layout, block, place, tokens)
    values[values == MISSING_NUMBER] = np.nan
    infinite = np.isinf(values)
    if infinite.any():
        i = int(np.argmax(infinite))
        raise InputError(f"{_where(layout, block, place, i)}: the value {tokens[i]} is infinite or too large for a number")
    return values


def _refuse_token(layout: Layout, block: Block, place: int, tokens: Strings) -> NoReturn:
    """Raise for the first token that is not a number."""

    def is_number(token: str) -> bool:
        try:
            float(token)
        except ValueError:
            return False
        return "_" not in token

    i = next(i for i, token in enumerate(tokens) if not is_number(token))
    hint = "; a header must begin with FID IID" if block.lines[i] == 1 and layout.header is None else ""
    raise InputError(f"{_where(layout, block, place, i)}: {tokens[i]!r} is not a number (missing is NA or -9){hint}")


def _where(layout: Layout, block: Block, place: int, i: int) -> str:
    column = layout.header[place] if layout.header else str(place + 1)
    return f"{layout.path}, line {block.lines[i]}, sample {block.family_id[i]}:{block.sample_id[i]}, column {column}"


def _encode(tokens: tuple[str, ...], codes: dict[str, int]) -> NDArray[np.int32]:
    """Codes of one column of a block; new levels are added to ``codes`` in the order of their first appearance."""
    import pandas as pd

    block_codes, uniques = pd.factorize(np.array(tokens, object))
    new_codes = [-1 if level in MISSING_TOKENS else codes.setdefault(level, len(codes)) for level in uniques]
    return np.array(new_codes, np.int32)[block_codes]


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
    raise InputError(f"{layout.path}: no column {column!r}; it has {layout.num_columns} behind FID and IID, {known}")


def _case_control_coding(values: NDArray[np.float64]) -> str | None:
    """0/1 or 1/2 where the values are these two alone."""
    present = set(np.unique(values[~np.isnan(values)]).tolist())
    return {frozenset({0.0, 1.0}): "0/1", frozenset({1.0, 2.0}): "1/2"}.get(frozenset(present))
