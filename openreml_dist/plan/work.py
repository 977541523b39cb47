"""How much every rank computes and receives in each step of the tiled algorithms: ``linalg`` as arithmetic, without numbers.

Legend: n rows, T tiles a side, b rows a tile; P x Q ranks, (p, q) a rank; k the step. Arrays are (T, P, Q). The sums are what
``Counters`` counts while the algorithms run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openreml_dist.layout import TileLayout

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class Work:
    """Work by step and rank, (T, P, Q).

    Attributes:
        pivot_flops: factor and inverse of the pivot tile, on its owner; all others of the step wait for it.
        panel_flops: the panel, on the ranks of a grid row or column.
        update_flops: the update of all other tiles.
        words: numbers received.
        messages: received.
    """

    pivot_flops: Counts
    panel_flops: Counts
    update_flops: Counts
    words: Counts
    messages: Counts

    @property
    def flops(self) -> Counts:
        """In all, by rank (P, Q)."""
        total: Counts = (self.pivot_flops + self.panel_flops + self.update_flops).sum(axis=0)
        return total


class Geometry:
    """Rows and columns of a layout by the rank that holds them."""

    def __init__(self, layout: TileLayout) -> None:
        T, P, Q = layout.num_tiles, layout.grid.rows, layout.grid.columns
        tiles = np.arange(T)
        self.layout = layout
        self.extent = np.array([layout.extent(i) for i in range(T)], dtype=np.float64)
        self.in_row = tiles[:, None] % P == np.arange(P)  # (T, P): tile row i belongs to grid row p
        self.in_column = tiles[:, None] % Q == np.arange(Q)  # (T, Q)
        self.rows_since = _since(self.in_row * self.extent[:, None])  # (T + 1, P): matrix rows of p in tile rows ≥ i
        self.columns_since = _since(self.in_column * self.extent[:, None])  # (T + 1, Q)
        slabs = (self.rows_since[:T] * self.extent[:, None])[:, :, None] * self.in_column[:, None, :]
        self.words_since = _since(slabs)  # (T + 1, P, Q): numbers of the rank in block columns ≥ j
        self.columns_before = self.columns_since[0] - self.columns_since  # (T + 1, Q)

    @property
    def words(self) -> Counts:
        """Numbers of the lower tiles that each rank holds (P, Q)."""
        return self.layout.words().astype(np.float64)


def sweep_work(layout: TileLayout) -> Work:
    """The work of ``sweep_inverse_``: n³ flops in all, but for whole diagonal tiles, the pivots and the panels, 3 b n² more."""
    g = Geometry(layout)
    b = g.extent[:, None, None]
    pivot_row, pivot_column = g.in_row[:, :, None], g.in_column[:, None, :]
    rows_after, columns_before = g.rows_since[1:, :, None], g.columns_before[:-1, None, :]
    panel = 2 * _triangle_flops(b) * (pivot_row * columns_before + pivot_column * rows_after)  # U; row and column k of V⁻¹
    untouched = b * (pivot_row * columns_before + pivot_column * g.rows_since[:-1, :, None])
    update = 2 * b * (g.words - untouched)
    owner = pivot_row & pivot_column
    words, messages = _traffic(g, _pivot_traffic(g, along_row=True), _panel_traffic(g), _panel_traffic_before(g))
    return Work(owner * _pivot_flops(b), panel + owner * _triangle_flops(b) * b, update, words, messages)


def cholesky_work(layout: TileLayout) -> Work:
    """The work of ``cholesky_``: n³/3 flops in all, but for whole diagonal tiles, the pivots and the panels, ¾ b n² more."""
    g = Geometry(layout)
    b = g.extent[:, None, None]
    pivot_row, pivot_column = g.in_row[:, :, None], g.in_column[:, None, :]
    panel = _triangle_flops(b) * pivot_column * g.rows_since[1:, :, None]
    update = 2 * b * g.words_since[1:]
    owner = pivot_row & pivot_column
    zero = np.zeros_like(update)
    words, messages = _traffic(g, _pivot_traffic(g, along_row=False), _panel_traffic(g))
    return Work(owner * _pivot_flops(b) + zero, panel + zero, update, words, messages)


def _triangle_flops(b: Counts) -> Counts:
    """Of a row times a triangular tile, a quarter of whose zeros are left out: 1½ b²."""
    h = b // 2
    return 2 * (b * (b - h) + h * h)


def _pivot_flops(b: Counts) -> Counts:
    """b³/3 of the factor of a tile, b³ of its inverse."""
    return b**3 // 3 + b**3


def _traffic(g: Geometry, *parts: tuple[Counts, Counts]) -> tuple[Counts, Counts]:
    """Words and messages of all parts: none where the ranks see the same panels."""
    travels = 0.0 if g.layout.grid.shares_memory else 1.0
    words, messages = zip(*parts, strict=True)
    return travels * np.sum(words, axis=0), travels * np.sum(messages, axis=0)


def _pivot_traffic(g: Geometry, along_row: bool) -> tuple[Counts, Counts]:
    """The pivot goes from its owner to the ranks of its grid column, and of its grid row."""
    row, column = g.in_row[:, :, None], g.in_column[:, None, :]
    receives = (~row & column).astype(np.float64) + (row & ~column if along_row else 0.0)
    return receives * (g.extent**2)[:, None, None], receives


def _panel_traffic(g: Geometry) -> tuple[Counts, Counts]:
    """U_i, i > k: along grid rows from grid column k, then to the right sides along grid columns."""
    b, (P, Q) = g.extent[:, None, None], (g.layout.grid.rows, g.layout.grid.columns)
    sent = g.rows_since[1:, :, None] * ~g.in_column[:, None, :] * b
    words, messages = sent, (sent > 0).astype(np.float64)
    for peer in range(P if P > 1 else 0):
        held = _since((g.in_column & g.in_row[:, [peer]]) * g.extent[:, None])[1:, None, :] * b  # (T, 1, Q)
        received = held * (np.arange(P) != peer)[:, None]
        words, messages = words + received, messages + (received > 0)
    return words + np.zeros((1, P, Q)), messages + np.zeros((1, P, Q))


def _panel_traffic_before(g: Geometry) -> tuple[Counts, Counts]:
    """U_j, j < k: along grid columns from grid row k, then to the left sides along grid rows."""
    b, (P, Q) = g.extent[:, None, None], (g.layout.grid.rows, g.layout.grid.columns)
    sent = g.columns_before[:-1, None, :] * ~g.in_row[:, :, None] * b
    words, messages = sent, (sent > 0).astype(np.float64)
    for peer in range(Q if Q > 1 else 0):
        since = _since((g.in_row & g.in_column[:, [peer]]) * g.extent[:, None])
        held = (since[0] - since)[:-1, :, None] * b  # (T, P, 1)
        received = held * (np.arange(Q) != peer)
        words, messages = words + received, messages + (received > 0)
    return words + np.zeros((1, P, Q)), messages + np.zeros((1, P, Q))


def _since(values: Counts) -> Counts:
    """Sums of ``values`` from each index of the first axis on; one more entry, 0, at the end."""
    reverse = np.cumsum(values[::-1], axis=0)[::-1]
    return np.concatenate([reverse, np.zeros_like(reverse[:1])])
