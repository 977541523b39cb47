"""Random effects of a grouping factor: samples of one level share an effect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from openreml_dist.covariance.term import VarianceComponent
from openreml_dist.errors import InputError


class Grouping(VarianceComponent):
    """σ²ZZᵀ, Z the one-hot matrix of a factor: 1 where two samples have the same level, 0 elsewhere.

    Args:
        levels: level of each of the n samples, numbers or strings.
        name: name of the component.
    Raises:
        InputError: if all samples have one level (the effect is the intercept) or each its own (it is the residual).
    """

    def __init__(self, levels: Sequence[object] | np.ndarray, name: str) -> None:
        labels, codes = np.unique(np.asarray(levels), return_inverse=True)
        super().__init__(name, len(codes))
        if len(labels) in (1, len(codes)):
            why = "all samples have the same level" if len(labels) == 1 else "every sample has a level of its own"
            raise InputError(f"grouping factor {name}: {why}, so its variance cannot be estimated")
        self.labels = labels
        self._codes = torch.from_numpy(codes.astype(np.int64))

    def relationship(self, rows: range, columns: range, device: torch.device) -> Tensor | None:
        """1.0 where the levels agree; None where no level of the rows is among those of the columns."""
        row_codes = self._codes[rows.start : rows.stop].to(device)
        column_codes = self._codes[columns.start : columns.stop].to(device)
        same = row_codes[:, None] == column_codes[None, :]
        return same.double() if bool(same.any()) else None
