"""The sweep and the Cholesky factor on one GPU against the vendor's, and one AI step; torch and numpy alone.

    python benchmarks/gpu.py --sizes 16384 32768 65536 --out benchmarks/results/gpu.md

Rates count n³ flops for an inverse (n³/3 for a factor), whatever a program really does. The GEMM peak is that of a square
product and, as our updates are, of a rank-b update of a slab; a panel is the product of n x b numbers with a triangle. The peer
is ``torch.linalg.cholesky`` + ``torch.cholesky_inverse``, out of place, on a full n x n matrix. Emulated float64 is cuBLAS with
CUBLAS_EMULATE_DOUBLE_PRECISION=1 in a process of its own, with the largest error of its product beside its rate.

    python benchmarks/gpu.py --stages products fit --out benchmarks/results/gpu_genotypes.md

are of genotypes (gpu_genotypes.py): products with packed ones beside plain ones, and a whole fit of as many people as fit.
``--device cpu`` with small sizes runs these two with operations of torch, to see that they run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from gpu_genotypes import product_table, whole_fit

from openreml_dist.covariance import Covariance, FeatureKernel, Identity
from openreml_dist.grid import Counters, ProcessGrid, no_progress
from openreml_dist.layout import TileLayout
from openreml_dist.linalg import cholesky_, sweep_inverse_
from openreml_dist.linalg.updates import multiply_upper_
from openreml_dist.reml.dense.evaluation import ai_step
from openreml_dist.reml.dense.problem import Problem
from openreml_dist.reml.fixed import FixedDesign
from openreml_dist.tiled import TiledSymmetric


def seconds(device: torch.device, prepare: Callable[[], object], work: Callable[[object], object], repeats: int) -> float:
    """Median wall time of ``work`` after one warm-up; ``prepare`` is not counted."""
    times = []
    for _ in range(repeats + 1):
        prepared = prepare()
        torch.accelerator.synchronize(device)
        begun = time.perf_counter()
        work(prepared)
        torch.accelerator.synchronize(device)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


def positive_definite(n: int, tile_size: int, dtype: torch.dtype, grid: ProcessGrid) -> TiledSymmetric:
    """Lower tiles of a matrix of ones plus 2I."""
    V = TiledSymmetric(TileLayout(n, tile_size, grid.shape), grid, dtype)
    for i, j, tile in V.tiles():
        tile.fill_(1.0)
        if i == j:
            tile.diagonal().add_(2.0)
    return V


def gemm_rates(device: torch.device, dtype: torch.dtype, b: int, repeats: int) -> str:
    n = 8192
    A, B, C = (torch.randn(n, n, dtype=dtype, device=device) for _ in range(3))
    square = seconds(device, lambda: None, lambda _: torch.mm(A, B, out=C), repeats)
    panel, tile, slab, counters = A[:, :b].contiguous(), B[:b, :b].contiguous(), C[:, :b].contiguous(), Counters()
    update = seconds(device, lambda: None, lambda _: slab.addmm_(panel, tile.mT, alpha=-1), repeats)
    product = seconds(device, lambda: None, lambda _: multiply_upper_(panel, tile, slab, counters), repeats)
    rates = (2 * n**3 / square, 2 * n * b * b / update, 1.5 * n * b * b / product)
    return f"| {dtype} | {b} | {' | '.join(f'{rate / 1e12:.1f}' for rate in rates)} |"


EMULATED = """
import time, torch
n = 8192
generator = torch.Generator("cuda").manual_seed(1)
A, B = (torch.randn(n, n, dtype=torch.float64, device="cuda", generator=generator) for _ in range(2))
C = A @ B
torch.cuda.synchronize()
begun = time.perf_counter()
for _ in range(3):
    torch.mm(A, B, out=C)
