"""Which GRMs a fit uses, and what their components are called."""

from __future__ import annotations

from pathlib import Path

from openreml_dist.config import DataConfig
from openreml_dist.errors import ConfigError


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
    return [str(path) for path in paths]


def component_names(paths: list[str]) -> list[str]:
    """Names of the genetic components: those of their stores.

    Raises:
        ConfigError: for the same name twice.
    """
    names = [Path(path.rstrip("/")).name.removesuffix(".zarr").removesuffix(".grm") for path in paths]
    twice = {name for name in names if names.count(name) > 1 or name == "residual"}
    if twice:
        raise ConfigError(f"data.grm: components are named after their stores, which must differ: {', '.join(sorted(twice))}")
    return names
