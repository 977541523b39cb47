"""Numbers of a table as text: as many digits as they have, and one format for a column."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

DIGITS = 6  # significant digits of the largest number of a column
LEAST_DIGITS = 4  # of the smallest number that has to be read: a standard error, or an estimate without one
USUAL = (0.1, 1000.0)  # where the largest number is shown with the decimals of result.hsq
USUAL_DECIMALS = 6
MOST_WHOLE, MOST_DECIMALS, MOST_PLACES = 9, 8, 13  # digits of a number in decimals: before the point, behind it, together
NEGLIGIBLE = 1e-6  # of the largest: an estimate without a standard error, on its bound but for rounding
NOT_AVAILABLE = "NA"

Pair = tuple[float | None, float | None]
"""An estimate and its standard error."""


@dataclass(frozen=True)
class Format:
    """How the numbers of a column are written: in decimals, or with a power of ten each; aligned to the right, points align."""

    decimals: int
    scientific: bool = False

    @classmethod
    def of(cls, pairs: Iterable[Pair], places: int = 0) -> Format:
        """That of estimates with their standard errors, which share it, so that digits can be compared.

        The largest number has at least ``DIGITS`` significant digits, the smallest of ``telling`` ``LEAST_DIGITS``. Powers of
        ten are used where that takes too many places.

        Args:
            pairs: the numbers of the column.
            places: digits to fill with the usual decimals, for a column whose later numbers may be smaller.
        """
        pairs = list(pairs)
        largest = max((abs(number) for pair in pairs for number in pair if is_number(number)), default=0.0)
        if largest == 0.0:
            return cls(USUAL_DECIMALS)
        decimals = max(0, DIGITS - 1 - exponent(largest), *(LEAST_DIGITS - 1 - exponent(number) for number in telling(pairs)))
        if USUAL[0] <= largest < USUAL[1]:
            decimals = max(decimals, USUAL_DECIMALS)
        whole = max(1, exponent(largest) + 1)
        decimals = max(decimals, min(USUAL_DECIMALS, places - whole))
        if whole > MOST_WHOLE or decimals > MOST_DECIMALS or whole + decimals > MOST_PLACES:
            return cls(DIGITS - 1, scientific=True)
        return cls(decimals)

    def __call__(self, value: float | None) -> str:
        """The number, or NA for None and nan."""
        if value is None or math.isnan(value):
            return NOT_AVAILABLE
        return f"{value:.{self.decimals}e}" if self.scientific else f"{value:z.{self.decimals}f}"

    def within(self, value: float, width: int) -> str:
        """The number in at most ``width`` places: with a power of ten if it is too long so, or would be shown as 0."""
        text = self(value)
        vanishes = value != 0.0 and not self.scientific and abs(value) < 0.5 * 10.0**-self.decimals
        return f"{value:.{DIGITS - 1}e}" if vanishes or len(text) > width else text


def columns(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    """Estimates and standard errors as text, all in one format."""
    form = Format.of(pairs)
    return [(form(value), form(se)) for value, se in pairs]


def telling(pairs: Sequence[Pair]) -> list[float]:
    """Numbers whose digits a reader needs, all above 0: of each pair the standard error; without one |estimate|.

    Not told are estimates without a standard error that are nothing beside the largest: on their bound, but for rounding.
    """
    sizes = [abs(value) if is_number(value) else 0.0 for value, _ in pairs]
    least = NEGLIGIBLE * max(sizes, default=0.0)
    found = [se if is_number(se) and se > 0 else size * (size > least) for size, (_, se) in zip(sizes, pairs, strict=True)]
    return [number for number in found if number > 0]


def exponent(number: float) -> int:
    """k of 10ᵏ ≤ |number| < 10ᵏ⁺¹, of the number as it is rounded to ``DIGITS`` digits."""
    return int(f"{number:.{DIGITS - 1}e}".partition("e")[2])


def is_number(number: float | None) -> TypeGuard[float]:
    """Neither None nor nan nor infinite."""
    return number is not None and math.isfinite(number)
