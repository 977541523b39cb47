"""A GRM store as one matrix."""

from __future__ import annotations

import numpy as np

from openreml_dist.store.grm import GrmStore


def read_all(store: GrmStore) -> np.ndarray:
    """(n, n) float32, the upper triangle by symmetry."""
    count = -(-store.num_samples // store.chunk_size)
    matrix = np.block([[store.read_chunk(max(i, j), min(i, j)).T if i < j else store.read_chunk(i, j) for j in range(count)]
                       for i in range(count)])  # fmt: skip
    assert matrix.shape == (store.num_samples, store.num_samples)
    return matrix
