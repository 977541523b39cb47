"""Genotypes with linkage disequilibrium and missing calls, packed as a store has them and standardised as the formulas do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openreml_dist.genotypes import GenotypeOperator, PackedGenotypes
from openreml_dist.genotypes.operator import own_samples
from openreml_dist.genotypes.packed import pack
from openreml_dist.grid import ProcessGrid
from openreml_dist.reml.stochastic.problem import Problem
from tests.helpers.oracle import Oracle, oracle

CODE = np.array([3, 2, 0], dtype=np.uint8)  # of no, one, two counted alleles


@dataclass(frozen=True)
class Genotypes:
    """Counts of alleles (m, n), -1 missing, with y and X, and components that SNPs are dealt to in turn."""

    counts: NDArray[np.int64]
    y: Tensor
    X: Tensor
    annotation: Tensor

    @classmethod
    def simulated(
        cls, n: int, m: int, h2: float = 0.5, num_components: int = 1, missing: float = 0.02, p: int = 2, seed: int = 1
    ) -> Genotypes:
        """Haplotypes that copy their neighbour nine times in ten, and a trait of all SNPs."""
        rng = np.random.default_rng(seed)
        frequency = rng.uniform(0.2, 0.8, m)

        def haplotypes() -> NDArray[np.float64]:
            latent = rng.standard_normal((m, n))
            for j in range(1, m):
                if j % 50:
                    latent[j] = 0.9 * latent[j - 1] + np.sqrt(1 - 0.81) * latent[j]
            return latent < np.quantile(rng.standard_normal(20_000), frequency)[:, None]

        counts = haplotypes().astype(np.int64) + haplotypes()
        annotation = torch.zeros(m, num_components, dtype=torch.float64)
        annotation[torch.arange(m), torch.arange(m) % num_components] = 1
        made = cls(counts, torch.zeros(n), torch.zeros(n, p), annotation)
        genetic = made.Z.mT.numpy() @ rng.standard_normal(m) * np.sqrt(h2 / m)
        y = torch.from_numpy(genetic + rng.standard_normal(n) * np.sqrt(1 - h2))
        X = torch.from_numpy(np.column_stack([np.ones(n), *(rng.standard_normal(n) for _ in range(p - 1))]))
        return cls(np.where(rng.random((m, n)) < missing, -1, counts), y, X, annotation)

    @property
    def frequency(self) -> NDArray[np.float64]:
        called = self.counts >= 0
        return np.where(called, self.counts, 0).sum(axis=1) / (2 * called.sum(axis=1))

    @property
    def Z(self) -> Tensor:
        """(m, n) standardised, 0 where missing."""
        mean = 2 * self.frequency[:, None]
        return torch.from_numpy(np.where(self.counts >= 0, self.counts - mean, 0) / np.sqrt(mean * (1 - mean / 2)))

    @property
    def matrices(self) -> list[Tensor]:
        """Zᵀ diag(w_k) Z of every component, and the identity."""
        Z, weights = self.Z, self.annotation / self.annotation.sum(dim=0)
        return [*(Z.mT @ (w[:, None] * Z) for w in weights.mT), torch.eye(len(self.y), dtype=torch.float64)]

    def read_packed(self, variants: slice) -> NDArray[np.uint8]:
        codes = np.where(self.counts[variants] < 0, 1, CODE[self.counts[variants]]).astype(np.uint8)
        return pack(torch.from_numpy(codes)).numpy()

    def operator(self, grid: ProcessGrid, cache_bytes: float = 0.0) -> GenotypeOperator:
        m, n = self.counts.shape
        own = own_samples(n, grid)
        packed = PackedGenotypes.read(self, np.arange(m), np.arange(n)[own.start : own.stop], grid.device, cache_bytes)
        return GenotypeOperator(packed, torch.from_numpy(self.frequency).to(grid.device), grid, own, n)

    def problem(self, grid: ProcessGrid, block: int = 512) -> Problem:
        return Problem.of(self.operator(grid), self.annotation, self.y, self.X, block)

    def oracle(self, theta: Tensor) -> Oracle:
        V = sum(float(t) * K for t, K in zip(theta, self.matrices, strict=True))
        assert isinstance(V, Tensor)
        return oracle(V, self.matrices, self.y, self.X)
