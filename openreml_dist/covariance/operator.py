"""What terms made of others have in common: operands, their η one after the other, names that are told apart.

Parameters keep the names that their terms gave them. Those named by their kind alone (``sigma^2``), and those of operands given
by keyword, are told apart by a prefix: ``op_0/sigma^2`` for the first operand, ``KEYWORD/sigma^2``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from textwrap import indent

from torch import Tensor

from openreml_dist.covariance.indices import Piece
from openreml_dist.covariance.parameters import Quantity
from openreml_dist.covariance.term import Term
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


def has_scale(term: Term) -> bool:
    """Whether a term has a variance of its own, rather than being a correlation."""
    return any(parameter.unit in ("variance", "loading") for parameter in term.parameters)


def times_each(slopes: Sequence[Tensor | None], factor: Tensor) -> list[Tensor | None]:
    """Each derivative times a factor, float64; None where it is zero."""
    return [None if slope is None else slope.double() * factor for slope in slopes]


def renamed(term: Operator, like: Operator) -> Operator:
    """The names that the parameters had before."""
    term.parameters = like.parameters
    term.name = like.name
    return term
