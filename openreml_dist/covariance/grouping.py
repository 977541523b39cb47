"""Random effects of a grouping factor: samples of one level share an effect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openreml_dist.covariance.checks import coded
from openreml_dist.covariance.component import VarianceComponent
from openreml_dist.covariance.indices import Indices, Samples, distinct, take
from openreml_dist.covariance.products import Work
from openreml_dist.covariance.term import Term
from openreml_dist.errors import InputError

BLOCK = 4096  # samples whose rows of B are converted at once


class SameLevel(Term):
    """ZZᵀ, Z the one-hot matrix of a factor: 1 where two samples have the same level, 0 elsewhere.

    Args:
        levels: level of each of the n samples, numbers or strings.
        name: in messages.

    Attributes:
        labels: the levels in order.
        codes: (n,) place of each sample's level among them.
    """

    is_sparse = True
    has_product = True

    def __init__(self, levels: Sequence[object] | NDArray[np.generic], name: str) -> None:
        self.labels, self.codes = coded(levels, name)
        self.name = name
        self.size = len(self.codes)

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """1.0 where the levels agree; None where no level of the rows is among those of the columns."""
        here, there = take(self.codes, rows), take(self.codes, columns)
        if np.intersect1d(here, there).size == 0:  # on the host: asking the device would wait for it
            return None
        row_codes, column_codes = (torch.tensor(codes, device=device) for codes in (here, there))
        return (row_codes[:, None] == column_codes[None, :]).double()

    def add_times_(self, product: Tensor, B: Tensor, eta: Tensor, work: Work, factor: float = 1.0) -> None:
        """Z(ZᵀB): sums over the samples of each level, which this rank gives to its part of the samples. O(nm) flops."""
        sums = torch.zeros(len(self.labels), B.shape[1], dtype=torch.float64, device=B.device)
        for some in _in_blocks(range(self.size)):
            sums.index_add_(0, self._codes_of(some, B.device), B[some.start : some.stop].double())
        sums *= factor
        for some in _in_blocks(work.part_of(self.size)):
            product[some.start : some.stop] += sums[self._codes_of(some, B.device)].to(product.dtype)
        work.progress(1.0)

    def _codes_of(self, samples: range, device: torch.device) -> Tensor:
        return torch.from_numpy(take(self.codes, samples)).to(device)

    @property
    def distinct_rows(self) -> tuple[Indices, Indices] | None:
        """One for each level."""
        return distinct(self.codes)

    @property
    def groups(self) -> Indices | None:
        """First sample of each sample's level: the same for two factors that group alike."""
        first, level = distinct(self.codes)
        return first[level]

    def selected(self, samples: Indices) -> SameLevel:
        """The levels of some samples."""
        return SameLevel(self.labels[self.codes[samples]], self.name)


class Grouping(VarianceComponent):
    """σ²ZZᵀ, Z the one-hot matrix of a factor.

    Args:
        levels: level of each of the n samples, numbers or strings.
        name: name of the component.
    Raises:
        InputError: if all samples have one level (the effect is the intercept) or each its own (it is the residual).
    """

    K: SameLevel

    def __init__(self, levels: Sequence[object] | NDArray[np.generic], name: str) -> None:
        super().__init__(SameLevel(levels, name), name)
        if len(self.K.labels) in (1, self.size):
            why = "all samples have the same level" if len(self.K.labels) == 1 else "every sample has a level of its own"
            raise InputError(f"grouping factor {name}: {why}, so its variance cannot be estimated")


def _in_blocks(samples: range) -> list[range]:
    return [samples[start : start + BLOCK] for start in range(0, len(samples), BLOCK)]
