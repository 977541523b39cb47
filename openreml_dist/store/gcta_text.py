"""GCTA's relationship matrices as text, written out as a triangle before they are used.

| file | a line | what is absent |
|---|---|---|
| ``PREFIX.grm.gz`` | ``i j N value``, from 1, every pair once | nothing may be |
| ``PREFIX.grm.sp`` | ``i j value``, from 0 | is 0 |

Ids are in ``PREFIX.grm.id``. Lines are read in blocks and put where they belong in a file of 4 bytes a pair, so that the matrix
is never held in memory, whatever the order of its lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import InputError
from openreml_dist.store.gcta import GctaGrm, read_pairs
from openreml_dist.store.text import open_text

BLOCK_LINES = 500_000


@dataclass(frozen=True)
class Layout:
    """How a text file says which pair a value is of.

    Attributes:
        path: of the file.
        fields: of a line.
        base: number of the first sample.
        num_samples: n.
    """

    path: str
    fields: int
    base: int
    num_samples: int


def open_gcta_text(prefix: str, scratch: Path) -> GctaGrm | None:
    """The matrix of ``PREFIX.grm.gz`` or ``PREFIX.grm.sp``, in a file in ``scratch``; None if neither is there.

    Raises:
        InputError: for a line, a pair or a value that cannot be, with its line number; for a pair that is missing or is there
            twice; for a file that is cut off.
    """
    whole, sparse, ids = (Path(f"{prefix}.grm.{part}") for part in ("gz", "sp", "id"))
    path = whole if whole.is_file() else sparse
    if not path.is_file():
        return None
    if not ids.is_file():
        raise InputError(f"{ids}: not found")
    pairs = read_pairs(ids)
    n = len(pairs)
    shape = (n * (n + 1) // 2,)
    values = np.memmap(scratch / "triangle", dtype=np.dtype("<f4"), mode="w+", shape=shape)
    given = np.memmap(scratch / "given", dtype=np.bool_, mode="w+", shape=shape)
    num_variants = _fill_(values, given, Layout(str(path), 3, 0, n) if path == sparse else Layout(str(path), 4, 1, n))
    if path == whole:
        _refuse_missing(str(path), given, n)
    return GctaGrm(prefix, pairs[:, 0], pairs[:, 1], num_variants, values)


def _fill_(values: NDArray[np.float32], given: NDArray[np.bool_], layout: Layout) -> float | None:
    """Put every line in its place. Returns the number of SNPs, if it is that of all lines alike."""
    counts: set[float] = set()
    with open_text(layout.path) as file:
        for first, rows in _blocks(file, layout):
            i, j = _samples(rows, first, layout)
            value = rows[:, -1]
            _refuse(~np.isfinite(value), rows, first, layout, "the value is not finite")
            low, high = np.minimum(i, j), np.maximum(i, j)
            places = high * (high + 1) // 2 + low
            order = np.argsort(places, kind="stable")
            again = np.zeros(len(places), bool)
            again[order[1:]] = np.diff(places[order]) == 0
            _refuse(again | given[places], rows, first, layout, "this pair is there twice")
            values[places], given[places] = value, True
            if layout.fields == 4 and len(counts) < 2:
                counts |= set(np.unique(rows[:, 2])[:2].tolist())
    return counts.pop() if len(counts) == 1 else None


def _blocks(file: TextIO, layout: Layout) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Number of the first line, from 1, and the numbers of a block of lines (lines, fields)."""
    first = 1
    while lines := list(islice(file, BLOCK_LINES)):
        try:
            rows = np.loadtxt(lines, dtype=np.float64, ndmin=2, comments=None)
        except ValueError:
            rows = np.empty((0, 0))
        if rows.shape != (len(lines), layout.fields):
            _refuse_line(lines, first, layout)
        yield first, rows
        first += len(lines)


def _refuse_line(lines: list[str], first: int, layout: Layout) -> None:
    """Name the first line that is none of the layout."""
    wanted = "i j N value" if layout.fields == 4 else "i j value"
    for number, line in enumerate(lines, first):
        fields = line.split()
        try:
            good = len(fields) == layout.fields and bool([float(field) for field in fields])
        except ValueError:
            good = False
        if not good:
            raise InputError(f"{layout.path}, line {number}: {line.rstrip()[:80]!r} is not {wanted}")


def _samples(rows: NDArray[np.float64], first: int, layout: Layout) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """i and j of each line, from 0."""
    numbers = rows[:, :2] - layout.base
    outside = (numbers != np.floor(numbers)) | (numbers < 0) | (numbers >= layout.num_samples)
    last = layout.num_samples - 1 + layout.base
    _refuse(outside.any(axis=1), rows, first, layout, f"samples are numbered from {layout.base} to {last}")
    i, j = numbers.astype(np.int64).T
    return i, j


def _refuse(bad: NDArray[np.bool_], rows: NDArray[np.float64], first: int, layout: Layout, why: str) -> None:
    if bad.any():
        at = int(np.argmax(bad))
        shown = " ".join(f"{number:g}" for number in rows[at])
        raise InputError(f"{layout.path}, line {first + at}: {shown}: {why}")


def _refuse_missing(path: str, given: NDArray[np.bool_], n: int) -> None:
    missing = len(given) - int(np.count_nonzero(given))
    if missing:
        place = int(np.argmin(given))
        i = int((np.sqrt(8 * place + 1) - 1) // 2)
        raise InputError(
            f"{path}: {missing:,} of {len(given):,} pairs of {n:,} samples are missing, the first of them {i + 1} "
            f"{place - i * (i + 1) // 2 + 1}; the file is cut off, or belongs to other ids"
        )
