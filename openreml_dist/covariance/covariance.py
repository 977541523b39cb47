"""V(θ) as a sum of terms, assembled and differentiated tile by tile.

Legend: n samples; terms with parameters η (m,) in their order; θ (r,) the free ones of them, perhaps transformed;
V_k = ∂V/∂θ_k; tile (i, j) of the lower triangle, i ≥ j.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Protocol

import torch
from torch import Tensor

from openreml_dist.covariance.component import VarianceComponent
from openreml_dist.covariance.indices import Piece, Spans, all_pairs
from openreml_dist.covariance.parameters import ParameterMap, Quantity, Transform
from openreml_dist.covariance.products import Work, diagonal_of, positions, times_factor
from openreml_dist.covariance.term import Term
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
        fixed: values of parameters that are not estimated, by name.
        shared: groups of names of parameters that have one value.
        transforms: of parameters, by name: ``log``, ``logit``, ``identity``.
    Raises:
        InputError: without terms, for terms of different sizes, or for parameters that are not there or not told apart.

    Attributes:
        map: from θ to the parameters of the terms.
        parameters: r names of θ.
        is_linear: V = Σ θ_k K_k with fixed K_k.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        *,
        fixed: Mapping[str, float] | None = None,
        shared: Sequence[Sequence[str]] = (),
        transforms: Mapping[str, str | Transform] | None = None,
    ) -> None:
        if not terms:
            raise InputError("covariance: at least one term is needed")
        for term in terms:
            if not isinstance(term, Term):
                raise TypeError(f"covariance: terms are covariance terms, not {type(term).__name__}")
        self.terms = tuple(terms)
        sizes = {term.name: term.size for term in terms}
        if len(set(sizes.values())) > 1:
            raise InputError(f"covariance: the terms have different numbers of samples: {sizes}")
        self.map = ParameterMap.of([p for term in terms for p in term.parameters], fixed, shared, transforms)
        self.parameters = self.map.free
        self.size = terms[0].size
        self.is_linear = self.map.is_plain and all(isinstance(term, VarianceComponent) for term in terms)
        ends = accumulate((len(term.parameters) for term in terms), initial=0)
        self._places = [slice(start, end) for start, end in pairwise(ends)]

    @property
    def kernels(self) -> tuple[Term, ...]:
        """Terms of one variance times a relationship matrix that is stored or made of features."""
        return tuple(term for term in self.terms if term.is_kernel)

    @property
    def residual(self) -> VarianceComponent | None:
        """The last term if it is σ²I, else None."""
        last = self.terms[-1]
        return last if isinstance(last, VarianceComponent) and last.K.is_identity else None

    @property
    def kernel_and_identity(self) -> tuple[VarianceComponent, VarianceComponent] | None:
        """The two terms of V = σ²K + σ²ₑI where there are no others and θ is the two variances, else None."""
        first, residual = self.terms[0], self.residual
        if len(self.terms) != 2 or not self.is_linear or residual is None or not isinstance(first, VarianceComponent):
            return None
        return first, residual

    def eta_by_term(self, theta: Tensor) -> list[Tensor]:
        """η of each term at θ (r,). Local."""
        eta = self.map.eta(theta)
        return [eta[place] for place in self._places]

    def start(self, squares: Tensor) -> Tensor:
        """θ (r,) at which every term explains the same proportion of the squared residuals (n,). Local."""
        eta = torch.cat([term.start(squares, 1 / len(self.terms)) for term in self.terms])
        lower, upper = self.map.bounds()
        return torch.minimum(torch.maximum(self.map.theta(eta), lower), upper)

    def summary(self, theta: Tensor) -> dict[Quantity, Tensor]:
        """What to report beside θ, by name: η where θ is transformed, correlations. Differentiable in θ (r,). Local."""
        eta = self.map.eta(theta)
        plain = {
            Quantity(p.name, p.unit): eta[i] for i, p in enumerate(self.map.parameters) if not self.map.is_shown_by_theta(i)
        }
        for term, place in zip(self.terms, self._places, strict=True):
            plain |= term.summary(eta[place])
        return plain

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
            for number, (term, eta) in enumerate(zip(self.terms, self.eta_by_term(theta), strict=True)):
                factor, pieces = term.scaled_pieces(spans, eta, V.device)
                for piece in pieces:
                    _add_(tiles[piece.tile], piece, factor)
                    progress((number + piece.done) / len(self.terms))

    def assemble(self, theta: Tensor, grid: ProcessGrid, layout: TileLayout) -> TiledSymmetric:
        """The tiles of V(θ), θ (r,) on the CPU. Collective."""
        V = TiledSymmetric(layout, grid)
        self.assemble_(V, theta)
        return V

    def derivatives(self, theta: Tensor, grid: ProcessGrid, layout: TileLayout) -> list[TiledSymmetric]:
        """The tiles of V_k for every k: r times the memory of V, to look at; ``contract`` needs none of it. Collective."""
        made = [TiledSymmetric(layout, grid) for _ in self.parameters]
        with grid.together("assembling ∂V/∂θ"):
            tiles = [[tile for _, _, tile in V_k.tiles()] for V_k in made]
            for k, slope, piece, _ in self._derivatives(layout.spans(grid.rank), theta, grid.device):
                _add_(tiles[k][piece.tile], piece, slope)
        return made

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
        slopes = self.map.slopes(theta)

        def add(number: int, term: Term, eta: Tensor, work: Work) -> None:
            place = self._places[number]
            targets = [products[k] if k >= 0 else None for k in self.map.source[place]]
            if any(target is not None for target in targets):
                term.add_derivatives_times_(targets, B, eta, work, slopes[place])

        self._each_adds(add, "reading ∂V/∂θ", theta, Work(grid, layout.spans(grid.rank), progress))
        return grid.sum_(products)

    def norms(self, grid: ProcessGrid, layout: TileLayout, progress: Progress = no_progress) -> tuple[Tensor, Tensor]:
        """tr V_k and ‖V_k‖² = Σ_ij (V_k)²_ij (r,) of a V that is linear in θ, float64, in one pass over the stored kernels.

        Collective. Cost: r n² flops; one sum of 2 r numbers.
        """
        sums = torch.zeros(2, len(self.parameters), dtype=torch.float64, device=grid.device)
        ones = torch.ones(len(self.parameters), dtype=torch.float64)
        spans = layout.spans(grid.rank)
        with grid.together("reading ∂V/∂θ"):
            for k, slope, piece, done in self._derivatives(spans, ones, grid.device):
                values = piece.values.double() * slope
                on_diagonal = spans[piece.tile][0] == spans[piece.tile][1]
                sums[0, k] += diagonal_of(piece, values, spans[piece.tile]).sum() if on_diagonal else 0.0
                sums[1, k] += values.square().sum() * (1 if on_diagonal else 2)  # the mirror image above the diagonal
                progress(done)
        grid.sum_(sums)
        return sums[0], sums[1]

    def terms_times(
        self, B: Tensor, theta: Tensor, grid: ProcessGrid, layout: TileLayout, progress: Progress = no_progress
    ) -> Tensor:
        """Each term of V(θ) times B, in one pass over the stored kernels: with B = Py the BLUPs of the terms.

        Collective. Cost: 2 n² m flops a term; one sum of n m numbers a term.

        Args:
            B: (n, m), the same on every rank.
            theta: (r,) on the CPU.
            grid: the ranks.
            layout: which of them reads what.
        Returns:
            (terms, n, m), the same on every rank.
        """
        products = torch.zeros(len(self.terms), *B.shape, dtype=B.dtype, device=B.device)

        def add(number: int, term: Term, eta: Tensor, work: Work) -> None:
            term.add_times_(products[number], B, eta, work)

        self._each_adds(add, "reading the terms of V", theta, Work(grid, layout.spans(grid.rank), progress))
        return grid.sum_(products)

    def product(
        self, B: Tensor, theta: Tensor, grid: ProcessGrid, layout: TileLayout, progress: Progress = no_progress
    ) -> Tensor:
        """V(θ)B, in one pass over the stored kernels, V never assembled.

        Collective. Cost: 2 n² m flops a term that has no cheaper way; one sum of n m numbers.

        Args:
            B: (n, m), the same on every rank; the product is computed in its precision.
            theta: (r,) on the CPU.
            grid: the ranks.
            layout: which of them reads what.
        Returns:
            (n, m), the same on every rank.
        """
        VB = torch.zeros_like(B, memory_format=torch.contiguous_format)

        def add(_: int, term: Term, eta: Tensor, work: Work) -> None:
            term.add_times_(VB, B, eta, work)

        self._each_adds(add, "reading V", theta, Work(grid, layout.spans(grid.rank), progress))
        return grid.sum_(VB)

    def _each_adds(self, add: Callable[[int, Term, Tensor, Work], None], doing: str, theta: Tensor, work: Work) -> None:
        """Let every term add this rank's part of its product. Collective.

        Terms whose data are sharded communicate, so that they come first, outside of the block in which one rank may fail.
        """
        each = list(enumerate(zip(self.terms, self.eta_by_term(theta), strict=True)))
        for number, (term, eta) in each:
            if term.is_sharded:
                add(number, term, eta, work.operand(number, len(each)))
        with work.grid.together(doing):
            for number, (term, eta) in each:
                if not term.is_sharded:
                    add(number, term, eta, work.operand(number, len(each)))

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
        uW = torch.cat([u[None], P.W.mT]).to(V_inv.dtype)  # as rows: BLAS multiplies few rows faster than few columns
        with V_inv.grid.together("reading ∂V/∂θ"):
            tiles = [tile for _, _, tile in V_inv.tiles()]
            for k, slope, piece, done in self._derivatives(spans, theta, V_inv.device):
                rows, columns = positions(piece, spans[piece.tile])
                values = times_factor(piece.values.to(V_inv.dtype), slope)
                if piece.is_diagonal:
                    T[k, rows] += values * uW[0, rows]
                    leverage = tiles[piece.tile].diagonal() - uW[1:, rows].square().sum(dim=0)
                    traces[k] += torch.dot(values, leverage)
                    continue
                products = uW[:, columns] @ values.mT
                T[k, rows] += products[0]
                trace = _inner(tiles[piece.tile][all_pairs(piece.rows, piece.columns)], values) - _inner(
                    uW[1:, rows], products[1:]
                )
                if spans[piece.tile][0] != spans[piece.tile][1]:  # the mirror image above the diagonal
                    T[k, columns] += values.mT @ uW[0, rows]
                    trace = 2 * trace
                traces[k] += trace
                progress(done)
        V_inv.grid.sum_(sums)
        return T.mT.contiguous(), traces

    def _derivatives(self, spans: Spans, theta: Tensor, device: torch.device) -> Iterator[tuple[int, float, Piece, float]]:
        """(k, factor, piece, how much is done): V_k is the sum of factor times piece. Local.

        Several parameters of the terms may be one θ_k, and a fixed one is none.
        """
        slopes = self.map.slopes(theta)
        for number, (term, eta) in enumerate(zip(self.terms, self.eta_by_term(theta), strict=True)):
            first = self._places[number].start
            if all(self.map.source[i] < 0 for i in range(first, self._places[number].stop)):
                continue
            for own, piece in term.dpieces(spans, eta, device):
                k = self.map.source[first + own]
                if k >= 0:
                    yield k, slopes[first + own], piece, (number + piece.done) / len(self.terms)


def _add_(tile: Tensor, piece: Piece, factor: float) -> None:
    """Add ``factor`` times a piece to its place in a tile, in the precision of the tile."""
    if piece.is_diagonal:
        tile.diagonal().add_(piece.values, alpha=factor)
    elif isinstance(piece.rows, slice) and isinstance(piece.columns, slice):
        tile[piece.rows, piece.columns].add_(piece.values, alpha=factor)
    else:
        tile[all_pairs(piece.rows, piece.columns)] += piece.values.to(tile.dtype) * factor


def _inner(A: Tensor, B: Tensor) -> Tensor:
    """⟨A, B⟩, summed in float64."""
    if A.dtype == B.dtype == torch.float64:
        return torch.dot(A.reshape(-1), B.reshape(-1))
    return (A * B).sum(dtype=torch.float64)
