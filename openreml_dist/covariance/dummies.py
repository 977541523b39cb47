"""Designs of factors: which level each record has, without the zeros."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openreml_dist.covariance.indices import Indices
from openreml_dist.errors import InputError

SEPARATOR = "⋈"  # between the levels of an interaction, as torch-openreml has it


class DummyMatrix:
    """Z (n, q), one-hot: a column for each level of a factor, or for each combination of the levels of several.

    Args:
        factors: level of each of n records, numbers or strings; of several factors the last one's levels vary fastest, and
            every combination has its column, whether it occurs or not.
        levels: the levels of each factor; by default those that occur. A record with another one has a row of zeros.
        lex_order: sort the levels, else leave the given ones in their order.
        drop_first: leave out the first column, for fixed effects beside an intercept.
        dtype, device: of the whole matrix that a call gives.
    Raises:
        InputError: without factors, for factors of different lengths, missing levels, or if no column is left.

    Attributes:
        codes: (n,) column of each record's 1, −1 for none.
        shape: (n, q).
        colnames: q names.
    """

    param_names: tuple[str, ...] = ()
    num_params = 0

    def __init__(
        self,
        *factors: Any,
        levels: Sequence[Sequence[Any]] | None = None,
        lex_order: bool = True,
        drop_first: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        columns = [_Factor.of(factor, place) for place, factor in enumerate(factors)]
        if len({len(column.codes) for column in columns}) != 1:
            lengths = ", ".join(str(len(column.codes)) for column in columns) or "none"
            raise InputError(f"DummyMatrix: factors of one length are needed; there are {lengths}")
        allowed = _levels(columns, levels, lex_order)
        self.colnames = [SEPARATOR.join(map(str, names)) for names in product(*allowed)][int(drop_first) :]
        self.codes: Indices = np.maximum(_codes(columns, allowed) - int(drop_first), -1)
        self.shape = (len(self.codes), len(self.colnames))
        if not self.colnames:
            raise InputError("DummyMatrix: there is one level, and drop_first leaves it out: no column is left")
        self._dtype, self._device = dtype, device

    def __call__(self, theta: Tensor | None = None) -> Tensor:
        """Z (n, q) whole; θ is not used. Local."""
        Z = torch.zeros(self.shape, dtype=self._dtype or torch.get_default_dtype())
        records = np.flatnonzero(self.codes >= 0)
        Z[torch.from_numpy(records), torch.from_numpy(self.codes[records])] = 1
        return Z.to(self._device or "cpu")

    def __repr__(self) -> str:
        """The kind and the size."""
        return f"DummyMatrix({self.shape[0]} x {self.shape[1]})"


@dataclass(frozen=True)
class _Factor:
    """The levels that occur, sorted, and the place (n,) of each record's among them."""

    occurring: list[Any]
    codes: Indices

    @classmethod
    def of(cls, factor: Any, place: int) -> _Factor:
        values = np.asarray(factor)
        if values.ndim != 1 or len(values) == 0:
            raise InputError(f"DummyMatrix: factor {place} has shape {values.shape}; one level a record is needed")
        missing = np.flatnonzero(_missing(values))
        if len(missing) > 0:
            raise InputError(
                f"DummyMatrix: factor {place} has no level in {len(missing)} records, the first of them {missing[0]}"
            )
        occurring, codes = np.unique(values, return_inverse=True)
        return cls(occurring.tolist(), codes.astype(np.int64))


def _missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which values (n,) are None or not a number."""
    if values.dtype == object:
        return np.array([value is None or (isinstance(value, float) and math.isnan(value)) for value in values], np.bool_)
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), np.bool_)


def _levels(columns: list[_Factor], given: Sequence[Sequence[Any]] | None, lex_order: bool) -> list[list[Any]]:
    """The levels of each factor, in order."""
    if given is None:
        return [column.occurring for column in columns]
    if len(given) != len(columns) or any(isinstance(own, str) for own in given):
        raise InputError(f"DummyMatrix: levels must hold one list for each of the {len(columns)} factors")
    for place, own in enumerate(given):
        if len(set(own)) < len(own) or len(own) == 0:
            raise InputError(f"DummyMatrix: the levels of factor {place} must be there and differ")
    return [sorted(own) if lex_order else list(own) for own in given]


def _codes(columns: list[_Factor], levels: list[list[Any]]) -> Indices:
    """Number (n,) of each record's combination of levels, −1 where one of them is not among ``levels``."""
    codes = np.zeros(len(columns[0].codes), np.int64)
    known = np.ones(len(codes), np.bool_)
    for column, own in zip(columns, levels, strict=True):
        numbers = {level: number for number, level in enumerate(own)}
        found = np.array([numbers.get(level, -1) for level in column.occurring], np.int64)[column.codes]
        known &= found >= 0
        codes = codes * len(own) + found
    if not known.all():
        warnings.warn(
            f"DummyMatrix: {int((~known).sum())} of {len(codes)} records have a level that is not among those given: "
            "their rows are zero",
            RuntimeWarning,
            stacklevel=3,
        )
    return np.where(known, codes, -1)
