"""The arithmetic under a relationship matrix: float32 products of blocks of SNPs, added up in float64.

A product over 1,024 SNPs, by BLAS 2,048, is summed in float32, with rounding errors of mean zero, at most about 5e-7 of the sum
for two copies of one sample and less for relatives and strangers; all blocks are summed in float64. The diagonal, where sums
are largest, is summed in float32 over 32 SNPs alone.
"""

from __future__ import annotations

from threading import Lock, local
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from openreml_dist.store.genotype_counts import Dosage

Matrix = NDArray[np.float64]

_AT_ONCE = 64  # SNPs that are standardised while they stay in the cache
_SQUARES_AT_ONCE = 32
_SIDE = 2048  # of a product that is computed before it is added


class Arithmetic(Protocol):
    """What sums over SNPs need, of arrays (SNPs, samples) and (samples, samples) of its own kind; for several threads."""

    @property
    def variants_at_once(self) -> int:
        """SNPs of one product, at most: fewer cost more passes over the sums, more cost digits."""

    def standardised(self, dosage: Dosage, frequency: Matrix) -> Any:
        """``standardise``."""

    def missing(self, dosage: Dosage) -> Any:
        """1 where a genotype is missing, else 0."""

    def zeros(self, *shape: int) -> Any:
        """Sums to begin with."""

    def add_products_(self, total: Any, rows: Any, columns: Any, lock: Lock) -> None:
        """``total`` += rowsᵀ columns, under its lock."""

    def add_squares_(self, total: Any, w: Any, lock: Lock) -> None:
        """``total`` += Σ w² over the SNPs, for each sample, under its lock."""

    def numbers(self, total: Any) -> Matrix:
        """The sums in NumPy."""


class NumpyArithmetic:
    """On the CPU, one thread for each that calls; float64 is the definition itself."""

    variants_at_once = 2048  # BLAS itself sums some 400 at a time in registers

    def __init__(self, dtype: DTypeLike = np.float32) -> None:
        """Multiply in ``dtype``."""
        self._dtype = np.dtype(dtype)
        self._scratch = local()

    def standardised(self, dosage: Dosage, frequency: Matrix) -> NDArray[Any]:
        """As a contiguous array."""
        return standardise(dosage, frequency, self._dtype)

    def missing(self, dosage: Dosage) -> NDArray[Any]:
        """In the same precision: counts below 2^24 are exact in float32."""
        return (dosage < 0).astype(self._dtype)

    def zeros(self, *shape: int) -> Matrix:
        """In float64."""
        return np.zeros(shape)

    def add_products_(self, total: Matrix, rows: NDArray[Any], columns: NDArray[Any], lock: Lock) -> None:
        """By products of at most 2,048 x 2,048, in memory that a thread keeps."""
        if not hasattr(self._scratch, "product"):
            self._scratch.product = np.empty(_SIDE * _SIDE, self._dtype)
        for i in range(0, total.shape[0], _SIDE):
            for j in range(0, total.shape[1], _SIDE):
                part = total[i : i + _SIDE, j : j + _SIDE]
                product = self._scratch.product[: part.size].reshape(part.shape)
                np.matmul(rows[:, i : i + _SIDE].T, columns[:, j : j + _SIDE], out=product)
                with lock:
                    part += product

    def add_squares_(self, total: Matrix, w: NDArray[Any], lock: Lock) -> None:
        """32 SNPs at a time."""
        for start in range(0, len(w), _SQUARES_AT_ONCE):
            some = w[start : start + _SQUARES_AT_ONCE]
            squares = np.einsum("sj,sj->j", some, some)
            with lock:
                total += squares

    def numbers(self, total: Matrix) -> Matrix:
        """As they are."""
        return total


def standardise(dosage: Dosage, frequency: Matrix, dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """w = (x - 2p) / sqrt(2p(1-p)) for SNPs (rows) and samples; 0, the mean, for missing genotypes.

    From the alleles that are rare, x or 2 - x: in float32 the difference of x = 2 and 2p = 1.9999 would have lost its digits.
    """
    counted, mean, scale = allele_scales(frequency, dtype)
    w: NDArray[Any] = np.empty(dosage.shape, dtype)
    for start in range(0, len(dosage), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        x, part = dosage[some], w[some]
        np.copyto(part, x - counted[some])
        part -= mean[some]
        part *= scale[some]
        if x.size and x.min() < 0:
            part *= x >= 0
    return w


def allele_scales(frequency: Matrix, dtype: DTypeLike) -> tuple[Dosage, NDArray[Any], NDArray[Any]]:
    """Columns a, 2p - a and 1 / sqrt(2p(1-p)) of w = ((x - a) - (2p - a)) / sqrt(2p(1-p)), with a = 0 or 2 near 2p."""
    counted = np.where(frequency > 0.5, 2, 0).astype(np.int8)
    scale = 1 / np.sqrt(2 * frequency * (1 - frequency))
    return counted[:, None], (2 * frequency - counted)[:, None].astype(dtype), scale[:, None].astype(dtype)
