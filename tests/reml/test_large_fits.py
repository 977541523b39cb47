"""Two fits of thousands of records on two ranks: the truth is found, in the memory that the plan says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from openreml_dist import REML, Covariance, FitResult, Identity, Kernel
from openreml_dist.covariance import AR1Correlation, HadamardProduct, KroneckerProduct, SameLevel, Scaled, Unstructured
from openreml_dist.grid import ProcessGrid
from openreml_dist.plan.memory import FitSize, memory
from tests.helpers.gloo import spawn
from tests.helpers.live import LiveBytes
from tests.helpers.terms import Recorder

pytestmark = pytest.mark.slow
PEOPLE, FEATURES, CHUNK, SIDE = 3000, 600, 512, 60
Data = tuple[Covariance, Tensor, Tensor, FitSize, dict[str, float]]


@dataclass(frozen=True)
class Large:
    """A fit with what it took: bytes of tensors beyond y and X, the plan's bytes, and seconds of phases by iterate."""

    fit: FitResult
    truth: dict[str, float]
    bytes_used: int
    bytes_planned: float
    seconds: dict[str, float]


def kernel_of_people(random: np.random.Generator) -> tuple[Recorder, np.ndarray]:
    """A stored kernel in chunks, and features Z with K = ZZᵀ/m."""
    Z = random.standard_normal((PEOPLE, FEATURES)).astype(np.float32)
    source = Recorder(1, CHUNK)
    source.matrix = Z @ Z.T / FEATURES
    return source, Z


def bivariate() -> Data:
    """3,000 people by two traits, a fifth of the second missing; genetic correlation 0.6, residual -0.2."""
    random = np.random.default_rng(1)
    source, Z = kernel_of_people(random)
    person, trait = np.divmod(np.flatnonzero(np.stack([np.ones(PEOPLE), random.uniform(size=PEOPLE) > 0.2], axis=1)), 2)
    G, R = (np.array([[a, c], [c, b]]) for a, b, c in ((0.8, 0.5, 0.6 * np.sqrt(0.4)), (1.0, 0.7, -0.2 * np.sqrt(0.7))))
    u = Z @ random.standard_normal((FEATURES, 2)) @ np.linalg.cholesky(G).T / np.sqrt(FEATURES)
    e = random.standard_normal((PEOPLE, 2)) @ np.linalg.cholesky(R).T
    y = torch.tensor((u + e)[person, trait] + trait)
    X = torch.tensor(np.stack([trait == 0, trait == 1], axis=1).astype(float))
    genetic = HadamardProduct(
        Unstructured(2, "genetic").selected(trait), Kernel(source, np.arange(PEOPLE)).K.selected(person.astype(np.int64))
    )
    residual = HadamardProduct(Unstructured(2, "residual").selected(trait), SameLevel(person, "person"))
    truth = {
        f"{name}.{what}": value
        for name, M in (("genetic", G), ("residual", R))
        for what, value in {"variance[1]": M[0, 0], "variance[2]": M[1, 1], "covariance[1,2]": M[0, 1]}.items()
    }
    model = FitSize(num_kernels=1, num_generated=1, num_fixed=2, num_probes=0, chunk_size=CHUNK, cache_bytes=0)
    return Covariance([genetic, residual]), y, X, model, truth


def field() -> Data:
    """60 x 60 plots, correlated by 0.7 along rows and 0.5 along columns, with a nugget."""
    random = np.random.default_rng(2)
    L_row, L_column = (np.linalg.cholesky(rho ** np.abs(np.subtract.outer(range(SIDE), range(SIDE)))) for rho in (0.7, 0.5))
    y = torch.tensor((L_row @ random.standard_normal((SIDE, SIDE)) @ L_column.T + random.standard_normal((SIDE, SIDE))).ravel())
    plots = Scaled(KroneckerProduct(AR1Correlation(SIDE, "row"), AR1Correlation(SIDE, "column")), "plot")
    truth = {"plot": 1.0, "row.correlation": 0.7, "column.correlation": 0.5, "residual": 1.0}
    model = FitSize(num_kernels=0, num_generated=2, num_fixed=1, num_probes=0)
    return Covariance([plots, Identity(SIDE**2)]), y, torch.ones(SIDE**2, 1, dtype=torch.float64), model, truth


def measured(make: Callable[[], Data]) -> Large:
    covariance, y, X, model, truth = make()
    grid = ProcessGrid.connect()
    live = LiveBytes(every=32)
    reml = REML(covariance, grid=grid, phase=live.phase)
    begun = time.perf_counter()
    fit = reml.fit(y, X)
    seconds = {"whole fit": time.perf_counter() - begun}
    for iteration in fit.iterations:
        for phase, spent in iteration.step.seconds.items():
            seconds[phase] = seconds.get(phase, 0.0) + spent
    return Large(fit, truth, live.most, memory(reml.layout, model).total, seconds)


@pytest.mark.parametrize("make", [bivariate, field], ids=lambda make: make.__name__)
def test_two_ranks_find_the_truth_in_the_memory_of_the_plan(make: Callable[[], Data]) -> None:
    ranks = spawn(measured, 2, make, timeout=1800)
    for large in ranks:
        print({"bytes": large.bytes_used, "planned": large.bytes_planned, "seconds": large.seconds})
        assert large.fit.status == "converged"
        estimates = {estimate.name: estimate for estimate in large.fit.estimates}
        for name, value in large.truth.items():
            assert abs(estimates[name].value - value) < 4 * (estimates[name].se or 0), name
        torch.testing.assert_close(large.fit.theta, ranks[0].fit.theta, rtol=0, atol=0)
        assert large.bytes_used < 1.1 * large.bytes_planned
