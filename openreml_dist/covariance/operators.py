"""Covariance terms made of others: sums, products, blocks; never as a whole matrix.

Parameters keep the names that their terms gave them. Those named by their kind alone (``sigma^2``), and those of operands given
by keyword, are told apart by a prefix: ``op_0/sigma^2`` for the first operand, ``KEYWORD/sigma^2``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from textwrap import indent

import numpy as np
import torch
from torch import Tensor

from openreml_dist.covariance.component import mean_diagonal
from openreml_dist.covariance.indices import Indices, Piece, Samples, Spans, samples_at
from openreml_dist.covariance.parameters import Parameter, Quantity
from openreml_dist.covariance.products import Work
from openreml_dist.covariance.term import DiagonalTerm, Term
from openreml_dist.errors import InputError

Joint = tuple[Piece, Sequence[Tensor | None]]


class Operator(Term):
    """A term made of operands; its η is theirs, one after the other.

    Args:
        operands: terms.
        named: terms whose parameters are told apart by the keyword.

    Attributes:
        shown: what stands at each name in ``repr``.
    """

    def __init__(self, *operands: Term, **named: Term) -> None:
        self.operands = self._as_operands(*operands, *named.values())
        self.name = " ".join(operand.name for operand in self.operands)
        prefixes = [*(f"op_{i}/" for i in range(len(operands))), *(f"{key}/" for key in named)]
        self.parameters = tuple(
            replace(parameter, name=prefix + parameter.name) if parameter.anonymous or i >= len(operands) else parameter
            for i, (prefix, operand) in enumerate(zip(prefixes, self.operands, strict=True))
            for parameter in operand.parameters
        )
        self.is_stored = any(operand.is_stored for operand in self.operands)
        self.shown: dict[str, object] = dict(zip((prefix[:-1] for prefix in prefixes), self.operands, strict=True))
        ends = list(accumulate((len(operand.parameters) for operand in self.operands), initial=0))
        self._places = [slice(start, end) for start, end in pairwise(ends)]

    def __repr__(self) -> str:
        """The kind, and below it each operand by its name."""
        if not self.shown:
            return super().__repr__()
        inner = "\n".join(f"{name}: {operand!r}" for name, operand in self.shown.items())
        return f"{type(self).__name__}(\n{indent(inner, '  ')}\n)"

    @classmethod
    def _as_operands(cls, *operands: Term) -> tuple[Term, ...]:
        """The operands, if they can be some."""
        if not operands:
            raise InputError(f"{cls.__name__}: at least one operand is needed")
        for operand in operands:
            if not isinstance(operand, Term):
                raise TypeError(f"{cls.__name__}: operands are covariance terms, not {type(operand).__name__}")
        return operands

    def _each(self, eta: Tensor) -> Iterator[tuple[Term, Tensor]]:
        """Operands with their own η."""
        for operand, place in zip(self.operands, self._places, strict=True):
            yield operand, eta[place]

    def _among_all(self, number: int, slopes: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The derivatives of one operand in their place, None for those of the others."""
        place = self._places[number]
        return [*[None] * place.start, *slopes, *[None] * (len(self.parameters) - place.stop)]

    def _require_one_size(self) -> None:
        sizes = [operand.size for operand in self.operands]
        if len(set(sizes)) > 1:
            raise InputError(f"{type(self).__name__}: its operands have different sizes: {', '.join(map(str, sizes))}")
        self.size = sizes[0]

    def summary(self, eta: Tensor) -> dict[Quantity, Tensor]:
        """Those of the operands."""
        return {key: value for operand, own in self._each(eta) for key, value in operand.summary(own).items()}


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
                yield replace(piece, share=(number + piece.share) / len(self.operands))

    def joint_pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[Joint]:
        """Those of the operands, the derivatives by the parameters of the others zero."""
        for number, (operand, own) in enumerate(self._each(eta)):
            for piece, slopes in operand.joint_pieces(spans, own, device):
                share = (number + piece.share) / len(self.operands)
                yield replace(piece, share=share), self._among_all(number, slopes)

    def dpieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[tuple[int, Piece]]:
        """Those of the operands."""
        for number, (operand, own) in enumerate(self._each(eta)):
            for k, piece in operand.dpieces(spans, own, device):
                share = (number + piece.share) / len(self.operands)
                yield self._places[number].start + k, replace(piece, share=share)

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

    def start(self, squares: Tensor, share: float) -> Tensor:
        """Each operand its part of the share."""
        return torch.cat([operand.start(squares, share / len(self.operands)) for operand in self.operands])

    def selected(self, samples: Indices) -> Term:
        """The sum of the operands on the samples."""
        return _renamed(Sum(*(operand.selected(samples) for operand in self.operands)), self)


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

    def start(self, squares: Tensor, share: float) -> Tensor:
        """The factor with a scale has what the others leave of the share; they are correlations, or matrices as they are."""
        scaled = next((i for i, operand in enumerate(self.operands) if has_scale(operand)), 0)
        ones = torch.ones_like(squares)
        starts = [operand.start(ones, 1.0) for operand in self.operands]
        others = [mean_diagonal(o, s) for i, (o, s) in enumerate(zip(self.operands, starts, strict=True)) if i != scaled]
        starts[scaled] = self.operands[scaled].start(squares, share / math.prod(others))
        return torch.cat(starts)

    def selected(self, samples: Indices) -> Term:
        """The product of the operands on the samples."""
        return _renamed(HadamardProduct(*(operand.selected(samples) for operand in self.operands)), self)


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


