"""Stages of gpu.py: products with packed genotypes beside plain ones, and a whole fit; torch, numpy and Triton alone.

TFLOP/s of a product with s slices count its s products of bfloat16; genotypes/s are those that are taken up, twice in ZZᵀV. A
column "torch" is the same product by operations of torch on float32, which is what a fit falls back to. On a CPU, or where no
kernel runs, the columns of kernels are empty and a line says why.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from openreml_dist.genotypes import GenotypeOperator, PackedGenotypes
from openreml_dist.grid import ProcessGrid
from openreml_dist.plan.available import available_bytes
from openreml_dist.plan.genotypes import GenotypeFit
from openreml_dist.reml.fitting import FitOptions, fit
from openreml_dist.reml.outcome import Iteration
from openreml_dist.reml.stochastic import StochasticEngine
from openreml_dist.reml.stochastic.accuracy import Target
from openreml_dist.reml.stochastic.problem import Problem

Say = Callable[..., None]
STRETCH, COPY = 200, 0.9  # SNPs of which each copies its neighbour nine times in ten
STRETCHES = 16  # that are made at once
CODE = (3, 2, 0)  # of no, one, two counted alleles
HERITABILITY = 0.5
ROOM = 0.9  # of the memory that is free
MOST_PROBES = 4096


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(device: torch.device, work: Callable[[], object], repeats: int) -> float:
    """Median wall time after one warm-up."""
    times = []
    for _ in range(repeats + 1):
        synchronize(device)
        begun = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


def simulated(n: int, m: int, missing: float, device: torch.device, seed: int = 1) -> tuple[PackedGenotypes, Tensor]:
    """Genotypes with linkage disequilibrium, made on the device, and frequencies (m,) float64."""
    generator, packed = torch.Generator(device).manual_seed(seed), PackedGenotypes.empty(m, n, device)
    options = {"generator": generator, "device": device}
    code, frequency = torch.tensor(CODE, dtype=torch.uint8, device=device), torch.empty(m, dtype=torch.float64, device=device)
    for first in range(0, m, STRETCHES * STRETCH):
        rows = torch.arange(first, min(first + STRETCHES * STRETCH, m), device=device)
        cut = torch.special.ndtri(0.05 + 0.45 * torch.rand(len(rows), **options))
        made = torch.empty(len(rows), n, dtype=torch.uint8, device=device)
        latent = torch.zeros(2, -(-len(rows) // STRETCH), n, device=device)
        for place in range(min(STRETCH, len(rows))):
            latent.mul_(COPY if place else 0.0).add_(
                torch.randn(latent.shape, **options), alpha=(1 - COPY**2) ** 0.5 if place else 1.0
            )
            own = torch.arange(place, len(rows), STRETCH, device=device)
            counts = (latent[:, : len(own)] < cut[own][:, None]).sum(dim=0)
            frequency[first + own] = (counts.sum(dim=1) / (2 * n)).double().clamp(0.5 / n, 1 - 0.5 / n)
            made[place::STRETCH] = code[counts]
        if missing:
            made.masked_fill_(torch.rand(made.shape, **options) < missing, 1)
        packed.put_(made, slice(first, first + len(rows)))
    return packed, frequency


def operator_of(packed: PackedGenotypes, frequency: Tensor, grid: ProcessGrid, slices: int = 3) -> GenotypeOperator:
    n = packed.num_samples
    return GenotypeOperator(packed, frequency, grid, range(n), n, slices)


def product_table(n: int, m: int, vectors: list[int], grid: ProcessGrid, repeats: int, say: Say) -> None:
    """Rates of Zᵀv, Zv and ZZᵀv by slices, beside GEMM of the same shape and the rate of memory."""
    device = grid.device
    rate = copy_rate(min(4 * n * m, 2**32), device, repeats)
    say("", f"Products of {m:,} SNPs and {n:,} people. A copy reads and writes {rate / 1e12:.2f} TB/s together.", "")
    head = "| vectors | slices | missing | ZᵀV TFLOP/s | ZB TFLOP/s | ZZᵀV TFLOP/s | genotypes/s | error |"
    say(head + " torch ZZᵀV TFLOP/s | bf16 GEMM | float32 GEMM |", "|---|" + "---|" * 10)
    for missing in (0.0, 0.01):
        packed, frequency = simulated(n, m, missing, device)
        for c in vectors:
            plain = [gemm_rate(n, m, c, dtype, device, repeats) for dtype in (torch.bfloat16, torch.float32)]
            V, B = torch.randn(m, c, device=device), torch.randn(n, c, device=device)
            by_torch = operator_of(packed, frequency, grid)
            by_torch._kernels = None
            right, fallback = by_torch.gram(V), seconds(device, lambda of=by_torch, V=V: of.gram(V), 1)
            rest = " | ".join(f"{value / 1e12:.1f}" for value in (4 * n * m * c / fallback, *plain))
            for slices in (1, 2, 3):
                found = kernel_rates(operator_of(packed, frequency, grid, slices), V, B, right, repeats)
                say(f"| {c} | {slices} | {missing:g} | {found} | {rest} |")


def kernel_rates(Z: GenotypeOperator, V: Tensor, B: Tensor, right: Tensor, repeats: int) -> str:
    """Four rates and the error of ZZᵀV beside its largest number; empty where Z has no kernel, or none that runs."""
    error = float((Z.gram(V) - right).abs().max() / right.abs().max())
    if Z._kernels is None:
        return " | " * 4
    device, flops = V.device, 2 * Z.num_variants * Z.num_samples * V.shape[1] * Z.slices
    if Z.slices > 1 and any(Z.packed.has_missing):
        flops = flops * (2 * Z.slices - 1) // Z.slices
    times = [
        seconds(device, work, repeats) for work in (lambda: Z.of_own_variants(V), lambda: Z.of_samples(B), lambda: Z.gram(V))
    ]
    rates = [f"{products * flops / took / 1e12:.1f}" for products, took in zip((1, 1, 2), times, strict=True)]
    return " | ".join([*rates, f"{2 * Z.num_variants * Z.num_samples / times[-1]:.2e}", f"{error:.1e}"])


def copy_rate(size: int, device: torch.device, repeats: int) -> float:
    """Byte/s of a copy, read and written."""
    source = torch.empty(size, dtype=torch.uint8, device=device)
    into = torch.empty_like(source)
    return 2 * size / seconds(device, lambda: into.copy_(source), repeats)


def gemm_rate(n: int, m: int, c: int, dtype: torch.dtype, device: torch.device, repeats: int) -> float:
    """Flop/s of a plain product of as many people, and no more SNPs than memory has place for."""
    rows = min(m, 16_384)
    G, V = torch.randn(n, rows, device=device, dtype=dtype), torch.randn(rows, c, device=device, dtype=dtype)
    return 2 * n * rows * c / seconds(device, lambda: G @ V, repeats)


def most_people(m: int, available: float) -> int:
    """The largest multiple of 1,000 that the planner finds room for."""
    least, most = 0, 10_000
    while least < most:
        middle = (least + most + 1) // 2
        fits = GenotypeFit(1000 * middle, m, cache_bytes=0.0, on_device=True).memory.total <= available
        least, most = (middle, most) if fits else (least, middle - 1)
    return 1000 * least


def whole_fit(n: int | None, m: int, mcse: float, grid: ProcessGrid, say: Say) -> None:
    """h² of generated genotypes and a trait of all SNPs, from packed genotypes on the device to the estimate."""
    device, begun, marks = grid.device, time.perf_counter(), []

    def mark(what: str) -> None:
        nonlocal begun
        synchronize(device)
        marks.append(f"{what} {time.perf_counter() - begun:.1f} s")
        print(marks[-1], flush=True)
        begun = time.perf_counter()

    n = n or most_people(m, ROOM * available_bytes(device, 1))
    planned = GenotypeFit(n, m, cache_bytes=0.0, on_device=device.type == "cuda").memory.total
    say("", f"A fit of {n:,} people and {m:,} SNPs ({n * m / 4e9:.2f} GB packed; {planned / 1e9:.2f} GB planned):")
    Z = operator_of(*simulated(n, m, 0.0, device), grid)
    generator = torch.Generator(device).manual_seed(2)
    effects, e = (torch.randn(size, 1, generator=generator, device=device) for size in (m, n))
    y = (Z.of_variants(effects * (HERITABILITY / m) ** 0.5) + (1 - HERITABILITY) ** 0.5 * e)[:, 0].double()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    mark("making genotypes and a trait")
    Z.passes = 0.0
    X, annotation = torch.ones(n, 1, dtype=torch.float64), torch.ones(m, 1, dtype=torch.float64)
    problem = Problem.of(Z, annotation, y, X)
    mark("set-up")
    engine = StochasticEngine(problem, ["genetic"], Target(mcse, MOST_PROBES, seed=1))

    def report(iteration: Iteration) -> None:
        mark(f"iteration {iteration.number}")

    found = fit(engine, "auto", FitOptions(report=report))
    mark("the rest")
    theta, (se, *_), (mc, *_) = found.theta, found.standard_errors.tolist(), found.monte_carlo_se.tolist()
    passes = ", ".join(f"{name} {count:,.0f}" for name, count in engine.passes.items())
    peak = f", {torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB at most" if device.type == "cuda" else ""
    how = "Triton" if Z._kernels is not None else "operations of torch"
    say(
        f"{found.status}, products by {how}; variances {theta[0]:.4f} (SE {se:.4f}, Monte-Carlo error {mc / se:.3f} SE) and "
        f"{theta[1]:.4f}, simulated {HERITABILITY} and {1 - HERITABILITY}; {'; '.join(marks)}; passes: {passes}{peak}."
    )
