"""Why two inputs have no sample in common: the causes that users meet, each tried in turn."""

from __future__ import annotations

from openreml_dist.store.tables import Ids, Phenotype

SHOWN = 3


def explain_mismatch(pheno: Phenotype, path: str, family_id: Ids, sample_id: Ids, iid_alone: bool) -> str:
    """Message on a phenotype table and another input (of path ``path``) without a common sample.

    Args:
        pheno: the phenotype table.
        path: the other input.
        family_id: its FIDs; not looked at where ``iid_alone``.
        sample_id: its IIDs.
        iid_alone: the other input has no family ids, so that IIDs alone were compared.
    Returns:
        The first ids of each side and the probable cause.
    """
    here = list(zip(pheno.family_id.tolist(), pheno.sample_id.tolist(), strict=True))
    there = list(zip(["0"] * len(sample_id) if iid_alone else family_id, sample_id, strict=True))
    cause = _cause(here, there, pheno.layout.path, path, iid_alone)
    sides = "\n".join(f"  {name}: {_first_ids(ids)}" for name, ids in ((pheno.layout.path, here), (path, there)))
    return f"no sample of {pheno.layout.path} is in {path}; first FID:IID of each:\n{sides}\nProbable cause: {cause}"


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
    elif {sample.lstrip("0") for _, sample in here} & {sample.lstrip("0") for sample in samples}:
        cause = "leading zeros of the IIDs were lost in one file (001 and 1 are different ids)."
    else:
        cause = "the files are of different cohorts, or their ids were changed."
    return cause


def _no_family(ids: list[tuple[str, str]]) -> bool:
    return all(family == "0" for family, _ in ids)
