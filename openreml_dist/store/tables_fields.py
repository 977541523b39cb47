"""What a field of a table means: which are missing, which are numbers, which are levels. The same for every table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import InputError
from openreml_dist.store.tables_text import Block, Layout, line_number

Strings: TypeAlias = NDArray[np.object_]

MISSING_CODES = ("NA", "-9", "nan", "NaN", ".", "")


@dataclass(frozen=True)
class Missing:
    """Codes of a missing value; a number among them also stands for what equals it, as -9 for -9.0."""

    codes: tuple[str, ...] = MISSING_CODES

    def __str__(self) -> str:
        """For messages."""
        shown = [code for code in self.codes if code and code != "NaN"]
        return ", ".join(shown) + (" or an empty field" if "" in self.codes else "")

    @cached_property
    def numbers(self) -> list[float]:
        """Those that are numbers."""
        return [float(code) for code in self.codes if code not in self.words]

    @cached_property
    def words(self) -> frozenset[str]:
        """The others."""
        return frozenset(code for code in self.codes if not is_number(code) or not np.isfinite(float(code)))


def is_number(token: str) -> bool:
    """Whether a field is a number; Python reads 1_000 and digits of other scripts as one, no other program does."""
    try:
        float(token)
    except ValueError:
        return False
    return token.isascii() and "_" not in token


def parsed_numbers(tokens: Sequence[str] | NDArray[Any], missing: Missing) -> tuple[NDArray[np.float64], int] | None:
    """Fields as numbers (n,), NaN where missing, and how many are missing by a number; None where one is no number.

    Infinite ones are left as they are.
    """
    values = tokens.astype(np.float64) if isinstance(tokens, np.ndarray) else _floats(tokens)
    if values is None:
        values = _floats(["nan" if token in missing.words else token for token in tokens])
    if values is None:
        return None
    known = int(np.isnan(values).sum())
    for number in missing.numbers:
        values[values == number] = np.nan
    return values, int(np.isnan(values).sum()) - known


def _floats(tokens: Sequence[str]) -> NDArray[np.float64] | None:
    """Fields as numbers, if all of them are; at the speed of C, since there may be many millions."""
    text = "".join(tokens)
    if "_" in text or not text.isascii():  # see ``is_number``
        return None
    try:
        return np.fromiter(map(float, tokens), np.float64, len(tokens))
    except ValueError:
        return None


def numbers(layout: Layout, block: Block, place: int, missing: Missing) -> NDArray[np.float64]:
    """One column of a block as finite numbers, NaN where missing.

    Raises:
        InputError: with line, column and value of the first that is none.
    """
    tokens = block.columns[place]
    parsed = parsed_numbers(tokens, missing)
    if parsed is None:
        refuse_token(layout, block, place, missing)
    values, _ = parsed
    infinite = np.isinf(values)
    if infinite.any():
        i = int(np.argmax(infinite))
        raise InputError(f"{where(layout, block, place, i)}: the value {tokens[i]} is infinite or too large for a number")
    return values


def refuse_token(layout: Layout, block: Block, place: int, missing: Missing, hint: str = "") -> NoReturn:
    """Raise for the first field of a column that is not a number."""
    tokens = block.columns[place]
    i = next(i for i, token in enumerate(tokens) if token not in missing.codes and not is_number(token))
    if "," in tokens[i] and is_number(tokens[i].replace(",", "")):
        hint = "; it has a decimal comma, or one between thousands: write numbers as 1234.5, as R's write.csv does"
    elif layout.header is None and block.first + i == 0:
        hint = "; a header must begin with FID IID"
    raise InputError(f"{where(layout, block, place, i)}: {tokens[i]!r} is not a number (missing is {missing}){hint}")


def where(layout: Layout, block: Block, place: int, i: int) -> str:
    """Line, individual and column of a field."""
    column = layout.header[place] if layout.header else str(place + 1)
    whose = f", sample {':'.join(values[i] for values in block.ids)}" if block.ids else ""
    return f"{layout.path}, line {line_number(layout, block.first + i)}{whose}, column {column}"


def encode(tokens: Sequence[str], codes: dict[str, int], missing: Missing) -> NDArray[np.int32]:
    """Codes of a column of a block, -1 where missing; new levels are added to ``codes`` in the order of first appearance."""
    of = {level: -1 if level in missing.codes else codes.setdefault(level, len(codes)) for level in dict.fromkeys(tokens)}
    return np.fromiter(map(of.__getitem__, tokens), np.int32, len(tokens))


def sort_levels(levels: Sequence[str]) -> list[str]:
    """Sort the levels of a factor: as numbers where all of them are numbers, else as text."""
    try:
        return sorted(levels, key=lambda level: (float(level), level))
    except ValueError:
        return sorted(levels)
