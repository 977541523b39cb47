"""Random mixed models, as terms and as dense matrices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist import Covariance, Grouping, Identity, Kernel
from tests.helpers.dense import DenseStep, dense_step


@dataclass(frozen=True)
class MixedModel:
    """y ~ N(Xβ, Σθ_k K_k): K kernels, a grouping factor if wanted, and the residual.

    Attributes:
        relationships: r dense (n, n) matrices, the truth behind ``covariance``.
        theta: (r,) a point well inside the bounds.
    """

    covariance: Covariance
    relationships: list[Tensor]
    y: Tensor
    X: Tensor
    theta: Tensor

    def V(self, theta: Tensor) -> Tensor:
        """Dense V(θ) (n, n)."""
        return torch.einsum("k,kij->ij", theta, torch.stack(self.relationships))

    def dense(self, theta: Tensor, jitter: float = 0.0) -> DenseStep:
        """What the oracle says at θ."""
        V = self.V(theta) + jitter * torch.eye(len(self.y), dtype=torch.float64)
        return dense_step(V, self.relationships, self.X, self.y)


def mixed_model(
    n: int, num_kernels: int = 1, p: int = 2, seed: int = 0, *, grouping: bool = True, order: Tensor | None = None
) -> MixedModel:
    """The same model for the same seed; ``order`` lists the samples in another order."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    relationships = []
    for _ in range(num_kernels):
        genotypes = normal(n, n // 2 + 5)
        relationships.append(genotypes @ genotypes.mT / genotypes.shape[1])
    levels = torch.randperm(n, generator=generator) % max(2, n // 6)
    if grouping:
        relationships.append((levels[:, None] == levels[None, :]).double())
    relationships.append(torch.eye(n, dtype=torch.float64))
    theta = 0.3 + torch.rand(len(relationships), generator=generator, dtype=torch.float64)
    X = torch.cat([torch.ones(n, 1, dtype=torch.float64), normal(n, p - 1)], dim=1)
    V = torch.einsum("k,kij->ij", theta, torch.stack(relationships))
    y = X @ normal(p) + torch.linalg.cholesky(V) @ normal(n)

    if order is not None:
        relationships = [K[order][:, order] for K in relationships]
        levels, X, y = levels[order], X[order], y[order]
    terms = [Kernel.from_array(K, f"kernel{k}") for k, K in enumerate(relationships[:num_kernels])]
    factor = [Grouping(levels.numpy(), "group")] if grouping else []
    return MixedModel(Covariance([*terms, *factor, Identity(n)]), relationships, y, X, theta)
