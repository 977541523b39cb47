"""A column that says whose a record is, matched with a GRM: FID:IID, IID alone, and what cannot be told apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from openreml_dist import MixedModel
from openreml_dist.covariance import Kernel
from openreml_dist.errors import InputError
from openreml_dist.models import Genomic, Relationship


@dataclass
class Store:
    """An identity matrix of some individuals."""

    family_id: list[str]
    sample_id: list[str]
    matches_iid_alone: bool = False
    path: str = "all.grm.zarr"
    chunk_size: int = 8
    in_memory: bool = True

    def read_chunk(self, *_: int) -> np.ndarray:
        return np.eye(len(self.sample_id))


def rows_of(labels: list[str], store: Store) -> list[int]:
    structure = Genomic("id", store)
    records = pd.DataFrame({"id": labels, "y": np.arange(len(labels)) ** 2.0})
    (good,) = structure.usable(records).values()
    rows = structure._rows(records)
    assert good.tolist() == (rows >= 0).tolist()
    return rows.tolist()


def test_labels_are_pairs_where_one_of_them_is_found_as_such() -> None:
    store = Store(["A", "A", "B"], ["1", "2", "1"])
    assert rows_of(["B:1", "A:2", "A:2", "A:1", "C:1", "2"], store) == [2, 1, 1, 0, -1, -1]
    with pytest.raises(InputError, match=r"all.grm.zarr: sample 1 is there twice; column id holds IIDs alone.*FID:IID"):
        rows_of(["2", "1"], store)


def test_labels_are_iids_where_no_pair_is_found() -> None:
    store = Store(["A", "A", "B"], ["x:1", "x:2", "x:3"])
    assert rows_of(["x:3", "x:1", "x:3", "x:4"], store) == [2, 0, 2, -1]
    assert rows_of(["A:x:2"], store) == [1]


def test_a_store_without_family_ids() -> None:
    store = Store(["0", "0", "0"], ["1", "2", "3"], matches_iid_alone=True)
    assert rows_of(["3", "1", "1"], store) == [2, 0, 0]
    assert rows_of(["F:3", "F:1", "F:1", "G:9"], store) == [2, 0, 0, -1]
    with pytest.raises(InputError, match=r"column id: sample 1 is there twice; all.grm.zarr has no family ids"):
        rows_of(["F:1", "G:1"], store)


def test_no_common_individual_names_the_probable_cause() -> None:
    records = pd.DataFrame({"id": ["01", "02", "03"], "y": [1.0, 3.0, 2.0]})
    for labels, cause in ((["01", "02", "03"], "leading zeros"), (["1:A", "2:A", "3:B"], "FID and IID are swapped")):
        with pytest.raises(InputError) as caught:
            MixedModel.from_dataframe(
                records.assign(id=labels), "y ~ 1", {"g": Genomic("id", Store(["A", "A", "B"], ["1", "2", "3"]))}
            )
        assert "no record has everything that the model uses:\n  3 have an id that is not in all.grm.zarr\n" in str(
            caught.value
        )
        assert cause in str(caught.value).partition("Probable cause")[2]


def test_some_numbers_written_otherwise_are_named() -> None:
    records = pd.DataFrame({"id": ["1.0", "2", "3", "1.0", "03", "9"], "y": [1.0, 3.0, 2.0, 5.0, 4.0, 1.0]})
    numbers = ["1", "2", "3", "4"]
    warning = "warning: 2 ids are written in two ways, and so not matched, such as 1.0 in column id and 1 in "
    for genomic, path in (
        (Genomic("id", Store(["A"] * 4, numbers)), "all.grm.zarr"),
        (Relationship("id", np.eye(4), [1, 2, 3, 4]), "the relationship matrix"),
    ):
        model = MixedModel.from_dataframe(records, "y ~ 1", {"g": genomic})
        assert len(model.y) == 2
        assert [line for line in model.report if line.startswith("warning")] == [f"{warning}{path}; write both alike"]


def test_known_rows_make_the_same_component() -> None:
    store = Store(["A", "A", "B"], ["1", "2", "3"])
    records = pd.DataFrame({"id": ["B:3", "A:1"]})
    found = Genomic("id", store).term(records, "g")
    known = Genomic("id", store, rows=np.array([2, 0])).term(records, "g")
    assert isinstance(found, Kernel) and isinstance(known, Kernel)
    assert found.K._index.tolist() == known.K._index.tolist() == [2, 0]
