"""Bytes that a rank will hold during a fit, by part.

Legend: n samples, p fixed effects, r parameters, s probes, b rows a tile; P x Q ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Protocol

from openreml_dist.errors import ConfigError
from openreml_dist.layout import GridShape, TileLayout
from openreml_dist.plan.work import Geometry
from openreml_dist.traces import DEFAULT_PROBES, number_of_probes

SINGLE, DOUBLE = 4, 8  # bytes of a number
PANELS = 2  # one is used, the next one travels
CHUNKS = 4  # one is used, READ_AHEAD are being read, one waits
TILES = 4  # the factor of a pivot, its inverse, and what LAPACK makes of them


class Parts(Protocol):
    """Bytes of a rank."""

    @property
    def total(self) -> float:
        """At the fullest moment."""

    def parts(self) -> dict[str, float]:
        """By what they are for."""


class Planned(Protocol):
    """A fit of any engine, before anything is computed."""

    @property
    def memory(self) -> Parts:
        """Of the fullest rank."""


@dataclass(frozen=True)
class FitSize:
    """What decides about memory and time, beside the tiling.

    Attributes:
        num_kernels: stored relationship matrices.
        num_generated: terms that are made tile by tile, the residual among them.
        num_fixed: columns of X.
        num_probes: random probes, 0 without.
        number_bytes: of a number of V: 8, or 4 where all iterations are in float32.
        chunk_size: rows of a stored chunk.
        cache_bytes: host memory that a rank may spend on stored tiles.
    """

    num_kernels: int = 1
    num_generated: int = 1
    num_fixed: int = 1
    num_probes: int = DEFAULT_PROBES["auto"]
    number_bytes: int = DOUBLE
    chunk_size: int = 1024
    cache_bytes: float = 1e9

    @property
    def num_parameters(self) -> int:
        """r: a variance a term."""
        return self.num_kernels + self.num_generated

    def with_traces(self, method: str, num_probes: int | None = None, is_linear: bool = True) -> FitSize:
        """The same with what a method of traces holds: probes where V is linear in θ, and numbers of V in its precision."""
        no_probes = method == "exact" or not is_linear
        return replace(
            self,
            num_probes=0 if no_probes else number_of_probes(method, num_probes),
            number_bytes=SINGLE if method == "hutchinson" else DOUBLE,
        )


@dataclass(frozen=True)
class Memory:
    """Bytes on the fullest rank.

    Attributes:
        matrix: its tiles of V.
        panels: panels in flight, and the copy that a message is made of.
        vectors: blocks of n numbers a column that every rank holds.
        tiles: single tiles in use.
        kernels: stored tiles that are kept in host memory.
        chunks: stored chunks being read, in host memory.
    """

    matrix: float
    panels: float
    vectors: float
    tiles: float
    kernels: float
    chunks: float

    @property
    def on_device(self) -> float:
        """What must fit into an accelerator."""
        return self.matrix + self.vectors + self.panels + self.tiles

    @property
    def total(self) -> float:
        """What a rank on a CPU holds at most: chunks are read when there are no panels."""
        return self.matrix + self.vectors + self.kernels + max(self.panels + self.tiles, self.chunks)

    def needed(self, on_device: bool) -> float:
        """What must be available to a rank: in its accelerator, or on its host."""
        return self.on_device if on_device else self.total

    def parts(self) -> dict[str, float]:
        """Bytes by part."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def memory(layout: TileLayout, fit: FitSize) -> Memory:
    """Memory of the rank that holds most, in the iterations of the widest numbers."""
    g = Geometry(layout)
    b = layout.tile_size
    fullest = float(g.words.max())
    rows, columns = float(g.rows_since[0].max()), float(g.columns_since[0].max())
    P, Q = layout.grid.rows, layout.grid.columns
    seen = layout.grid.shares_memory  # all of the same panels, by every rank
    sides = float(layout.size) if seen or min(P, Q) == 1 else rows + columns  # a single grid row or column has all on one side
    copied = rows if Q > 1 and not seen else 0.0  # into one piece, for a message
    panels = (PANELS * (sides + b) + copied) * b
    kept = min(SINGLE * fullest * fit.num_kernels, fit.cache_bytes)
    whole_chunk = min(fit.chunk_size, layout.size) ** 2
    return Memory(
        matrix=fit.number_bytes * fullest,
        panels=fit.number_bytes * panels,
        vectors=vectors(layout.size, rows, fit),
        tiles=fit.number_bytes * TILES * min(b, layout.size) ** 2,
        kernels=kept,
        chunks=SINGLE * CHUNKS * whole_chunk if fit.num_kernels else 0.0,
    )


def vectors(n: int, rows: float, fit: FitSize) -> float:
    """Bytes of replicated blocks of vectors: those of the whole fit, and those of the product V⁻¹[y Z], the widest."""
    p, r, s = fit.num_fixed, fit.num_parameters, fit.num_probes
    whole_fit = DOUBLE * n * (1 + 2 * p) + SINGLE * n * s * (1 + r)  # y, X, Q; Z and V_k Z
    product = DOUBLE * (3 * n + 2 * rows) * (s + 1)  # B, V⁻¹B, PB, and the rows of this rank in and out
    return whole_fit + product + DOUBLE * n * (p + r)  # W and T


MOST_RANKS = 4096


def least_ranks(num_samples: int, tile_size: int, fit: FitSize, bytes_a_rank: float, on_device: bool) -> int | None:
    """The smallest power of two of ranks whose part fits; None if not even ``MOST_RANKS`` suffice."""
    ranks = 1
    while ranks <= MOST_RANKS:
        if memory(TileLayout(num_samples, tile_size, GridShape.choose(ranks)), fit).needed(on_device) <= bytes_a_rank:
            return ranks
        ranks *= 2
    return None


def check_memory(layout: TileLayout, fit: FitSize, available: float, on_device: bool) -> None:
    """Refuse what does not fit into the memory that a rank has.

    Raises:
        ConfigError: with the least number of ranks that would do.
    """
    needed = memory(layout, fit).needed(on_device)
    if needed <= available:
        return
    enough = least_ranks(layout.size, layout.tile_size, fit, available, on_device)
    advice = f"at least {enough} such ranks are needed" if enough else "no number of such ranks suffices"
    if not on_device and memory(layout, replace(fit, cache_bytes=0.0)).total <= available:
        advice += ", or solver.kernel_cache_gb=0"
    ranks = f"{layout.grid.size} {'rank' if layout.grid.size == 1 else 'ranks'}"
    raise ConfigError(
        f"does not fit: {layout.size:,} samples on {ranks} take {needed / 1e9:.2f} GB on the fullest rank, but "
        f"{available / 1e9:.2f} GB are available to one; {advice}"
    )
