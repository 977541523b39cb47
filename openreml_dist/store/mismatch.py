"""Why two inputs have no sample in common, or too few: the causes that users meet, each tried in turn."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from openreml_dist.spellings import plainly, shown, written_elsewhere, written_twice
from openreml_dist.store.matching import Identified, as_list

SHOWN = 3


def explain_mismatch(wanted: Identified, there: Identified) -> str:
    """Message on two inputs without a common sample.

    Args:
        wanted: a table of individuals, or the labels of records.
        there: the other input.
    Returns:
        The first ids of each side and the probable cause.
    """
    iid_alone = wanted.matches_iid_alone or there.matches_iid_alone
    ours, theirs = _ids(wanted), _ids(there)
    cause = _cause(ours, theirs, wanted.path, there.path, iid_alone)
    sides = "\n".join(f"  {name}: {_first_ids(ids)}" for name, ids in ((wanted.path, ours), (there.path, theirs)))
    return f"no sample of {wanted.path} is in {there.path}; first FID:IID of each:\n{sides}\nProbable cause: {cause}"


def samples_written_otherwise(wanted: Identified, there: Identified, rows: NDArray[np.int64]) -> list[str]:
    """Warning on samples that are not found, where the other input has them in another spelling.

    Args:
        wanted, there: as above.
        rows: row of ``there`` for each sample of ``wanted``, -1 where it has none.
    """
    if (rows >= 0).all():
        return []
    iid_alone = wanted.matches_iid_alone or there.matches_iid_alone
    ours, theirs = (
        as_list(side.sample_id) if iid_alone else list(map(":".join, _ids(side)))  # as they are compared
        for side in (wanted, there)
    )
    return written_otherwise([ours[i] for i in np.flatnonzero(rows < 0)], theirs, wanted.path, there.path)


def written_otherwise(absent: Iterable[str], there: Iterable[str], here_path: str, path: str) -> list[str]:
    """The same for the ids ``absent`` of ``here_path``, and those in ``path``."""
    found = written_elsewhere(absent, there, plainly)
    if not found:
        return []
    (here, other), are = found[0], "id is" if len(found) == 1 else "ids are"
    return [
        f"warning: {len(found):,} {are} written in two ways, and so not matched, such as {shown(here)} in {here_path} "
        f"and {shown(other)} in {path}; write both alike"
    ]


def levels_written_twice(path: str, column: str, levels: Iterable[str]) -> list[str]:
    """Warning on labels of a column that may be one in two spellings."""
    found = written_twice(levels)
    if not found:
        return []
    first, second = map(shown, found[0])
    more = f"; so may {len(found) - 1:,} more" if len(found) > 1 else ""
    where = f"warning: {path}, column {column}"
    return [f"{where}: {first} and {second} may be one label written in two ways, and are taken for two{more}"]


def _ids(side: Identified) -> list[tuple[str, str]]:
    samples = as_list(side.sample_id)
    families = ["0"] * len(samples) if side.matches_iid_alone else as_list(side.family_id)
    return list(zip(families, samples, strict=True))


def _first_ids(ids: list[tuple[str, str]]) -> str:
    return ", ".join(f"{family}:{sample}" for family, sample in ids[:SHOWN]) + (", ..." if len(ids) > SHOWN else "")


def _cause(here: list[tuple[str, str]], there: list[tuple[str, str]], here_path: str, path: str, iid_alone: bool) -> str:
    pairs = set(there)
    if any((sample, family) in pairs for family, sample in here):
        return f"FID and IID are swapped in {here_path} or in {path}."
    families = {family for family, _ in there}
    samples = {sample for _, sample in there}
    joined = {f"{family}_{sample}" for family, sample in there}
    common = sum(sample in samples for _, sample in here)
    if common and not iid_alone:
        zero = next((f"; every FID is 0 in {name}" for name, ids in ((here_path, here), (path, there)) if _no_family(ids)), "")
        cause = f"{common:,} IIDs are common but their FIDs differ{zero}. Give both files the same FIDs."
    elif any(sample in families or family in samples for family, sample in here):
        cause = f"the IIDs of one file are the FIDs of the other: a column of {here_path} or of {path} is out of place."
    elif any(sample in joined or f"{family}_{sample}" in samples for family, sample in here):
        cause = "the IIDs of one file are FID_IID joined with an underscore."
    elif other := written_elsewhere((sample for _, sample in here), samples):
        cause = f"numbers are written in two ways: {other[0][0]} in {here_path}, {other[0][1]} in {path}. Write both alike."
    elif {sample.lstrip("0") for _, sample in here} & {sample.lstrip("0") for sample in samples}:
        cause = "leading zeros of the IIDs were lost in one file (001 and 1 are different ids)."
    elif other := written_elsewhere((sample for _, sample in here), samples, plainly):
        pair = " and ".join(map(shown, other[0]))
        cause = f"the IIDs differ in capitals, in signs that cannot be seen, or in how letters are coded: {pair}."
    else:
        cause = "the files are of different cohorts, or their ids were changed."
    return cause


def _no_family(ids: list[tuple[str, str]]) -> bool:
    return all(family == "0" for family, _ in ids)
