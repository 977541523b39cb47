"""V(θ), its derivatives and the products with them on a grid of ranks, for every covariance term: equal to dense matrices."""

from __future__ import annotations

from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from openreml_dist.covariance import Covariance, Identity, Samples, Scaled, Sum, Term, VarianceComponent
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


class OfShards(Term):
    """ZZᵀ/m of which each rank has some samples: it alone can be multiplied, in two steps with a sum between them."""

    has_product = is_sharded = True

    def __init__(self, Z: Tensor, grid: ProcessGrid) -> None:
        self.name, self.size, self.num_features = "shards", len(Z), Z.shape[1]
        self.own = Work(grid, []).part_of(self.size)
        self.Z = Z[self.own.start : self.own.stop].clone()

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        raise AssertionError("no rank has the features of all samples")

    def add_times_(self, product: Tensor, B: Tensor, eta: Tensor, work: Work, factor: float = 1.0) -> None:
        sums = work.grid.sum_(self.Z.mT @ B[self.own.start : self.own.stop])
        product[self.own.start : self.own.stop] += factor / self.num_features * (self.Z @ sums)


def check_shards(rows: int, columns: int) -> list[int]:
    """How many sums over ranks V_k B, the terms times B and V B take, beside those of the sharded term. Collective."""
    grid = ProcessGrid.connect(rows, columns)
    random = np.random.default_rng(5)
    n = 11
    Z = torch.from_numpy(random.standard_normal((n, 7)))
    B = torch.from_numpy(random.standard_normal((n, 2)))
    plot, kin = (CASES[name](random, n) for name in ("Scaled", "Kernel"))
    sharded = Sum(VarianceComponent(OfShards(Z, grid), "snps"), plot.term)
    covariance = Covariance([kin.term, sharded, Scaled(OfShards(Z, grid), "more"), Identity(n)], shared=[["snps", "more"]])
    values = {"genetic": kin.eta[0], "snps": 0.3, "residual": 0.8}
    values |= {p.name: float(v) for p, v in zip(plot.term.parameters, plot.eta, strict=True)}
    theta = torch.tensor([values[name] for name in covariance.parameters], dtype=torch.float64)
    layout = TileLayout(n, 4, grid.shape)

    G, eye = Z @ Z.mT / 7, torch.eye(n, dtype=torch.float64)
    parts = [kin.dense(kin.eta), 0.3 * G + plot.dense(plot.eta), 0.3 * G, 0.8 * eye]
    by_name = {"genetic": kin.dense(torch.ones(1).double()), "snps": 2 * G, "residual": eye}
    by_name |= dict(zip((p.name for p in plot.term.parameters), slopes(plot.dense, plot.eta), strict=True))
    counts = []
    for found, expected in (
        (covariance.times, torch.stack([by_name[name] @ B for name in covariance.parameters])),
        (covariance.terms_times, torch.stack([part @ B for part in parts])),
        (covariance.product, sum(parts) @ B),
    ):
        with patch.object(ProcessGrid, "sum_", autospec=True, side_effect=ProcessGrid.sum_) as sums:
            close(found(B, theta, grid, layout), expected, found.__name__)
        counts.append(sums.call_count - 2)
    return counts


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 2), (2, 2)])
def test_terms_whose_data_are_sharded_multiply_with_collectives_of_their_own(rows: int, columns: int) -> None:
    assert spawn(check_shards, rows * columns, rows, columns) == [[1, 1, 1]] * (rows * columns)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 2), (2, 2)])
def test_every_term_on_a_grid_equals_its_dense_matrix(rows: int, columns: int) -> None:
    assert spawn(check_all, rows * columns, rows, columns) == [len(CASES)] * (rows * columns)
