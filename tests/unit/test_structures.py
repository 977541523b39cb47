"""Designs, structures and whole matrices on their own: what is refused, what is small at a million samples."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch

from openreml_dist.covariance import (
    AR1Matrix,
    BlockDiagonal,
    CompoundSymmetricMatrix,
    Covariance,
    CovariancePropagation,
    DenseMatrix,
    DiagonalMatrix,
    DummyMatrix,
    EquicorrelationMatrix,
    Grouping,
    HadamardProduct,
    IdentityMatrix,
    KroneckerProduct,
    Log,
    ScalarMatrix,
    Sum,
    Term,
)
from openreml_dist.errors import InputError
from openreml_dist.grid import ProcessGrid
from openreml_dist.layout import GridShape, TileLayout

CPU = torch.device("cpu")
MANY = 1_000_000


@pytest.mark.parametrize(
    ("factors", "options", "message"),
    [
        ((), {}, "there are none"),
        ((["a", "b"], ["a"]), {}, "there are 2, 1"),
        (([],), {}, r"shape \(0,\)"),
        ((["a", None, None],), {}, "no level in 2 records, the first of them 1"),
        (([1.0, float("nan")],), {}, "no level in 1 records"),
        ((["a", "a"],), {"drop_first": True}, "no column is left"),
        ((["a", "b"],), {"levels": ["a", "b"]}, "one list for each of the 1 factors"),
        ((["a", "b"],), {"levels": ["ab"]}, "one list for each of the 1 factors"),
        ((["a", "b"],), {"levels": [["a", "a", "b"]]}, "must be there and differ"),
    ],
)
def test_designs_that_cannot_be_made_are_refused(factors: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DummyMatrix(*factors, **options)


def test_numbers_are_levels_in_their_own_order() -> None:
    design = DummyMatrix(np.array([10, 2, 2, -1]), torch.tensor([1, 0, 1, 0]))
    assert design.colnames == [f"{a}⋈{b}" for a in (-1, 2, 10) for b in (0, 1)]
    assert design.codes.tolist() == [5, 2, 3, 0]


def test_a_record_without_an_effect_has_no_covariance() -> None:
    Z = DummyMatrix(["a", "b", "a", "c"], drop_first=True)
    V = CovariancePropagation(Z, AR1Matrix(2))
    dense = Z().double()
    theta = torch.tensor([0.1, 0.5]).double()
    torch.testing.assert_close(V(theta), dense @ AR1Matrix(2)(theta) @ dense.mT)
    assert V.tile(range(1), range(1, 4), theta, CPU) is None or not V.tile(range(1), range(1, 4), theta, CPU).any()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AR1Matrix(3, param_names=["a"]), InputError, "2 parameters; 1 names"),
        (lambda: AR1Matrix(3, trans=[Log()] * 3), InputError, "3 transforms"),
        (lambda: AR1Matrix(3, trans=[torch.exp]), TypeError, "transforms such as"),
        (lambda: ScalarMatrix(3, no_grad_index=[0]), InputError, "fixed="),
        (lambda: EquicorrelationMatrix(1), InputError, "at least 2"),
        (lambda: CompoundSymmetricMatrix(1), InputError, "at least 2"),
        (lambda: CovariancePropagation(ScalarMatrix(3)), TypeError, "Z and G are needed"),
        (lambda: CovariancePropagation(torch.eye(3), G=ScalarMatrix(3)), TypeError, "both by keyword"),
        (
            lambda: CovariancePropagation(torch.eye(3), ScalarMatrix(2)),
            InputError,
            "shape .samples, 2. is needed, as G has, not .3, 3.",
        ),
        (lambda: CovariancePropagation(ScalarMatrix(3), ScalarMatrix(3)), InputError, "1 parameters"),
        (lambda: ScalarMatrix(3)(torch.zeros(2)), InputError, r"shape \(2,\), but there are 1"),
        (lambda: ScalarMatrix(20_000)(torch.zeros(1)), InputError, "by tiles"),
        (lambda: DiagonalMatrix(600).grad(torch.zeros(600)), InputError, "by tiles"),
        (lambda: DenseMatrix(20_000, torch.diag, ["a"]), InputError, "by tiles"),
    ],
)
def test_what_cannot_be_made_is_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_z_and_g_are_told_apart_by_keyword_in_any_order() -> None:
    Z, G = torch.arange(6).reshape(3, 2).double(), AR1Matrix(2)
    theta = torch.tensor([0.1, 0.5]).double()
    V = CovariancePropagation(G=G, Z=Z)
    assert V.param_names == ["G/sigma^2", "G/rho"]
    torch.testing.assert_close(V(theta), Z @ G(theta) @ Z.mT)


def test_other_transforms_move_the_same_matrix() -> None:
    theta = torch.tensor([2.0]).double()
    torch.testing.assert_close(ScalarMatrix(2, trans=[Log()])(theta), theta.exp() * torch.eye(2).double())


def test_a_selection_keeps_names_and_transforms() -> None:
    index = np.array([2, 0, 2])
    for term in (ScalarMatrix(3), AR1Matrix(3), CompoundSymmetricMatrix(3), DiagonalMatrix(3)):
        theta = torch.linspace(-0.3, 0.4, term.num_params).double()
        selected = term.selected(index)
        assert selected.param_names == term.param_names
        torch.testing.assert_close(selected(theta), term(theta)[index][:, index])


def test_a_dense_matrix_is_a_term_among_others() -> None:
    n = 12
    terms: list[Term] = [Grouping(np.arange(n) % 4, "group"), AR1Matrix(n)]
    whole = DenseMatrix(n, AR1Matrix(n), ["sigma", "rho"])
    grid, layout = ProcessGrid.single(), TileLayout(n, 5, GridShape(1, 1))
    theta = torch.tensor([0.3, 0.1, 0.6]).double()
    B = torch.randn(n, 2, generator=torch.Generator().manual_seed(1)).double()
    expected, found = (Covariance([terms[0], last]).times(B, theta, grid, layout) for last in (terms[1], whole))
    torch.testing.assert_close(found, expected)
    index = np.array([3, 0, 7])
    torch.testing.assert_close(whole.selected(index)(theta[1:]), terms[1](theta[1:])[index][:, index])


def test_repr_shows_the_whole_tree() -> None:
    V = Sum(x=HadamardProduct(AR1Matrix(4), IdentityMatrix(4)), y=CovariancePropagation(torch.ones(4, 2), ScalarMatrix(2)))
    assert repr(V).splitlines() == [
        "Sum(",
        "  x: HadamardProduct(",
        "    op_0: AR1Matrix(4 x 4, parameters: sigma^2, rho)",
        "    op_1: IdentityMatrix(4 x 4)",
        "  )",
        "  y: CovariancePropagation(",
        "    op_0: Tensor(4 x 2)",
        "    op_1: ScalarMatrix(2 x 2, parameters: sigma^2)",
        "  )",
        ")",
    ]


LARGE: dict[str, Any] = {
    "scalar": lambda: ScalarMatrix(MANY),
    "ar1": lambda: AR1Matrix(MANY),
    "compound symmetric": lambda: CompoundSymmetricMatrix(MANY),
    "equicorrelation": lambda: EquicorrelationMatrix(MANY),
    "propagation": lambda: CovariancePropagation(DummyMatrix(np.arange(MANY) % 1000), AR1Matrix(1000)),
    "propagation with a record that has no effect": lambda: CovariancePropagation(
        DummyMatrix(np.arange(MANY) % 1000, drop_first=True), AR1Matrix(999)
    ),
    "kronecker": lambda: KroneckerProduct(AR1Matrix(1000), AR1Matrix(1000)),
    "blocks": lambda: BlockDiagonal(AR1Matrix(MANY // 2), ScalarMatrix(MANY // 2)),
    "sum of products": lambda: Sum(HadamardProduct(AR1Matrix(MANY), EquicorrelationMatrix(MANY)), ScalarMatrix(MANY)),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_tile_of_a_million_samples_is_small(name: str) -> None:
    term = LARGE[name]()
    eta = torch.full((term.num_params,), 0.5).double()
    rows, columns = range(499_990, 500_054), range(499_980, 500_044)
    tracemalloc.start()
    began = time.perf_counter()
    tiles = [term.tile(rows, columns, eta, CPU), *(term.dtile(k, rows, columns, eta, CPU) for k in range(len(eta)))]
    seconds, (_, peak) = time.perf_counter() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tiles[0] is not None
    assert tiles[0].shape == (64, 64)
    assert seconds < 1
    assert peak < 50e6
