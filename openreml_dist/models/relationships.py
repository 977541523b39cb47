"""Relationships between individuals: from a pedigree, a GRM store, or a matrix in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from openreml_dist import covariance as cov
from openreml_dist.errors import InputError
from openreml_dist.models.columns import labels_of
from openreml_dist.models.structures import Structure

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
        table = records if self.table is None else self.table
        absent = [column for column in (self.id, self.sire, self.dam) if column not in table]
        if absent:
            raise InputError(
                f"{name}: the pedigree has no column {', '.join(absent)}; it has {', '.join(map(str, table.columns))}"
            )
        lines = table[[self.id, self.sire, self.dam]]
        if self.table is None:
            lines = lines.drop_duplicates()
        animals, sires, dams = (lines[column].tolist() for column in lines)
        A = cov.PedigreeMatrix(animals, sires, dams, name)
        return A.selected(A.places_of(records[self.id].tolist()))


@dataclass(frozen=True)
class Genomic(Structure):
    """Genetic effects of people or animals, their relationships from a GRM store.

    Args:
        id: column with the individual id, or FID:IID.
        grm: path of a store, or an open one.
        cache_bytes: host memory that a rank may spend on the tiles it has read.
    """

    id: str
    grm: Any
    cache_bytes: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The identifier."""
        return (self.id,)

    def usable(self, records: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
        """Records whose individual is in the store."""
        return {f"have an {self.id} that is not in {self._store().path}": self._rows(records) >= 0}

    def bind(self, records: pd.DataFrame, name: str) -> cov.Term:
        """K at the individuals of the records."""
        return cov.StoredMatrix(self._store(), self._rows(records), name, self.cache_bytes)

    def _store(self) -> Any:
        if isinstance(self.grm, str):
            from openreml_dist.store.grm import open_grm

            object.__setattr__(self, "grm", open_grm(self.grm))
        return self.grm

    def _rows(self, records: pd.DataFrame) -> NDArray[np.int64]:
        """Row of the store of each record, −1 where it has none: by FID:IID or by IID alone, whichever finds more."""
        import pandas as pd

        store, wanted = self._store(), pd.Index(labels_of(records, self.id))
        individuals = pd.Index(np.asarray(store.sample_id, str))
        pairs = pd.Index([f"{f}:{i}" for f, i in zip(store.family_id, store.sample_id, strict=True)])
        found = [keys.get_indexer(wanted) for keys in (pairs, individuals) if keys.is_unique]
        return np.asarray(max(found, key=lambda rows: int((rows >= 0).sum())), np.int64)


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

    def _rows(self, records: pd.DataFrame) -> NDArray[np.int64]:
        import pandas as pd

        labels, wanted = pd.Index([str(label) for label in self.individuals]), pd.Index(labels_of(records, self.id))
        return np.asarray(labels.get_indexer(wanted), np.int64)

    def usable(self, records: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
        """Records whose individual is in the matrix."""
        return {f"have an {self.id} that is not in the relationship matrix": self._rows(records) >= 0}

    def bind(self, records: pd.DataFrame, name: str) -> cov.Term:
        """K at the individuals of the records."""
        return cov.Kernel.from_array(self.K, name).K.selected(self._rows(records))
