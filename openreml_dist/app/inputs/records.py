"""Models over the columns of a table: the table, or GCTA's tables joined into one, and what the settings say of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from openreml_dist.app.given import refuse_entries
from openreml_dist.app.inputs.samples import Inputs, read_cohort
from openreml_dist.app.inputs.terms import Grms, random_terms, structures_of
from openreml_dist.config import FitConfig
from openreml_dist.errors import InputError
from openreml_dist.models import MixedModel
from openreml_dist.models.formulas import columns_of, factors_of, response_columns
from openreml_dist.models.mixed_model import TRAIT
from openreml_dist.models.names import shown
from openreml_dist.store.matching import match_samples
from openreml_dist.store.mismatch import explain_mismatch, levels_written_twice, samples_written_otherwise
from openreml_dist.store.tables import DiscreteCovariates, QuantitativeCovariates
from openreml_dist.store.tables_fields import Missing
from openreml_dist.store.tables_records import Records, Wanted, read_records

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Tables:
    """What rank 0 reads and every rank makes the model of: records, pedigree, formula and traits."""

    records: pd.DataFrame
    pedigree: pd.DataFrame | None
    fixed: str
    traits: list[str]
    case_control: bool
    notes: list[str]  # for the terminal


def read_tables(settings: FitConfig, grms: Grms) -> Tables:
    """Read the tables of a model. Local.

    Raises:
        InputError: for a table that cannot be read, a column that is not there or has no value.
    """
    model, data = settings.model, settings.data
    pedigree, of_pedigree = None, []
    if data.pedigree is not None:
        read = read_records(data.pedigree, Wanted(labels=None), data.missing)
        pedigree, of_pedigree = _frame(read), _written_twice(read)
    if data.table is None:
        columns = {column for s in structures_of(settings, grms, None).values() for column in (*s.columns, *s.labels)}
        joined = _join_tables(settings, columns, pedigree)
        return replace(joined, notes=joined.notes + of_pedigree)
    assert model.fixed is not None
    structures = structures_of(settings, grms, None).values()
    formula = columns_of(model.fixed)
    needed = dict.fromkeys([*formula, *model.traits, *(column for structure in structures for column in structure.columns)])
    if model.traits:
        needed.pop(TRAIT, None)  # made of their names
    labels = {"fid", "iid", _identifier(settings) or "iid", *(column for s in structures for column in s.labels)}
    wanted = Wanted(
        names=labels.union(needed),
        labels=labels - set(formula),  # a number there is a covariate
        factors=factors_of(model.fixed),
        numbers={*response_columns(model.fixed), *model.traits},
    )
    read = read_records(data.table, wanted, data.missing)
    _check_columns(read, list(needed), Missing(tuple(data.missing)))
    notes = [f"taken as missing: {count:,} values of {name}, by their code" for name, count in read.coded.items()]
    notes += _written_twice(read) + of_pedigree
    return Tables(_frame(read), pedigree, model.fixed, list(model.traits), False, notes)


def _written_twice(read: Records) -> list[str]:
    """Labels that are one number written in two ways, in words."""
    texts = {name: column for name, column in read.columns.items() if column.dtype.kind == "O"}
    return [
        line
        for name, column in texts.items()
        for line in levels_written_twice(read.layout.path, name, filter(None, dict.fromkeys(column)))
    ]


def _check_columns(read: Records, needed: list[str], missing: Missing) -> None:
    """Raise for columns that the model needs and the table has not, or has without a value."""
    path, header = read.layout.path, read.layout.header or ()
    absent = [name for name in needed if name not in header]
    if absent:
        raise InputError(f"{path}: the table has no column {', '.join(absent)}; it has {', '.join(header)}")
    for name in needed:
        if read.is_empty(name):
            raise InputError(
                f"{path}: column {name} has no value: all {read.num_records:,} records are missing there (missing is {missing})"
            )


def mixed_model(settings: FitConfig, tables: Tables, grms: Grms) -> MixedModel:
    """The model that the settings describe. Local: the same on every rank.

    Raises:
        InputError, ConfigError: for whatever cannot be used.
    """
    model = settings.model
    structures = structures_of(settings, grms, tables.pedigree)
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


def inputs_of(model: MixedModel, tables: Tables, settings: FitConfig) -> Inputs:
    """What the reports say of the records of a model."""
    records, data = model.records, settings.data
    family_id, sample_id = _labels(records, _identifier(settings))
    source = data.table if data.table is not None else data.pheno
    lines = [
        f"table: {source}",
        *tables.notes,
        *(f"random: {name} = {shown(text)}" for name, text in random_terms(settings).items()),
    ]
    if settings.model.residual is not None:
        lines.append(f"residual = {shown(settings.model.residual)}")
    return Inputs(
        family_id=family_id,
        sample_id=sample_id,
        y=model.y.numpy(),
        X=model.X.numpy(),
        fixed_names=model.fixed_names,
        fixed_terms=model.fixed_terms,
        trait=model.trait,
        case_control=tables.case_control,
        num_cases=int(model.y.sum()) if tables.case_control else 0,
        grm_rows=[],
        report=[*lines, *model.report, f"fixed effects: {', '.join(model.fixed_names[:12])}{' ...' * (model.X.shape[1] > 12)}"],
        dropped=model.dropped,
        traits=np.asarray(records[TRAIT], object) if TRAIT in records else None,
    )


def _labels(records: Any, identifier: str | None) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """FID and IID of each record: of the columns of these names, of the one that says whose it is, or 0 and its number."""
    n = len(records)
    column = "iid" if "iid" in records else identifier
    samples = range(1, n + 1) if column is None else records[column]
    families = records["fid"].to_numpy(object) if "fid" in records else np.full(n, "0", object)
    return families, np.array(list(map(str, samples)), object)


def _frame(read: Records) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(read.columns)


def _join_tables(settings: FitConfig, in_terms: Iterable[str], pedigree: pd.DataFrame | None) -> Tables:
    """GCTA's tables as one, a row an individual: ``id`` (FID:IID), ``fid``, ``iid``, phenotypes and covariates.

    The formula is by default that of all covariates.

    Args:
        settings: of the fit.
        in_terms: columns of random terms and the residual.
        pedigree: as read.
    Raises:
        ConfigError: for a covariate table of which neither the formula nor a term uses a column.
    """
    import pandas as pd

    fixed, cohort = settings.model.fixed, read_cohort(settings.data)
    first, several = cohort.phenotypes[0], len(cohort.phenotypes) > 1
    pairs = map(":".join, zip(first.family_id, first.sample_id, strict=True))
    table = pd.DataFrame(
        {
            "fid": first.family_id,
            "iid": first.sample_id,
            "id": first.sample_id if first.matches_iid_alone else list(pairs),
            **{phenotype.name: phenotype.values for phenotype in cohort.phenotypes},
        }
    )
    names: list[str] = []
    notes: list[str] = []
    for key, covariates in (("data.qcovar", cohort.qcovar), ("data.covar", cohort.covar)):
        if covariates is not None:
            if fixed is not None and not {*columns_of(fixed), *in_terms}.intersection(covariates.names):
                columns = ", ".join(covariates.names)
                refuse_entries(key, [covariates.path], f"model.fixed={fixed} and the terms name none of its columns: {columns}")
            taken = [name for name in covariates.names if name in table]
            if taken:
                raise InputError(
                    f"{covariates.path}: there is a column {taken[0]!r} already (of ids or another table); rename it"
                )
            rows = match_samples(first, covariates)
            if (rows < 0).all():
                raise InputError(explain_mismatch(first, covariates))
            notes += samples_written_otherwise(first, covariates, rows)
            if isinstance(covariates, DiscreteCovariates):
                for name, levels in zip(covariates.names, covariates.levels, strict=True):
                    notes += levels_written_twice(covariates.path, name, levels)
            table = table.assign(**_covariates(rows, covariates))
            names += covariates.names
    right = fixed if fixed is not None else " + ".join(["1", *(f"`{name}`" for name in names)])
    formula = right if several or "~" in right else f"`{first.name}` ~ {right}"
    traits = [phenotype.name for phenotype in cohort.phenotypes] if several else []
    return Tables(table, pedigree, formula, traits, not several and first.coding is not None, notes)


def _covariates(rows: NDArray[np.int64], table: QuantitativeCovariates | DiscreteCovariates) -> dict[str, Any]:
    """Columns of a covariate table at its ``rows`` of the samples of the phenotype table, missing where it lacks one."""
    import pandas as pd

    if isinstance(table, QuantitativeCovariates):
        values = np.where((rows >= 0)[:, None], table.values[rows], np.nan)
        return dict(zip(table.names, values.T, strict=True))
    codes = np.where((rows >= 0)[:, None], table.codes[rows], -1)
    return {
        name: pd.Categorical.from_codes(codes[:, j], pd.Index(table.levels[j], dtype=object))
        for j, name in enumerate(table.names)
    }


def _identifier(settings: FitConfig) -> str | None:
    """The column that says whose a record is, if the model has one."""
    return settings.model.columns.get("id") or settings.model.columns.get("subject")
