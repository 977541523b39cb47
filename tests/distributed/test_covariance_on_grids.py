"""V(θ), its derivatives and the products with them on a grid of ranks, for every covariance term: equal to dense matrices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from openreml_dist.covariance import Covariance, Identity, Term
from openreml_dist.covariance.products import Work
from openreml_dist.grid import ProcessGrid
from openreml_dist.layout import TileLayout
from openreml_dist.tiled import TiledSymmetric
from tests.helpers.gloo import spawn
from tests.helpers.oracle import random_positive_definite, tiled, whole
from tests.helpers.terms import CASES, Case, slopes


@dataclass(frozen=True)
class Projected:
    """P = V⁻¹ − WWᵀ."""

    tiles: TiledSymmetric
    W: Tensor


def close(found: Tensor, expected: Tensor, what: str) -> None:
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * scale, msg=lambda words: f"{what}: {words}")


def check_all(rows: int, columns: int) -> int:
    """Every case with a term beside it, so that one adds to the other. Collective."""
    grid = ProcessGrid.connect(rows, columns)
    for name, make in CASES.items():
        check(name, make(np.random.default_rng(7), 9), grid)
    return len(CASES)


def check(name: str, case: Case, grid: ProcessGrid) -> None:
    term, n = case.term, case.term.size
    covariance = Covariance([term, Identity(n, "noise")])
    theta = torch.cat([case.eta, torch.tensor([0.4], dtype=torch.float64)])
    layout = TileLayout(n, 4 if n < 20 else 9, grid.shape)
    eye = torch.eye(n, dtype=torch.float64)
    parts = [case.dense(case.eta), 0.4 * eye]
    V_k = [*slopes(case.dense, case.eta), eye]
    B = torch.randn(n, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    V = covariance.assemble(theta, grid, layout)
    close(whole(V), (parts[0] + parts[1]).tril(), f"{name}: V")
    for k, made in enumerate(covariance.derivatives(theta, grid, layout)):
        close(whole(made), V_k[k].tril(), f"{name}: derivative {k}")
    close(covariance.times(B, theta, grid, layout), torch.stack([K @ B for K in V_k]), f"{name}: V_k B")
    close(covariance.terms_times(B, theta, grid, layout), torch.stack([K @ B for K in parts]), f"{name}: terms times B")
    close(covariance.product(B, theta, grid, layout), (parts[0] + parts[1]) @ B, f"{name}: V times B")
    check_products(name, case, B, Work(grid, layout.spans(grid.rank)))

    V_inv, u, W = random_positive_definite(n), B[:, 0], B[:, 1:]
    T, traces = covariance.contract(Projected(tiled(V_inv, layout.tile_size, grid), W), u, theta)
    close(T, torch.stack([K @ u for K in V_k], dim=1), f"{name}: V_k u")
    close(traces, torch.stack([((V_inv - W @ W.mT) * K).sum() for K in V_k]), f"{name}: tr(P V_k)")


def check_products(name: str, case: Case, B: Tensor, work: Work) -> None:
    """A term's own products, in whatever way, equal those of its tiles."""
    term, count = case.term, len(case.eta)
    factors = [0.5 + k for k in range(count)]
    own, by_tiles = torch.zeros(2, 1 + count, *B.shape, dtype=B.dtype)
    for kind, products in ((type(term), own), (Term, by_tiles)):
        kind.add_times_(term, products[0], B, case.eta, work, 0.7)
        kind.add_derivatives_times_(term, list(products[1:]), B, case.eta, work, factors)
        work.grid.sum_(products)
    scale = max(1.0, float(by_tiles.abs().max()))
    torch.testing.assert_close(own, by_tiles, rtol=1e-12, atol=1e-12 * scale, msg=lambda words: f"{name}: products: {words}")


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 2), (2, 2)])
def test_every_term_on_a_grid_equals_its_dense_matrix(rows: int, columns: int) -> None:
    assert spawn(check_all, rows * columns, rows, columns) == [len(CASES)] * (rows * columns)
