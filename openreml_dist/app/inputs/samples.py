"""The samples of an analysis: what all inputs have in common, in the order of the first GRM.

Everything that can be wrong with phenotypes, covariates and identifiers is found here, before any matrix is touched, and every
sample that is left out is counted under its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openreml_dist.app.inputs.fixed_columns import FixedColumns, build_design
from openreml_dist.config import DataConfig
from openreml_dist.errors import InputError
from openreml_dist.store.matching import Identified, match_samples
from openreml_dist.store.mismatch import explain_mismatch, levels_written_twice, samples_written_otherwise
from openreml_dist.store.tables import (
    DiscreteCovariates,
    Phenotype,
    QuantitativeCovariates,
    read_discrete,
    read_phenotypes,
    read_quantitative,
)
from openreml_dist.store.tables_fields import Strings


@dataclass(frozen=True)
class Cohort:
    """GCTA's tables as they are read, before anything is matched."""

    phenotypes: list[Phenotype]
    qcovar: QuantitativeCovariates | None
    covar: DiscreteCovariates | None


@dataclass(frozen=True)
class Inputs:
    """The analysed records (n of them) with their data."""

    family_id: Strings  # (n,) of the phenotype table, or if it has none of the first GRM; 0 where no input has any
    sample_id: Strings  # (n,) of the phenotype table; in a table of records without identifiers, the number of the record
    y: NDArray[np.float64]  # (n,)
    X: NDArray[np.float64]  # (n, p), the intercept first
    fixed_names: tuple[str, ...]  # p names: intercept, age, batch=2
    fixed_terms: tuple[str, ...]  # of each, the covariate that it belongs to: intercept, age, batch
    trait: str
    case_control: bool
    num_cases: int  # 0 for a quantitative trait
    grm_rows: list[NDArray[np.int64]]  # of each GRM of greml, its row of each analysed sample (n,); other terms find their own
    report: list[str]  # lines for the terminal
    dropped: dict[str, int]  # samples left out by reason, each counted once, under the first that holds
    traits: Strings | None = None  # (n,) which trait a record is of, in models of several


@dataclass(frozen=True)
class _Source:
    """One input beside the phenotype table, matched to it."""

    key: str  # in ``Inputs.dropped``
    ids: Identified
    rows: NDArray[np.int64]  # (phenotyped samples,), -1 where the source lacks one
    missing: NDArray[np.bool_]  # (its samples,) the source has a missing value

    @property
    def path(self) -> str:
        """The source."""
        return self.ids.path


def read_cohort(data: DataConfig) -> Cohort:
    """Read phenotypes and covariates. Local.

    Raises:
        InputError: a table that cannot be read.
    """
    assert data.pheno is not None
    chosen = data.pheno_column
    columns: list[Any] = [chosen] if isinstance(chosen, str | int | float) else list(chosen)
    return Cohort(
        read_phenotypes(data.pheno, columns, data.missing),
        None if data.qcovar is None else read_quantitative(data.qcovar, data.missing),
        None if data.covar is None else read_discrete(data.covar, data.missing),
    )


def read_inputs(data: DataConfig, grms: Sequence[Identified], kind: str = "GRM") -> Inputs:
    """Read the tables and match them with the GRMs, or the genotypes, by FID:IID.

    Where either side has no family ids IIDs are matched alone, which must then be unique on both. Local: rank 0 reads.

    Args:
        data: paths of the tables and the column of the phenotype.
        grms: one or more, or genotypes; the first gives the order of the analysed samples.
        kind: what they are called: GRM or genotypes.
    Raises:
        InputError: a table that cannot be read, no common sample, a constant phenotype, collinear fixed effects, or no fewer
            fixed effects than samples.
    """
    cohort = read_cohort(data)
    pheno, qcovar, covar = cohort.phenotypes[0], cohort.qcovar, cohort.covar
    keys = [f"grm_{k}" for k in range(1, len(grms) + 1)] if kind == "GRM" else [kind]
    grm_sources = [
        _Source(key, grm, match_samples(pheno, grm), np.zeros(len(grm.sample_id), bool))
        for key, grm in zip(keys, grms, strict=True)
    ]
    sources = grm_sources + _match_covariates(pheno, qcovar, covar)
    chosen, dropped, reasons = _intersect(pheno, sources)
    rewritten = [line for source in sources for line in samples_written_otherwise(pheno, source.ids, source.rows)]
    report = _describe_tables(cohort, grms, kind) + reasons + rewritten
    if len(chosen) == 0:
        _check_common(pheno, sources)
        raise InputError("no sample has all of its data:\n  " + "\n  ".join(reasons + rewritten))

    rows = {source.key: source.rows[chosen] for source in sources}
    y = pheno.values[chosen]
    _check_phenotype(pheno, y, dropped)
    design = build_design(len(chosen), qcovar, rows.get("qcovar"), covar, rows.get("covar"))
    families = grms[0] if pheno.matches_iid_alone and not grms[0].matches_iid_alone else pheno
    return Inputs(
        family_id=np.array(families.family_id, object)[rows[keys[0]] if families is grms[0] else chosen],
        sample_id=pheno.sample_id[chosen],
        y=y,
        X=design.X,
        fixed_names=design.names,
        fixed_terms=design.terms,
        trait=pheno.name,
        case_control=pheno.coding is not None,
        num_cases=0 if pheno.coding is None else int(y.sum()),
        grm_rows=[rows[source.key] for source in grm_sources],
        report=[*report, *design.report, _describe_analysis(pheno, y, design)],
        dropped=dropped,
    )


