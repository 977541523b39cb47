"""ZGZᵀ: a covariance of effects, seen in the records they act on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from openreml_dist.covariance.blocks import BlockDiagonal
from openreml_dist.covariance.indices import Indices, Piece, Samples, Spans, as_indices
from openreml_dist.covariance.operator import Joint, Operator
from openreml_dist.covariance.parameters import Quantity
from openreml_dist.covariance.term import Term
from openreml_dist.errors import InputError


class OneHot(Protocol):
    """A design with at most one 1 in each row: its column, −1 for none."""

    codes: Indices
    shape: tuple[int, ...]


class CovariancePropagation(Operator):
    """ZGZᵀ for a design Z (n, q) and a covariance G (q, q) of effects.

    Args:
        Z: one-hot (a ``DummyMatrix``), an array, or a SciPy sparse matrix; a tile touches only the effects that its rows and
            columns have.
        G: a term of size q. Both by position, or both by keywords, of which that of G then names its parameters.
    """

    def __init__(self, *operands: Any, **named: Any) -> None:
        if named.keys() == {"Z", "G"}:
            named = {"Z": named["Z"], "G": named["G"]}  # in whatever order they came
        given = [*operands, *named.values()]
        if len(given) != 2 or (operands and named):
            raise TypeError("CovariancePropagation: Z and G are needed, both by position or both by keyword")
        Z, G = given
        if named:
            super().__init__(**dict(zip(named, (Zero(), G), strict=True)))
        else:
            super().__init__(Zero(), G)
        self.shown = dict(zip(self.shown, (_Design(Z), G), strict=True))
        if isinstance(Z, Term):
            Z = Z()  # of a term without parameters
        shape = tuple(Z.shape) if hasattr(Z, "shape") else np.shape(Z)
        if len(shape) != 2 or shape[0] == 0 or shape[1] != G.size:
            raise InputError(f"CovariancePropagation: Z of shape (samples, {G.size}) is needed, as G has, not {shape}")
        self._inner = _selected(G, Z.codes) if hasattr(Z, "codes") else Congruence(Z, G)
        self.name = G.name
        self.size = self._inner.size
        self.is_stored = self._inner.is_stored

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """Z[rows] G Z[columns]ᵀ."""
        return self._inner.entries(rows, columns, eta, device)

    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """Z[rows] ∂G/∂η_k Z[columns]ᵀ."""
        return self._inner.derivatives(rows, columns, eta, device)

    def pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[Piece]:
        """As it suits G."""
        return self._inner.pieces(spans, eta, device)

    def joint_pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[Joint]:
        """As it suits G."""
        return self._inner.joint_pieces(spans, eta, device)

    def start(self, squares: Tensor, proportion: float) -> Tensor:
        """That of G."""
        return self._inner.start(squares, proportion)

    def summary(self, eta: Tensor) -> dict[Quantity, Tensor]:
        """That of G."""
        return self._inner.summary(eta)

    def selected(self, samples: Indices) -> Term:
        """The same effects in other records."""
        return self._inner.selected(samples)


class Congruence(Term):
    """ZGZᵀ for a general Z."""

    def __init__(self, Z: Any, G: Term) -> None:
        self._Z = Z.tocsr() if hasattr(Z, "tocsr") else np.asarray(Z, np.float64)
        if not bool(np.isfinite(self._Z.data if hasattr(Z, "tocsr") else self._Z).all()):
            raise InputError(f"{G.name}: Z has values that are not finite")
        self.G = G
        self.name = G.name
        self.size = self._Z.shape[0]
        self.parameters = G.parameters

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """Z[rows] G Z[columns]ᵀ over the effects that are there."""
        return self._propagated(rows, columns, device, lambda here, there: [self.G.entries(here, there, eta, device)])[0]

    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """Z[rows] ∂G/∂η_k Z[columns]ᵀ."""
        return self._propagated(rows, columns, device, lambda here, there: self.G.derivatives(here, there, eta, device))

    def _propagated(
        self,
        rows: Samples,
        columns: Samples,
        device: torch.device,
        blocks: Callable[[Indices, Indices], Sequence[Tensor | None]],
    ) -> list[Tensor | None]:
        here, Z_rows = self._part(rows, device)
        there, Z_columns = self._part(columns, device)
        return [None if G is None else Z_rows @ G.double() @ Z_columns.mT for G in blocks(here, there)]

    def _part(self, samples: Samples, device: torch.device) -> tuple[Indices, Tensor]:
        """The effects that the samples have, and Z on them (samples, effects)."""
        part = self._Z[as_indices(samples)]
        if not isinstance(part, np.ndarray):  # sparse
            effects = np.unique(part.indices).astype(np.int64)
            part = part[:, effects].toarray()
        else:
            effects = np.flatnonzero(part.any(axis=0))
            part = part[:, effects]
        return effects, torch.tensor(part, dtype=torch.float64, device=device)

    def start(self, squares: Tensor, proportion: float) -> Tensor:
        """That of G where each effect alone explains its part of the proportion in the records that have it."""
        present = self._Z != 0
        counts = np.asarray(present.sum(axis=0), np.float64).ravel()
        sums = np.asarray((self._Z.multiply(self._Z) if hasattr(self._Z, "multiply") else self._Z**2).sum(axis=0)).ravel()
        effects_a_record = max(1.0, counts.sum() / self.size)
        mean_squares = np.where(counts > 0, sums, 1.0) / np.maximum(counts, 1.0)
        return self.G.start(float(squares.mean()) / torch.tensor(mean_squares), proportion / effects_a_record)

    def summary(self, eta: Tensor) -> dict[Quantity, Tensor]:
        """That of G."""
        return self.G.summary(eta)

    def selected(self, samples: Indices) -> Term:
        """The same effects in other records."""
        return Congruence(self._Z[samples], self.G)


class Zero(Term):
    """Zeros (n, n), without parameters."""

    def __init__(self, n: int = 1) -> None:
        self.name = "zero"
        self.size = n

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """None: all are zero."""
        return None


def _selected(G: Term, codes: Indices) -> Term:
    """ZGZᵀ for a one-hot Z; a record without an effect has one more, which is zero."""
    if bool((codes >= 0).all()):
        return G.selected(codes)
    return BlockDiagonal(G, Zero()).selected(np.where(codes >= 0, codes, G.size))


class _Design:
    """A design in ``repr``: what it is, not its numbers."""

    def __init__(self, Z: Any) -> None:
        self._Z = Z

    def __repr__(self) -> str:
        if hasattr(self._Z, "codes") or isinstance(self._Z, Term):
            return repr(self._Z)
        return f"{type(self._Z).__name__}({' x '.join(map(str, self._Z.shape))})"
