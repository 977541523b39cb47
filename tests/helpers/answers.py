"""Reference sets with published or independently computed answers; they lie outside the repository."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

CHECKOUT = Path(__file__).resolve().parents[2]


def references() -> Path:
    """The folder of reference sets; skips the test, and says why, where it is absent."""
    folder = Path(os.environ.get("OPENREML_REFS", CHECKOUT.parent / "shared" / "refs"))
    if not folder.is_dir():
        pytest.skip(f"no reference sets at {folder}; set OPENREML_REFS")
    return folder


def load(name: str) -> tuple[pd.DataFrame, Any]:
    """Data and answers of one set."""
    folder = references() / name
    return pd.read_csv(folder / "data.csv", dtype={"Subject": str, "Rail": str}), json.loads((folder / "reml.json").read_text())


def tensor(values: Any) -> Tensor:
    """Numbers as float64."""
    return torch.tensor(pd.DataFrame(values).to_numpy(dtype=float).squeeze(), dtype=torch.float64)


def treatment_coding(data: pd.DataFrame, factor: str) -> Tensor:
    """X (n, levels): an intercept, and an indicator for every level of the factor but the first."""
    levels = sorted(data[factor].unique())[1:]
    columns = [pd.Series(1.0, index=data.index), *((data[factor] == level).astype(float) for level in levels)]
    return torch.tensor(pd.concat(columns, axis=1).to_numpy(), dtype=torch.float64)
