"""Independent residuals."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from openreml_dist.covariance.term import EVERYTHING, Piece, Spans, VarianceComponent


class Identity(VarianceComponent):
    """σ²I on n samples."""

    def __init__(self, size: int, name: str = "residual") -> None:
        super().__init__(name, size)

    def relationship(self, rows: range, columns: range, device: torch.device) -> Tensor | None:
        """Ones where row and column are the same sample; None for a tile off the diagonal."""
        if rows.start >= columns.stop or columns.start >= rows.stop:
            return None
        tile = torch.zeros(len(rows), len(columns), dtype=torch.float64, device=device)
        common = torch.arange(max(rows.start, columns.start), min(rows.stop, columns.stop), device=device)
        tile[common - rows.start, common - columns.start] = 1.0
        return tile

    def dpieces(self, k: int, spans: Spans, theta: Tensor, device: torch.device) -> Iterator[Piece]:  # noqa: ARG002
        """The diagonals alone: O(n) in all."""
        one = torch.ones((), dtype=torch.float64, device=device)
        for number, (rows, columns) in enumerate(spans):
            if rows == columns:
                yield Piece(number, EVERYTHING, EVERYTHING, one.expand(len(rows)), (number + 1) / len(spans))
