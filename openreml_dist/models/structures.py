"""The words for random terms and residuals, over the columns of a table of records.

Each says which columns it needs and makes a covariance of the records; ``*`` multiplies two of them entry by entry:

    Group("plot")                                        records of one plot share an effect
    Pedigree("id", "sire", "dam")                        additive genetic effects of animals
    Unstructured("trait") * Genomic("id", "k.grm.zarr")  genetic covariances of several traits
    Regression("1 + days") * Group("subject")            correlated random intercepts and slopes
    AR1("row") * AR1("column")                           a field trial in rows and columns

One factor of a product may have variances; without any, the term has one in front of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from openreml_dist import covariance as cov
from openreml_dist.covariance.operator import has_scale
from openreml_dist.errors import ConfigError
from openreml_dist.models.columns import joined_labels, labels_of

if TYPE_CHECKING:
    import pandas as pd


class Structure(ABC):
    """A covariance of records, in words."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Columns of the table that it needs, without missing values."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Columns that hold labels, even where they look like numbers."""
        return self.columns

    @abstractmethod
    def bind(self, records: pd.DataFrame, name: str) -> cov.Term:
        """The covariance of these records; parameters begin with ``name``.

        Raises:
            InputError: for values that it cannot use.
        """

    def term(self, records: pd.DataFrame, name: str) -> cov.Term:
        """The term of a model: the covariance, with a variance in front of it where it has none.

        Raises:
            InputError: for a grouping that cannot be told from the intercept or from the residual.
        """
        shape = self.bind(records, name)
        shape.name = name
        if has_scale(shape):
            return shape
        return cov.Scaled(shape, name) if shape.parameters else cov.VarianceComponent(shape, name)

    def usable(self, records: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:  # noqa: ARG002
        """Why records must be left out, beside missing values: reason -> which records are good."""
        return {}

    def mismatch(self, records: pd.DataFrame) -> str:  # noqa: ARG002
        """Why not all of these records may be usable; empty where there is no more to say."""
        return ""

    def remarks(self, records: pd.DataFrame) -> tuple[str, ...]:  # noqa: ARG002
        """What is unusual about the analysed records, in words, for the terminal."""
        return ()

    def __mul__(self, other: Structure) -> Product:
        """The product, entry by entry."""
        return Product(
            *(factor for side in (self, other) for factor in (side.factors if isinstance(side, Product) else (side,)))
        )


class Product(Structure):
    """Structures multiplied entry by entry."""

    def __init__(self, *factors: Structure) -> None:
        self.factors = factors

    def __repr__(self) -> str:
        """As it is written."""
        return " * ".join(map(repr, self.factors))

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the factors."""
        return tuple(dict.fromkeys(column for factor in self.factors for column in factor.columns))

    @property
    def labels(self) -> tuple[str, ...]:
        """Those of the factors."""
        return tuple(dict.fromkeys(column for factor in self.factors for column in factor.labels))

    def usable(self, records: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
        """Those of the factors."""
        return {reason: good for factor in self.factors for reason, good in factor.usable(records).items()}

    def mismatch(self, records: pd.DataFrame) -> str:
        """That of the first factor that has one."""
        return next((said for factor in self.factors if (said := factor.mismatch(records))), "")

    def remarks(self, records: pd.DataFrame) -> tuple[str, ...]:
        """Those of the factors."""
        return tuple(remark for factor in self.factors for remark in factor.remarks(records))

    def bind(self, records: pd.DataFrame, name: str) -> cov.Term:
        """The Hadamard product of the factors."""
        terms = [factor.bind(records, name) for factor in self.factors]
        scaled = [factor for factor, term in zip(self.factors, terms, strict=True) if has_scale(term)]
        if len(scaled) > 1:
            raise ConfigError(
                f"{name}: {scaled[0]!r} and {scaled[1]!r} both have variances, which a product cannot tell apart; "
                "let one of them be a correlation"
            )
        return cov.HadamardProduct(*terms)


@dataclass(frozen=True)
class Independent(Structure):
    """Independent records of one variance."""

    @property
    def columns(self) -> tuple[str, ...]:
        """None."""
        return ()

    def bind(self, records: pd.DataFrame, name: str) -> cov.Term:  # noqa: ARG002
        """I."""
        return cov.IdentityMatrix(len(records))

    def term(self, records: pd.DataFrame, name: str) -> cov.Term:
        """σ²I."""
        return cov.Identity(len(records), name)


@dataclass(frozen=True)
class Heterogeneous(Structure):
    """Independent records, a variance for each level of a column."""

    column: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The column."""
        return (self.column,)

    def bind(self, records: pd.DataFrame, name: str) -> cov.Term:
        """Variances on the diagonal."""
        return cov.Heterogeneous(labels_of(records, self.column), name)


@dataclass(frozen=True, init=False)
class Group(Structure):
    """Records of one level share an effect; several columns are their interaction."""

    by: tuple[str, ...]

    def __init__(self, *by: str) -> None:
        if not by:
            raise ConfigError("group() needs a column")
        object.__setattr__(self, "by", by)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns."""
        return self.by

    def bind(self, records: pd.DataFrame, name: str) -> cov.Term:
        """ZZᵀ."""
        return cov.SameLevel(joined_labels(records, self.by), name)

    def term(self, records: pd.DataFrame, name: str) -> cov.Term:
        """σ²ZZᵀ."""
        return cov.Grouping(joined_labels(records, self.by), name)
