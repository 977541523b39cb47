"""The dense oracle, random problems, and tiles to and from whole matrices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist import Covariance, Grouping, Identity, Kernel
from openreml_dist.covariance import Term
from openreml_dist.grid import ProcessGrid
from openreml_dist.layout import TileLayout
from openreml_dist.tiled import TiledSymmetric


@dataclass(frozen=True)
class Oracle:
    """log-likelihood, score, AI, β̂ and P at one θ, by the formulas, in dense float64."""

    loglik: float
    score: Tensor
    AI: Tensor
    beta: Tensor
    beta_covariance: Tensor
    P: Tensor


def oracle(V: Tensor, dV: list[Tensor], y: Tensor, X: Tensor) -> Oracle:
    V_inv = torch.linalg.inv(V)
    information = X.mT @ V_inv @ X
    P = V_inv - V_inv @ X @ torch.linalg.solve(information, X.mT @ V_inv)
    Py = P @ y
    T = torch.stack([V_k @ Py for V_k in dV], dim=1)
    traces = torch.stack([(P * V_k).sum() for V_k in dV])
    loglik = -0.5 * float(torch.logdet(V) + torch.logdet(information) + y @ Py)
    beta = torch.linalg.solve(information, X.mT @ V_inv @ y)
    return Oracle(loglik, 0.5 * (T.mT @ Py - traces), 0.5 * T.mT @ P @ T, beta, torch.linalg.inv(information), P)


@dataclass(frozen=True)
class Case:
    """A model with its dense matrices."""

    terms: list[Term]
    matrices: list[Tensor]
    y: Tensor
    X: Tensor
    theta: Tensor

    @property
    def covariance(self) -> Covariance:
        return Covariance(self.terms)

    def oracle(self, theta: Tensor | None = None) -> Oracle:
        theta = self.theta if theta is None else theta
        V = sum(float(t) * K for t, K in zip(theta, self.matrices, strict=True))
        assert isinstance(V, Tensor)
        return oracle(V, self.matrices, self.y, self.X)


def random_case(n: int, num_kernels: int = 2, grouping: bool = True, num_fixed: int = 3, seed: int = 0) -> Case:
    """Kernels from random features, a grouping factor, an identity; X with badly scaled columns; y from the model."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    terms: list[Term] = []
    matrices: list[Tensor] = []
    for k in range(num_kernels):
        Z = normal(n, n + 10)
        matrices.append(Z @ Z.mT / (n + 10))
        terms.append(Kernel.from_array(matrices[-1], f"kernel{k}"))
    if grouping:
        levels = torch.arange(n) % max(2, n // 5)
        terms.append(Grouping(levels.numpy(), "group"))
        matrices.append((levels[:, None] == levels[None, :]).double())
    terms.append(Identity(n))
    matrices.append(torch.eye(n, dtype=torch.float64))
    X = torch.cat([torch.ones(n, 1, dtype=torch.float64), normal(n, num_fixed - 1) * 100 + 1000], dim=1)
    theta = torch.linspace(0.3, 0.8, len(terms), dtype=torch.float64)
    V = sum(float(t) * K for t, K in zip(theta, matrices, strict=True))
    y = torch.linalg.cholesky(V) @ normal(n) + X @ torch.full((num_fixed,), 0.01, dtype=torch.float64)
    return Case(terms, matrices, y, X, theta)


def random_positive_definite(n: int, seed: int = 0) -> Tensor:
    """Condition number about 1e4."""
    generator = torch.Generator().manual_seed(seed)
    Q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    return (Q * torch.logspace(-2, 2, n, dtype=torch.float64)) @ Q.mT


def tiled(matrix: Tensor, tile_size: int, grid: ProcessGrid) -> TiledSymmetric:
    """This rank's tiles of a matrix."""
    V = TiledSymmetric(TileLayout(len(matrix), tile_size, grid.shape), grid, matrix.dtype)
    for i, j, tile in V.tiles():
        rows, columns = V.layout.span(i), V.layout.span(j)
        tile.copy_(matrix[rows.start : rows.stop, columns.start : columns.stop])
    return V


def whole(V: TiledSymmetric) -> Tensor:
    """The lower triangle of all tiles, on every rank. Collective."""
    matrix = torch.zeros(V.size, V.size, dtype=V.dtype)
    for i, j, tile in V.tiles():
        rows, columns = V.layout.span(i), V.layout.span(j)
        matrix[rows.start : rows.stop, columns.start : columns.stop] = tile
    return V.grid.sum_(matrix).tril()
