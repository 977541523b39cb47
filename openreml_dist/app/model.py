"""From settings to a model: which samples, y and X, V(θ), and where the iteration starts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openreml_dist.app.samples import Inputs, read_inputs
from openreml_dist.config import DataConfig, FitConfig, SolverConfig
from openreml_dist.covariance import Covariance, Identity, Kernel
from openreml_dist.errors import ConfigError
from openreml_dist.grid import ProcessGrid
from openreml_dist.plan.memory import Model
from openreml_dist.reml.evaluation import METHODS
from openreml_dist.store.grm import open_grm

AUTO_PROBES, HUTCHINSON_PROBES = 64, 128  # by default; the latter leave a Monte-Carlo error of about a tenth of an SE


def check_settings(settings: FitConfig) -> None:
    """Refuse settings that no data could make sense of. Local: alike on every rank, before the ranks meet.

    Raises:
        ConfigError: names the setting.
    """
    model, solver, launcher = settings.model, settings.solver, settings.launcher
    prevalence = model.prevalence
    rules = [
        ("model.name", model.name, model.name == "greml", "greml, the only model so far"),
        ("model.prevalence", prevalence, prevalence is None or 0 < prevalence < 1, "a proportion between 0 and 1"),
        ("solver.max_iter", solver.max_iter, solver.max_iter >= 0, "a number of iterations"),
        (
            "solver.tile_size",
            solver.tile_size,
            solver.tile_size is None or solver.tile_size > 0,
            "a number of rows, at least 1",
        ),
        ("solver.tolerance_theta", solver.tolerance_theta, solver.tolerance_theta > 0, "a tolerance above 0"),
        ("solver.tolerance_loglik", solver.tolerance_loglik, solver.tolerance_loglik > 0, "a tolerance above 0"),
        ("solver.traces", solver.traces, solver.traces in METHODS, f"one of {', '.join(METHODS)}"),
        ("solver.num_probes", solver.num_probes, solver.num_probes is None or solver.num_probes > 1, "a number, at least 2"),
        ("solver.kernel_cache_gb", solver.kernel_cache_gb, 0 <= solver.kernel_cache_gb < math.inf, "a size of memory"),
        ("launcher.threads", launcher.threads, launcher.threads is None or launcher.threads > 0, "a number of threads"),
        ("launcher.timeout_seconds", launcher.timeout_seconds, 0 < launcher.timeout_seconds < math.inf, "a time above 0"),
    ]
    for name, value, holds, wanted in rules:
        if not holds:
            raise ConfigError(f"{name}: {value!r} is not {wanted}")
    grm_paths(settings.data)


def grm_paths(data: DataConfig) -> list[str]:
    """``data.grm`` as a list.

    Raises:
        ConfigError: if it names no store.
    """
    paths = [data.grm] if isinstance(data.grm, str) else data.grm
    if not isinstance(paths, list) or not paths:
        raise ConfigError(f"data.grm: {data.grm!r} is not a GRM store or a list of them")
    return [str(path) for path in paths]


def read_model(settings: FitConfig, grid: ProcessGrid) -> tuple[Inputs, Covariance]:
    """Open the GRMs on every rank, read the tables on rank 0, and describe V(θ). Collective; any failure is everyone's.

    Raises:
        InputError, ConfigError: for whatever cannot be used, before any matrix is read.
    """
    with grid.together("opening the GRMs"):
        paths = grm_paths(settings.data)
        names = component_names(paths)
        stores = [open_grm(path) for path in paths]
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


def traces_settings(solver: SolverConfig) -> dict[str, Any]:
    """The arguments of ``REML.fit`` that say where traces come from."""
    num_probes = solver.num_probes or (HUTCHINSON_PROBES if solver.traces == "hutchinson" else AUTO_PROBES)
    return {"traces": solver.traces, "num_probes": num_probes, "seed": solver.seed}


def planned_model(solver: SolverConfig, covariance: Covariance, num_fixed: int) -> Model:
    """The model as the planner sees it."""
    kernels = [term for term in covariance.terms if isinstance(term, Kernel)]
    return Model(
        num_kernels=len(kernels),
        num_generated=len(covariance.terms) - len(kernels),
        num_fixed=num_fixed,
        num_probes=0 if solver.traces == "exact" else traces_settings(solver)["num_probes"],
        number_bytes=4 if solver.traces == "hutchinson" else 8,
        chunk_size=max(kernel.K.chunk_size for kernel in kernels),
        cache_bytes=1e9 * solver.kernel_cache_gb,
    )


def starting_point(solver: SolverConfig, parameters: tuple[str, ...]) -> Tensor | str:
    """``solver.start`` as a method or as a tensor of variances, one a parameter.

    Raises:
        ConfigError: for a list with something else than numbers, or of another length.
    """
    if isinstance(solver.start, str):
        return solver.start
    try:
        values = [float(value) for value in solver.start]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"solver.start: {solver.start!r} is not auto, haseman-elston, equal, or a list of values") from error
    if len(values) != len(parameters):
        raise ConfigError(f"solver.start: {len(values)} variances are given for {len(parameters)}: {', '.join(parameters)}")
    if not all(map(math.isfinite, values)):
        raise ConfigError(f"solver.start: {values} is not finite")
    return torch.tensor(values, dtype=torch.float64)
