"""Ownership of tiles and the packing of block-cyclic parts, against brute force."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openreml_dist.errors import ConfigError
from openreml_dist.layout import GridShape, TileLayout, choose_tile_size
from openreml_dist.tiled import BlockCyclic

layouts = st.builds(
    TileLayout,
    st.integers(1, 200),
    st.integers(1, 70),
    st.builds(GridShape, st.integers(1, 4), st.integers(1, 5)),
)


@given(layouts)
def test_every_tile_has_one_owner_and_every_row_one_tile(layout: TileLayout) -> None:
    owned = [tile for rank in range(layout.grid.size) for tile in layout.tiles(rank)]
    assert sorted(owned) == [(i, j) for i in range(layout.num_tiles) for j in range(i + 1)]
    for rank in range(layout.grid.size):
        assert all(layout.owner(i, j) == rank for i, j in layout.tiles(rank))
    assert [row for i in range(layout.num_tiles) for row in layout.span(i)] == list(range(layout.size))
    assert all(layout.extent(i) == len(layout.span(i)) for i in range(layout.num_tiles))


@given(layouts)
def test_ranks_without_tile_are_those_that_own_none(layout: TileLayout) -> None:
    assert layout.ranks_without_tile() == [rank for rank in range(layout.grid.size) if not layout.tiles(rank)]


@given(layouts, st.data())
def test_packed_parts_equal_a_concatenation(layout: TileLayout, data: st.DataObject) -> None:
    parts = data.draw(st.integers(1, 5))
    part = BlockCyclic(layout, data.draw(st.integers(0, parts - 1)), parts)
    packed = [row for i in part.tiles for row in layout.span(i)]
    assert part.indices(torch.device("cpu")).tolist() == packed
    assert part.length == len(packed)
    for i in part.tiles:
        assert packed[part.rows(i)] == list(layout.span(i))
    for i in range(layout.num_tiles + 1):
        assert packed[part.start(i) :] == [row for j in part.tiles if j >= i for row in layout.span(j)]


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 5000), st.booleans())
def test_default_tile_size_gives_every_rank_a_tile(rows: int, columns: int, extra: int, on_gpu: bool) -> None:
    grid = GridShape(rows, columns)
    size = rows + columns + extra
    assert not TileLayout(size, choose_tile_size(size, grid, on_gpu), grid).ranks_without_tile()


@pytest.mark.parametrize(
    ("num_ranks", "rows", "columns", "expected"),
    [
        (1, None, None, (1, 1)), (2, None, None, (2, 1)), (6, None, None, (3, 2)), (7, None, None, (7, 1)),
        (12, None, None, (4, 3)), (4, 4, None, (4, 1)), (4, None, 2, (2, 2)), (6, 3, 2, (3, 2)),
    ],
)  # fmt: skip
def test_grid_is_as_square_as_it_goes_or_as_asked(
    num_ranks: int, rows: int | None, columns: int | None, expected: tuple[int, int]
) -> None:
    shape = GridShape.choose(num_ranks, rows, columns)
    assert (shape.rows, shape.columns) == expected


@pytest.mark.parametrize(("num_ranks", "rows", "columns"), [(2, 3, None), (4, 3, 1), (4, None, 3), (2, 0, None), (2, -1, -2)])
def test_grid_that_does_not_match_the_ranks_is_refused(num_ranks: int, rows: int | None, columns: int | None) -> None:
    with pytest.raises(ConfigError, match="grid"):
        GridShape.choose(num_ranks, rows, columns)
