"""Blocks along the diagonal: populations, trials or herds that share nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from openreml_dist.covariance.indices import Index, Indices, Piece, Samples, Spans, as_indices
from openreml_dist.covariance.operator import Joint, Operator
from openreml_dist.covariance.term import Term


class BlockDiagonal(Operator):
    """V_1, V_2, ... along the diagonal, zero elsewhere."""

    def __init__(self, *operands: Term, **named: Term) -> None:
        super().__init__(*operands, **named)
        self._bounds = list(accumulate((operand.size for operand in self.operands), initial=0))
        self.size = self._bounds[-1]

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """The blocks that the tile meets."""
        tile = None
        for number, here, there, inner_rows, inner_columns in self._blocks(rows, columns):
            values = self.operands[number].entries(inner_rows, inner_columns, eta[self._places[number]], device)
            if values is not None:
                tile = _put(tile, values, here, there, (len(rows), len(columns)))
        return tile

    def derivatives(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Sequence[Tensor | None]:
        """Those of each block in its place."""
        found: list[Tensor | None] = [None] * len(self.parameters)
        for number, here, there, inner_rows, inner_columns in self._blocks(rows, columns):
            place = self._places[number]
            slopes = self.operands[number].derivatives(inner_rows, inner_columns, eta[place], device)
            for k, values in enumerate(slopes, place.start):
                if values is not None:
                    found[k] = _put(None, values, here, there, (len(rows), len(columns)))
        return found

    def _blocks(self, rows: Samples, columns: Samples) -> Iterator[tuple[int, Indices, Indices, Indices, Indices]]:
        """For each block in the tile: its number, where it lies in the tile, and which of its own samples these are."""
        row_samples, column_samples = as_indices(rows), as_indices(columns)
        row_blocks, column_blocks = (
            np.searchsorted(self._bounds, samples, side="right") - 1 for samples in (row_samples, column_samples)
        )
        for number in np.intersect1d(row_blocks, column_blocks).tolist():
            here, there = np.flatnonzero(row_blocks == number), np.flatnonzero(column_blocks == number)
            first = self._bounds[number]
            yield number, here, there, row_samples[here] - first, column_samples[there] - first

    def pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[Piece]:
        """Those of each block, on what the tiles have of it."""
        for number, (operand, own) in enumerate(self._each(eta)):
            met = self._met(spans, number)
            for piece in operand.pieces([inner for _, inner in met], own, device):
                yield self._outer(piece, spans, met, number)

    def joint_pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[Joint]:
        """Those of each block, on what the tiles have of it."""
        for number, (operand, own) in enumerate(self._each(eta)):
            met = self._met(spans, number)
            for piece, slopes in operand.joint_pieces([inner for _, inner in met], own, device):
                outer = [None if s is None else self._outer(piece.with_values(s), spans, met, number).values for s in slopes]
                yield self._outer(piece, spans, met, number), self._among_all(number, outer)

    def _met(self, spans: Spans, number: int) -> list[tuple[int, tuple[range, range]]]:
        """Which tiles meet a block, and in which of its own samples."""
        first, end = self._bounds[number : number + 2]
        met = []
        for tile, span in enumerate(spans):
            rows, columns = (range(max(r.start, first) - first, min(r.stop, end) - first) for r in span)
            if rows and columns:
                met.append((tile, (rows, columns)))
        return met

    def _outer(self, piece: Piece, spans: Spans, met: Sequence[tuple[int, tuple[range, range]]], number: int) -> Piece:
        """A piece of a block in its place in a tile."""
        tile, inner = met[piece.tile]
        done = (number + piece.done) / len(self.operands)
        if piece.is_diagonal and tuple(map(len, inner)) == tuple(map(len, spans[tile])):
            return replace(piece, tile=tile, done=done)
        rows, columns = (
            _moved(index, within, within.start + self._bounds[number] - span.start)
            for index, within, span in zip((piece.rows, piece.columns), inner, spans[tile], strict=True)
        )
        values = torch.diag(piece.values) if piece.is_diagonal else piece.values
        return Piece(tile, rows, columns, values, done)

    def start(self, squares: Tensor, proportion: float) -> Tensor:
        """Each block the proportion of its own squares."""
        parts = [squares[first:end] for first, end in pairwise(self._bounds)]
        return torch.cat([operand.start(part, proportion) for operand, part in zip(self.operands, parts, strict=True)])


def _moved(index: Index, within: range, by: int) -> Index:
    """An index into a range, ``by`` further on."""
    if isinstance(index, Tensor):
        return index + by
    start, stop, _ = index.indices(len(within))
    return slice(start + by, stop + by)


def _put(tile: Tensor | None, values: Tensor, here: Indices, there: Indices, shape: tuple[int, int]) -> Tensor:
    if tile is None:
        tile = torch.zeros(shape, dtype=torch.float64, device=values.device)
    at = (torch.from_numpy(here).to(values.device)[:, None], torch.from_numpy(there).to(values.device)[None, :])
    return tile.index_put(at, values.double())
