"""Zᵀ diag(w) Z of packed genotypes, chunk by chunk as a store of relationships would give it: for exact fits of few samples.

Legend: n samples, m SNPs, b samples of a chunk.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openreml_dist.genotypes.packed import PackedGenotypes

WIDEST = 1024  # samples of a chunk
SUMMED = 4096  # SNPs that are summed in single precision, before the sums are added up in double


class Relationships:
    """One component's matrix, of standardised genotypes with missing ones at their mean.

    Args:
        packed: all n samples, in tiles that are the chunks.
        frequency: (m,) float64, of the counted allele; not 0 or 1.
        weights: (m,) w, the part of each SNP in the matrix.
    """

    in_memory = False

    def __init__(self, packed: PackedGenotypes, frequency: Tensor, weights: Tensor) -> None:
        self._packed = packed
        self._mean = (2 * frequency).float()
        self._root = (weights / (2 * frequency * (1 - frequency))).sqrt().float()
        self._alone = threading.Lock()  # unpacked tiles share memory

    @property
    def chunk_size(self) -> int:
        """b."""
        return self._packed.width

    def read_chunk(self, i: int, j: int) -> NDArray[np.float32]:
        """(b, b) float32. Local. Cost: 2mb² flops, and 2mb genotypes to unpack."""
        with self._alone:
            A = self._standardised(i)
            B = A if i == j else self._standardised(j)
            K = torch.zeros(A.shape[1], B.shape[1], dtype=torch.float64, device=A.device)
            for start in range(0, len(A), SUMMED):
                K += A[start : start + SUMMED].mT @ B[start : start + SUMMED]
        made: NDArray[np.float32] = K.float().cpu().numpy()
        return made

    def _standardised(self, number: int) -> Tensor:
        """√w ∘ Z (m, b) of a tile, float32."""
        return (self._packed.tile(number, self._mean) - self._mean[:, None]).mul_(self._root[:, None])
