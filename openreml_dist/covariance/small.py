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

from openreml_dist.covariance.indices import Samples, as_indices
from openreml_dist.covariance.parameters import Parameter, Quantity
from openreml_dist.covariance.term import Term
from openreml_dist.errors import InputError


class SmallMatrix(Term):
    """A symmetric G(η) (q, q) that is built whole, with its derivatives.

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

    @abstractmethod
    def slopes(self, eta: Tensor) -> Sequence[Tensor]:
        """∂G/∂η_k (q, q) for every k."""

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """G at levels."""
        (values,) = _at([self.matrix(eta)], rows, columns, device)
        return values

    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """∂G/∂η_k at levels."""
        return _at(self.slopes(eta), rows, columns, device)

    def summary(self, eta: Tensor) -> dict[Quantity, Tensor]:
        """Variances, covariances and correlations."""
        G = self.matrix(eta)
        pairs = [(a, b) for a in range(self.size) for b in range(a)]

        def quantity(unit: str, *levels: int) -> Quantity:
            names = tuple(self.levels[a] for a in levels)
            return Quantity(f"{self.name}.{unit}[{','.join(names)}]", unit, names)

        variances = {quantity("variance", a): G[a, a] for a in range(self.size)}
        covariances = {quantity("covariance", b, a): G[a, b] for a, b in pairs}
        correlations = {quantity("correlation", b, a): G[a, b] / (G[a, a] * G[b, b]).sqrt() for a, b in pairs}
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
        L = _with(eta, self._places, (self.size, self.size))
        return L @ L.mT

    def slopes(self, eta: Tensor) -> Sequence[Tensor]:
        """E_ab Lᵀ + L E_abᵀ, E_ab with a 1 at (a, b)."""
        return _slopes_of_square(_with(eta, self._places, (self.size, self.size)), self._places)

    def eta_of(self, G: Tensor) -> Tensor:
        """η of a positive definite G (q, q)."""
        L = torch.linalg.cholesky(G.double())
        return torch.stack([L[a, b] for a, b in self._places])

    def start(self, squares: Tensor, proportion: float) -> Tensor:
        """Uncorrelated levels, each with its proportion."""
        return self.eta_of(torch.diag(_positive(squares, proportion)))


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
        loadings = self._loadings(eta)
        return loadings @ loadings.mT + torch.diag(eta[len(self._places) :])

    def slopes(self, eta: Tensor) -> Sequence[Tensor]:
        """E_ab Λᵀ + Λ E_abᵀ, and a 1 on the diagonal."""
        return [*_slopes_of_square(self._loadings(eta), self._places), *_diagonal_ones(eta[len(self._places) :])]

    def _loadings(self, eta: Tensor) -> Tensor:
        """Λ (q, f)."""
        return _with(eta[: len(self._places)], self._places, (self.size, self.factors))

    def start(self, squares: Tensor, proportion: float) -> Tensor:
        """Half of each level's proportion is common, split evenly among its factors, half specific."""
        variances = _positive(squares, proportion)
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

    def slopes(self, eta: Tensor) -> Sequence[Tensor]:
        """A 1 on the diagonal."""
        return _diagonal_ones(eta)

    def summary(self, eta: Tensor) -> dict[Quantity, Tensor]:
        """Nothing beside the parameters."""
        return {}

    def start(self, squares: Tensor, proportion: float) -> Tensor:
        """Each level's proportion."""
        return _positive(squares, proportion)


def _at(matrices: Sequence[Tensor], rows: Samples, columns: Samples, device: torch.device) -> list[Tensor]:
    """Each G[rows, columns]: the few rows first, so that what is copied for the many are whole rows."""
    here, there = (torch.tensor(as_indices(samples), device=device) for samples in (rows, columns))
    return [G.to(device).index_select(1, there).index_select(0, here) for G in matrices]


def _with(values: Tensor, places: Sequence[tuple[int, int]], shape: tuple[int, int]) -> Tensor:
    """A matrix with the values in their places, zero elsewhere."""
    rows, columns = (torch.tensor(index, device=values.device) for index in zip(*places, strict=True))
    return values.new_zeros(shape).index_put((rows, columns), values)


def _slopes_of_square(L: Tensor, places: Sequence[tuple[int, int]]) -> list[Tensor]:
    """∂(LLᵀ)/∂L_ab: column b of L in row a and in column a."""
    slopes = L.new_zeros(len(places), len(L), len(L))
    for slope, (a, b) in zip(slopes, places, strict=True):
        slope[a] += L[:, b]
        slope[:, a] += L[:, b]
    return list(slopes)


def _diagonal_ones(values: Tensor) -> list[Tensor]:
    """∂ diag(values)/∂values_k."""
    return list(torch.diag_embed(torch.eye(len(values), dtype=values.dtype, device=values.device)))


def _positive(squares: Tensor, proportion: float) -> Tensor:
    """Shares of the squares, none of them 0."""
    values = proportion * squares.double()
    return values.clamp_min(1e-3 * float(values.mean()))
