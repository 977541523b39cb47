"""Models over the columns of a table: the table, or GCTA's tables joined into one, and what the settings say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openreml_dist.app.inputs.grm_list import component_names, grm_paths
from openreml_dist.app.inputs.samples import Inputs
from openreml_dist.config import DataConfig, FitConfig, ModelConfig
from openreml_dist.errors import ConfigError, InputError
from openreml_dist.models import MixedModel, Structure, parse_structure
from openreml_dist.models.design import columns_of
from openreml_dist.models.mixed_model import TRAIT
from openreml_dist.store.tables import pair_keys, read_discrete, read_phenotype, read_quantitative

if TYPE_CHECKING:
    import pandas as pd

Grms = Mapping[str, tuple[Any, int]]
"""Open GRM stores by name, with the bytes of each that a rank may keep."""


def check_record_settings(settings: FitConfig) -> None:
    """Refuse settings that no table could make sense of. Local.

    Raises:
        ConfigError: names the setting.
    """
    data, model = settings.data, settings.model
    if (data.table is None) == (data.pheno is None):
        raise ConfigError(f"model {model.name} needs data.table or data.pheno, one of them")
    if data.table is not None and model.fixed is None:
        raise ConfigError(f"model.fixed: a formula is needed, such as 'yield ~ 1 + C(block)', for the columns of {data.table}")
    if data.pheno is not None and model.traits:
        raise ConfigError("model.traits is for data.table; with data.pheno give data.pheno_column=[1,2]")
    names = [] if data.grm is None else component_names(grm_paths(data))
    _structures(model, dict.fromkeys(names, (None, 0)), None)


@dataclass(frozen=True)
class Tables:
    """What rank 0 reads and every rank makes the model of: records, pedigree, formula and traits."""

    records: pd.DataFrame
    pedigree: pd.DataFrame | None
    fixed: str
    traits: list[str]


def read_tables(settings: FitConfig, grms: Grms) -> Tables:
    """Read the tables of a model. Local.

    Raises:
        InputError: for a table that cannot be read.
    """
    model, data = settings.model, settings.data
    pedigree = None if data.pedigree is None else read_table(data.pedigree, None)
    if data.table is None:
        return _join_tables(data, model.fixed, pedigree)
    assert model.fixed is not None
    labels = {column for structure in _structures(model, grms, None).values() for column in structure.labels}
    labels -= set(columns_of(model.fixed))  # a number there is a covariate
    return Tables(read_table(data.table, labels), pedigree, model.fixed, list(model.traits))


def mixed_model(settings: FitConfig, tables: Tables, grms: Grms) -> MixedModel:
    """The model that the settings describe. Local: the same on every rank.

    Raises:
        InputError, ConfigError: for whatever cannot be used.
    """
    model = settings.model
    structures = _structures(model, grms, tables.pedigree)
    residual = structures.pop("residual", None)
    return MixedModel.from_dataframe(
        tables.records,
        tables.fixed,
        structures,
        residual,
        traits=tables.traits,
        fix=model.fix,
        share=model.share,
        transform=model.transform,
    )


def inputs_of(model: MixedModel, settings: FitConfig) -> Inputs:
    """What the reports need to know of a model."""
    records, data = model.records, settings.data
    n = len(records)
    identifiers = records["iid"] if "iid" in records else records[name] if (name := _identifier(settings)) else range(1, n + 1)
    families = records["fid"].to_numpy(object) if "fid" in records else np.full(n, "0", object)
    source = data.table if data.table is not None else data.pheno
    lines = [f"table: {source}", *(f"random: {name} = {text}" for name, text in settings.model.random.items())]
    if settings.model.residual is not None:
        lines.append(f"residual = {settings.model.residual}")
    return Inputs(
        family_id=families,
        sample_id=np.array([str(identifier) for identifier in identifiers], object),
        y=model.y.numpy(),
        X=model.X.numpy(),
        fixed_names=model.fixed_names,
        trait=model.trait,
        case_control=False,
        num_cases=0,
        grm_rows=[],
        report=[*lines, *model.report, f"fixed effects: {', '.join(model.fixed_names[:12])}{' ...' * (model.X.shape[1] > 12)}"],
        dropped=model.dropped,
        traits=records[TRAIT].to_numpy(object) if TRAIT in records else None,
    )


def read_table(path: str, labels: set[str] | None) -> pd.DataFrame:
    """A table with a header, separated by commas, tabs or white space; ``NA`` and empty are missing.

    Args:
        path: of the table.
        labels: columns that are kept as text, so that ``001`` stays ``001``; None keeps all so.
    Raises:
        InputError: for a file that cannot be read, or without a record.
    """
    import pandas as pd

    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            first = file.readline()
        separator = next((mark for mark in ("\t", ",") if mark in first), r"\s+")
        kept: Any = str if labels is None else dict.fromkeys(labels, str)
        table = pd.read_csv(path, sep=separator, dtype=kept, encoding="utf-8-sig", na_values=["."])
    except (OSError, ValueError) as error:  # pandas raises ValueErrors
        raise InputError(f"cannot read {path}: {error}") from error
    if table.empty:
        raise InputError(f"{path} has a header and no records")
    table.columns = [str(column).strip().removeprefix("#") for column in table.columns]
    return table


def _join_tables(data: DataConfig, fixed: str | None, pedigree: pd.DataFrame | None) -> Tables:
    """GCTA's tables as one, a row an individual: ``id`` (FID:IID), ``fid``, ``iid``, phenotypes and covariates.

    The formula is by default that of all covariates.
    """
    import pandas as pd

    assert data.pheno is not None
    columns = list(data.pheno_column) if not isinstance(data.pheno_column, str | int) else [data.pheno_column]
    phenotypes = [read_phenotype(data.pheno, column) for column in columns]
    first = phenotypes[0]
    keys = pair_keys(first.family_id, first.sample_id)
    pairs = zip(first.family_id, first.sample_id, strict=True)
    table = pd.DataFrame({"fid": first.family_id, "iid": first.sample_id}, index=keys).assign(
        id=[f"{family}:{individual}" for family, individual in pairs]
    )
    names: list[str] = []
    for phenotype in phenotypes:
        table[phenotype.name] = phenotype.values
    if data.qcovar is not None:
        quantitative = read_quantitative(data.qcovar)
        names += quantitative.names
        index = pair_keys(quantitative.family_id, quantitative.sample_id)
        table = table.join(pd.DataFrame(quantitative.values, index, quantitative.names))
    if data.covar is not None:
        discrete = read_discrete(data.covar)
        names += discrete.names
        index = pair_keys(discrete.family_id, discrete.sample_id)
        factors = {
            name: pd.Categorical.from_codes(discrete.codes[:, j], pd.Index(discrete.levels[j]))
            for j, name in enumerate(discrete.names)
        }
        table = table.join(pd.DataFrame(factors, index))
    right = fixed if fixed is not None else " + ".join(["1", *(f"`{name}`" for name in names)])
    several = len(phenotypes) > 1
    formula = right if several or "~" in right else f"`{first.name}` ~ {right}"
    return Tables(table.reset_index(drop=True), pedigree, formula, [p.name for p in phenotypes] if several else [])


def _structures(model: ModelConfig, grms: Grms, pedigree: Any) -> dict[str, Structure]:
    """Random terms by name, and the residual if it is given."""
    texts = {f"model.random.{name}": (name, text) for name, text in model.random.items()}
    if model.residual is not None:
        texts["model.residual"] = ("residual", model.residual)
    return {name: parse_structure(text, where, grms, pedigree) for where, (name, text) in texts.items()}


def _identifier(settings: FitConfig) -> str | None:
    """The column that says whose a record is, if the model has one."""
    return settings.model.columns.get("id") or settings.model.columns.get("subject")
