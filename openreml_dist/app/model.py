"""From settings to a model: which samples, y and X, V(θ), and where the iteration starts."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from openreml_dist.app.samples import Inputs, read_inputs
from openreml_dist.config import DataConfig, FitConfig, SolverConfig
from openreml_dist.covariance import Covariance, Identity, Kernel
from openreml_dist.errors import ConfigError
from openreml_dist.grid import ProcessGrid
from openreml_dist.store.grm import open_grm


def grm_paths(data: DataConfig) -> list[str]:
    """``data.grm`` as a list.

    Raises:
        ConfigError: if it names no store.
    """
    paths = [data.grm] if isinstance(data.grm, str) else [str(path) for path in data.grm or ()]
    if not paths:
        raise ConfigError("data.grm: no GRM is given")
    return paths


def read_model(settings: FitConfig, grid: ProcessGrid) -> tuple[Inputs, Covariance]:
    """Open the GRMs on every rank, read the tables on rank 0, and describe V(θ). Collective; any failure is everyone's.

    Raises:
        InputError, ConfigError: for whatever cannot be used, before any matrix is read.
    """
    with grid.together("opening the GRMs"):
        paths = grm_paths(settings.data)
        names = component_names(paths)
        stores = [open_grm(path) for path in paths]
        _check_prevalence(settings.model.prevalence)
    with grid.together("reading the inputs"):
        read = read_inputs(settings.data, stores) if grid.is_root else None
    inputs = grid.share(read)
    assert inputs is not None
    with grid.together("checking the model"):
        if settings.model.prevalence is not None and not inputs.case_control:
            raise ConfigError(f"model.prevalence is given, but {inputs.trait} is not a case/control trait (values 0/1 or 1/2)")
    cache_bytes = int(settings.solver.kernel_cache_gb * 1e9 / len(stores))
    kernels = [Kernel(store, rows, name, cache_bytes) for store, rows, name in zip(stores, inputs.grm_rows, names, strict=True)]
    return inputs, Covariance([*kernels, Identity(len(inputs.y))])


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


def starting_point(solver: SolverConfig) -> Tensor | str:
    """``solver.start`` as a method or as a tensor of variances.

    Raises:
        ConfigError: for a list with something else than numbers.
    """
    if isinstance(solver.start, str):
        return solver.start
    try:
        return torch.tensor([float(value) for value in solver.start], dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"solver.start: {solver.start!r} is not haseman-elston, equal, or a list of variances") from error


def _check_prevalence(prevalence: float | None) -> None:
    if prevalence is not None and not 0 < prevalence < 1:
        raise ConfigError(f"model.prevalence: {prevalence} is not a proportion between 0 and 1")
