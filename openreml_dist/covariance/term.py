"""What a covariance term offers: tiles of itself and of its derivatives, never a matrix.

Legend: n samples; r parameters θ; a tile is given by the ranges of its rows and columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Term(ABC):
    """One summand of V(θ).

    A tile that is zero is None, so that it costs nothing. All methods are local: they read or generate, and ask no other rank.
    """

    name: str
    size: int
    parameters: tuple[str, ...]
    lower_bounds: tuple[float, ...]  # of the parameters, when they are constrained

    @abstractmethod
    def tile(self, rows: range, columns: range, theta: Tensor, device: torch.device) -> Tensor | None:
        """The term at θ (len(parameters),) on ``rows`` x ``columns``."""

    @abstractmethod
    def dtile(self, k: int, rows: range, columns: range, theta: Tensor, device: torch.device) -> Tensor | None:
        """Its derivative by parameter k on ``rows`` x ``columns``."""


class VarianceComponent(Term):
    """σ²K: one variance times a fixed relationship matrix K, which a subclass gives by tiles."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.parameters = (name,)
        self.lower_bounds = (0.0,)

    @abstractmethod
    def relationship(self, rows: range, columns: range, device: torch.device) -> Tensor | None:
        """K on ``rows`` x ``columns``, float32 or float64."""

    def tile(self, rows: range, columns: range, theta: Tensor, device: torch.device) -> Tensor | None:
        """σ²K on ``rows`` x ``columns``, float64."""
        K = self.relationship(rows, columns, device)
        return None if K is None else K.double() * float(theta[0])  # not in the precision of a float32 tile

    def dtile(self, k: int, rows: range, columns: range, theta: Tensor, device: torch.device) -> Tensor | None:  # noqa: ARG002
        """K on ``rows`` x ``columns``."""
        return self.relationship(rows, columns, device)
