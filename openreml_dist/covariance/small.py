"""Covariance matrices of a few levels: traits, environments, coefficients of a regression.

Such a G (q, q) is one factor of a term: ``KroneckerProduct(G, K)``, ``HadamardProduct(G.selected(trait), K.selected(animal))``,
``CovariancePropagation(covariates, G)``.

Legend: q levels; G = LLᵀ, or ΛΛᵀ + Ψ with loadings Λ (q, f).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from openreml_dist.covariance.parameters import Parameter
from openreml_dist.covariance.term import Samples, Term, as_indices, forward_derivatives
from openreml_dist.errors import InputError


class SmallMatrix(Term):
    """A symmetric G(η) (q, q) that is built whole, its derivatives by forward-mode differentiation.

    Args:
        levels: their names, or how many there are.
        name: in messages and before the names of parameters.
    """

    def __init__(self, levels: Sequence[str] | int, name: str) -> None:
        self.levels = tuple(map(str, range(1, levels + 1) if isinstance(levels, int) else levels))
        if len(set(self.levels)) < len(self.levels) or not self.levels:
            raise InputError(f"{name}: levels must be there and differ: {', '.join(self.levels)}")
        self.name = name
        self.size = len(self.levels)

    @abstractmethod
    def matrix(self, eta: Tensor) -> Tensor:
        """G (q, q), differentiable in η."""

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """G at levels."""
        return _at(self.matrix(eta).to(device), rows, columns)

    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """∂G/∂η_k at levels."""
        return [_at(derivative.to(device), rows, columns) for derivative in forward_derivatives(self.matrix, eta)]

    def summary(self, eta: Tensor) -> dict[str, Tensor]:
        """Variances, covariances and correlations."""
        G = self.matrix(eta)
        variances = {f"{self.name}.variance[{level}]": G[a, a] for a, level in enumerate(self.levels)}
        pairs = [(a, b) for a in range(self.size) for b in range(a)]
        label = {(a, b): f"{self.levels[b]},{self.levels[a]}" for a, b in pairs}
        covariances = {f"{self.name}.covariance[{label[a, b]}]": G[a, b] for a, b in pairs}
        correlations = {f"{self.name}.correlation[{label[a, b]}]": G[a, b] / (G[a, a] * G[b, b]).sqrt() for a, b in pairs}
        return variances | covariances | correlations


class Unstructured(SmallMatrix):
    """Any positive semidefinite G, by its Cholesky factor: q(q+1)/2 parameters L_ab, b ≤ a, with L_aa ≥ 0."""

    def __init__(self, levels: Sequence[str] | int, name: str) -> None:
        super().__init__(levels, name)
        self._places = [(a, b) for a in range(self.size) for b in range(a + 1)]
        self.parameters = tuple(
            Parameter(
                f"{name}.L[{self.levels[a]},{self.levels[b]}]", "loading", vanishes=a == b, lower=0.0 if a == b else -math.inf
            )
            for a, b in self._places
        )

    def matrix(self, eta: Tensor) -> Tensor:
        """LLᵀ."""
        rows, columns = zip(*self._places, strict=True)
        L = torch.zeros(self.size, self.size, dtype=eta.dtype, device=eta.device).index_put(
            (torch.tensor(rows, device=eta.device), torch.tensor(columns, device=eta.device)), eta
        )
        return L @ L.mT

    def eta_of(self, G: Tensor) -> Tensor:
        """η of a positive definite G (q, q)."""
        L = torch.linalg.cholesky(G.double())
        return torch.stack([L[a, b] for a, b in self._places])

    def start(self, squares: Tensor, share: float) -> Tensor:
        """Uncorrelated levels, each with its share."""
        return self.eta_of(torch.diag(_positive(squares, share)))


class FactorAnalytic(SmallMatrix):
    """G = ΛΛᵀ + Ψ: f common factors and a specific variance ψ_a ≥ 0 of each level.

    Λ_ab is 0 for b > a, which fixes its rotation.

    Args:
        levels: their names, or how many there are.
        factors: f < q.
        name: in messages and before the names of parameters.
    """

    def __init__(self, levels: Sequence[str] | int, factors: int, name: str) -> None:
        super().__init__(levels, name)
        if not 1 <= factors < self.size:
            raise InputError(
                f"{name}: {factors} factors for {self.size} levels; there must be at least 1, and fewer than levels"
            )
        self.factors = factors
        self._places = [(a, b) for b in range(factors) for a in range(b, self.size)]
        self.parameters = (
            *(Parameter(f"{name}.loading{b + 1}[{self.levels[a]}]", "loading") for a, b in self._places),
            *(Parameter.variance(f"{name}.specific[{level}]") for level in self.levels),
        )

    def matrix(self, eta: Tensor) -> Tensor:
        """ΛΛᵀ + Ψ."""
        count = len(self._places)
        rows, columns = zip(*self._places, strict=True)
        loadings = torch.zeros(self.size, self.factors, dtype=eta.dtype, device=eta.device).index_put(
            (torch.tensor(rows, device=eta.device), torch.tensor(columns, device=eta.device)), eta[:count]
        )
        return loadings @ loadings.mT + torch.diag(eta[count:])

    def start(self, squares: Tensor, share: float) -> Tensor:
        """Half of each level's share is common, split evenly among its factors, half specific."""
        variances = _positive(squares, share)
        loadings = [(0.5 * variances[a] / min(a + 1, self.factors)).sqrt() for a, _ in self._places]
        return torch.cat([torch.stack(loadings), 0.5 * variances])


class DiagonalLevels(SmallMatrix):
    """A variance a level, uncorrelated."""

    def __init__(self, levels: Sequence[str] | int, name: str) -> None:
        super().__init__(levels, name)
        self.parameters = tuple(Parameter.variance(f"{name}.{level}") for level in self.levels)

    def matrix(self, eta: Tensor) -> Tensor:
        """The variances on the diagonal."""
        return torch.diag(eta)

    def summary(self, eta: Tensor) -> dict[str, Tensor]:
        """Nothing beside the parameters."""
        return {}

    def start(self, squares: Tensor, share: float) -> Tensor:
        """Each level's share."""
        return _positive(squares, share)


def _at(G: Tensor, rows: Samples, columns: Samples) -> Tensor:
    here, there = (torch.tensor(as_indices(samples), device=G.device) for samples in (rows, columns))
    return G[here[:, None], there[None, :]]


def _positive(squares: Tensor, share: float) -> Tensor:
    """Shares of the squares, none of them 0."""
    values = share * squares.double()
    return values.clamp_min(1e-3 * float(values.mean()))