torch.cuda.synchronize()
rate = 3 * 2 * n**3 / (time.perf_counter() - begun)
error = (C[:64].cpu() - A[:64].cpu() @ B.cpu()).abs().max() / n**0.5
print(f"{rate / 1e12:.1f} TFLOP/s, largest error {float(error):.1e}")
"""


def emulated(how: dict[str, str]) -> str:
    """Rate and error of a float64 product with other settings of cuBLAS."""
    done = subprocess.run([sys.executable, "-c", EMULATED], env=os.environ | how, capture_output=True, text=True, check=False)
    return done.stdout.strip() or f"failed: {done.stderr.strip().splitlines()[-1:]}"


def factorisations(n: int, tile_size: int, dtype: torch.dtype, grid: ProcessGrid, repeats: int) -> str:
    device = grid.device

    def tiles() -> TiledSymmetric:
        return positive_definite(n, tile_size, dtype, grid)

    sweep = seconds(device, tiles, sweep_inverse_, repeats)
    factor = seconds(device, tiles, cholesky_, repeats)
    torch.cuda.reset_peak_memory_stats(device)
    sweep_inverse_(tiles())
    ours_gb = torch.cuda.max_memory_allocated(device) / 1e9
    element = torch.empty((), dtype=dtype).element_size()
    peer_factor = peer_inverse = peer_gb = float("nan")
    if 3.5 * n * n * element < torch.cuda.get_device_properties(device).total_memory:
        full = torch.ones(n, n, dtype=dtype, device=device)
        full.diagonal().add_(2.0)
        torch.cuda.reset_peak_memory_stats(device)
        peer_factor = seconds(device, lambda: None, lambda _: torch.linalg.cholesky(full), repeats)
        peer_inverse = seconds(device, lambda: None, lambda _: torch.cholesky_inverse(torch.linalg.cholesky(full)), repeats)
        peer_gb = torch.cuda.max_memory_allocated(device) / 1e9
        del full
    torch.cuda.empty_cache()
    ours = f"{sweep:.3f} | {n**3 / sweep / 1e12:.1f} | {factor:.3f} | {n**3 / 3 / factor / 1e12:.1f}"
    theirs = f"{peer_factor:.3f} | {peer_inverse:.3f} | {peer_inverse / sweep:.2f}x"
    return f"| {n:,} | {tile_size} | {dtype} | {ours} | {theirs} | {ours_gb:.2f} | {peer_gb:.2f} |"


def step(n: int, tile_size: int, num_kernels: int, grid: ProcessGrid) -> str:
    generator = torch.Generator(grid.device).manual_seed(1)
    options = {"generator": generator, "dtype": torch.float64, "device": grid.device}
    kernels = [FeatureKernel(torch.randn(n, 64, **options), f"g{k}") for k in range(num_kernels)]
    covariance = Covariance([*kernels, Identity(n)])
    X = torch.cat([torch.ones(n, 1, dtype=torch.float64, device=grid.device), torch.randn(n, 4, **options)], dim=1)
    problem = Problem(covariance, torch.randn(n, **options), FixedDesign.of(X), grid, TileLayout(n, tile_size, grid.shape))
    theta = torch.full((num_kernels + 1,), 1 / (num_kernels + 1), dtype=torch.float64)
    ai_step(problem, theta, lambda _: no_progress)
    torch.cuda.reset_peak_memory_stats(grid.device)
    result, _ = ai_step(problem, theta, lambda _: no_progress)
    phases = ", ".join(f"{name} {value:.3f}" for name, value in result.seconds.items())
    memory = torch.cuda.max_memory_allocated(grid.device) / 1e9
    total = sum(result.seconds.values())
    return f"| {n:,} | {tile_size} | {num_kernels} | {total:.3f} | {phases} | {memory:.2f} | {result.trace_error:.0e} |"


STAGES = ("dense", "products", "fit")


def dense(arguments: argparse.Namespace, grid: ProcessGrid, say: Callable[..., None]) -> None:
    say("", "| GEMM | b | square TFLOP/s | rank-b update TFLOP/s | panel TFLOP/s |", "|---|---|---|---|---|")
    for dtype in (torch.float64, torch.float32):
        for b in arguments.tiles:
            say(gemm_rates(grid.device, dtype, b, arguments.repeats))
    say("", f"float64: {emulated({})}; emulated: {emulated({'CUBLAS_EMULATE_DOUBLE_PRECISION': '1'})}.")
    say(
        "",
        "| n | tile | dtype | sweep s | TFLOP/s | Cholesky s | TFLOP/s | vendor factor s | vendor factor + inverse s "
        "| sweep faster by | sweep GB | vendor GB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    )
    for n in arguments.sizes:
        for tile_size in arguments.tiles:
            say(factorisations(n, tile_size, torch.float64, grid, arguments.repeats))
        say(factorisations(n, arguments.tiles[-1], torch.float32, grid, arguments.repeats))
    say("", "| n | tile | kernels | AI step s | by phase | GB | trace identity |", "|---|---|---|---|---|---|---|")
    for n in arguments.sizes:
        for num_kernels in arguments.kernels:
            say(step(n, arguments.tiles[-1], num_kernels, grid))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", type=int, nargs="+", default=[16384, 32768, 65536])
    parser.add_argument("--tiles", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--kernels", type=int, nargs="+", default=[1, 5, 30])
    parser.add_argument("--product", type=int, nargs=2, default=[32768, 65536], help="people and SNPs of the products")
    parser.add_argument("--vectors", type=int, nargs="+", default=[64, 256, 512])
    parser.add_argument("--fit-snps", type=int, default=400_000)
    parser.add_argument("--fit-people", type=int, help="as many as fit without it")
    parser.add_argument("--mcse", type=float, default=0.01)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    grid, on_device = ProcessGrid.single(arguments.device), arguments.device != "cpu"
    name = torch.cuda.get_device_name(grid.device) if on_device else "CPU"
    lines = [f"{name}, torch {torch.__version__}, median of {arguments.repeats}."]

    def say(*new: str) -> None:
        lines.extend(new)
        print(*new, sep="\n", flush=True)
        if arguments.out:
            arguments.out.write_text("\n".join(lines) + "\n")

    if "dense" in arguments.stages:
        dense(arguments, grid, say)
    if "products" in arguments.stages:
        product_table(*arguments.product, arguments.vectors, grid, arguments.repeats, say)
    if "fit" in arguments.stages:
        whole_fit(arguments.fit_people, arguments.fit_snps, arguments.mcse, grid, say)


if __name__ == "__main__":
    main()
