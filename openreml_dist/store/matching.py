"""Which rows of an input are the samples of another: by FID and IID, or by IID alone where a side has no family ids."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import InputError
from openreml_dist.store.tables_text import first_duplicate

Ids: TypeAlias = Sequence[str] | NDArray[np.str_] | NDArray[np.object_]


class Identified(Protocol):
    """An input whose rows are samples: a table or a GRM store."""

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
        """The input has no family ids."""


def match_samples(wanted: Identified, there: Identified) -> NDArray[np.int64]:
    """Row of ``there`` for each sample of ``wanted``, -1 where it has none.

    Raises:
        InputError: for ids that occur twice on either side, so that they cannot tell samples apart.
    """
    if not (wanted.matches_iid_alone or there.matches_iid_alone):
        keys = pair_keys(there.family_id, there.sample_id)
        _refuse_repeated(keys, there.path, "FID and IID must tell its samples apart")
        return places(keys, pair_keys(wanted.family_id, wanted.sample_id))
    for side, other in ((there, wanted), (wanted, there)):
        reason = (
            "it has no family ids, so that IIDs alone must tell its samples apart"
            if side.matches_iid_alone
            else f"{other.path} has no family ids, so that samples are matched by IID alone"
        )
        _refuse_repeated(side.sample_id, side.path, reason)
    return places(there.sample_id, wanted.sample_id)


def match_labels(labels: Ids, column: str, there: Identified) -> NDArray[np.int64]:
    """Row of ``there`` for each label, -1 where it has none. Labels may occur often, as those of repeated records do.

    They are FID:IID where one of them is found as such; else IIDs; else, where ``there`` has no family ids, FID:IID of which
    the IID is looked at.

    Raises:
        InputError: for IIDs that do not tell the samples of ``there`` apart, or are those of different labels.
    """
    texts = as_list(labels)
    if not there.matches_iid_alone:
        pairs = list(map(":".join, zip(as_list(there.family_id), as_list(there.sample_id), strict=True)))
        rows = places(pairs, texts)
        if (rows >= 0).any():
            return rows
    rows = places(there.sample_id, texts)
    if there.matches_iid_alone and not (rows >= 0).any() and all(":" in text for text in texts):
        iids = {text: text.partition(":")[2] for text in texts}
        _refuse_repeated(
            [*iids.values()], f"column {column}", f"{there.path} has no family ids, so that IIDs are matched alone"
        )
        rows = places(there.sample_id, [iids[text] for text in texts])
    if (rows >= 0).any():
        _refuse_repeated(there.sample_id, there.path, f"column {column} holds IIDs alone, so write it as FID:IID")
    return rows


def pair_keys(family_id: Ids, sample_id: Ids) -> list[str]:
    """One text for each FID and IID, equal only where both are equal."""
    return list(map("\t".join, zip(as_list(family_id), as_list(sample_id), strict=True)))


def places(keys: Ids, wanted: Ids) -> NDArray[np.int64]:
    """Place of each wanted key among ``keys``, the last one that is equal; -1 where it is not there."""
    place = dict(zip(as_list(keys), range(len(keys)), strict=True))
    return np.fromiter(map(place.get, as_list(wanted), repeat(-1)), np.int64, len(wanted))


def as_list(ids: Ids) -> list[str]:
    """As a list of Python's strings, which are quicker to go through than those of numpy."""
    return list(ids.tolist() if isinstance(ids, np.ndarray) else ids)


def _refuse_repeated(keys: Ids, path: str, reason: str) -> None:
    repeated = first_duplicate(as_list(keys))
    if repeated is not None:
        shown = str(keys[repeated]).replace("\t", ":")
        raise InputError(f"{path}: sample {shown} is there twice; {reason}")
