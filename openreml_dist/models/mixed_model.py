"""A mixed model of a table of records: formula and structures in, y, X and V(θ) out.

Legend: n analysed records, p fixed effects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openreml_dist.covariance import Covariance
from openreml_dist.errors import ConfigError, InputError
from openreml_dist.models.columns import Columns
from openreml_dist.models.formulas import by_trait, checked, columns_of, covariates, response
from openreml_dist.models.structures import Heterogeneous, Independent, Structure
from openreml_dist.store.tables_text import first_duplicate

if TYPE_CHECKING:
    import pandas as pd

    from openreml_dist.compat import REML
    from openreml_dist.grid import ProcessGrid
    from openreml_dist.reml import FitResult

TRAIT = "trait"  # column of a multi-trait table that says which trait a record is of
VALUE = "value"


@dataclass(frozen=True)
class MixedModel:
    """y ~ N(Xβ, V(θ)) for the records of a table.

    Attributes:
        y: (n,).
        X: (n, p).
        covariance: V(θ), the residual last.
        fixed_names: p names.
        fixed_terms: of each column of X, the covariate that it belongs to; a factor has several columns.
        trait: what y is.
        records: the analysed rows of the table, a row a record, in the order of y (``Columns`` where no data frame is needed).
        report: what was read and left out, in words.
        dropped: records left out by reason.
    """

    y: Tensor
    X: Tensor
    covariance: Covariance
    fixed_names: tuple[str, ...]
    fixed_terms: tuple[str, ...]
    trait: str
    records: pd.DataFrame | Columns
    report: tuple[str, ...]
    dropped: dict[str, int]

    @classmethod
    def from_dataframe(
        cls,
        table: pd.DataFrame,
        fixed: str,
        random: Mapping[str, Structure],
        residual: Structure | None = None,
        *,
        traits: Sequence[str] = (),
        fix: Mapping[str, float] | None = None,
        share: Sequence[Sequence[str]] = (),
        transform: Mapping[str, str] | None = None,
    ) -> MixedModel:
        """Describe a model over the columns of a table. Local: with ranks, every rank calls it with the same table.

        Records with a missing value in a column that the model uses are left out, and counted. With several traits, each row
        gives a record for every trait that it has; ``trait`` is then a column for structures, and every trait has fixed
        effects of its own.

        Args:
            table: a row a record (of several traits: a row an individual).
            fixed: ``response ~ 1 + covariate + C(factor)``; with ``traits`` the right-hand side alone.
            random: random terms by name.
            residual: by default independent records of one variance, of several traits one variance a trait.
            traits: columns of the responses of a multi-trait model.
            fix: values of parameters that are not estimated.
            share: groups of parameters that have one value.
            transform: parameters that the solver moves on another scale: ``log``, ``logit``.
        Raises:
            InputError, ConfigError: for columns that are not there, values that cannot be used, effects that cannot be
                estimated, each named.
        """
        residual = residual or (Heterogeneous(TRAIT) if traits else Independent())
        structures = {**random, "residual": residual}
        if "residual" in random:
            raise ConfigError("a random term is called residual; give it another name")
        repeated = first_duplicate(list(table.columns))
        if repeated is not None:
            raise InputError(f"the table has the column {table.columns[repeated]!r} twice")
        records, formula = _stacked(table, fixed, traits) if traits else (table, fixed)
        needed = dict.fromkeys(columns_of(formula))
        needed |= dict.fromkeys(column for structure in structures.values() for column in structure.columns)
        records, dropped, causes = _complete(records, list(needed), structures)
        report = [f"records: {len(records):,} analysed", *(f"left out: {n:,} records {why}" for why, n in dropped.items())]
        report += causes
        gone = [trait for trait in traits if not (records[TRAIT] == trait).any()]
        if gone:
            raise InputError(f"traits: no record of {', '.join(gone)} has everything that the model uses")
        report += dict.fromkeys(remark for structure in structures.values() for remark in structure.remarks(records))
        y, trait = response(formula, records)
        X, names, terms = covariates(formula, records)
        if traits:
            X, names, terms = by_trait(X, names, terms, records[TRAIT].astype(str).tolist())
            trait = ", ".join(traits)
        return cls.of_design(
            np.array(y),
            np.array(checked(X, names)),
            names,
            terms,
            trait,
            records,
            structures,
            report,
            dropped,
            fix=fix,
            share=share,
            transform=transform,
        )

    @classmethod
    def of_design(
        cls,
        y: NDArray[np.float64],
        X: NDArray[np.float64],
        fixed_names: tuple[str, ...],
        fixed_terms: tuple[str, ...],
        trait: str,
        records: Any,
        structures: Mapping[str, Structure],
        report: Sequence[str],
        dropped: dict[str, int],
        *,
        fix: Mapping[str, float] | None = None,
        share: Sequence[Sequence[str]] = (),
        transform: Mapping[str, str] | None = None,
    ) -> MixedModel:
        """Describe a model whose y and X are made already. Local.

        Args:
            y, X: (n,) and (n, p), their memory shared where torch can.
            fixed_names, fixed_terms, trait: what they are called.
            records: a data frame, or ``Columns``, of the n records.
            structures: random terms by name and, last, the residual.
            report, dropped: what was read and left out.
            fix, share, transform: as in ``from_dataframe``.
        """
        covariance = _covariance(structures, records, fix, share, transform)
        data = torch.as_tensor(y), torch.as_tensor(X)
        return cls(*data, covariance, fixed_names, fixed_terms, trait, records, tuple(report), dropped)

    def reml(self, grid: ProcessGrid | None = None, **settings: Any) -> REML:
        """The solver of this model; settings are those of ``REML``. Collective."""
        from openreml_dist.compat import REML

        return REML(self.covariance, grid=grid, **settings)

    def fit(self, grid: ProcessGrid | None = None, **settings: Any) -> FitResult:
        """Estimate θ; settings are those of ``REML.fit``. Collective."""
        return self.reml(grid).fit(self.y, self.X, **settings)


def _stacked(table: pd.DataFrame, fixed: str, traits: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """A record for every trait that a row has, trait after trait, and the formula of their values."""
    import pandas as pd

    if "~" in fixed:
        raise ConfigError(f"fixed: {fixed!r}: with traits, give the right-hand side alone")
    if len(traits) < 2 or len(set(traits)) < len(traits):
        raise ConfigError(f"traits: {', '.join(traits)}: two or more different columns are needed")
    absent = [trait for trait in traits if trait not in table]
    if absent:
        raise InputError(f"traits: the table has no column {', '.join(absent)}; it has {', '.join(map(str, table.columns))}")
    taken = [name for name in (TRAIT, VALUE) if name in table]
    if taken:
        raise InputError(f"the table has a column called {taken[0]}, which a model of several traits makes; rename it")
    parts = [table.assign(trait=trait, value=table[trait]) for trait in traits]
    records = pd.concat(parts, ignore_index=True)
    return records.assign(trait=pd.Categorical(records[TRAIT], categories=list(traits))), f"{VALUE} ~ {fixed}"


def _complete(
    records: pd.DataFrame, columns: Sequence[str], structures: Mapping[str, Structure]
) -> tuple[pd.DataFrame, dict[str, int], list[str]]:
    """Records that have everything, how many were left out, each under the first reason that holds, and probable causes."""
    absent = [column for column in columns if column not in records]
    if absent:
        raise InputError(f"the table has no column {', '.join(absent)}; it has {', '.join(map(str, records.columns))}")
    dropped: dict[str, int] = {}

    def keep(good: Any, why: str) -> None:
        nonlocal records
        if not good.all():
            dropped[why] = dropped.get(why, 0) + int((~good).sum())
            records = records[good]

    for column in columns:
        if column == VALUE and TRAIT in records:
            for trait in records[TRAIT].cat.categories:
                keep((records[VALUE].notna() | (records[TRAIT] != trait)).to_numpy(), f"have no value of {trait}")
        else:
            keep(records[column].notna().to_numpy(), f"have no value of {column}")
    causes: dict[str, None] = {}
    for structure in structures.values():
        for why in structure.usable(records):
            good = structure.usable(records)[why]
            if len(good) and not good.all() and (cause := structure.mismatch(records)):
                causes[cause] = None
            keep(good, why)
    if records.empty:
        reasons = [f"  {n:,} {why}" for why, n in dropped.items()]
        raise InputError("\n".join(["no record has everything that the model uses:", *reasons, *causes]))
    return _with_used_levels(records.reset_index(drop=True)), dropped, list(causes)


def _with_used_levels(records: pd.DataFrame) -> pd.DataFrame:
    """Factors without the levels that no analysed record has: a level is no effect then."""
    import pandas as pd

    records = records.copy(deep=False)
    for name in records.columns:
        if isinstance(records[name].dtype, pd.CategoricalDtype):
            records[name] = records[name].cat.remove_unused_categories()
    return records


def _covariance(
    structures: Mapping[str, Structure],
    records: Any,
    fix: Mapping[str, float] | None,
    share: Sequence[Sequence[str]],
    transform: Mapping[str, str] | None,
) -> Covariance:
    terms = [structure.term(records, name) for name, structure in structures.items()]
    groups: dict[bytes, str] = {}
    for term in terms:
        if term.groups is not None:
            same = groups.setdefault(term.groups.tobytes(), term.name)
            if same != term.name:
                raise InputError(f"{same} and {term.name} group the records alike, so their variances cannot be told apart")
    return Covariance(terms, fixed=fix, shared=share, transforms=transform)
