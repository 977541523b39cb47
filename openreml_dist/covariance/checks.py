"""What a caller may have got wrong: sizes, numbers, levels and samples, refused where they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import InputError

MISSING = frozenset({"nan", "None", "<NA>", "NaT"})


def count_of(n: Any, name: str) -> int:
    """``n`` as a number of samples.

    Raises:
        InputError: if it is no integer, or below 1.
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise InputError(f"{name}: a number of samples of at least 1 is needed, not {n!r}")
    return int(n)


def finite_numbers(values: Any, name: str, what: str) -> NDArray[np.float64]:
    """``values`` as float64.

    Raises:
        InputError: naming ``what`` is needed, if they are no numbers, not finite, or none.
    """
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: {what} needed, not text") from error
    if numbers.size == 0 or not bool(np.isfinite(numbers).all()):
        raise InputError(f"{name}: {what} needed; {'there are none' if numbers.size == 0 else 'some are not finite'}")
    return numbers


def coded(levels: Sequence[object] | NDArray[np.generic], name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The labels of a factor in order, and the place of each sample's level among them; levels of mixed types are text.

    Raises:
        InputError: without samples, for another shape than (n,), or for a sample without a level.
    """
    values = np.asarray(levels)
    if values.ndim != 1 or not len(values):
        raise InputError(f"{name}: one level a sample is needed, not an array of shape {values.shape}")
    if values.dtype.kind in "US" and not isinstance(levels, np.ndarray):
        values = np.array(list(levels), object)  # as they were before NumPy made text of them
    if values.dtype.kind in "OfM":
        without = [place for place, value in enumerate(values.tolist()) if str(value) in MISSING and not isinstance(value, str)]
        if without:
            raise InputError(f"{name}: {len(without)} samples have no level, the first of them number {without[0] + 1}")
    if values.dtype.kind == "O" and len({type(value) for value in values}) > 1:
        values = values.astype(str)
    labels, codes = np.unique(values, return_inverse=True)
    return labels, codes.astype(np.int64)


def samples_of(samples: Any, size: int, name: str) -> NDArray[np.int64]:
    """``samples`` as places among ``size``.

    Raises:
        InputError: if they are no integers from 0 on, below ``size``.
    """
    places = np.asarray(samples)
    if places.ndim != 1 or places.dtype.kind not in "iu":
        raise InputError(f"{name}: samples are selected by their numbers, not by {places.dtype} of shape {places.shape}")
    if len(places) and not 0 <= int(places.min()) <= int(places.max()) < size:
        raise InputError(f"{name}: samples 0 to {size - 1} can be selected, not {int(places.min())} to {int(places.max())}")
    return np.ascontiguousarray(places, np.int64)
