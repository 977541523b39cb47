"""V(θ) as a sum of terms, assembled and differentiated tile by tile.

Legend: n samples, r parameters θ in the order of the terms; V_k = ∂V/∂θ_k; tile (i, j) of the lower triangle, i ≥ j.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from openreml_dist.covariance.term import Index, Piece, Spans, Term, VarianceComponent, all_pairs
from openreml_dist.errors import InputError
from openreml_dist.grid import ProcessGrid, Progress, no_progress
from openreml_dist.layout import TileLayout
from openreml_dist.tiled import TiledSymmetric


class Projector(Protocol):
    """P = V⁻¹ − WWᵀ, of which this rank owns tiles of V⁻¹."""

    W: Tensor

    @property
    def tiles(self) -> TiledSymmetric:
        """V⁻¹ (n, n)."""
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

    def assemble_(self, V: TiledSymmetric, theta: Tensor, progress: Progress = no_progress) -> None:
        """Fill the tiles of V with V(θ), one pass over the stored kernels.

        Collective: a tile that cannot be read on one rank raises the same error on every rank.

        Args:
            V: [out] lower tiles (n, n), all zero.
            theta: (r,) on the CPU.
        """
        with V.grid.together("assembling V"):
            tiles = [tile for _, _, tile in V.tiles()]
            spans = V.layout.spans(V.grid.rank)
            for number, (term, theta_of_term) in enumerate(self._with_parameters(theta)):
                factor, pieces = term.scaled_pieces(spans, theta_of_term, V.device)
                for piece in pieces:
                    _add_(tiles[piece.tile], piece, factor)
                    progress((number + piece.share) / len(self.terms))

    def times(
        self, B: Tensor, theta: Tensor, grid: ProcessGrid, layout: TileLayout, progress: Progress = no_progress
    ) -> Tensor:
        """V_k B for every k, in one pass over the stored kernels.

        Collective. Cost: 2 r n² m flops; one sum of n m r numbers.

        Args:
            B: (n, m), the same on every rank; the products are computed in its precision.
            theta: (r,) on the CPU.
            grid: the ranks.
            layout: which of them reads what.
        Returns:
            (r, n, m), the same on every rank.
        """
        products = torch.zeros(len(self.parameters), *B.shape, dtype=B.dtype, device=B.device)
        spans = layout.spans(grid.rank)
        with grid.together("reading ∂V/∂θ"):
            for k, piece, share in self._derivatives(spans, theta, grid.device):
                rows, columns = _positions(piece, spans[piece.tile])
                values = piece.values.to(B.dtype)
                if piece.is_diagonal:
                    products[k, rows] += values[:, None] * B[rows]
                    continue
                products[k, rows] += values @ B[columns]
                if spans[piece.tile][0] != spans[piece.tile][1]:  # the mirror image above the diagonal
                    products[k, columns] += values.mT @ B[rows]
                progress(share)
        return grid.sum_(products)

    def contract(self, P: Projector, u: Tensor, theta: Tensor, progress: Progress = no_progress) -> tuple[Tensor, Tensor]:
        """V_k u for every k and tr(P V_k) = ⟨V⁻¹, V_k⟩ − ⟨W, V_k W⟩, in one pass over the stored kernels.

        Collective. Cost: (p + 3) r n² flops beside reading; one sum of (n + 1) r numbers.

        Args:
            P: projection with W (n, p), by tiles.
            u: (n,), the same on every rank.
            theta: (r,) on the CPU.
        Returns:
            T (n, r) with t_k = V_k u, and the traces (r,), float64; the same on every rank.
        """
        V_inv = P.tiles
        spans = V_inv.layout.spans(V_inv.grid.rank)
        n, r = self.size, len(self.parameters)
        sums = torch.zeros(r, n + 1, dtype=torch.float64, device=V_inv.device)
        T, traces = sums[:, :n], sums[:, n]
        uW = torch.cat([u[:, None], P.W], dim=1).to(V_inv.dtype)
        with V_inv.grid.together("reading ∂V/∂θ"):
            tiles = [tile for _, _, tile in V_inv.tiles()]
            for k, piece, share in self._derivatives(spans, theta, V_inv.device):
                rows, columns = _positions(piece, spans[piece.tile])
                values = piece.values.to(V_inv.dtype)
                if piece.is_diagonal:
                    T[k, rows] += values * uW[rows, 0]
                    leverage = tiles[piece.tile].diagonal() - uW[rows, 1:].square().sum(dim=1)
                    traces[k] += torch.dot(values, leverage)
                    continue
                products = values @ uW[columns]
                T[k, rows] += products[:, 0]
                trace = _inner(tiles[piece.tile][all_pairs(piece.rows, piece.columns)], values) - _inner(
                    uW[rows, 1:], products[:, 1:]
                )
                if spans[piece.tile][0] != spans[piece.tile][1]:  # the mirror image above the diagonal
                    T[k, columns] += values.mT @ uW[rows, 0]
                    trace = 2 * trace
                traces[k] += trace
                progress(share)
        V_inv.grid.sum_(sums)
        return T.mT.contiguous(), traces

    def _derivatives(self, spans: Spans, theta: Tensor, device: torch.device) -> Iterator[tuple[int, Piece, float]]:
        """(k, piece of V_k, share that is done with it) over all k. Local."""
        k = 0
        for term, theta_of_term in self._with_parameters(theta):
            for own in range(len(term.parameters)):
                for piece in term.dpieces(own, spans, theta_of_term, device):
                    yield k, piece, (k + piece.share) / len(self.parameters)
                k += 1

    def _with_parameters(self, theta: Tensor) -> Iterator[tuple[Term, Tensor]]:
        first = 0
        for term in self.terms:
            yield term, theta[first : first + len(term.parameters)]
            first += len(term.parameters)


def _add_(tile: Tensor, piece: Piece, factor: float) -> None:
    """Add ``factor`` times a piece to its place in a tile, in the precision of the tile."""
    if piece.is_diagonal:
        tile.diagonal().add_(piece.values, alpha=factor)
    elif isinstance(piece.rows, slice) and isinstance(piece.columns, slice):
        tile[piece.rows, piece.columns].add_(piece.values, alpha=factor)
    else:
        tile[all_pairs(piece.rows, piece.columns)] += piece.values.to(tile.dtype) * factor


def _positions(piece: Piece, span: tuple[range, range]) -> tuple[Index, Index]:
    """Rows and columns of the whole matrix."""
    return _shifted(piece.rows, span[0]), _shifted(piece.columns, span[1])


def _shifted(index: Index, span: range) -> Index:
    if isinstance(index, Tensor):
        return index + span.start
    within = span[index]
    return slice(within.start, within.stop)


def _inner(A: Tensor, B: Tensor) -> Tensor:
    """⟨A, B⟩, summed in float64."""
    return (A * B).sum(dtype=torch.float64)
