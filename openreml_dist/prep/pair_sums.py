"""Sums over SNPs for the pairs of samples of several blocks: of products, and of SNPs that are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from openreml_dist.prep.products import Arithmetic, Matrix
from openreml_dist.store.genotype_counts import Dosage

Block = tuple[slice, slice]
"""Rows and columns, as ranges of samples."""

_LEAST_SQUARE = 128  # on the diagonal: half of its products are computed for nothing


@dataclass(frozen=True, eq=False)
class BlockSum:
    """The sums of a block; of the square where its rows are the last columns, the lower triangle, and its diagonal apart."""

    rows: slice
    columns: slice
    total: Any
    diagonal: Any | None
    lock: Lock

    def add(self, w: Any, arithmetic: Arithmetic) -> None:
        """Add wᵀw of some SNPs (SNPs, held samples)."""
        if self.diagonal is None:
            arithmetic.add_products_(self.total, w[:, self.rows], w[:, self.columns], self.lock)
            return
        w_rows, before = w[:, self.rows], self.rows.start - self.columns.start
        if before:
            arithmetic.add_products_(self.total[:, :before], w_rows, w[:, self.columns.start : self.rows.start], self.lock)
        self._add_lower(self.total[:, before:], w_rows, arithmetic, max(_LEAST_SQUARE, w_rows.shape[1] // 8))
        arithmetic.add_squares_(self.diagonal, w_rows, self.lock)

    def _add_lower(self, total: Any, w: Any, arithmetic: Arithmetic, least: int) -> None:
        size = w.shape[1]
        if size <= least:
            arithmetic.add_products_(total, w, w, self.lock)
            return
        half = (size + 1) // 2
        arithmetic.add_products_(total[half:, :half], w[:, half:], w[:, :half], self.lock)
        self._add_lower(total[:half, :half], w[:, :half], arithmetic, least)
        self._add_lower(total[half:, half:], w[:, half:], arithmetic, least)

    def matrix(self, arithmetic: Arithmetic) -> Matrix:
        """The whole block."""
        total = arithmetic.numbers(self.total)
        if self.diagonal is not None:
            square = total[:, self.rows.start - self.columns.start :]
            lower = np.tril(square, -1)
            square[...] = lower + lower.T
            np.fill_diagonal(square, arithmetic.numbers(self.diagonal))
        return total


class Sums:
    """Σ_s w_sj w_sk for the pairs of several blocks."""

    def __init__(self, blocks: Sequence[Block], arithmetic: Arithmetic) -> None:
        """Start at zero; blocks are places among the held samples."""
        self._arithmetic = arithmetic
        self._blocks = [self._block(rows, columns) for rows, columns in blocks]

    def _block(self, rows: slice, columns: slice) -> BlockSum:
        height, width = rows.stop - rows.start, columns.stop - columns.start
        ends_it = columns.start <= rows.start and columns.stop == rows.stop
        diagonal = self._arithmetic.zeros(height) if ends_it else None
        return BlockSum(rows, columns, self._arithmetic.zeros(height, width), diagonal, Lock())

    def add(self, w: Any) -> None:
        """Add the products of some SNPs (SNPs, held samples). Several threads may call it."""
        for block in self._blocks:
            block.add(w, self._arithmetic)

    def matrix(self, number: int) -> Matrix:
        """The sums of a block."""
        return self._blocks[number].matrix(self._arithmetic)


class MissingPairs:
    """Counts, for pairs of samples, the SNPs that are missing in one or both. Costs nothing until a genotype is missing."""

    def __init__(self, blocks: Sequence[Block], arithmetic: Arithmetic, num_samples: int) -> None:
        """Start with no SNP missing; blocks are places among the ``num_samples`` held."""
        self._blocks, self._arithmetic = blocks, arithmetic
        self._alone = np.zeros(num_samples)
        self._both: Sums | None = None
        self._lock = Lock()

    def add(self, dosage: Dosage) -> None:
        """Count the missing genotypes of some SNPs (SNPs, held samples). Several threads may call it."""
        if dosage.min() >= 0:
            return
        some = dosage[dosage.min(axis=1) < 0]
        with self._lock:
            self._alone += np.count_nonzero(some < 0, axis=0)
            self._both = self._both or Sums(self._blocks, self._arithmetic)
        self._both.add(self._arithmetic.missing(some))

    def called_in_both(self, number: int, num_variants: int) -> Matrix:
        """N_jk = m - u_j - u_k + u_jk of a block, u the SNPs missing in one sample or both; (1, 1) where none is missing."""
        if self._both is None:
            return np.full((1, 1), float(num_variants))
        rows, columns = self._blocks[number]
        return num_variants - self._alone[rows][:, None] - self._alone[columns] + self._both.matrix(number)
