"""What is remarkable about the phenotypes of a run, with the names of the samples: terminal, log and ``result.json``."""

from __future__ import annotations

from typing import Any

import numpy as np

from openreml_dist.app.inputs.samples import Inputs
from openreml_dist.app.session import Session
from openreml_dist.covariance import Covariance
from openreml_dist.covariance.component import NO_PARAMETERS, VarianceComponent, mean_diagonal
from openreml_dist.log import LOGGER
from openreml_dist.reml.remarks import Remark, remarks_on

USUAL = (0.5, 2.0)  # mean diagonals of matrices of relationships, inbred ones included


def say_remarks(here: Session, inputs: Inputs) -> list[dict[str, Any]]:
    """Say what is remarkable, and give it as ``result.json`` has it. Collective; rank 0 looks, the others have none."""
    with here.grid.together("looking at the phenotype"):
        found = remarks_by_trait(inputs) if here.grid.is_root else []
    for entry in found:
        line = f"remark on {entry['trait']}: {entry['sentence']}"
        here.say(line)
        LOGGER.info(line)
    return found


def say_scales(here: Session, covariance: Covariance) -> list[dict[str, Any]]:
    """Say which relationship matrices are on another scale than relationships: a variance of theirs is no part of that of y.

    Collective; rank 0 reads one chunk of each, the others have none.
    """
    with here.grid.together("looking at the relationship matrices"):
        found = scales_of(covariance) if here.grid.is_root else []
    for entry in found:
        here.say(f"warning: {entry['sentence']}")
        LOGGER.warning(entry["sentence"])
    return found


def scales_of(covariance: Covariance) -> list[dict[str, Any]]:
    """An entry for each kernel whose mean diagonal is far from 1. Local."""
    found = []
    for term in covariance.kernels:
        assert isinstance(term, VarianceComponent)
        scale = mean_diagonal(term.K, NO_PARAMETERS)
        if not USUAL[0] <= scale <= USUAL[1]:
            sentence = (
                f"the diagonal of {term.name} is {scale:.3g} in the mean, not about 1: its variance is that of a relationship "
                "of 1, and proportions of the sum of variances are no heritabilities; divide the matrix by that number, if its "
                "scale is a mistake"
            )
            found.append({"trait": term.name, "kind": "scale", "mean_diagonal": scale, "sentence": sentence})
    return found


def remarks_by_trait(inputs: Inputs) -> list[dict[str, Any]]:
    """The remarks on each trait, as ``result.json`` has them. Local."""
    found = []
    for trait, rows in _rows_by_trait(inputs).items():
        X = inputs.X[rows]
        if inputs.traits is not None:
            X = X[:, X.any(axis=0)]  # the others are fixed effects of other traits
        found += [_entry(inputs, trait, rows, remark) for remark in remarks_on(inputs.y[rows], X)]
    return found


def _rows_by_trait(inputs: Inputs) -> dict[str, Any]:
    """Records of each trait, in the order of the traits."""
    if inputs.traits is None:
        return {inputs.trait: slice(None)}
    return {str(trait): np.flatnonzero(inputs.traits == trait) for trait in dict.fromkeys(inputs.traits)}


def _entry(inputs: Inputs, trait: str, rows: Any, remark: Remark) -> dict[str, Any]:
    families, samples = inputs.family_id[rows], inputs.sample_id[rows]

    def name(record: int) -> str:
        family = "" if families[record] == "0" else f"{families[record]}:"
        return f"{family}{samples[record]}"

    return {
        "trait": trait,
        "kind": remark.kind,
        "of": remark.of,
        "sentence": remark.sentence(name),
        "count": remark.count,
        "samples": [
            {"fid": str(families[record]), "iid": str(samples[record]), "value": value, "distance_sd": distance}
            for record, value, distance in zip(remark.records, remark.values, remark.distances, strict=True)
        ],
    }
