"""Products with packed genotypes, and the engine that lives on them, on one to six ranks: the same numbers on all of them."""

from __future__ import annotations

import pytest
import torch

from openreml_dist.covariance import Covariance, Identity
from openreml_dist.covariance.markers import Markers
from openreml_dist.grid import ProcessGrid
from openreml_dist.layout import TileLayout, choose_tile_size
from openreml_dist.reml.fitting import FitOptions, fit
from openreml_dist.reml.stochastic import StochasticEngine
from openreml_dist.reml.stochastic.accuracy import Target
from tests.helpers.gloo import spawn
from tests.helpers.markers import Genotypes

RANKS = [1, 2, 4, 6]


def products(n: int, m: int) -> dict[str, float]:
    data, grid = Genotypes.simulated(n, m), ProcessGrid.connect()
    operator, Z = data.operator(grid, cache_bytes=1e5), data.Z
    generator = torch.Generator().manual_seed(2)
    V, B = (torch.randn(size, 3, generator=generator, dtype=torch.float64) for size in (m, n))
    grams = operator.block_grams(32)
    blocks = [Z[start : start + 32] @ Z[start : start + 32].mT for start in range(0, m, 32)]
    V_of_theta = Covariance([Markers(operator, torch.full((m,), 1 / m, dtype=torch.float64)), Identity(n)])
    theta = torch.tensor([0.4, 0.6], dtype=torch.float64)
    VB = V_of_theta.product(B, theta, grid, TileLayout(n, choose_tile_size(n, grid.shape), grid.shape))
    return {
        "V(θ)B": float((VB - 0.4 * Z.mT @ (Z @ B) / m - 0.6 * B).abs().max()),
        "ZZᵀV": float((operator.gram(V) - Z @ (Z.mT @ V)).abs().max()),
        "ZZᵀV again": float((operator.gram(V) - Z @ (Z.mT @ V)).abs().max()),
        "ZB": float((operator.of_samples(B) - Z @ B).abs().max()),
        "ZᵀV": float((operator.of_variants(V) - Z.mT @ V).abs().max()),
        "ZZᵀV in float32": float((operator.gram(V.float()) - Z @ (Z.mT @ V)).abs().max()) * 1e-5,
        "Z_bZ_bᵀ in float32": max(
            float((gram[: len(block), : len(block)] - block).abs().max()) for gram, block in zip(grams, blocks, strict=True)
        )
        * 1e-5,
    }


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize(("n", "m"), [(97, 70), (301, 33), (23, 6)])
def test_products_are_those_of_standardised_genotypes(n: int, m: int, ranks: int) -> None:

    for errors in spawn(products, ranks, n, m):
        assert {name: error for name, error in errors.items() if error > 1e-9 * m} == {}


def estimates() -> tuple[list[float], float]:
    grid = ProcessGrid.connect()
    data = Genotypes.simulated(240, 300, num_components=2)
    engine = StochasticEngine(data.problem(grid, block=64), ["k0", "k1"], Target(0.02, 2000, seed=1))
    found = fit(engine, "auto", FitOptions())
    return found.theta.tolist(), found.loglik


def test_the_number_of_ranks_changes_no_digit_that_is_printed() -> None:
    (alone, loglik), *_ = spawn(estimates, 1)
    for ranks in (2, 4):
        for theta, other in spawn(estimates, ranks):
            assert theta == pytest.approx(alone, rel=1e-6)
            assert other == pytest.approx(loglik, abs=1e-5)
