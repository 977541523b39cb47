"""Which GRMs a fit uses, and what their components are called."""

from __future__ import annotations

from pathlib import Path

from openreml_dist.config import DataConfig
from openreml_dist.errors import ConfigError, InputError
from openreml_dist.store.gcta import PREFIX
from openreml_dist.store.text import open_text

MGRM = "mgrm:"


def grm_paths(data: DataConfig) -> list[str]:
    """``data.grm`` as a list.

    Raises:
        ConfigError: if it names no store.
    """
    if data.grm is None:
        raise ConfigError("data.grm is needed: a GRM store or a list of them")
    paths = [data.grm] if isinstance(data.grm, str) else data.grm
    if not isinstance(paths, list) or not paths:
        raise ConfigError(f"data.grm: {data.grm!r} is not a GRM store or a list of them")
    return [path for entry in paths for path in _expanded(str(entry))]


def _expanded(path: str) -> list[str]:
    """``mgrm:LIST`` as what the file lists: a store or a prefix of GCTA's files a line, seen from the working directory.

    Raises:
        InputError: for a list that cannot be read, or names nothing.
    """
    if not path.startswith(MGRM):
        return [path]
    with open_text(path.removeprefix(MGRM)) as file:
        lines = [line.strip() for line in file if line.strip()]
    if not lines:
        raise InputError(f"{path.removeprefix(MGRM)}: the list names no GRM")
    return [
        line if line.startswith(PREFIX) or Path(line.rstrip("/")).suffix == ".zarr" else f"{PREFIX}{line}" for line in lines
    ]


def component_names(paths: list[str]) -> list[str]:
    """Names of the genetic components: those of their stores.

    Raises:
        ConfigError: for the same name twice.
    """
    names = [Path(path.removeprefix(PREFIX).rstrip("/")).name.removesuffix(".zarr").removesuffix(".grm") for path in paths]
    twice = {name for name in names if names.count(name) > 1 or name == "residual"}
    if twice:
        raise ConfigError(f"data.grm: components are named after their stores, which must differ: {', '.join(sorted(twice))}")
    return names
