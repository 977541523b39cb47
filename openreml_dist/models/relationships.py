"""Relationships between individuals: from a pedigree, a GRM store, or a matrix in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from openreml_dist import covariance as cov
from openreml_dist.covariance.pedigree import parent_remarks
from openreml_dist.errors import InputError
from openreml_dist.models.columns import labels_of
from openreml_dist.models.structures import Structure
from openreml_dist.store.matching import match_labels, places, refuse_repeated
from openreml_dist.store.mismatch import explain_mismatch, samples_written_otherwise, written_otherwise

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Pedigree(Structure):
    """Additive genetic effects of animals, their relationships from sires and dams.

    Args:
        id, sire, dam: columns of the pedigree; ``id`` is also that of the records.
        table: the pedigree, a row an animal; by default the records themselves, each animal with one pair of parents.
    """

    id: str = "id"
    sire: str = "sire"
    dam: str = "dam"
    table: Any = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The identifier: parents may be unknown."""
        return (self.id,)

    @property
    def labels(self) -> tuple[str, ...]:
        """The identifier and the parents."""
        return (self.id, self.sire, self.dam)

    def bind(self, records: pd.DataFrame, name: str) -> cov.Term:
        """A at the animals of the records."""
        animals, sires, dams = self._lines(records, name)
        A = cov.PedigreeMatrix(animals, sires, dams, name)
        return A.selected(A.places_of(records[self.id].tolist()))

    def remarks(self, records: pd.DataFrame) -> tuple[str, ...]:
        """Parents that were added, and names that are both sire and dam."""
        return parent_remarks(*self._lines(records, "pedigree"))

    def _lines(self, records: pd.DataFrame, name: str) -> list[list[object]]:
        """Animals, sires and dams."""
        table = records if self.table is None else self.table
        absent = [column for column in (self.id, self.sire, self.dam) if column not in table]
        if absent:
            raise InputError(
                f"{name}: the pedigree has no column {', '.join(absent)}; it has {', '.join(map(str, table.columns))}"
            )
        lines = table[[self.id, self.sire, self.dam]]
        if self.table is None:
            lines = lines.drop_duplicates()
        return [lines[column].tolist() for column in lines]


@dataclass(frozen=True, eq=False)
class Labels:
    """Individuals as a column of records names them, for messages; FID:IID or IID alone."""

    column: str
    texts: list[str]

    @property
    def path(self) -> str:
        """The column."""
        return f"column {self.column}"

    @property
    def matches_iid_alone(self) -> bool:
        """A label has no colon."""
        return not all(":" in text for text in self.texts)

    @property
    def family_id(self) -> list[str]:
        """What stands before the first colon."""
        return [text.partition(":")[0] for text in self.texts]

    @property
    def sample_id(self) -> list[str]:
        """What stands behind it, or all of it."""
        return self.texts if self.matches_iid_alone else [text.partition(":")[2] for text in self.texts]


@dataclass(frozen=True, eq=False)
class Genomic(Structure):
    """Genetic effects of people or animals, their relationships from a GRM store.

    Args:
        id: column with FID:IID; or with the individual id alone, which must then tell the individuals of the store apart.
        grm: path of a store, or an open one.
        cache_bytes: host memory that a rank may spend on the tiles it has read.
        rows: (n,) row of the store of each record, where it is known; the column is then not looked at.
    """

    id: str
    grm: Any
    cache_bytes: int = 0
    rows: NDArray[np.int64] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The identifier."""
        return (self.id,)

    def usable(self, records: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
        """Records whose individual is in the store."""
        return {f"have an {self.id} that is not in {self._store().path}": self._rows(records) >= 0}

    def mismatch(self, records: pd.DataFrame) -> str:
        """The probable cause, where no individual of the records is in the store; or where one is that is written otherwise."""
        if self.rows is not None:
            return ""
        labels = Labels(self.id, list(dict.fromkeys(labels_of(records, self.id).tolist())))
        rows = match_labels(labels.texts, self.id, self._store())
        if (rows >= 0).any():
            return "".join(samples_written_otherwise(labels, self._store(), rows))
        return explain_mismatch(labels, self._store())

    def bind(self, records: pd.DataFrame, name: str) -> cov.Term:
        """K at the individuals of the records."""
        return cov.StoredMatrix(self._store(), self._rows(records), name, self.cache_bytes)

    def term(self, records: pd.DataFrame, name: str) -> cov.Term:
        """σ²K."""
        return cov.Kernel(self._store(), self._rows(records), name, self.cache_bytes)

    def _store(self) -> Any:
        if isinstance(self.grm, str):
            from openreml_dist.store.kernels import open_kernel

            object.__setattr__(self, "grm", open_kernel(self.grm))
        return self.grm

    def _rows(self, records: pd.DataFrame) -> NDArray[np.int64]:
        """Row of the store of each record, −1 where it has none."""
        if self.rows is not None:
            return self.rows
        return match_labels(labels_of(records, self.id), self.id, self._store())


@dataclass(frozen=True, eq=False)
class Relationship(Structure):
    """Effects of individuals whose relationship matrix is in memory.

    Args:
        id: column of the individual.
        K: (q, q) symmetric.
        individuals: (q,) in the order of K.
    """

    id: str
    K: Any
    individuals: Sequence[object]

    @property
    def columns(self) -> tuple[str, ...]:
        """The identifier."""
        return (self.id,)

    def mismatch(self, records: pd.DataFrame) -> str:
        """Individuals that are in the matrix under a number that is written otherwise."""
        labels, individuals = labels_of(records, self.id)[self._rows(records) < 0], map(str, self.individuals)
        absent = dict.fromkeys(labels.tolist())
        return "".join(written_otherwise(absent, individuals, f"column {self.id}", "the relationship matrix"))

    def _rows(self, records: pd.DataFrame) -> NDArray[np.int64]:
        individuals = [str(label) for label in self.individuals]
        refuse_repeated(individuals, "the relationship matrix", "its individuals must differ")
        return places(individuals, labels_of(records, self.id))

    def usable(self, records: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
        """Records whose individual is in the matrix."""
        return {f"have an {self.id} that is not in the relationship matrix": self._rows(records) >= 0}

    def bind(self, records: pd.DataFrame, name: str) -> cov.Term:
        """K at the individuals of the records."""
        return cov.Kernel.from_array(self.K, name).K.selected(self._rows(records))
