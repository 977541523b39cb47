"""The text of a phenotype or covariate table: which separator, whether there is a header, and its lines cut into columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import InputError

BLOCK_LINES = 5_000  # larger blocks are slower: they leave the cache
SEPARATOR_NAMES = {None: "white space", "\t": "tab-separated", ",": "comma-separated"}


@dataclass(frozen=True)
class Layout:
    """How a table is written, as found from its first line."""

    path: str
    separator: str | None  # None is any white space
    header: tuple[str, ...] | None  # names of the value columns
    num_columns: int  # value columns, behind FID and IID

    def __str__(self) -> str:
        """The assumption in words, for the terminal."""
        return f"{SEPARATOR_NAMES[self.separator]}, {'header' if self.header else 'no header'}"


@dataclass(frozen=True)
class Block:
    """Consecutive lines of a table, cut into columns."""

    lines: tuple[int, ...]  # line numbers, from 1
    family_id: tuple[str, ...]
    sample_id: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]


def find_layout(path: str) -> Layout:
    """Find the separator and the header from the first line that is not blank."""
    try:
        with Path(path).open(encoding="utf-8-sig") as handle:
            first = next((line.strip("\n") for line in handle if line.strip()), None)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if first is None:
        raise InputError(f"{path} is empty; expected lines of FID, IID and at least one value")
    separator = _separator(first)
    fields = next(_cut([first], separator))[1]
    if fields[0].lstrip("#").upper() == "IID":
        raise InputError(f"{path}: the header begins with {fields[0]}; the first two columns must be FID and IID")
    if len(fields) < 3:
        raise InputError(f"{path}: the first line has {len(fields)} field(s); expected FID, IID and at least one value")
    has_header = fields[0].lstrip("#").upper() == "FID" and fields[1].upper() == "IID"
    header = tuple(fields[2:]) if has_header else None
    repeated = None if header is None else first_duplicate(header)
    if header is not None and repeated is not None:
        raise InputError(f"{path}: the header has the column {header[repeated]!r} twice")
    return Layout(path, separator, header, len(fields) - 2)


def _separator(line: str) -> str | None:
    """Comma or tab where it cuts off a first field of one word; else white space, as in a table whose lines end with a tab."""
    for separator in ",\t":
        fields = line.split(separator)
        if len(fields) >= 3 and len(fields[0].split()) == 1 and not line.endswith("\t"):
            return separator
    return None


def _cut(lines: Iterator[str] | list[str], separator: str | None) -> Iterator[tuple[int, list[str]]]:
    """Line number (from 1) and fields of each line that is not blank."""
    if separator is None:
        for number, line in enumerate(lines, 1):
            fields = line.split()
            if fields:
                yield number, fields
        return
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    for row in reader:
        fields = [field.strip() for field in row]
        if any(fields):
            yield reader.line_num, fields


def read_blocks(layout: Layout) -> Iterator[Block]:
    """Cut a table into blocks of lines, each line with as many fields as the first."""
    width = layout.num_columns + 2
    with Path(layout.path).open(encoding="utf-8-sig", newline="" if layout.separator else None) as handle:
        rows = _cut(handle, layout.separator)
        if layout.header is not None:
            next(rows)
        while chunk := list(islice(rows, BLOCK_LINES)):
            lines, fields = zip(*chunk, strict=True)
            try:
                family_id, sample_id, *columns = zip(*fields, strict=True)
            except ValueError:
                columns = []
            if len(columns) != layout.num_columns:
                line, row = next((line, row) for line, row in chunk if len(row) != width)
                raise InputError(f"{layout.path}, line {line}: {len(row)} fields where the first line has {width}")
            yield Block(lines, family_id, sample_id, tuple(columns))


def first_duplicate(keys: Sequence[Any] | NDArray[np.object_]) -> int | None:
    """Place of the first key that stood earlier already, or None."""
    import pandas as pd

    repeated = pd.Index(keys, dtype=object).duplicated()
    return int(np.argmax(repeated)) if repeated.any() else None
