"""Reader of a table of records: a header, then a row a record; each column is of numbers, of labels, or of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
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
from openreml_dist.store.tables_text import Layout, find_record_layout, read_blocks

Column: TypeAlias = NDArray[Any]
INTEGER = frozenset("0123456789+-")
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
    """

    names: Collection[str] | None = None
    labels: Collection[str] | None = ()
    factors: Collection[str] = ()


def read_records(path: str, wanted: Wanted, missing: Sequence[str] = MISSING_CODES) -> Records:
    """Read columns of a table. A column of numbers alone is numeric, any other text.

    Raises:
        InputError: for a file that cannot be read or has no record, and for a column of numbers with something else among them.
    """
    layout, codes = find_record_layout(path), Missing(tuple(missing))
    header = layout.header or ()
    places = {name: place for place, name in enumerate(header) if wanted.names is None or name in wanted.names}
    labels = set(places) if wanted.labels is None else places.keys() & wanted.labels
    numeric: dict[str, list[NDArray[np.float64]]] = {name: [] for name in places if name not in labels}
    coded: Counter[str] = Counter()
    whole, num_records = set(numeric), 0
    for block in read_blocks(layout):
        num_records += len(next(iter(block.columns), ()))
        for name in [*numeric]:
            tokens = block.columns[places[name]]
            values = parsed_numbers(tokens, codes)
            if values is None:
                del numeric[name]
                continue
            numeric[name].append(numbers(layout, block, places[name], codes) if np.isinf(values).any() else values)
            if not INTEGER.issuperset("".join(tokens)):
                whole.discard(name)
            coded[name] += _num_coded(tokens, codes)
    if not num_records:
        raise InputError(f"{path} has a header and no records")
    text = _read_text(layout, {name: places[name] for name in places if name not in numeric}, codes, coded)
    for name in text.keys() - labels - set(wanted.factors):
        _refuse_nearly_numbers(layout, places[name], text[name], codes)
    made = {name: _numbers_of(parts, name in whole) for name, parts in numeric.items()}
    made |= {name: column if name in labels else _truth(column) for name, column in text.items()}
    return Records(layout, {name: made[name] for name in places}, {name: count for name, count in coded.items() if count})


def _num_coded(tokens: Sequence[str], missing: Missing) -> int:
    """Fields that are missing by a code that is a number."""
    return sum(tokens.count(code) for code in missing.among(tokens) if is_number(code) and float(code) in missing.numbers)


def _read_text(layout: Layout, places: dict[str, int], missing: Missing, coded: Counter[str]) -> dict[str, Column]:
    """Columns as text, None where missing: another pass over the file, since a column of numbers is never held as text."""
    if not places:
        return {}
    seen: dict[str, dict[str, int]] = {name: {} for name in places}
    parts: dict[str, list[NDArray[np.int32]]] = {name: [] for name in places}
    for name in places:
        coded[name] = 0
    for block in read_blocks(layout):
        for name, place in places.items():
            parts[name].append(encode(block.columns[place], seen[name], missing))
            coded[name] += _num_coded(block.columns[place], missing)
    return {name: np.array([*seen[name], None], object)[np.concatenate(parts[name])] for name in places}


def _numbers_of(parts: list[NDArray[np.float64]], whole: bool) -> Column:
    """A column of numbers; of integers where every field is written as one and none is missing."""
    values = np.concatenate(parts)
    if whole and not np.isnan(values).any() and np.abs(values).max() < LARGEST_INTEGER:
        return values.astype(np.int64)
    return values


def _truth(column: Column) -> Column:
    """A column of the words true and false alone as such."""
    if not set(column) <= TRUTH.keys():
        return column
    return np.array([TRUTH[word] for word in column], np.bool_)


def _refuse_nearly_numbers(layout: Layout, place: int, column: Column, missing: Missing) -> None:
    """Raise where most values of a column are numbers: as a factor it would have a level for each."""
    counts = Counter(column)
    counts.pop(None, None)
    num_numbers = sum(count for level, count in counts.items() if is_number(level))
    if num_numbers <= counts.total() / 2:
        return
    name = (layout.header or ())[place]
    hint = f", as {num_numbers:,} of {counts.total():,} values are; if {name} is a factor, write C({name})"
    for block in read_blocks(layout):
        if parsed_numbers(block.columns[place], missing) is None:
            refuse_token(layout, block, place, missing, hint)
