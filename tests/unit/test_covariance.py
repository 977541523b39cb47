"""Terms by tiles: equal to dense matrices, cheap at a million samples, and reading no more than the tile."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from openreml_dist import Covariance, Grouping, Identity, Kernel
from openreml_dist.covariance import VarianceComponent
from openreml_dist.errors import InputError

CPU = torch.device("cpu")
THETA = torch.tensor([1.7], dtype=torch.float64)
N = 30
LEVELS = np.arange(N) % 7


class Recorder:
    """A kernel source that remembers what was read."""

    def __init__(self) -> None:
        Z = np.random.default_rng(1).standard_normal((50, 60)).astype(np.float32)
        self.matrix = Z @ Z.T
        self.reads: list[tuple[list[int], list[int]]] = []

    def read(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.floating]:
        self.reads.append((rows.tolist(), columns.tolist()))
        return self.matrix[np.ix_(rows, columns)]


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


def test_kernel_reads_the_samples_of_the_tile_and_keeps_what_the_budget_allows() -> None:
    source = Recorder()
    kernel = Kernel(source, np.arange(49, -1, -1), cache_bytes=4 * 10 * 10)  # one tile of float32
    for _ in range(2):
        for rows in (range(0, 10), range(10, 20)):
            kernel.dtile(0, rows, range(0, 10), THETA, CPU)
    first, second = (list(range(49, 39, -1)), list(range(49, 39, -1))), (list(range(39, 29, -1)), list(range(49, 39, -1)))
    assert source.reads == [first, second, second]


def test_float32_kernels_are_assembled_in_float64() -> None:
    source = Recorder()
    tile = Kernel(source, np.arange(50)).tile(range(5), range(5), torch.tensor([1 / 3], dtype=torch.float64), CPU)
    assert tile is not None
    torch.testing.assert_close(tile, torch.tensor(source.matrix[:5, :5]).double() / 3, rtol=1e-15, atol=0)


def test_covariance_sums_its_terms_and_names_its_parameters() -> None:
    made = terms()
    covariance = Covariance([term for term, _ in made])
    theta = torch.tensor([0.5, 0.3, 0.1], dtype=torch.float64)
    expected = sum(float(t) * dense for t, (_, dense) in zip(theta, made, strict=True))
    torch.testing.assert_close(covariance.tile(range(3, 20), range(1, 9), theta, CPU), expected[3:20, 1:9])
    assert covariance.parameters == ("residual", "group", "genetic")
    assert [k for k, _ in covariance.dtiles(range(5), range(10, 15), theta, CPU)] == [1, 2]  # the identity is zero there


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


MILLION = """
import json, resource, time
import numpy as np, torch
from openreml_dist import Grouping, Identity
n, cpu, theta = 10**6, torch.device("cpu"), torch.ones(1, dtype=torch.float64)
terms = [Identity(n), Grouping(np.arange(n) % 1000, "group")]
terms[1].dtile(0, range(3), range(3), theta, cpu)
before, begun, shapes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter(), []
for term in terms:
    for start, other in ((0, 0), (999_900, 999_900), (999_936, 500_000), (123_456, 456)):
        tile = term.tile(range(start, start + 64), range(other, other + 64), theta, cpu)
        shapes.append(None if tile is None else list(tile.shape))
seconds = time.perf_counter() - begun
kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"seconds": seconds, "kilobytes": kilobytes, "shapes": shapes}))
"""


def test_generated_tiles_at_a_million_samples_cost_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", MILLION], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["shapes"][:3] == [[64, 64], [64, 64], None]
    assert found["shapes"][4:6] == [[64, 64], [64, 64]]
    assert found["seconds"] < 1  # all eight tiles; a tile alone may take as long
    assert found["kilobytes"] < 50_000
