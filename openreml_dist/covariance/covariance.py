"""V(θ) as a sum of terms, assembled and differentiated tile by tile.

Legend: n samples, r parameters θ in the order of the terms; V_k = ∂V/∂θ_k; tile (i, j) of the lower triangle, i ≥ j.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from openreml_dist.covariance.term import Term, VarianceComponent
from openreml_dist.errors import InputError
from openreml_dist.grid import Progress, no_progress
from openreml_dist.tiled import TiledSymmetric


class TiledOperator(Protocol):
    """A symmetric matrix whose tiles (i, j), i ≥ j, this rank can give, such as P in REML."""

    @property
    def tiles(self) -> TiledSymmetric:
        """Which tiles this rank owns."""
        ...

    def tile(self, i: int, j: int) -> Tensor:
        """Tile (i, j) of those that this rank owns."""
        ...


class Covariance:
    """V(θ) = Σ terms.

    Args:
        terms: summands of one size n; the residual comes last by convention.
    Raises:
        InputError: without terms, for terms of different sizes, or for two parameters of one name.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        if not terms:
            raise InputError("covariance: at least one term is needed")
        self.terms = tuple(terms)
        self.parameters = tuple(name for term in terms for name in term.parameters)
        sizes = {term.name: term.size for term in terms}
        if len(set(sizes.values())) > 1:
            raise InputError(f"covariance: the terms have different numbers of samples: {sizes}")
        if len(set(self.parameters)) < len(self.parameters):
            raise InputError(f"covariance: two parameters have the same name: {', '.join(self.parameters)}")
        self.size = terms[0].size
        self.is_linear = all(isinstance(term, VarianceComponent) for term in terms)
        self.lower_bounds = torch.tensor([b for term in terms for b in term.lower_bounds], dtype=torch.float64)

    def tile(self, rows: range, columns: range, theta: Tensor, device: torch.device) -> Tensor:
        """V(θ) on ``rows`` x ``columns``, float64. Local."""
        total = torch.zeros(len(rows), len(columns), dtype=torch.float64, device=device)
        for term, theta_of_term in self._with_parameters(theta):
            tile = term.tile(rows, columns, theta_of_term, device)
            if tile is not None:
                total += tile
        return total

    def dtiles(self, rows: range, columns: range, theta: Tensor, device: torch.device) -> Iterator[tuple[int, Tensor]]:
        """(k, V_k on ``rows`` x ``columns``) for every V_k that is not zero there, float64. Local."""
        k = 0
        for term, theta_of_term in self._with_parameters(theta):
            for own in range(len(term.parameters)):
                dtile = term.dtile(own, rows, columns, theta_of_term, device)
                if dtile is not None:
                    yield k, dtile.double()
                k += 1

    def assemble_(self, V: TiledSymmetric, theta: Tensor, progress: Progress = no_progress) -> None:
        """Fill the tiles of V with V(θ), one pass over the stored kernels.

        Collective: a tile that cannot be read on one rank raises the same error on every rank.

        Args:
            V: [out] lower tiles (n, n).
            theta: (r,) on the CPU.
        """
        with V.grid.together("assembling V"):
            for share, (i, j, tile) in _counted(V):
                tile.copy_(self.tile(V.layout.span(i), V.layout.span(j), theta, V.device))
                progress(share)

    def contract(self, P: TiledOperator, u: Tensor, theta: Tensor, progress: Progress = no_progress) -> tuple[Tensor, Tensor]:
        """V_k u for every k and tr(P V_k), in one pass over the stored kernels.

        Collective. Cost: (r + p) n² flops beside reading; one sum of (n + 1) r numbers.

        Args:
            P: symmetric operator (n, n) by tiles.
            u: (n,), the same on every rank.
            theta: (r,) on the CPU.
        Returns:
            T (n, r) with t_k = V_k u, and the traces (r,); the same on every rank.
        """
        tiles = P.tiles
        n, r = self.size, len(self.parameters)
        sums = torch.zeros(n + 1, r, dtype=torch.float64, device=tiles.device)
        T, traces = sums[:n], sums[n]
        with tiles.grid.together("reading ∂V/∂θ"):
            for share, (i, j, _) in _counted(tiles):
                rows, columns = tiles.layout.span(i), tiles.layout.span(j)
                u_rows, u_columns = u[rows.start : rows.stop], u[columns.start : columns.stop]
                P_ij = P.tile(i, j)
                for k, V_k in self.dtiles(rows, columns, theta, tiles.device):
                    T[rows.start : rows.stop, k] += V_k @ u_columns
                    if i == j:
                        traces[k] += torch.vdot(P_ij.flatten(), V_k.flatten())
                    else:  # the tile and its mirror image above the diagonal
                        T[columns.start : columns.stop, k] += V_k.mT @ u_rows
                        traces[k] += 2 * torch.vdot(P_ij.flatten(), V_k.flatten())
                progress(share)
        tiles.grid.sum_(sums)
        return T, traces

    def _with_parameters(self, theta: Tensor) -> Iterator[tuple[Term, Tensor]]:
        first = 0
        for term in self.terms:
            yield term, theta[first : first + len(term.parameters)]
            first += len(term.parameters)


def _counted(V: TiledSymmetric) -> Iterator[tuple[float, tuple[int, int, Tensor]]]:
    """This rank's tiles, each with the share of them that is done after it."""
    total = len(V.layout.tiles(V.grid.rank))
    for done, tile in enumerate(V.tiles(), start=1):
        yield done / total, tile