class Scaled(Operator):
    """σ²V: a variance before a correlation structure.

    Args:
        term: V.
        name: of the variance.
    """

    def __init__(self, term: Term, name: str) -> None:
        super().__init__(term)
        self.size = term.size
        self.is_sparse = term.is_sparse
        self.is_diagonal = term.is_diagonal
        self.is_sharded = term.is_sharded
        # by tiles, V and its derivatives are read in one pass: worth more than the product of a part of V
        self.has_product = term.is_sharded or (term.has_product and not term.is_stored)
        self.parameters = (Parameter.variance(name), *term.parameters)
        self.name = name

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """σ²V."""
        V = self.operands[0].entries(rows, columns, eta[1:], device)
        return None if V is None else V.double() * eta[0]

    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """V, then σ² times those of V."""
        slopes = self.operands[0].derivatives(rows, columns, eta[1:], device)
        return [self.operands[0].entries(rows, columns, eta[1:], device), *_times(slopes, eta[0])]

    def pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[Piece]:
        """σ² times the pieces of V."""
        for piece in self.operands[0].pieces(spans, eta[1:], device):
            yield piece.with_values(piece.values.double() * eta[0])

    def joint_pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[Joint]:
        """σ² times the pieces of V."""
        for piece, slopes in self.operands[0].joint_pieces(spans, eta[1:], device):
            yield piece.with_values(piece.values.double() * eta[0]), [piece.values, *_times(slopes, eta[0])]

    def scaled_pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> tuple[float, Iterator[Piece]]:
        """σ² and the pieces of V."""
        return float(eta[0]), self.operands[0].pieces(spans, eta[1:], device)

    def whole_diagonal(self, eta: Tensor, device: torch.device) -> Tensor | None:
        """σ² times that of V."""
        if float(eta[0]) == 0:
            return torch.zeros(self.size, dtype=torch.float64, device=device)
        diagonal = self.operands[0].whole_diagonal(eta[1:], device)
        return None if diagonal is None else float(eta[0]) * diagonal

    def add_times_(self, product: Tensor, B: Tensor, eta: Tensor, work: Work, factor: float = 1.0) -> None:
        """σ² times VB, as it suits V."""
        if self.has_product:
            self.operands[0].add_times_(product, B, eta[1:], work, float(eta[0]) * factor)
        else:
            super().add_times_(product, B, eta, work, factor)

    def add_derivatives_times_(
        self, products: Sequence[Tensor | None], B: Tensor, eta: Tensor, work: Work, factors: Sequence[float]
    ) -> None:
        """VB, then σ² times those of V, as it suits V."""
        if not self.has_product:
            super().add_derivatives_times_(products, B, eta, work, factors)
            return
        V, inner = self.operands[0], [factor * float(eta[0]) for factor in factors[1:]]
        if products[0] is not None:
            V.add_times_(products[0], B, eta[1:], work, factors[0])
        if any(product is not None for product in products[1:]):
            V.add_derivatives_times_(products[1:], B, eta[1:], work, inner)

    def start(self, squares: Tensor, share: float) -> Tensor:
        """σ² such that the mean of σ²V_ii is that of ``share`` times ``squares``, with V as a correlation."""
        V = self.operands[0]
        eta = V.start(torch.ones_like(squares), 1.0)
        return torch.cat([(share * squares.double().mean() / mean_diagonal(V, eta)).reshape(1), eta])

    def summary(self, eta: Tensor) -> dict[Quantity, Tensor]:
        """That of V."""
        return self.operands[0].summary(eta[1:])

    def selected(self, samples: Indices) -> Term:
        """σ² times V on the samples."""
        return _renamed(Scaled(self.operands[0].selected(samples), self.name), self)


def has_scale(term: Term) -> bool:
    """Whether a term has a variance of its own, rather than being a correlation."""
    return any(parameter.unit in ("variance", "loading") for parameter in term.parameters)


def _product_rule(factors: Sequence[Tensor | None], slopes: Sequence[Sequence[Tensor | None]]) -> list[Tensor | None]:
    """∂(Π factors) by the parameters of each factor in turn."""
    derivatives: list[Tensor | None] = []
    for number, own in enumerate(slopes):
        rest: Tensor | None = None
        for other, factor in enumerate(factors):
            if other != number:
                rest = factor if rest is None or factor is None else rest * factor
        derivatives += own if rest is None else _times(own, rest)
    return derivatives


def _times(slopes: Sequence[Tensor | None], factor: Tensor) -> list[Tensor | None]:
    return [None if slope is None else slope.double() * factor for slope in slopes]


def _renamed(term: Operator, like: Operator) -> Operator:
    """The names that the parameters had before."""
    term.parameters = like.parameters
    term.name = like.name
    return term
