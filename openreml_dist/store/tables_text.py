"""The text of a table: which separator, which header, which identifiers, and its lines cut into columns.

Every table is read here. Lines are read in blocks, so that a table of many columns is never held as text. Quotes around a field
and blanks beside it are no part of it. A table of individuals begins with their identifiers, FID and IID; where its header says
so, as PLINK 2 writes it, with IID alone, or with a sample id SID behind, which is not used. A table of records has a header.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import InputError
from openreml_dist.store.text import open_text

BLOCK_LINES = 10_000  # what is done once a block takes no time; a block of many columns still fits into memory as text
BLANKS = " \t\v\f\0\x1c\x1d\x1e\x1f"  # of ASCII, without the ends of lines
Cutter: TypeAlias = Callable[[str], "list[Any] | None"] | None
"""From lines of bare fields to all of their columns, those that are wanted as text or numbers; None where it cannot tell."""

SEPARATOR_NAMES = {None: "white space", "\t": "tab-separated", ",": "comma-separated", ";": "semicolon-separated"}
IDS = ("FID", "IID")
HEADED_IDS = (("FID", "IID", "SID"), IDS, ("IID", "SID"), ("IID",))


@dataclass(frozen=True)
class Layout:
    """How a table is written, as found from its first line."""

    path: str
    separator: str | None  # None is any white space
    ids: tuple[str, ...]  # columns in front of the values: FID and IID, IID alone, either with SID; none in a table of records
    header: tuple[str, ...] | None  # names of the value columns
    num_columns: int  # value columns, behind the identifiers

    def __str__(self) -> str:
        """The assumption in words, for the terminal."""
        return f"{SEPARATOR_NAMES[self.separator]}, {'header' if self.header else 'no header'}"

    @property
    def width(self) -> int:
        """Fields of a line."""
        return len(self.ids) + self.num_columns


@dataclass(frozen=True)
class Block:
    """Consecutive lines of a table, cut into columns."""

    first: int  # lines of the table before these, the header among them; blank ones do not count
    ids: tuple[list[str], ...]
    columns: tuple[Any, ...]  # of values: lists of texts; with a ``Cutter``, numbers where it has read them

    @property
    def family_id(self) -> list[str]:
        """FIDs, 0 where the table has none."""
        return self.ids[0] if len(self.ids) > 1 else ["0"] * len(self.ids[0])

    @property
    def sample_id(self) -> list[str]:
        """IIDs."""
        return self.ids[-1]


def find_layout(path: str) -> Layout:
    """The separator, header and identifiers of a table of individuals, from the first line that is not blank.

    Raises:
        InputError: for a file that cannot be read, is empty, or has no values; for a name that the header has twice.
    """
    first = _first_line(path, "lines of FID, IID and at least one value")
    separator = _separator(first)
    fields = _first_fields(first, separator)
    upper = tuple(field.upper() for field in (fields[0].lstrip("#"), *fields[1:]))
    ids = next((ids for ids in HEADED_IDS if upper[: len(ids)] == ids), None)
    if len(fields) <= len(ids or IDS):
        wanted = ", ".join(ids or IDS)
        hint = "" if ids else ". A table of IID alone needs a header that begins with IID or #IID"
        raise InputError(f"{path}: the first line has {len(fields)} field(s); expected {wanted} and at least one value{hint}")
    if ids is None:
        return Layout(path, separator, IDS, None, len(fields) - len(IDS))
    header = tuple(fields[len(ids) :])
    _refuse_repeated_names(path, header)
    if stray := set(IDS).intersection(upper[len(ids) :]):
        raise InputError(
            f"{path}: the header has {', '.join(stray)} behind {' '.join(ids)}; ids come first, as FID IID or IID alone"
        )
    return Layout(path, separator, ids, header, len(header))


def find_record_layout(path: str) -> Layout:
    """The separator and the header of a table of records.

    Raises:
        InputError: for a file that cannot be read or is empty, and for a name that the header has twice.
    """
    first = _first_line(path, "a header")
    separator = next((mark for mark in "\t,;" if mark in first), None)
    header = tuple(field.removeprefix("#") for field in _first_fields(first, separator))
    _refuse_repeated_names(path, [name for name in header if name])
    return Layout(path, separator, (), header, len(header))


def read_blocks(layout: Layout, cutter: Cutter = None) -> Iterator[Block]:
    """Cut a table into blocks of lines, each line with as many fields as the first.

    Args:
        layout: as found.
        cutter: a quicker way for a table of records, if there is one.
    Raises:
        InputError: for a file that cannot be read, and for a line of another length.
    """
    num_ids = len(layout.ids)
    with open_text(layout.path, newline="" if layout.separator else None) as lines:
        first = 0
        for columns in _columns(lines, layout, cutter):
            if first == 0 and layout.header is not None:
                first, columns = 1, [column[1:] for column in columns]  # noqa: PLW2901
            if len(columns[0]) == 0:
                continue
            ids = columns[:num_ids][:-1] if "SID" in layout.ids else columns[:num_ids]
            yield Block(first, tuple(ids), tuple(columns[num_ids:]))
            first += len(columns[0])


def line_number(layout: Layout, row: int) -> int:
    """The line of the file, from 1, where a row of the table ends: the table is read again, for a message."""
    with open_text(layout.path, newline="" if layout.separator else None) as lines:
        if layout.separator is None:
            numbers = (number for number, line in enumerate(lines, 1) if line.split())
            return next(islice(numbers, row, None))
        reader = csv.reader(lines, delimiter=layout.separator, skipinitialspace=True)
        numbers = (reader.line_num for fields in reader if any(fields))
        return next(islice(numbers, row, None))


def first_duplicate(keys: Sequence[Any] | NDArray[np.object_]) -> int | None:
    """Place of the first key that stood earlier already, or None."""
    if len(set(keys)) == len(keys):
        return None
    seen: set[Any] = set()
    return next(place for place, key in enumerate(keys) if key in seen or seen.add(key))  # type: ignore[func-returns-value]


def _first_line(path: str, expected: str) -> str:
    with open_text(path) as lines:
        first = next((line.strip("\n") for line in lines if line.strip()), None)
    if first is None:
        raise InputError(f"{path} is empty; expected {expected}")
    return first


def _separator(line: str) -> str | None:
    """Comma, tab or semicolon where it cuts off a first field of one word; else white space, also where a tab ends the line."""
    for separator in ",\t;":
        fields = line.split(separator)
        enough = 2 if fields[0].strip('"# ').upper() == "IID" else 3
        if len(fields) >= enough and len(fields[0].split()) == 1 and not line.endswith("\t"):
            return separator
    return None


def _first_fields(line: str, separator: str | None) -> list[str]:
    return [field.strip() for field in next(_cut([line], separator))[0]]


def _columns(lines: Iterable[str], layout: Layout, cutter: Cutter) -> Iterator[list[Any]]:
    """Columns of each block of lines, the header among them, blank lines left out.

    Raises:
        InputError: for a line of another length than the first.
    """
    first, lines = 0, iter(lines)
    while chunk := list(islice(lines, BLOCK_LINES if first else 1)):  # the header is a block of its own
        columns = _plain_columns(chunk, layout, cutter if first else None)
        if columns is not None:
            yield columns
            first += len(columns[0])
            continue
        goes_on = layout.separator is not None and '"' in "".join(chunk)  # a quoted field may go on in the next block
        for rows in _cut(chain(chunk, lines) if goes_on else chunk, layout.separator):
            try:
                fields = list(zip(*rows, strict=True))
            except ValueError:
                fields = []
            if len(fields) != layout.width:
                _refuse_length(layout, first, rows)
            yield [list(map(str.strip, column)) for column in fields]
            first += len(rows)


def _plain_columns(lines: list[str], layout: Layout, cutter: Cutter) -> list[Any] | None:
    """The columns of lines that may be cut at every separator, which is many times quicker; None where they may not be."""
    separator, width, text = layout.separator, layout.width, "".join(lines).replace("\r\n", "\n")
    if separator is None or "\r" in text or {line.count(separator) for line in lines} != {width - 1}:
        return None
    text = text if text.endswith("\n") else text + "\n"
    if '"' in text:
        parts, ends = text.split('"'), (separator, "\n")
        around, within = parts[::2], "".join(parts[1::2])  # of quotes
        whole = all(part.startswith(ends) for part in around[1:]) and all(part.endswith(ends) for part in around[1:-1])
        if not whole or separator in within or "\n" in within or (around[0] and not around[0].endswith(ends)):
            return None
        text = "".join(parts)
    bare = text.isascii() and not any(blank in text for blank in BLANKS if blank != separator)
    blank = separator * (width - 1) + "\n"
    if text.startswith(blank) or f"\n{blank}" in text:
        return None
    if bare and cutter is not None and (read := cutter(text)) is not None:
        return read
    fields = text.replace("\n", separator).split(separator)[:-1]
    columns = [fields[place::width] for place in range(width)]
    if bare:
        return columns
    columns = [list(map(str.strip, column)) for column in columns]
    return None if "" in columns[0] else columns  # the line may be one of blanks


def _cut(lines: Iterable[str], separator: str | None) -> Iterator[list[list[str]]]:
    """Fields of each line that is not blank, by blocks of lines."""
    if separator is not None:
        rows = filter(any, csv.reader(lines, delimiter=separator, skipinitialspace=True))
        while block := list(islice(rows, BLOCK_LINES)):
            yield block
        return
    lines = iter(lines)
    while chunk := list(islice(lines, BLOCK_LINES)):
        if '"' in "".join(chunk):  # as R writes a table
            words: Iterable[list[str]] = csv.reader(
                [" ".join(line.split()) for line in chunk], delimiter=" ", skipinitialspace=True
            )
        else:
            words = map(str.split, chunk)
        if block := list(filter(None, words)):
            yield block


def _refuse_length(layout: Layout, first: int, rows: list[list[str]]) -> None:
    i = next(i for i, row in enumerate(rows) if len(row) != layout.width)
    found = len(rows[i])
    hint, line = "", line_number(layout, first + i)
    if (within := "".join(rows[i]).rstrip("\n").count("\n")) > 0:
        hint = f": a quotation mark opens on line {line - within} and closes on none or on a later one"
    elif found == layout.width + 1 and not rows[i][-1].strip():
        hint = ": the last one is empty, so a separator too many ends the line"
    elif found == layout.width + 1 and layout.header:
        hint = ": row names? In R, write.table(..., row.names = FALSE)"
        hint += "; or a value of two words, which needs quotes or another separator?" if layout.separator is None else ""
    elif layout.separator is not None and len(" ".join(rows[i]).split()) == layout.width:
        hint = f": the first line is {SEPARATOR_NAMES[layout.separator]}, this one is not"
    raise InputError(
        f"{layout.path}, line {line}: {found} field{'s' * (found != 1)} where the first line has {layout.width}{hint}"
    )


def _refuse_repeated_names(path: str, header: Sequence[str]) -> None:
    repeated = first_duplicate(header)
    if repeated is not None:
        raise InputError(f"{path}: the header has the column {header[repeated]!r} twice")
