"""Covariances between the levels of a column, and between random coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openreml_dist import covariance as cov
from openreml_dist.errors import ConfigError, InputError
from openreml_dist.models.columns import levels_of
from openreml_dist.models.formulas import columns_of, covariates
from openreml_dist.models.structures import Structure

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Unstructured(Structure):
    """Any covariance between the levels of a column, such as traits or environments."""

    column: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The column."""
        return (self.column,)

    def matrix(self, levels: Sequence[str], name: str) -> cov.SmallMatrix:
        """G of the levels."""
        return cov.Unstructured(levels, name)

    def bind(self, records: pd.DataFrame, name: str) -> cov.Term:
        """G at the levels of the records."""
        levels, codes = levels_of(records, self.column)
        if len(levels) < 2:
            raise InputError(
                f"{name}: {self.column} has one level, {levels[0]}, so there is nothing between levels to estimate"
            )
        return self.matrix(levels, name).selected(codes)


@dataclass(frozen=True)
class Diagonal(Unstructured):
    """A variance for each level of a column, the levels uncorrelated."""

    def matrix(self, levels: Sequence[str], name: str) -> cov.SmallMatrix:
        """Variances of the levels."""
        return cov.DiagonalLevels(levels, name)


@dataclass(frozen=True)
class FactorAnalytic(Unstructured):
    """Covariance between the levels of a column by a few common factors."""

    factors: int = 1

    def matrix(self, levels: Sequence[str], name: str) -> cov.SmallMatrix:
        """ΛΛᵀ + Ψ of the levels."""
        return cov.FactorAnalytic(levels, self.factors, name)


@dataclass(frozen=True)
class CompoundSymmetric(Structure):
    """One variance, and one correlation between any two levels of a column."""

    column: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The column."""
        return (self.column,)

    def bind(self, records: pd.DataFrame, name: str) -> cov.Term:
        """The matrix at the levels of the records."""
        levels, codes = levels_of(records, self.column)
        if len(levels) < 2:
            raise InputError(f"{name}: {self.column} has one level, {levels[0]}, so there is no correlation to estimate")
        return cov.CompoundSymmetry(len(levels), name).selected(codes)


@dataclass(frozen=True)
class Regression(Structure):
    """Random coefficients of covariates, with any covariance between them.

    Args:
        formula: covariates, such as ``1 + days``.
    """

    formula: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns in the formula."""
        return columns_of(self.formula)

    @property
    def labels(self) -> tuple[str, ...]:
        """None: they are numbers."""
        return ()

    def bind(self, records: pd.DataFrame, name: str) -> cov.Term:
        """ΦGΦᵀ with the covariates Φ (records, coefficients)."""
        values, names, _ = covariates(self.formula, records)
        if len(names) == 0:
            raise ConfigError(f"{name}: {self.formula} has no covariate")
        return cov.CovariancePropagation(values, cov.Unstructured([_short(column) for column in names], name))


def _short(column: str) -> str:
    return "1" if column == "Intercept" else column
