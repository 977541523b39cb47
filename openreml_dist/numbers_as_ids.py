"""Identifiers that are one number written in two ways: 12, 12.0, 1.2e1 and 012, as spreadsheets and programs rewrite them."""

from __future__ import annotations

import re
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


def as_number(identifier: str) -> str:
    """``12`` for ``012`` too; of ``FID:IID`` both parts."""
    if ":" in identifier:
        return ":".join(map(as_number, identifier.split(":")))
    return as_integer(identifier).lstrip("0") or "0"


def as_number_elsewhere(
    absent: Iterable[str], there: Iterable[str], key: Callable[[str], str] = as_integer
) -> list[tuple[str, str]]:
    """Those of ``absent`` that are there written otherwise, each with how. Local."""
    wanted = list(absent)
    if not wanted:
        return []
    written = {key(identifier): identifier for identifier in there}
    return [(one, written[number]) for one, number in zip(wanted, map(key, wanted), strict=True) if number in written]


def written_twice(labels: Iterable[str]) -> list[tuple[str, str]]:
    """Labels that are the number of an earlier one, each behind that one. Local."""
    first: dict[str, str] = {}
    return [(other, label) for label in dict.fromkeys(labels) if (other := first.setdefault(as_number(label), label)) != label]
