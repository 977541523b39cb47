"""Reader of a table of records: a header, then a row a record; each column is of numbers, of labels, or of text."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import StringIO
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import InputError
from openreml_dist.store.tables_fields import (
    MISSING_CODES,
    Missing,
    encode,
    is_number,
    numbers,
    parsed_numbers,
    refuse_token,
)
from openreml_dist.store.tables_text import Block, Layout, find_record_layout, read_blocks

Column: TypeAlias = NDArray[Any]
INTEGER = "0123456789+-"
LARGEST_INTEGER = 2.0**53
TRUTH = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}


@dataclass(frozen=True)
class Records:
    """Columns of a table, n records each: float64 (NaN where missing), int64, bool, or text (None where missing)."""

    layout: Layout
    columns: dict[str, Column]
    coded: dict[str, int]  # of columns with a number as the code of a missing value, how many

    @property
    def num_records(self) -> int:
        """n."""
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def is_empty(self, name: str) -> bool:
        """Whether every value of a column is missing."""
        column = self.columns[name]
        return bool(np.isnan(column).all()) if column.dtype.kind == "f" else set(column.tolist()) == {None}


@dataclass(frozen=True)
class Wanted:
    """Which columns of a table are read, and as what.

    Attributes:
        names: columns to be read; None is all. Those that are not there are left to the caller.
        labels: kept as text, so that ``001`` stays ``001``; None is all.
        factors: where numbers and text may stand together.
        numbers: that must be numbers (or true and false), such as a response.
    """

    names: Collection[str] | None = None
    labels: Collection[str] | None = ()
    factors: Collection[str] = ()
    numbers: Collection[str] = ()


def read_records(path: str, wanted: Wanted, missing: Sequence[str] = MISSING_CODES) -> Records:
    """Read columns of a table. A column of numbers alone is numeric, any other text.

    Raises:
        InputError: for a file that cannot be read or has no record, and for a column of numbers with something else among them.
    """
    layout, codes = find_record_layout(path), Missing(tuple(missing))
    header = layout.header or ()
    places = {name: place for place, name in enumerate(header) if wanted.names is None or name in wanted.names}
    labels = set(places) if wanted.labels is None else places.keys() & wanted.labels
    columns: dict[str, _Numbers | _Text] = {
        name: _Text(place, codes) if name in labels else _Numbers(place, codes) for name, place in places.items()
    }
    words = _fill(layout, columns)
    text = {name: _Text(places[name], codes) for name in words}
    if text:  # another pass over the file: a column of numbers is never held as text
        _fill(layout, text)
    columns |= text
    made = {name: column.finished() for name, column in columns.items()}
    made |= {name: _truth(made[name]) for name in words}
    for name in words:
        if made[name].dtype.kind == "O" and name not in wanted.factors:
            _refuse_nearly_numbers(layout, places[name], made[name], codes, name in wanted.numbers)
    return Records(layout, made, {name: column.coded for name, column in columns.items() if column.coded})


class _Text:
    """A column as text, None where missing; ``coded`` values are missing by a code that is a number."""

    def __init__(self, place: int, missing: Missing) -> None:
        self.place, self.missing = place, missing
        self._levels: dict[str, int] = {}
        self._parts: list[NDArray[np.int32]] = []
        self.coded = 0

    def add(self, _: Layout, block: Block) -> bool:
        """Go on with a block; true, since anything is text."""
        tokens = block.columns[self.place]
        self._parts.append(encode(tokens, self._levels, self.missing))
        self.coded += sum(tokens.count(code) for code in self.missing.codes if code not in self.missing.words)
        return True

    def finished(self) -> Column:
        """The column."""
        return np.array([*self._levels, None], object)[np.concatenate(self._parts)]


class _Numbers:
    """A column as numbers, of integers where every field is written as one and none is missing; ``coded`` as above."""

    def __init__(self, place: int, missing: Missing) -> None:
        self.place, self.missing = place, missing
        self._parts: list[NDArray[np.float64]] = []
        self._whole = True
        self.coded = 0

    def add(self, layout: Layout, block: Block) -> bool:
        """Go on with a block, if it holds numbers alone."""
        tokens = block.columns[self.place]
        parsed = parsed_numbers(tokens, self.missing)
        if parsed is None:
            return False
        values, coded = parsed
        self.coded += coded
        self._parts.append(numbers(layout, block, self.place, self.missing) if np.isinf(values).any() else values)
        written_whole = tokens.dtype.kind == "i" if isinstance(tokens, np.ndarray) else not "".join(tokens).strip(INTEGER)
        self._whole = self._whole and written_whole and not np.isnan(values).any()
        return True

    def finished(self) -> Column:
        """The column."""
        values = np.concatenate(self._parts)
        return values.astype(np.int64) if self._whole and np.abs(values).max() < LARGEST_INTEGER else values


def _fill(layout: Layout, columns: Mapping[str, _Numbers | _Text]) -> set[str]:
    """Read the table into columns. Returns the names of those that are none of numbers.

    Raises:
        InputError: for a file that cannot be read, or without a record.
    """
    words: set[str] = set()
    empty = True
    for block in read_blocks(layout, partial(_cut_by_pandas, layout, columns, words)):
        empty = False
        words |= {name for name, column in columns.items() if name not in words and not column.add(layout, block)}
    if empty:
        raise InputError(f"{layout.path} has a header and no records")
    return words


def _cut_by_pandas(
    layout: Layout, columns: Mapping[str, _Numbers | _Text], words: Collection[str], text: str
) -> list[Any] | None:
    """Wanted columns of bare lines, numbers as numbers; None where one holds something else. A ``Cutter``."""
    import pandas as pd

    wanted = {column.place: column for name, column in columns.items() if name not in words}
    numeric = [place for place, column in wanted.items() if isinstance(column, _Numbers)]
    if not numeric:
        return None
    codes: Any = {place: list(wanted[place].missing.words) for place in numeric}
    exact: Any = {} if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1) else {"float_precision": "round_trip"}
    try:
        read = pd.read_csv(
            StringIO(text),
            sep=layout.separator,
            header=None,
            usecols=sorted(wanted),
            dtype={place: object for place in wanted if place not in numeric},
            na_values=codes,
            keep_default_na=False,
            low_memory=False,
            quoting=csv.QUOTE_NONE,
            **exact,
        )
    except ValueError:
        return None
    made: dict[int, Any] = {place: read[place].to_numpy() for place in wanted}
    if any(made[place].dtype.kind not in "if" or np.isinf(made[place]).any() for place in numeric):
        return None
    made |= {place: made[place].tolist() for place in wanted if place not in numeric}
    return [made.get(place, range(len(read))) for place in range(layout.width)]


def _truth(column: Column) -> Column:
    """A column of the words true and false alone as such."""
    if not set(column) <= TRUTH.keys():
        return column
    return np.array([TRUTH[word] for word in column], np.bool_)


def _refuse_nearly_numbers(layout: Layout, place: int, column: Column, missing: Missing, must_be: bool) -> None:
    """Raise where most values of a column are numbers: as a factor it would have a level for each; or where all must be."""
    counts = Counter(column)
    counts.pop(None, None)
    num_numbers = sum(count for level, count in counts.items() if is_number(level))
    if not counts or (num_numbers <= counts.total() / 2 and not must_be):
        return
    name = (layout.header or ())[place]
    hint = f", as {num_numbers:,} of {counts.total():,} values are" if num_numbers else ""
    if not must_be:
        hint += f"; if {name} is a factor, write C({name})"
    for block in read_blocks(layout):
        if parsed_numbers(block.columns[place], missing) is None:
            refuse_token(layout, block, place, missing, hint)
