"""From settings to a model: which samples, y and X, V(θ), and where the iteration starts."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openreml_dist.app.inputs.genotypes import count_together, usable
from openreml_dist.app.inputs.grm_list import component_names, grm_paths
from openreml_dist.app.inputs.partition import Partition, read_partition
from openreml_dist.app.inputs.reads import refuse_unread_by
from openreml_dist.app.inputs.records import Tables, inputs_of, mixed_model, read_tables
from openreml_dist.app.inputs.samples import Inputs, read_inputs
from openreml_dist.app.inputs.terms import Grms
from openreml_dist.app.report.run_directory import RESULT
from openreml_dist.config import FitConfig, SolverConfig
from openreml_dist.covariance import Covariance
from openreml_dist.errors import ConfigError
from openreml_dist.grid import ProcessGrid
from openreml_dist.models import Genomic, Independent, MixedModel
from openreml_dist.models.columns import Columns
from openreml_dist.reml.start import METHODS, Known
from openreml_dist.store.genotype_source import GenotypeSource, open_genotype_source
from openreml_dist.store.kernels import open_kernel


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


@dataclass(frozen=True)
class GenotypeAnalysis:
    """What a fit of genotypes needs: n analysed samples, m variants in K components. The same on every rank.

    Attributes:
        inputs: what reports say of the samples.
        y, X: (n,), (n, p) float64 on the CPU.
        source: the genotypes.
        rows: (n,) place of each analysed sample in the source, increasing.
        kept: (m,) place of each variant in the source, increasing.
        partition: of those variants.
    """

    inputs: Inputs
    y: Tensor
    X: Tensor
    source: GenotypeSource
    rows: NDArray[np.int64]
    kept: NDArray[np.int64]
    partition: Partition


def read_genotypes(settings: FitConfig, grid: ProcessGrid) -> GenotypeAnalysis:
    """Open the genotypes on every rank, count them if need be, a part each, and read the tables on rank 0. Collective.

    Raises:
        InputError, ConfigError: for whatever cannot be used; any failure is everyone's.
    """
    data = settings.data
    assert data.genotypes is not None
    with grid.together("opening the genotypes"):
        source = open_genotype_source(data.genotypes)
    with grid.together("reading the inputs"):
        read = read_inputs(data, [source], "genotypes") if grid.is_root else None
    inputs = grid.broadcast_object(read)
    assert inputs is not None
    source = count_together(source, grid)
    with grid.together("choosing the variants"):
        _check_prevalence(settings, inputs)
        kept, line = usable(source)
        partition = read_partition(settings.model.partition, source, kept, data.missing)
    inputs = replace(inputs, report=[*inputs.report, line, *partition.report])
    return GenotypeAnalysis(
        inputs,
        torch.from_numpy(inputs.y),
        torch.from_numpy(inputs.X),
        source,
        inputs.grm_rows[0],
        partition.kept,
        partition,
    )


def read_model(settings: FitConfig, grid: ProcessGrid) -> Analysis:
    """Open the GRMs on every rank, read the tables on rank 0, and describe the model on every rank. Collective.

    Raises:
        InputError, ConfigError: for whatever cannot be used, before any matrix is read; any failure is everyone's.
    """
    with grid.together("opening the GRMs"):
        paths = [] if settings.data.grm is None else grm_paths(settings.data)
        stores = dict(zip(component_names(paths), map(open_kernel, paths), strict=True))
    cache_bytes = int(settings.solver.kernel_cache_gb * 1e9 / max(1, len(stores)))
    grms: Grms = {name: (store, cache_bytes) for name, store in stores.items()}
    with grid.together("reading the inputs"):
        read = _read(settings, grms) if grid.is_root else None
    read = grid.broadcast_object(read)
    assert read is not None
    with grid.together("describing the model"):
        inputs, model = _greml(settings, read, grms) if isinstance(read, Inputs) else _of_records(settings, read, grms)
        refuse_unread_by(settings, model.covariance)
        _check_prevalence(settings, inputs)
    chunk_size = max((store.chunk_size for store in stores.values()), default=1)
    return Analysis(inputs, model, chunk_size)


def _check_prevalence(settings: FitConfig, inputs: Inputs) -> None:
    if settings.model.prevalence is not None and not inputs.case_control:
        raise ConfigError(f"model.prevalence is given, but {inputs.trait} is not a case/control trait (values 0/1 or 1/2)")


def _read(settings: FitConfig, grms: Grms) -> Inputs | Tables:
    """Tables, and for greml the samples that they and the GRMs have in common. Local."""
    if settings.model.is_of_records:
        return read_tables(settings, grms)
    return read_inputs(settings.data, [store for store, _ in grms.values()])


def _greml(settings: FitConfig, inputs: Inputs, grms: Grms) -> tuple[Inputs, MixedModel]:
    """``genomic(id)`` of each GRM and the residual, on the samples that were matched already."""
    genetic = {
        name: Genomic("iid", store, cache_bytes, rows)
        for (name, (store, cache_bytes)), rows in zip(grms.items(), inputs.grm_rows, strict=True)
    }
    model = MixedModel.of_design(
        inputs.y,
        inputs.X,
        inputs.fixed_names,
        inputs.fixed_terms,
        inputs.trait,
        Columns(len(inputs.y), {"fid": inputs.family_id, "iid": inputs.sample_id}),
        {**genetic, "residual": Independent()},
        inputs.report,
        inputs.dropped,
        fix=settings.model.fix,
        share=settings.model.share,
        transform=settings.model.transform,
    )
    return inputs, model


def of_kernels(settings: FitConfig, inputs: Inputs, kernels: Grms, chunk_size: int) -> Analysis:
    """A model of genomic terms on samples that are matched already, whose ``grm_rows`` are those of the kernels. Local."""
    inputs, model = _greml(settings, inputs, kernels)
    return Analysis(inputs, model, chunk_size)


def _of_records(settings: FitConfig, tables: Tables, grms: Grms) -> tuple[Inputs, MixedModel]:
    """The terms that the settings say, over the columns of the tables."""
    model = mixed_model(settings, tables, grms)
    return inputs_of(model, tables, settings), model


def starting_point(solver: SolverConfig, parameters: tuple[str, ...]) -> Tensor | str | Known:
    """``solver.start`` as a method, as a tensor of variances, one a parameter, or as the estimates of an earlier run.

    Raises:
        ConfigError: for a list with something else than numbers, or of another length; a run that did not end with estimates.
    """
    if isinstance(solver.start, str):
        return solver.start if solver.start in METHODS else earlier_estimates(solver.start, parameters)
    try:
        values = [float(value) for value in solver.start]
    except (TypeError, ValueError) as error:
        known = f"{', '.join(METHODS)}, a list of values, or a run directory"
        raise ConfigError(f"solver.start: {solver.start!r} is not {known}") from error
    if len(values) != len(parameters):
        raise ConfigError(f"solver.start: {len(values)} variances are given for {len(parameters)}: {', '.join(parameters)}")
    if not all(map(math.isfinite, values)):
        raise ConfigError(f"solver.start: {values} is not finite")
    return torch.tensor(values, dtype=torch.float64)


def earlier_estimates(directory: str, parameters: tuple[str, ...]) -> Known:
    """The last iterate in the run directory of another fit, of parameters of the same names. Local.

    Raises:
        ConfigError: if there is none, or none of these parameters.
    """
    path = Path(directory).expanduser() / RESULT
    wanted = f"{', '.join(METHODS)}, a list of values, nor a run directory with a result"
    try:
        last = json.loads(path.read_text(encoding="utf-8"))["history"][-1]["theta"]
        values = {str(name): float(value) for name, value in last.items()}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ConfigError(f"solver.start: {directory!r} is neither {wanted}") from error
    found = {name: value for name, value in values.items() if name in parameters}
    if not found:
        raise ConfigError(f"solver.start: the model of {directory} has {', '.join(values)}, this one {', '.join(parameters)}")
    return Known(found)
