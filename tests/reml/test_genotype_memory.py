"""What a process takes during a fit of genotypes, against the planner's formula."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from openreml_dist.errors import ConfigError
from openreml_dist.genotypes import GenotypeOperator, PackedGenotypes, packed
from openreml_dist.genotypes.operator import own_samples
from openreml_dist.grid import ProcessGrid
from openreml_dist.plan import genotypes as planner
from openreml_dist.plan.genotypes import GenotypeFit
from openreml_dist.reml.stochastic import evaluation, problem, start
from openreml_dist.reml.stochastic.accuracy import Target
from openreml_dist.reml.stochastic.batches import Batches
from openreml_dist.reml.stochastic.problem import Problem
from openreml_dist.reml.stochastic.schedule import Probing
from tests.helpers.gloo import spawn

linux = pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is Linux's")


class RandomBits:
    """Genotypes of N people without order, a quarter of them missing."""

    def __init__(self, n: int, m: int) -> None:
        self.bytes = np.random.default_rng(1).integers(0, 256, (m, -(-n // 4)), dtype=np.uint8)

    def read_packed(self, variants: slice) -> NDArray[np.uint8]:
        return self.bytes[variants].copy()


def evaluated(n: int, m: int, K: int, cache: float) -> None:
    """One evaluation to an error that the pilots reach, after all that comes before it."""
    grid, source, numbers = ProcessGrid.connect(), RandomBits(n, m), np.random.default_rng(2)
    own = own_samples(n, grid)
    held = PackedGenotypes.read(source, np.arange(m), np.arange(own.start, own.stop), grid.device, cache)
    Z = GenotypeOperator(held, torch.full((m,), 0.5, dtype=torch.float64), grid, own, n)
    y, X = torch.from_numpy(numbers.standard_normal(n)), torch.from_numpy(numbers.standard_normal((n, 2)))
    annotation = torch.nn.functional.one_hot(torch.arange(m) % K, K).double()
    made = Problem.of(Z, annotation, y, X)
    start.haseman_elston(made, seed=1)
    start.derivatives_gram(made, seed=1)
    theta = torch.tensor([0.1 / K] * K + [0.9], dtype=torch.float64)
    assert evaluation.step_at(made, theta, Probing.ACCURATE, {}, Target(0.9, 32, seed=1), Batches()) is not None


def peak(n: int, m: int, K: int, cache: float) -> float:
    """Bytes that this process takes at most, beyond those of a small fit."""
    evaluated(200, 400, 2, 0.0)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    evaluated(n, m, K, cache)
    return _status("VmHWM") - before - m * n / 4  # the source's own


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def on_ranks(ranks: int, *arguments: Any) -> list[float]:
    if ranks > 1:
        return spawn(peak, ranks, *arguments)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return [pool.submit(peak, *arguments).result()]


@linux
@pytest.mark.parametrize(
    ("n", "m", "K", "cache", "ranks"),
    [
        (600, 12_000, 1, 1e9, 1),  # all genotypes are kept
        (700, 12_000, 3, 4e7, 1),  # some are
        (1600, 5000, 1, 0.0, 2),
        (3000, 2000, 1, 0.0, 1),
    ],
)
def test_memory_of_a_process_is_that_of_the_plan(
    n: int, m: int, K: int, cache: float, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000000")  # what is freed is given back
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    planned = GenotypeFit(n, m, K, 2, ranks, cache).memory.total
    assert max(on_ranks(ranks, n, m, K, cache)) == pytest.approx(planned, rel=0.2)


def test_sizes_are_those_of_the_engine() -> None:
    for theirs, name in (
        (packed, "TILE_BYTES"),
        (packed, "DEVICE_TILE_BYTES"),
        (packed, "SMALLEST_TILE"),
        (packed, "READ_BYTES"),
        (problem, "BLOCK"),
    ):
        assert getattr(planner, name) == getattr(theirs, name)
    assert planner.WIDEST == evaluation.FINAL_DETERMINANT


def test_what_does_not_fit_is_refused_with_what_would_do() -> None:
    fit = GenotypeFit(100_000, 200_000, cache_bytes=8e9)
    fit.check(fit.memory.total)
    with pytest.raises(
        ConfigError, match=r"does not fit: 100,000 samples and 200,000 SNPs on 1 rank .*kernel_cache_gb=2 would do"
    ):
        fit.check(fit.memory.total - 6e9)
    with pytest.raises(ConfigError, match=r"8 such ranks with solver.kernel_cache_gb=0 would do"):
        fit.check(4e9)
    with pytest.raises(ConfigError, match="no number of such ranks suffices"):
        fit.check(1e9)
