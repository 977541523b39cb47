"""From settings to a model: which samples, y and X, V(θ), and where the iteration starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.app.inputs.grm_list import component_names, grm_paths
from openreml_dist.app.inputs.records import Grms, Tables, check_record_settings, inputs_of, mixed_model, read_tables
from openreml_dist.app.inputs.samples import Inputs, read_inputs
from openreml_dist.config import FitConfig, SolverConfig
from openreml_dist.covariance import Covariance
from openreml_dist.errors import ConfigError
from openreml_dist.grid import ProcessGrid
from openreml_dist.models import Genomic, Independent, MixedModel
from openreml_dist.models.columns import Columns
from openreml_dist.store.grm import open_grm
from openreml_dist.traces import METHODS

GREML = ("greml", "greml_multi")  # a variance for each GRM, and the residual


def check_settings(settings: FitConfig) -> None:
    """Refuse settings that no data could make sense of. Local: alike on every rank, before the ranks meet.

    Raises:
        ConfigError: names the setting.
    """
    model, solver, launcher = settings.model, settings.solver, settings.launcher
    prevalence = model.prevalence
    rules = [
        (
            "model.name",
            model.name,
            model.is_of_records or model.name in GREML,
            f"{' or '.join(GREML)}, nor a model with random terms of its own (see conf/model)",
        ),
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
    if model.is_of_records:
        check_record_settings(settings)
        return
    grm_paths(settings.data)
    if settings.data.pheno is None:
        raise ConfigError(f"data.pheno is needed: model {model.name} reads phenotypes from a table with FID and IID")
    if settings.data.table is not None:
        raise ConfigError(f"data.table is for models that name its columns, not for {model.name}; see conf/model")


@dataclass(frozen=True)
class Analysis:
    """What a fit needs: the model, what reports say of its records, and the chunks of the stores that it reads (1 without)."""

    inputs: Inputs
    model: MixedModel
    chunk_size: int

    @property
    def covariance(self) -> Covariance:
        """V(θ)."""
        return self.model.covariance

    @property
    def y(self) -> Tensor:
        """(n,)."""
        return self.model.y

    @property
    def X(self) -> Tensor:
        """(n, p)."""
        return self.model.X


def read_model(settings: FitConfig, grid: ProcessGrid) -> Analysis:
    """Open the GRMs on every rank, read the tables on rank 0, and describe the model on every rank. Collective.

    Raises:
        InputError, ConfigError: for whatever cannot be used, before any matrix is read; any failure is everyone's.
    """
    with grid.together("opening the GRMs"):
        paths = [] if settings.data.grm is None else grm_paths(settings.data)
        stores = dict(zip(component_names(paths), map(open_grm, paths), strict=True))
    cache_bytes = int(settings.solver.kernel_cache_gb * 1e9 / max(1, len(stores)))
    grms: Grms = {name: (store, cache_bytes) for name, store in stores.items()}
    with grid.together("reading the inputs"):
        read = _read(settings, grms) if grid.is_root else None
    read = grid.share(read)
    assert read is not None
    with grid.together("describing the model"):
        inputs, model = _greml(settings, read, grms) if isinstance(read, Inputs) else _of_records(settings, read, grms)
    chunk_size = max((store.chunk_size for store in stores.values()), default=1)
    return Analysis(inputs, model, chunk_size)


def _read(settings: FitConfig, grms: Grms) -> Inputs | Tables:
    """Tables, and for greml the samples that they and the GRMs have in common. Local."""
    if settings.model.is_of_records:
        return read_tables(settings, grms)
    return read_inputs(settings.data, [store for store, _ in grms.values()])


def _greml(settings: FitConfig, inputs: Inputs, grms: Grms) -> tuple[Inputs, MixedModel]:
    """``genomic(id)`` of each GRM and the residual, on the samples that were matched already."""
    if settings.model.prevalence is not None and not inputs.case_control:
        raise ConfigError(f"model.prevalence is given, but {inputs.trait} is not a case/control trait (values 0/1 or 1/2)")
    genetic = {
        name: Genomic("iid", store, cache_bytes, rows)
        for (name, (store, cache_bytes)), rows in zip(grms.items(), inputs.grm_rows, strict=True)
    }
    model = MixedModel.of_design(
        inputs.y,
        inputs.X,
        inputs.fixed_names,
        inputs.trait,
        Columns(len(inputs.y), {"fid": inputs.family_id, "iid": inputs.sample_id}),
        {**genetic, "residual": Independent()},
        inputs.report,
        inputs.dropped,
    )
    return inputs, model


def _of_records(settings: FitConfig, tables: Tables, grms: Grms) -> tuple[Inputs, MixedModel]:
    """The terms that the settings say, over the columns of the tables."""
    if settings.model.prevalence is not None:
        raise ConfigError(f"model.prevalence is for greml, not for {settings.model.name}")
    model = mixed_model(settings, tables, grms)
    return inputs_of(model, tables, settings), model


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
