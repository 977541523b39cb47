"""The same numbers on a CUDA device as on the CPU."""

from __future__ import annotations

import pytest
import torch

from openreml_dist import REML, Covariance, Grouping, Identity, Kernel
from openreml_dist.errors import NotPositiveDefiniteError
from openreml_dist.grid import ProcessGrid

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


def model(n: int) -> tuple[Covariance, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    Z = torch.randn(n, 2 * n, generator=generator, dtype=torch.float64)
    groups = torch.randint(0, 20, (n,), generator=generator)
    X = torch.cat([torch.ones(n, 1, dtype=torch.float64), torch.randn(n, 2, generator=generator, dtype=torch.float64)], dim=1)
    y = 0.7 * Z[:, : n // 2] @ torch.randn(n // 2, generator=generator, dtype=torch.float64) / n**0.5
    y = y + torch.randn(n, generator=generator, dtype=torch.float64)
    kernel = Kernel.from_array((Z @ Z.mT / (2 * n)).float())
    return Covariance([kernel, Grouping(groups.numpy(), "group"), Identity(n)]), y, X


@pytest.mark.parametrize(("n", "tile_size"), [(257, 64), (1500, None), (1500, 333)])
def test_ai_step_and_loglik_equal_those_on_the_cpu(n: int, tile_size: int | None) -> None:
    covariance, y, X = model(n)
    theta = torch.tensor([0.4, 0.1, 0.6], dtype=torch.float64)
    on_gpu = REML(covariance, grid=ProcessGrid.single("cuda"), tile_size=tile_size)
    on_cpu = REML(covariance)
    for gpu, cpu in zip(on_gpu.ai_step(y, X, theta), on_cpu.ai_step(y, X, theta), strict=True):
        torch.testing.assert_close(gpu, cpu, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(on_gpu.loglik(y, X, theta), on_cpu.loglik(y, X, theta), rtol=1e-11, atol=0)


def test_fit_on_the_gpu_finds_the_same_estimate() -> None:
    covariance, y, X = model(800)
    gpu = REML(covariance, grid=ProcessGrid.single("cuda")).fit(y, X)
    cpu = REML(covariance).fit(y, X)
    assert gpu.status == cpu.status
    torch.testing.assert_close(gpu.theta, cpu.theta, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(gpu.beta, cpu.beta, rtol=1e-8, atol=1e-10)


def test_random_effects_and_their_errors_equal_those_on_the_cpu() -> None:
    covariance, y, X = model(600)
    theta = torch.tensor([0.4, 0.1, 0.6], dtype=torch.float64)
    found = [
        REML(covariance, grid=ProcessGrid.single(device)).predictor(y, X, theta, error_variances=True).records()
        for device in ("cuda", "cpu")
    ]
    for gpu, cpu in zip(*found, strict=True):
        assert gpu.pev is not None and cpu.pev is not None
        torch.testing.assert_close(gpu.values, cpu.values, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(gpu.pev, cpu.pev, rtol=1e-8, atol=1e-9)


def test_failing_minor_is_reported_from_the_gpu() -> None:
    covariance, y, X = model(200)
    with pytest.raises(NotPositiveDefiniteError, match="leading minor of order"):
        REML(covariance, grid=ProcessGrid.single("cuda")).loglik(y, X, torch.tensor([0.1, 0.1, -0.5]))


@pytest.mark.parametrize("traces", ["auto", "hutchinson"])
def test_cheaper_iterations_on_the_gpu_find_the_same(traces: str) -> None:
    covariance, y, X = model(2400)
    gpu = REML(covariance, grid=ProcessGrid.single("cuda")).fit(y, X, traces=traces)
    cpu = REML(covariance).fit(y, X, traces=traces)
    assert gpu.status == cpu.status
    assert [str(i.step.evaluation) for i in gpu.iterations][:3] == [str(i.step.evaluation) for i in cpu.iterations][:3]
    tolerance = 1e-4 if traces == "auto" else 1e-2  # standard errors: float32 to the end has its own rounding
    assert float(((gpu.theta - cpu.theta) / cpu.standard_errors).abs().nan_to_num().max()) < tolerance
