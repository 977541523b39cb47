"""Variance components by tiles: sums of terms, and reading no more than the tiles need."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from openreml_dist import Covariance, Grouping, Identity, Kernel
from openreml_dist.covariance import FeatureKernel, Heterogeneous, IdentityMatrix, Scaled, VarianceComponent, Weighted
from openreml_dist.errors import InputError
from openreml_dist.grid import ProcessGrid
from openreml_dist.layout import GridShape, TileLayout
from openreml_dist.tiled import TiledSymmetric
from tests.helpers.oracle import whole
from tests.helpers.terms import Recorder

CPU = torch.device("cpu")
THETA = torch.tensor([1.7], dtype=torch.float64)
N = 30
LEVELS = np.arange(N) % 7


def terms() -> list[tuple[VarianceComponent, torch.Tensor]]:
    source, index = Recorder(), np.arange(49, 49 - N, -1)
    return [
        (Identity(N), torch.eye(N).double()),
        (Grouping(LEVELS, "group"), torch.tensor(LEVELS[:, None] == LEVELS).double()),
        (Kernel(source, index), torch.tensor(source.matrix[np.ix_(index, index)]).double()),
    ]


@given(st.integers(0, 2), st.integers(0, N - 1), st.integers(1, N), st.integers(0, N - 1), st.integers(1, N))
def test_tiles_and_derivatives_equal_the_dense_matrix(which: int, top: int, height: int, left: int, width: int) -> None:
    term, dense = terms()[which]
    rows, columns = range(top, min(N, top + height)), range(left, min(N, left + width))
    expected = dense[rows.start : rows.stop, columns.start : columns.stop]
    for tile, scale in ((term.tile(rows, columns, THETA, CPU), 1.7), (term.dtile(0, rows, columns, THETA, CPU), 1.0)):
        found = torch.zeros_like(expected) if tile is None else tile.double()
        torch.testing.assert_close(found, scale * expected, rtol=1e-15, atol=0)


def test_zero_tiles_are_none() -> None:
    assert Identity(N).tile(range(5), range(5, 9), THETA, CPU) is None
    assert Grouping(np.arange(N) // 10, "g").dtile(0, range(5), range(20, 25), THETA, CPU) is None


ORDERS = {
    "all": np.arange(50),
    "reversed": np.arange(49, -1, -1),
    "some": np.array([1, 2, 3, 17, 19, 30, 31, 49]),
    "shuffled": np.random.default_rng(2).permutation(50)[:37],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("chunk_size", [1, 7, 16, 50])
@pytest.mark.parametrize("cached", [0, 7, 1000])  # tiles
def test_a_pass_reads_every_chunk_once_whatever_the_tiles_and_the_samples(order: str, chunk_size: int, cached: int) -> None:
    source, index, tile_size = Recorder(50, chunk_size), ORDERS[order], 11
    n = len(index)
    kernel = Kernel(source, index, cache_bytes=4 * tile_size**2 * cached)
    layout = TileLayout(n, tile_size, GridShape(1, 1))
    spans = [(layout.span(i), layout.span(j)) for i, j in layout.tiles(0)]
    dense = torch.tensor(source.matrix[np.ix_(index, index)])
    needed = {(max(a, b), min(a, b)) for a in index // chunk_size for b in index // chunk_size}
    for number in range(3):
        tiles = [torch.full((len(rows), len(columns)), torch.nan) for rows, columns in spans]
        shares = []
        for _, piece in kernel.dpieces(spans, THETA, CPU):
            tile = tiles[piece.tile]
            place = (torch.arange(len(tile))[piece.rows][:, None], torch.arange(tile.shape[1])[piece.columns])
            assert bool(tile[place].isnan().all()), "given twice"
            tile[place] = piece.values
            shares.append(piece.done)
        for tile, (rows, columns) in zip(tiles, spans, strict=True):
            assert torch.equal(tile, dense[rows.start : rows.stop, columns.start : columns.stop])
        assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
        assert len(source.reads) == len(set(source.reads))
        if number == 0:
            assert set(source.reads) == needed
        elif cached == 1000:
            assert source.reads == []
        elif cached == 0:
            assert set(source.reads) == needed
        source.reads.clear()


def test_a_tile_reads_the_chunks_under_it_and_no_more() -> None:
    source = Recorder()
    kernel = Kernel(source, np.arange(49, -1, -1))  # the last samples of the source first
    kernel.dtile(0, range(5), range(20, 25), THETA, CPU)
    assert sorted(source.reads) == [(2, 1), (3, 1)]  # rows 49 to 45, columns 29 to 25: chunks of 16


def test_a_chunk_that_cannot_be_read_is_told_in_the_pass() -> None:
    class Damaged(Recorder):
        def read_chunk(self, i: int, j: int) -> NDArray[np.floating]:
            if (i, j) == (2, 1):
                raise InputError("chunk 2/1 is damaged")
            return super().read_chunk(i, j)

    kernel = Kernel(Damaged(), np.arange(50), cache_bytes=10**6)
    V = TiledSymmetric(TileLayout(50, 20, GridShape(1, 1)), ProcessGrid.single())
    for _ in range(2):  # and nothing half read is kept
        with pytest.raises(InputError, match="2/1"):
            Covariance([kernel]).assemble_(V, THETA)


def test_float32_kernels_are_assembled_in_float64() -> None:
    source = Recorder()
    covariance = Covariance([Kernel(source, np.arange(50))])
    V = TiledSymmetric(TileLayout(50, 50, GridShape(1, 1)), ProcessGrid.single())
    covariance.assemble_(V, torch.tensor([1 / 3], dtype=torch.float64))
    torch.testing.assert_close(V.tile(0, 0), torch.tensor(source.matrix).double() / 3, rtol=1e-15, atol=0)


@pytest.mark.parametrize("tile_size", [7, 30])
def test_covariance_sums_its_terms_and_multiplies_with_their_derivatives(tile_size: int) -> None:
    made = terms()
    covariance = Covariance([term for term, _ in made])
    assert covariance.parameters == ("residual", "group", "genetic")
    theta = torch.tensor([0.5, 0.3, 0.1], dtype=torch.float64)
    expected = sum(float(t) * dense for t, (_, dense) in zip(theta, made, strict=True))
    V = TiledSymmetric(TileLayout(N, tile_size, GridShape(1, 1)), ProcessGrid.single())
    covariance.assemble_(V, theta)
    torch.testing.assert_close(whole(V), expected.tril())
    B = torch.randn(N, 4, dtype=torch.float64)
    for product, (_, dense) in zip(covariance.times(B, theta, V.grid, V.layout), made, strict=True):
        torch.testing.assert_close(product, dense @ B)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Covariance([]), "at least one term"),
        (lambda: Covariance([Identity(3), Identity(4, "e")]), "different numbers of samples"),
        (lambda: Covariance([Identity(3), Identity(3)]), "same name"),
        (lambda: Grouping(["a", "a"], "g"), "g: all samples have the same level"),
        (lambda: Grouping([1, 2], "g"), "g: every sample has a level of its own"),
        (lambda: Kernel.from_array(torch.ones(2, 3)), "square"),
        (lambda: Kernel.from_array(torch.tensor([[1.0, 2.0], [0.0, 1.0]])), "not symmetric"),
        (lambda: Kernel.from_array(torch.tensor([[1.0, torch.nan], [torch.nan, 1.0]])), "not finite"),
    ],
)
def test_terms_that_make_no_sense_are_refused(make: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()  # type: ignore[operator]


def test_a_covariance_says_what_its_terms_are() -> None:
    n = 6
    K = np.eye(n) + 0.5
    stored, made = Kernel.from_array(K), FeatureKernel(np.random.default_rng(2).standard_normal((n, 3)), "snps")
    litters = Grouping([0, 0, 1, 1, 1, 2], "litter")
    whole = Covariance([stored, litters, made, Identity(n)])
    assert whole.kernels == (stored, made) and whole.residual is whole.terms[-1] and whole.kernel_and_identity is None
    two = Covariance([stored, VarianceComponent(IdentityMatrix(n), "residual")])
    assert two.kernel_and_identity == two.terms and two.residual is two.terms[1]
    assert Covariance([stored, Identity(n)], fixed={"genetic": 0.5}).kernel_and_identity is None
    for last in (litters, Heterogeneous([0, 0, 1, 1, 1, 0])):
        other = Covariance([stored, last])
        assert other.residual is None and other.kernel_and_identity is None


def test_a_term_says_what_spares_work() -> None:
    litters, weights = Grouping([7, 7, 3, 7], "litter"), Scaled(Weighted([1.0, 2.0, 0.5, 4.0]), "error")
    assert litters.groups is not None and litters.groups.tolist() == [0, 0, 2, 0]
    assert litters.distinct_rows is not None
    first, which = litters.distinct_rows
    assert first[which].tolist() == [0, 0, 2, 0] and not litters.is_diagonal
    assert weights.is_diagonal and weights.groups is None and weights.distinct_rows is None
    eta = torch.tensor([3.0], dtype=torch.float64)
    diagonal = weights.whole_diagonal(eta, torch.device("cpu"))
    assert diagonal is not None and diagonal.tolist() == [3.0, 6.0, 1.5, 12.0]
    assert litters.whole_diagonal(eta, torch.device("cpu")) is None
    none = litters.whole_diagonal(0 * eta, torch.device("cpu"))
    assert none is not None and none.tolist() == [0.0] * 4
