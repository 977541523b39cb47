"""The points of a sweep: every combination of the values that were given, and a name for each."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from openreml_dist.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

LONGEST = 150  # characters of a name; file systems take 255 bytes
NAMELESS = "point"  # of a sweep over nothing


@dataclass(frozen=True)
class Point:
    """One fit of a sweep.

    Attributes:
        overrides: all of its settings, as on the command line.
        values: of the settings that differ between points, by their names, as text.
        name: of its folder.
    """

    overrides: tuple[str, ...]
    values: dict[str, str]
    name: str


def points_of(overrides: Sequence[Override]) -> list[Point]:
    """Every combination, the last setting changing fastest; where a setting is given twice, the last one counts. Local.

    Raises:
        ConfigError: for a range without steps.
    """
    choices: dict[str, list[str]] = {}
    swept = {}
    for override in overrides:
        key = override.get_key_element()
        choices.pop(key, None)
        choices[key] = list(_values_of(override))
        swept[key] = override.is_sweep_override()
    made = []
    for combination in itertools.product(*choices.values()):
        chosen = dict(zip(choices, combination, strict=True))
        values = {key.lstrip("+~"): _plain(value) for key, value in chosen.items() if swept[key]}
        made.append(Point(tuple(f"{key}={value}" for key, value in chosen.items()), values, point_name(values)))
    counts = Counter(point.name for point in made)
    return [point if counts[point.name] == 1 else replace(point, name=_with_digest(point.name, point.values)) for point in made]


def point_name(values: Mapping[str, str]) -> str:
    """``data.pheno_column=1,solver=exact``: of paths the last part, of lists the parts with +, nothing that shells read."""
    name = ",".join(f"{key}={_short(value)}" for key, value in values.items()) or NAMELESS
    return name if len(name) <= LONGEST else _with_digest(name[: LONGEST - 9], values)


def _values_of(override: Override) -> Iterator[str]:
    if not override.is_sweep_override():
        yield override.get_value_element_as_str()
    elif override.is_discrete_sweep():
        yield from override.sweep_string_iterator()
    else:
        raise ConfigError(f"{override.input_line}: a sweep needs single values, such as a,b,c or range(1,10)")


def _plain(value: str) -> str:
    """Without the quotes around it."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _short(value: str) -> str:
    parts = [part.strip().strip("'\"").rstrip("/").rpartition("/")[2] for part in value.strip("[]{}()").split(",")]
    return re.sub(r"[^\w.+-]+", "_", "+".join(parts), flags=re.ASCII).strip("_")


def _with_digest(name: str, values: Mapping[str, str]) -> str:
    return f"{name}-{hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:8]}"
