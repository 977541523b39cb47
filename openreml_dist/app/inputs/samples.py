"""The samples of an analysis: what all inputs have in common, in the order of the first GRM.

Everything that can be wrong with phenotypes, covariates and identifiers is found here, before any matrix is touched, and every
sample that is left out is counted under its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from openreml_dist.app.inputs.design import Design, build_design
from openreml_dist.app.inputs.mismatch import explain_mismatch
from openreml_dist.config import DataConfig
from openreml_dist.errors import InputError
from openreml_dist.store.tables import (
    DiscreteCovariates,
    Ids,
    Phenotype,
    QuantitativeCovariates,
    Strings,
    pair_keys,
    read_discrete,
    read_phenotype,
    read_quantitative,
)
from openreml_dist.store.tables_text import first_duplicate


class GrmIds(Protocol):
    """What this module needs of a GRM: whose rows it holds."""

    @property
    def path(self) -> str:
        """Where it is stored."""

    @property
    def family_id(self) -> Ids:
        """FID of each row; not looked at where ``matches_iid_alone``."""

    @property
    def sample_id(self) -> Ids:
        """IID of each row."""

    @property
    def matches_iid_alone(self) -> bool:
        """The store has no family ids."""


@dataclass(frozen=True)
class Inputs:
    """The analysed samples (n of them) with their data."""

    family_id: Strings  # (n,) from the phenotype table
    sample_id: Strings  # (n,)
    y: NDArray[np.float64]  # (n,)
    X: NDArray[np.float64]  # (n, p), the intercept first
    fixed_names: tuple[str, ...]  # p names: intercept, age, batch=2
    trait: str
    case_control: bool
    num_cases: int  # 0 for a quantitative trait
    grm_rows: list[NDArray[np.int64]]  # of each GRM, its row of each analysed sample (n,)
    report: list[str]  # lines for the terminal
    dropped: dict[str, int]  # samples left out by reason, each counted once, under the first that holds
    traits: Strings | None = None  # (n,) which trait a record is of, in models of several


@dataclass(frozen=True)
class _Source:
    """One input beside the phenotype table, matched to it."""

    key: str  # in ``Inputs.dropped``
    path: str
    num_samples: int
    rows: NDArray[np.int64]  # (phenotyped samples,), -1 where the source lacks one
    missing: NDArray[np.bool_]  # (num_samples,) the source has a missing value


def read_inputs(data: DataConfig, grms: Sequence[GrmIds]) -> Inputs:
    """Read the tables and match them with the GRMs by FID:IID.

    A GRM without family ids is matched by IID, which must then be unique. Local: each rank reads the same.

    Args:
        data: paths of the tables and the column of the phenotype.
        grms: one or more; the first gives the order of the analysed samples.
    Raises:
        InputError: a table that cannot be read, no common sample, a constant phenotype, collinear fixed effects, or no fewer
            fixed effects than samples.
    """
    assert data.pheno is not None
    pheno = read_phenotype(data.pheno, data.pheno_column)
    qcovar = None if data.qcovar is None else read_quantitative(data.qcovar)
    covar = None if data.covar is None else read_discrete(data.covar)
    pheno_keys = pair_keys(pheno.family_id, pheno.sample_id)
    grm_sources = [_match_grm(k, grm, pheno, pheno_keys) for k, grm in enumerate(grms, 1)]
    sources = grm_sources + _match_covariates(pheno_keys, qcovar, covar)
    chosen, dropped, reasons = _intersect(pheno, sources)
    report = _describe_tables(pheno, qcovar, covar, grms) + reasons
    if len(chosen) == 0:
        _check_common(pheno, sources, grms)
        raise InputError("no sample has all of its data:\n  " + "\n  ".join(reasons))

    rows = {source.key: source.rows[chosen] for source in sources}
    y = pheno.values[chosen]
    _check_phenotype(pheno, y, dropped)
    design = build_design(len(chosen), qcovar, rows.get("qcovar"), covar, rows.get("covar"))
    return Inputs(
        family_id=pheno.family_id[chosen],
        sample_id=pheno.sample_id[chosen],
        y=y,
        X=design.X,
        fixed_names=design.names,
        trait=pheno.name,
        case_control=pheno.coding is not None,
        num_cases=0 if pheno.coding is None else int(y.sum()),
        grm_rows=[rows[source.key] for source in grm_sources],
        report=[*report, *design.report, _describe_analysis(pheno, y, design)],
        dropped=dropped,
    )


def _match_grm(number: int, grm: GrmIds, pheno: Phenotype, pheno_keys: Strings) -> _Source:
    """Rows of a GRM for the phenotyped samples; ids that occur twice on either side are refused."""
    if grm.matches_iid_alone:
        keys: Strings = np.array(grm.sample_id, object)
        wanted = pheno.sample_id
        _refuse_repeated(keys, grm.path, "it has no family ids, so that IIDs alone must tell its samples apart")
        _refuse_repeated(wanted, pheno.layout.path, f"{grm.path} has no family ids, so that samples are matched by IID alone")
    else:
        keys, wanted = pair_keys(grm.family_id, grm.sample_id), pheno_keys
        _refuse_repeated(keys, grm.path, "FID and IID must tell its samples apart")
    return _Source(f"grm_{number}", grm.path, len(keys), _find(keys, wanted), np.zeros(len(keys), bool))


def _match_covariates(
    pheno_keys: Strings, qcovar: QuantitativeCovariates | None, covar: DiscreteCovariates | None
) -> list[_Source]:
    """Rows of the covariate tables for the phenotyped samples."""
    sources = []
    if qcovar is not None:
        rows = _find(pair_keys(qcovar.family_id, qcovar.sample_id), pheno_keys)
        missing = np.isnan(qcovar.values.sum(axis=1))
        sources.append(_Source("qcovar", qcovar.layout.path, len(missing), rows, missing))
    if covar is not None:
        rows = _find(pair_keys(covar.family_id, covar.sample_id), pheno_keys)
        missing = covar.codes.min(axis=1) < 0
        sources.append(_Source("covar", covar.layout.path, len(missing), rows, missing))
    return sources


def _find(keys: Strings, wanted: Strings) -> NDArray[np.int64]:
    """Place of each wanted key among ``keys``, which are unique; -1 where it is not there."""
    import pandas as pd

    return pd.Index(keys, dtype=object).get_indexer(pd.Index(wanted, dtype=object)).astype(np.int64)


def _refuse_repeated(keys: Strings, path: str, reason: str) -> None:
    repeated = first_duplicate(keys)
    if repeated is not None:
        shown = str(keys[repeated]).replace("\t", ":")
        raise InputError(f"{path}: sample {shown} is there twice; {reason}")


def _intersect(pheno: Phenotype, sources: list[_Source]) -> tuple[NDArray[np.int64], dict[str, int], list[str]]:
    """Phenotyped samples that have everything, in the order of the first GRM, and what was left out.

    Returns:
        Their rows in the phenotype table, the counts by reason, and the counts in words.
    """
    first = sources[0]
    keep = first.rows >= 0
    phenotyped = int(keep.sum())
    drops = [
        ("not_in_pheno", f"of {first.path} are not in {pheno.layout.path}", first.num_samples - phenotyped),
        ("not_in_grm_1", f"of {pheno.layout.path} are not in {first.path}", len(keep) - phenotyped),
    ]

    def drop(key: str, words: str, absent: NDArray[np.bool_]) -> None:
        nonlocal keep
        drops.append((key, words, int((keep & absent).sum())))
        keep = keep & ~absent

    drop("pheno_missing", f"have no value of {pheno.name} in {pheno.layout.path}", np.isnan(pheno.values))
    for source in sources[1:]:
        drop(f"not_in_{source.key}", f"are not in {source.path}", source.rows < 0)
        if source.missing.any():
            drop(f"{source.key}_missing", f"have a missing value in {source.path}", source.missing[source.rows])
    chosen = np.flatnonzero(keep)
    chosen = chosen[np.argsort(first.rows[chosen], kind="stable")]
    reasons = [f"left out: {count:,} {words}" for _, words, count in drops if count]
    return chosen, {key: count for key, _, count in drops}, reasons


def _check_common(pheno: Phenotype, sources: list[_Source], grms: Sequence[GrmIds]) -> None:
    """Raise with the probable cause where an input shares no sample with the phenotype table."""
    for source, grm in zip(sources, grms, strict=False):
        if (source.rows < 0).all():
            raise InputError(explain_mismatch(pheno, grm.path, grm.family_id, grm.sample_id, grm.matches_iid_alone))
    for source in sources[len(grms) :]:
        if (source.rows < 0).all():
            table = read_discrete(source.path) if source.key == "covar" else read_quantitative(source.path)
            raise InputError(explain_mismatch(pheno, source.path, table.family_id, table.sample_id, False))


def _check_phenotype(pheno: Phenotype, y: NDArray[np.float64], dropped: dict[str, int]) -> None:
    """Raise where all analysed samples have the same phenotype."""
    if y.min() == y.max():
        lost = f" ({sum(dropped.values()):,} samples were left out)" if any(dropped.values()) else ""
        shown = {0.0: "controls", 1.0: "cases"}[float(y[0])] if pheno.coding else f"{y[0]:g}"
        raise InputError(
            f"{pheno.layout.path}: the phenotype {pheno.name} is constant: all {len(y):,} analysed samples are {shown}{lost}"
        )


def _describe_tables(
    pheno: Phenotype, qcovar: QuantitativeCovariates | None, covar: DiscreteCovariates | None, grms: Sequence[GrmIds]
) -> list[str]:
    """What was read, and which layout was assumed."""
    absent = int(np.isnan(pheno.values).sum())
    lines = [
        f"phenotype: {pheno.layout.path}, {len(pheno.values):,} samples ({pheno.layout}), "
        f"column {pheno.column} ({pheno.name}), {absent:,} missing"
    ]
    if pheno.coding is not None:
        cases = int(np.nansum(pheno.values))
        lines.append(
            f"phenotype: values are {pheno.coding.replace('/', ' and ')} alone, so it is case/control: "
            f"{cases:,} cases, {len(pheno.values) - absent - cases:,} controls"
        )
    elif set(np.unique(pheno.values[~np.isnan(pheno.values)]).tolist()) == {0.0, 1.0, 2.0}:
        lines.append("phenotype: values are 0, 1 and 2 alone, taken as numbers; if 0 stands for missing, write NA instead")
    for kind, table in (("quantitative", qcovar), ("discrete", covar)):
        if table is not None:
            lines.append(
                f"{kind} covariates: {table.layout.path}, {len(table.sample_id):,} samples ({table.layout}): "
                f"{', '.join(table.names)}"
            )
    for grm in grms:
        alone = "; it has no family ids, so samples are matched by IID alone" if grm.matches_iid_alone else ""
        lines.append(f"GRM: {grm.path}, {len(grm.sample_id):,} samples{alone}")
    return lines


def _describe_analysis(pheno: Phenotype, y: NDArray[np.float64], design: Design) -> str:
    cases = f" ({int(y.sum()):,} cases, {int(len(y) - y.sum()):,} controls)" if pheno.coding else ""
    return f"analysed: {len(y):,} samples{cases}, {len(design.names)} fixed effects: {_shorten(design.names)}"


def _shorten(names: Sequence[str], most: int = 12) -> str:
    rest = f", ... ({len(names) - most} more)" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