def _match_covariates(
    pheno: Phenotype, qcovar: QuantitativeCovariates | None, covar: DiscreteCovariates | None
) -> list[_Source]:
    """Rows of the covariate tables for the phenotyped samples."""
    sources = []
    if qcovar is not None:
        missing = np.isnan(qcovar.values.sum(axis=1))
        sources.append(_Source("qcovar", qcovar, match_samples(pheno, qcovar), missing))
    if covar is not None:
        sources.append(_Source("covar", covar, match_samples(pheno, covar), covar.codes.min(axis=1) < 0))
    return sources


def _intersect(pheno: Phenotype, sources: list[_Source]) -> tuple[NDArray[np.int64], dict[str, int], list[str]]:
    """Phenotyped samples that have everything, in the order of the first GRM, and what was left out.

    Returns:
        Their rows in the phenotype table, the counts by reason, and the counts in words.
    """
    first = sources[0]
    keep = first.rows >= 0
    phenotyped = int(keep.sum())
    drops = [
        ("not_in_pheno", f"of {first.path} are not in {pheno.path}", len(first.missing) - phenotyped),
        (f"not_in_{first.key}", f"of {pheno.path} are not in {first.path}", len(keep) - phenotyped),
    ]

    def drop(key: str, words: str, absent: NDArray[np.bool_]) -> None:
        nonlocal keep
        drops.append((key, words, int((keep & absent).sum())))
        keep = keep & ~absent

    drop("pheno_missing", f"have no value of {pheno.name} in {pheno.path}", np.isnan(pheno.values))
    for source in sources[1:]:
        drop(f"not_in_{source.key}", f"are not in {source.path}", source.rows < 0)
        if source.missing.any():
            drop(f"{source.key}_missing", f"have a missing value in {source.path}", source.missing[source.rows])
    chosen = np.flatnonzero(keep)
    chosen = chosen[np.argsort(first.rows[chosen], kind="stable")]
    reasons = [f"left out: {count:,} {words}" for _, words, count in drops if count]
    return chosen, {key: count for key, _, count in drops}, reasons


def _check_common(pheno: Phenotype, sources: list[_Source]) -> None:
    """Raise with the probable cause where an input shares no sample with the phenotype table."""
    for source in sources:
        if (source.rows < 0).all():
            raise InputError(explain_mismatch(pheno, source.ids))


def _check_phenotype(pheno: Phenotype, y: NDArray[np.float64], dropped: dict[str, int]) -> None:
    """Raise where all analysed samples have the same phenotype."""
    if y.min() == y.max():
        lost = f" ({sum(dropped.values()):,} samples were left out)" if any(dropped.values()) else ""
        shown = {0.0: "controls", 1.0: "cases"}[float(y[0])] if pheno.coding else f"{y[0]:g}"
        raise InputError(
            f"{pheno.path}: the phenotype {pheno.name} is constant: all {len(y):,} analysed samples are {shown}{lost}"
        )


def _describe_tables(cohort: Cohort, grms: Sequence[Identified], kind: str) -> list[str]:
    """What was read, and which layout was assumed."""
    pheno = cohort.phenotypes[0]
    absent = int(np.isnan(pheno.values).sum())
    lines = [
        f"phenotype: {pheno.path}, {len(pheno.values):,} samples ({pheno.layout}), "
        f"column {pheno.column} ({pheno.name}), {absent:,} missing{_matched_alone(pheno)}"
    ]
    if pheno.coding is not None:
        cases = int(np.nansum(pheno.values))
        lines.append(
            f"phenotype: values are {pheno.coding.replace('/', ' and ')} alone, so it is case/control: "
            f"{cases:,} cases, {len(pheno.values) - absent - cases:,} controls"
        )
    elif set(np.unique(pheno.values[~np.isnan(pheno.values)]).tolist()) == {0.0, 1.0, 2.0}:
        lines.append("phenotype: values are 0, 1 and 2 alone, taken as numbers; if 0 stands for missing, write NA instead")
    for sort, table in (("quantitative", cohort.qcovar), ("discrete", cohort.covar)):
        if table is not None:
            lines.append(
                f"{sort} covariates: {table.path}, {len(table.sample_id):,} samples ({table.layout}): "
                f"{', '.join(table.names)}{_matched_alone(table)}"
            )
    if (covar := cohort.covar) is not None:
        for name, levels in zip(covar.names, covar.levels, strict=True):
            lines += levels_written_twice(covar.path, name, levels)
    lines += [f"{kind}: {grm.path}, {len(grm.sample_id):,} samples{_matched_alone(grm)}" for grm in grms]
    return lines


def _matched_alone(source: Identified) -> str:
    return "; it has no family ids, so samples are matched by IID alone" if source.matches_iid_alone else ""


def _describe_analysis(pheno: Phenotype, y: NDArray[np.float64], design: FixedColumns) -> str:
    cases = f" ({int(y.sum()):,} cases, {int(len(y) - y.sum()):,} controls)" if pheno.coding else ""
    return f"analysed: {len(y):,} samples{cases}, {len(design.names)} fixed effects: {_shorten(design.names)}"


def _shorten(names: Sequence[str], most: int = 12) -> str:
    rest = f", ... ({len(names) - most} more)" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
