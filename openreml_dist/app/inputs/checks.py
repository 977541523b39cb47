"""Settings that no data could make sense of, refused before anything is opened."""

from __future__ import annotations

import math

from openreml_dist.app.inputs.grm_list import grm_paths
from openreml_dist.app.inputs.reads import refuse_other_models, refuse_unread_settings
from openreml_dist.app.inputs.terms import GREML, named_grms, structures_of
from openreml_dist.app.report.run_directory import RESUME
from openreml_dist.config import ENGINES, STOCHASTIC, FitConfig
from openreml_dist.errors import ConfigError
from openreml_dist.traces import METHODS


def check_settings(settings: FitConfig) -> None:
    """Refuse settings that no data could make sense of. Local: alike on every rank, before the ranks meet.

    Raises:
        ConfigError: names the setting.
    """
    model, solver, launcher = settings.model, settings.solver, settings.launcher
    prevalence, column = model.prevalence, settings.data.pheno_column
    columns = column if isinstance(column, list) and column else [column]
    rules = [
        (
            "model.name",
            model.name,
            bool(model.random) or model.residual is not None or model.name in GREML,
            f"{' or '.join(GREML)}, nor a model with random terms of its own (see conf/model)",
        ),
        ("model.prevalence", prevalence, prevalence is None or 0 < prevalence < 1, "a proportion between 0 and 1"),
        (
            "data.pheno_column",
            column,
            all(isinstance(one, int | str) and not isinstance(one, bool) for one in columns),
            "the number or the name of a column, or a list of them",
        ),
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
        ("solver.engine", solver.engine, solver.engine in ENGINES, f"one of {', '.join(ENGINES)}"),
        ("solver.mcse", solver.mcse, 0 < solver.mcse < math.inf, "a share of the standard error, above 0"),
        ("launcher.threads", launcher.threads, launcher.threads is None or launcher.threads > 0, "a number of threads"),
        ("launcher.grace_seconds", launcher.grace_seconds, 0 <= launcher.grace_seconds < math.inf, "a time, at least 0"),
        ("resume", settings.resume, settings.resume in RESUME, f"one of {', '.join(RESUME)}"),
        ("launcher.timeout_seconds", launcher.timeout_seconds, 0 < launcher.timeout_seconds < math.inf, "a time above 0"),
        ("launcher.profile", launcher.profile, launcher.profile is None or launcher.profile > 0, "an iteration, 1 or later"),
        ("launcher.heartbeat_seconds", launcher.heartbeat_seconds, 0 <= launcher.heartbeat_seconds < math.inf, "a time, or 0"),
    ]
    for name, value, holds, wanted in rules:
        if not holds:
            raise ConfigError(f"{name}: {value!r} is not {wanted}")
    _check_engine(settings)
    _check_tables(settings)
    structures_of(settings, named_grms(settings), None)
    refuse_unread_settings(settings)


def _check_engine(settings: FitConfig) -> None:
    """Refuse an engine that cannot use the data, or the model."""
    engine = settings.solver.engine
    if settings.data.genotypes is None:
        if engine == STOCHASTIC:
            raise ConfigError(f"solver.engine={engine} reads genotypes: give data.genotypes=STORE.vcz, or a PLINK prefix")
        return
    refuse_other_models(settings)


def _check_tables(settings: FitConfig) -> None:
    """Refuse tables that do not go together, or with the model."""
    data, model = settings.data, settings.model
    if model.name in GREML and not model.random and model.residual is None and data.genotypes is None:
        grm_paths(data)
    if not model.is_of_records:
        if data.pheno is None:
            raise ConfigError(f"data.pheno is needed: model {model.name} reads phenotypes from a table with FID and IID")
        if data.table is not None:
            raise ConfigError(f"data.table is for models that name its columns, not for {model.name}; see conf/model")
        return
    if (data.table is None) == (data.pheno is None):
        raise ConfigError(f"model {model.name} needs data.table or data.pheno, one of them")
    if data.table is not None and model.fixed is None:
        raise ConfigError(f"model.fixed: a formula is needed, such as 'yield ~ 1 + C(block)', for the columns of {data.table}")
