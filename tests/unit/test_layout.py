"""Who owns which tile, and where a rank keeps it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openreml_dist.errors import ConfigError
from openreml_dist.layout import GridShape, TileLayout, choose_tile_size
from openreml_dist.tiled import BlockCyclic

grids = st.builds(GridShape, st.integers(1, 5), st.integers(1, 5))
layouts = st.builds(TileLayout, st.integers(1, 90), st.integers(1, 40), grids)


@given(layouts)
def test_each_tile_of_the_lower_triangle_has_one_owner(layout: TileLayout) -> None:
    dealt = [(rank, tile) for rank in range(layout.grid.size) for tile in layout.tiles(rank)]
    lower = {(i, j) for i in range(layout.num_tiles) for j in range(i + 1)}
    assert len(dealt) == len(lower)
    assert {tile for _, tile in dealt} == lower
    assert all(layout.owner(i, j) == rank for rank, (i, j) in dealt)


@given(layouts)
def test_spans_cover_each_row_once(layout: TileLayout) -> None:
    spans = [layout.span(i) for i in range(layout.num_tiles)]
    assert [row for span in spans for row in span] == list(range(layout.size))
    assert [layout.extent(i) for i in range(layout.num_tiles)] == [len(span) for span in spans]


@given(layouts)
def test_ranks_without_tile(layout: TileLayout) -> None:
    assert layout.ranks_without_tile() == [rank for rank in range(layout.grid.size) if not layout.tiles(rank)]


@given(grids)
def test_coordinates_and_rank_are_inverse(grid: GridShape) -> None:
    places = [grid.coordinates(rank) for rank in range(grid.size)]
    assert sorted(places) == [(row, column) for row in range(grid.rows) for column in range(grid.columns)]
    assert [grid.rank(*place) for place in places] == list(range(grid.size))


@given(st.integers(1, 4000), grids, st.booleans())
def test_chosen_tile_size_leaves_no_rank_idle_that_could_work(size: int, grid: GridShape, on_gpu: bool) -> None:
    tile_size = choose_tile_size(size, grid, on_gpu)
    assert 1 <= tile_size <= (1024 if on_gpu else 256)
    possible = not TileLayout(size, 1, grid).ranks_without_tile()
    assert (not TileLayout(size, tile_size, grid).ranks_without_tile()) == possible


@pytest.mark.parametrize(
    ("size", "grid", "on_gpu", "expected"),
    [(100_000, (1, 1), False, 256), (100_000, (4, 8), True, 608), (1_000_000, (8, 16), True, 1024), (5000, (2, 2), False, 96)],
)
def test_chosen_tile_size_of_large_problems(size: int, grid: tuple[int, int], on_gpu: bool, expected: int) -> None:
    assert choose_tile_size(size, GridShape(*grid), on_gpu) == expected


@given(layouts, st.data())
def test_block_cyclic_positions(layout: TileLayout, data: st.DataObject) -> None:
    parts = data.draw(st.integers(1, 5))
    part = BlockCyclic(layout, data.draw(st.integers(0, parts - 1)), parts)
    mine = [i for i in range(layout.num_tiles) if i % parts == part.part]
    rows = [row for i in mine for row in layout.span(i)]
    assert list(part.tiles) == mine
    assert part.length == len(rows)
    assert part.indices(torch.device("cpu")).tolist() == rows
    for i in range(layout.num_tiles + 1):
        assert part.start(i) == sum(layout.extent(own) for own in mine if own < i)
    for i in mine:
        assert rows[part.rows(i)] == list(layout.span(i))


@pytest.mark.parametrize(
    ("num_ranks", "shape"), [(1, (1, 1)), (2, (1, 2)), (4, (2, 2)), (6, (2, 3)), (7, (1, 7)), (12, (3, 4)), (64, (8, 8))]
)
def test_grid_is_as_square_as_it_goes(num_ranks: int, shape: tuple[int, int]) -> None:
    assert GridShape.choose(num_ranks) == GridShape(*shape)


def test_grid_from_one_side() -> None:
    assert GridShape.choose(6, rows=3) == GridShape(3, 2)
    assert GridShape.choose(6, columns=6) == GridShape(1, 6)


@pytest.mark.parametrize(
    ("num_ranks", "rows", "columns", "message"),
    [
        (6, 2, 2, "2 x 2 needs 4 ranks, but 6 were started"),
        (1, 1, 2, "1 x 2 needs 2 ranks, but 1 was started"),
        (6, 4, None, "but 6 were started"),
        (6, None, 4, "but 6 were started"),
        (6, 0, None, "but 6 were started"),
        (6, None, 0, "but 6 were started"),
        (6, -2, -3, "not a process grid"),
    ],
)
def test_grid_that_does_not_match_the_ranks(num_ranks: int, rows: int | None, columns: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GridShape.choose(num_ranks, rows, columns)


@pytest.mark.parametrize(("size", "tile_size"), [(0, 4), (4, 0), (4, -1)])
def test_empty_layout_is_refused(size: int, tile_size: int) -> None:
    with pytest.raises(ConfigError):
        TileLayout(size, tile_size, GridShape(1, 1))
