"""Sums and products of covariance terms; never as a whole matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from openreml_dist.covariance.component import mean_diagonal
from openreml_dist.covariance.indices import Indices, Piece, Samples, Spans, samples_at
from openreml_dist.covariance.operator import Joint, Operator, has_scale, renamed, times_each
from openreml_dist.covariance.products import Work
from openreml_dist.covariance.term import DiagonalTerm, Term


class Sum(Operator):
    """V_1 + V_2 + ..."""

    def __init__(self, *operands: Term, **named: Term) -> None:
        super().__init__(*operands, **named)
        self._require_one_size()
        self.has_product = any(operand.has_product for operand in self.operands)
        self.is_sharded = any(operand.is_sharded for operand in self.operands)

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """Σ of those that are not zero."""
        tiles = (operand.entries(rows, columns, own, device) for operand, own in self._each(eta))
        present = [tile for tile in tiles if tile is not None]
        return torch.stack([tile.double() for tile in present]).sum(dim=0) if present else None

    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """Those of the operands."""
        return [d for operand, own in self._each(eta) for d in operand.derivatives(rows, columns, own, device)]

    def pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[Piece]:
        """Those of the operands; a place may come more than once."""
        for number, (operand, own) in enumerate(self._each(eta)):
            for piece in operand.pieces(spans, own, device):
                yield replace(piece, done=(number + piece.done) / len(self.operands))

    def joint_pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[Joint]:
        """Those of the operands, the derivatives by the parameters of the others zero."""
        for number, (operand, own) in enumerate(self._each(eta)):
            for piece, slopes in operand.joint_pieces(spans, own, device):
                done = (number + piece.done) / len(self.operands)
                yield replace(piece, done=done), self._among_all(number, slopes)

    def dpieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[tuple[int, Piece]]:
        """Those of the operands."""
        for number, (operand, own) in enumerate(self._each(eta)):
            for k, piece in operand.dpieces(spans, own, device):
                done = (number + piece.done) / len(self.operands)
                yield self._places[number].start + k, replace(piece, done=done)

    def add_times_(self, product: Tensor, B: Tensor, eta: Tensor, work: Work, factor: float = 1.0) -> None:
        """Those of the operands, where one has a cheaper way than tiles."""
        if not self.has_product:
            super().add_times_(product, B, eta, work, factor)
            return
        for number, (operand, own) in enumerate(self._each(eta)):
            operand.add_times_(product, B, own, work.operand(number, len(self.operands)), factor)

    def add_derivatives_times_(
        self, products: Sequence[Tensor | None], B: Tensor, eta: Tensor, work: Work, factors: Sequence[float]
    ) -> None:
        """Those of the operands."""
        for number, (operand, own) in enumerate(self._each(eta)):
            place = self._places[number]
            if any(product is not None for product in products[place]):
                inner = work.operand(number, len(self.operands))
                operand.add_derivatives_times_(products[place], B, own, inner, factors[place])

    def start(self, squares: Tensor, proportion: float) -> Tensor:
        """Each operand its part of the proportion."""
        return torch.cat([operand.start(squares, proportion / len(self.operands)) for operand in self.operands])

    def selected(self, samples: Indices) -> Term:
        """The sum of the operands on the samples."""
        return renamed(Sum(*(operand.selected(samples) for operand in self.operands)), self)


class HadamardProduct(Operator):
    """V_1 ∘ V_2 ∘ ..., entry by entry: interactions, such as genotype by environment.

    One factor has the scale; give a variance component as its ``K`` if another has it. A stored factor is read in the order of
    its chunks, once a pass; the others are made for each piece.
    """

    def __init__(self, *operands: Term, **named: Term) -> None:
        super().__init__(*operands, **named)
        self._require_one_size()
        self.is_sparse = any(operand.is_sparse for operand in self.operands)
        kinds = (
            [operand.is_stored for operand in self.operands],
            [isinstance(operand, DiagonalTerm) for operand in self.operands],
            [operand.is_sparse for operand in self.operands],
        )
        self._lead = next((kind.index(True) for kind in kinds if True in kind), 0)

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """Π; None where one factor is zero."""
        product: Tensor | None = None
        for operand, own in sorted(self._each(eta), key=lambda each: not each[0].is_sparse):
            tile = operand.entries(rows, columns, own, device)
            if tile is None:
                return None
            product = tile.double() if product is None else product * tile
        return product

    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """The product rule."""
        factors = [operand.entries(rows, columns, own, device) for operand, own in self._each(eta)]
        if any(factor is None for factor in factors):
            return [None] * len(self.parameters)
        slopes = [operand.derivatives(rows, columns, own, device) for operand, own in self._each(eta)]
        return _product_rule(factors, slopes)

    def pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[Piece]:
        """The pieces of the leading factor times the others."""
        for piece in self.operands[self._lead].pieces(spans, eta[self._places[self._lead]], device):
            others = self._others(piece, spans, eta, device, derivatives=False)
            if others is not None:
                product = piece.values.double()
                for factor, _ in others:
                    product = product * factor
                yield piece.with_values(product)

    def joint_pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[Joint]:
        """The pieces of the leading factor times the others, by the product rule."""
        lead = self.operands[self._lead]
        for piece, slopes in lead.joint_pieces(spans, eta[self._places[self._lead]], device):
            others = self._others(piece, spans, eta, device, derivatives=True)
            if others is None:
                continue
            factors = [factor for factor, _ in others]
            all_slopes = [slope for _, slope in others]
            factors.insert(self._lead, piece.values.double())
            all_slopes.insert(self._lead, slopes)
            product = factors[0]
            for factor in factors[1:]:
                product = product * factor
            yield piece.with_values(product), _product_rule(factors, all_slopes)

    def _others(
        self, piece: Piece, spans: Spans, eta: Tensor, device: torch.device, derivatives: bool
    ) -> list[tuple[Tensor, Sequence[Tensor | None]]] | None:
        """The other factors, and their derivatives, in the place of a piece; None where one is zero."""
        rows, columns = (samples_at(i, span) for i, span in zip((piece.rows, piece.columns), spans[piece.tile], strict=True))

        def shaped(values: Tensor) -> Tensor:
            return values.diagonal() if piece.is_diagonal else values

        made: list[tuple[Tensor, Sequence[Tensor | None]]] = []
        for number, (operand, own) in enumerate(self._each(eta)):
            if number == self._lead:
                continue
            values = operand.entries(rows, columns, own, device)
            if values is None:
                return None
            slopes = operand.derivatives(rows, columns, own, device) if derivatives else []
            made.append((shaped(values), [None if slope is None else shaped(slope) for slope in slopes]))
        return made

    def start(self, squares: Tensor, proportion: float) -> Tensor:
        """The factor with a scale has what the others leave; they are correlations, or matrices as they are."""
        scaled = next((i for i, operand in enumerate(self.operands) if has_scale(operand)), 0)
        ones = torch.ones_like(squares)
        starts = [operand.start(ones, 1.0) for operand in self.operands]
        others = [mean_diagonal(o, s) for i, (o, s) in enumerate(zip(self.operands, starts, strict=True)) if i != scaled]
        starts[scaled] = self.operands[scaled].start(squares, proportion / math.prod(others))
        return torch.cat(starts)

    def selected(self, samples: Indices) -> Term:
        """The product of the operands on the samples."""
        return renamed(HadamardProduct(*(operand.selected(samples) for operand in self.operands)), self)


class KroneckerProduct(HadamardProduct):
    """V_1 ⊗ V_2 ⊗ ..., the last index running fastest: traits by animals, rows by columns of a field.

    Entry by entry it is the product of the factors at the parts of the index, so that no factor need divide a tile.
    """

    def __init__(self, *operands: Term, **named: Term) -> None:
        terms = self._as_operands(*operands, *named.values())
        sizes = [term.size for term in terms]
        places = np.arange(int(np.prod(sizes)))
        selected, inner = [], len(places)
        for term, size in zip(terms, sizes, strict=True):
            inner //= size
            selected.append(term.selected(places // inner % size))
        count = len(operands)
        super().__init__(*selected[:count], **dict(zip(named, selected[count:], strict=True)))
        self.shown = dict(zip(self.shown, terms, strict=True))


def _product_rule(factors: Sequence[Tensor | None], slopes: Sequence[Sequence[Tensor | None]]) -> list[Tensor | None]:
    """∂(Π factors) by the parameters of each factor in turn."""
    derivatives: list[Tensor | None] = []
    for number, own in enumerate(slopes):
        rest: Tensor | None = None
        for other, factor in enumerate(factors):
            if other != number:
                rest = factor if rest is None or factor is None else rest * factor
        derivatives += own if rest is None else times_each(own, rest)
    return derivatives
