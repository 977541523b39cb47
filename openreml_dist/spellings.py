"""Identifiers in two spellings: 12, 12.0, 1.2e1 and 012, as spreadsheets rewrite them; capitals; what cannot be seen."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from decimal import Decimal

_NUMBER = re.compile(r"([+-]?\d+)(?:\.\d*)?(?P<power>[eE][+-]?\d{1,2})?")


def as_integer(identifier: str) -> str:
    """``12`` for ``12.0``, ``12.`` and ``1.2e1``; any other identifier as it is."""
    found = _NUMBER.fullmatch(identifier)
    if found is None or found[1] == identifier:
        return identifier
    value = Decimal(identifier)
    if value != value.to_integral_value():
        return identifier
    return str(int(value)) if found["power"] else found[1]


def plainly(identifier: str) -> str:
    """``12`` for ``012`` too, small letters, one form of each, nothing invisible, no quotes; of ``FID:IID`` both parts."""
    if ":" in identifier:
        return ":".join(map(plainly, identifier.split(":")))
    if not identifier.isascii():
        identifier = "".join(filter(str.isprintable, unicodedata.normalize("NFKC", identifier)))
    return as_integer(identifier.strip(" \"'")).lstrip("0").casefold() or "0"


def shown(identifier: str) -> str:
    """For messages: letters and signs that look like others, or like nothing, by their codes."""
    return identifier if identifier.isascii() else ascii(identifier)


def written_elsewhere(
    absent: Iterable[str], there: Iterable[str], key: Callable[[str], str] = as_integer
) -> list[tuple[str, str]]:
    """Those of ``absent`` that are there written otherwise, each with how. Local."""
    wanted = list(absent)
    if not wanted:
        return []
    written = {key(identifier): identifier for identifier in there}
    return [(one, written[number]) for one, number in zip(wanted, map(key, wanted), strict=True) if number in written]


def written_twice(labels: Iterable[str]) -> list[tuple[str, str]]:
    """Labels that are an earlier one in another spelling, each behind that one. Local."""
    first: dict[str, str] = {}
    return [(other, label) for label in dict.fromkeys(labels) if (other := first.setdefault(plainly(label), label)) != label]
