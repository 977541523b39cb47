"""Layouts of the files of predictions, and which columns of X are one covariate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from openreml_dist.app.inputs.samples import Inputs
from openreml_dist.app.snp_effects import SnpEffects
from openreml_dist.reml import Effects


def covariates(terms: tuple[str, ...]) -> dict[str, list[int]]:
    """Columns of X by covariate, without the intercept; ``terms`` names the covariate of each column."""
    groups: dict[str, list[int]] = {}
    for column, term in enumerate(terms):
        if term.lower() != "intercept":
            groups.setdefault(term, []).append(column)
    return groups


def indi_blp(inputs: Inputs, effects: list[Effects], variances: Tensor, Py: Tensor) -> str:
    """Lines of GCTA's ``.indi.blp``: FID, IID, then σ²Py and u of each component, the residual last, and a tab at the end."""
    columns = [column for made, variance in zip(effects, variances, strict=True) for column in (variance * Py, made.values)]
    labels = zip(inputs.family_id.tolist(), inputs.sample_id.tolist(), strict=True)
    return _lines(labels, torch.stack(columns, dim=1).tolist())


def snp_blp(effects: SnpEffects) -> str:
    """Lines of GCTA's ``.snp.blp``: SNP, counted allele, effect in each component, and a tab at the end."""
    return _lines(zip(effects.names.tolist(), effects.alleles.tolist(), strict=True), effects.values.tolist())


def blup_table(inputs: Inputs, effects: list[Effects]) -> Any:
    """FID, IID, and for each term its effects, with error variances and reliabilities where there are any: a data frame."""
    import pandas as pd

    columns: dict[str, Any] = {"FID": inputs.family_id, "IID": inputs.sample_id}
    for made in effects:
        numbers = {"": made.values, ".pev": made.pev, ".reliability": made.reliability}
        columns |= {made.name + suffix: values.numpy() for suffix, values in numbers.items() if values is not None}
    return pd.DataFrame(columns)


def _lines(labels: Iterable[tuple[str, str]], numbers: list[list[float]]) -> str:
    """Two labels and numbers of 6 digits a line, each with a tab behind it."""
    lines = []
    for (first, second), row in zip(labels, numbers, strict=True):
        cells = (first, second, *(f"{number:.6g}" for number in row))
        lines.append("\t".join(cells) + "\t\n")
    return "".join(lines)
