"""Identifiers that are one number written in two ways: 12 and 12.0, as programs write integers among missing values."""

from __future__ import annotations

import re
from collections.abc import Iterable

_FLOAT = re.compile(r"([+-]?\d+)\.0*")


def as_integer(identifier: str) -> str:
    """``12`` for ``12.0`` and ``12.``; any other identifier as it is."""
    found = _FLOAT.fullmatch(identifier)
    return found[1] if found else identifier


def as_number_elsewhere(absent: Iterable[str], there: Iterable[str]) -> tuple[str, str] | None:
    """The first of ``absent`` that is there written otherwise, and how; None without one. Local."""
    wanted = list(absent)
    if not wanted:
        return None
    written = {as_integer(identifier): identifier for identifier in there}
    return next(((one, written[as_integer(one)]) for one in wanted if as_integer(one) in written), None)
