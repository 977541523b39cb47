"""V(θ), its derivatives and the products with them on a grid of ranks, for every covariance term: equal to dense matrices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from openreml_dist.covariance import Covariance, Identity
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

    V_inv, u, W = random_positive_definite(n), B[:, 0], B[:, 1:]
    T, traces = covariance.contract(Projected(tiled(V_inv, layout.tile_size, grid), W), u, theta)
    close(T, torch.stack([K @ u for K in V_k], dim=1), f"{name}: V_k u")
    close(traces, torch.stack([((V_inv - W @ W.mT) * K).sum() for K in V_k]), f"{name}: tr(P V_k)")


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 2), (2, 2)])
def test_every_term_on_a_grid_equals_its_dense_matrix(rows: int, columns: int) -> None:
    assert spawn(check_all, rows * columns, rows, columns) == [len(CASES)] * (rows * columns)
