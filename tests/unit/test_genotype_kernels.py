"""Products with packed genotypes by Triton: interpreted, compiled for devices that are not here, and on a device."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from openreml_dist.grid import ProcessGrid
from openreml_dist.log import LOGGER
from tests.helpers.kernels import compiled, elsewhere, errors, imports_without_triton, interpreted, interpreted_operator
from tests.helpers.markers import Genotypes

with_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed here")
CASES = [
    (97, [200, 101], [True, False], 3, 1),
    (97, [200, 101], [True, False], 3, 2),
    (97, [200, 101], [False, True], 3, 3),
    (133, [517], [False], 70, 3),
    (133, [517], [True], 70, 2),
    (1, [5], [True], 1, 3),
    (64, [64], [True], 16, 1),
    (65, [129], [True], 40, 3),
    (130, [64, 1], [True, True], 129, 3),
]


@with_triton
def test_interpreted_kernels_multiply_as_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found = elsewhere(interpreted, CASES)
    if isinstance(found, str):
        pytest.skip(found)
    for case, error in zip(CASES, found, strict=True):
        assert {name: value for name, value in error.items() if not value < 1} == {}, case


@with_triton
def test_the_operator_centres_and_scales_what_kernels_multiply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found = elsewhere(interpreted_operator)
    if isinstance(found, str):
        pytest.skip(found)
    assert {name: value for name, value in found.items() if not value < 1e-6} == {}


@with_triton
def test_fewer_slices_are_less_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found = elsewhere(interpreted, [(97, [130], [True], 3, slices) for slices in (1, 2, 3)])
    if isinstance(found, str):
        pytest.skip(found)
    for error in found:
        assert min(error.values()) > 1e-4  # of what the slices may leave: the bound says something


@with_triton
@pytest.mark.parametrize(("capability", "shared_memory"), [(80, 163 * 1024), (90, 227 * 1024)])
def test_kernels_compile_for_devices_that_are_not_here(
    capability: int, shared_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    for name, (products, used) in elsewhere(compiled, capability).items():
        assert products > 0 and used <= shared_memory, (name, products, used)


def test_without_triton_torch_multiplies_and_the_log_says_so() -> None:
    said = imports_without_triton()
    assert said.startswith("None None") and "Triton is missing" in said


class Broken:
    """Kernels that do not compile."""

    def gram(self, *_: object) -> torch.Tensor:
        raise RuntimeError("no ptxas")


def test_a_kernel_that_fails_is_said_once_and_torch_takes_over(caplog: pytest.LogCaptureFixture) -> None:
    data, V = Genotypes.simulated(50, 30), torch.randn(30, 3)
    operator, broken = (data.operator(ProcessGrid.single()) for _ in range(2))
    broken._kernels = Broken()  # type: ignore[assignment]
    with caplog.at_level(logging.WARNING, logger=LOGGER.name):
        for _ in range(2):
            torch.testing.assert_close(broken.gram(V), operator.gram(V), rtol=0, atol=0)
    assert [record.getMessage() for record in caplog.records] == [
        "products of genotypes by operations of torch, slower: the kernel of Triton failed: RuntimeError('no ptxas')"
    ]


@pytest.mark.parametrize("cache_bytes", [0.0, 3e4, 1e9])
def test_wide_tiles_are_unpacked_in_parts(cache_bytes: float) -> None:
    data, V = Genotypes.simulated(103, 30), torch.randn(30, 3, dtype=torch.float64)
    operator, parts = data.operator(ProcessGrid.single()), data.operator(ProcessGrid.single(), cache_bytes)
    parts.packed.at_once = 16
    assert len(list(parts.packed.unpacked(parts.mean))) == 7
    for _ in range(2):
        torch.testing.assert_close(parts.gram(V), operator.gram(V), rtol=1e-12, atol=1e-10)
        torch.testing.assert_close(parts.of_variants(V), operator.of_variants(V), rtol=1e-12, atol=1e-10)


def test_the_benchmark_of_a_gpu_runs_where_there_is_none(tmp_path: Path) -> None:
    small = ["--product", "130", "70", "--vectors", "3", "--fit-people", "300", "--fit-snps", "210", "--repeats", "1"]
    program = [sys.executable, "benchmarks/gpu.py", "--stages", "products", "fit", "--device", "cpu", *small]
    folder = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        [*program, "--out", str(tmp_path / "out.md")], capture_output=True, cwd=folder, env=environment, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "operations of torch; variances 0." in (tmp_path / "out.md").read_text()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@with_triton
@pytest.mark.parametrize("case", [*CASES, (5000, [4096, 1003], [True, False], 300, 3), (70_000, [33], [True], 64, 3)])
def test_kernels_on_a_device_multiply_as_torch_does(case: tuple[int, list[int], list[bool], int, int]) -> None:
    error = errors(*case, device="cuda")
    assert {name: value for name, value in error.items() if not value < 1} == {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_operator_on_a_device_is_that_of_the_cpu(dtype: torch.dtype, caplog: pytest.LogCaptureFixture) -> None:
    data = Genotypes.simulated(1003, 700)
    generator = torch.Generator().manual_seed(1)
    V, B = (torch.randn(size, 33, generator=generator, dtype=torch.float64) for size in (700, 1003))
    there, here = data.operator(ProcessGrid.single("cuda")), data.operator(ProcessGrid.single())
    with caplog.at_level(logging.WARNING, logger=LOGGER.name):
        for name, argument in (("gram", V), ("of_variants", V), ("of_samples", B)):
            found = getattr(there, name)(argument.to("cuda", dtype)).cpu().double()
            right = getattr(here, name)(argument)
            assert float((found - right).abs().max() / right.abs().max()) < {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(there.block_grams(64).cpu(), here.block_grams(64), rtol=1e-4, atol=1e-2)
    if importlib.util.find_spec("triton"):
        assert caplog.records == []
