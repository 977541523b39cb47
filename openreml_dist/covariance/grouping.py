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
        self._codes = codes.astype(np.int64)
        self._on_device: dict[torch.device, Tensor] = {}

    def relationship(self, rows: range, columns: range, device: torch.device) -> Tensor | None:
        """1.0 where the levels agree; None where no level of the rows is among those of the columns."""
        here, there = self._codes[rows.start : rows.stop], self._codes[columns.start : columns.stop]
        if np.intersect1d(here, there).size == 0:  # on the host: asking the device would wait for it
            return None
        if device not in self._on_device:
            self._on_device[device] = torch.from_numpy(self._codes).to(device)
        codes = self._on_device[device]
        return (codes[rows.start : rows.stop, None] == codes[None, columns.start : columns.stop]).double()
