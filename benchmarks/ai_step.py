"""One AI step of ours against torch-openreml 0.1.0a0: same model, same threads, one process each, in turn.

    python benchmarks/ai_step.py --sizes 1000 2000 4000 --threads 2 --repeats 3

And the same step of ours on 2 ranks of one thread against 1 rank of two, in turn, after one that is not counted.

The model has K = 3 kernels and an identity, float64. Both programs hold the kernels as arrays; ours reads its tiles from them.
Written to ``benchmarks/results/ai_step.json`` and ``ai_step.md`` (Linux): median seconds, the ratio pair by pair, and the
peak of resident memory above what the process held once imports, kernels and a warm-up step on 64 samples were done.

Flops of a step, K kernels: ours n³ (one sweep) + O((K + p) n²); the peer factors V and solves V⁻¹V_k for every parameter,
(⅓ + 2(K + 1)) n³ and more by its own account of matrices.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from record import RESULTS, keep
from rounds import remark_on

from openreml_dist.plan.load import OtherLoad

NUM_KERNELS = 3


def problem(n: int):
    """Kernels (K, n, n), y, X and θ; the same numbers in every process."""
    import torch

    generator = torch.Generator().manual_seed(n)
    kernels = []
    for _ in range(NUM_KERNELS):
        Z = torch.randn(n, 2 * n, generator=generator, dtype=torch.float64)
        kernels.append(Z @ Z.mT / (2 * n))
    y = torch.randn(n, generator=generator, dtype=torch.float64)
    X = torch.cat([torch.ones(n, 1, dtype=torch.float64), torch.randn(n, 2, generator=generator, dtype=torch.float64)], dim=1)
    return kernels, y, X, torch.tensor([0.3, 0.2, 0.1, 0.4], dtype=torch.float64)


def ours(n: int):
    """A function that takes one AI step, and (score, AI)."""
    from openreml_dist import REML, Covariance, Identity, Kernel

    kernels, y, X, theta = problem(n)
    terms = [Kernel.from_array(K, f"g{k}") for k, K in enumerate(kernels)]
    reml = REML(Covariance([*terms, Identity(n)]), jitter=1e-6)
    return lambda: reml.ai_step(y, X, theta)


def ours_on_ranks(rank: int, ranks: int, threads: int, n: int, folder: str, answers) -> None:
    """One rank: the seconds of a step after one that is not counted."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(threads)
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    step = ours(n)
    step()
    if ranks > 1:
        dist.barrier()
    begun = time.perf_counter()
    step()
    if ranks > 1:
        dist.barrier()
    if rank == 0:
        answers.put(time.perf_counter() - begun)
    if ranks > 1:
        dist.destroy_process_group()


def peer(n: int):
    """The same with torch-openreml, by its documented interface of callables."""
    import torch
    from torch_openreml import REML

    kernels, y, X, theta = problem(n)
    dV = torch.stack([*kernels, torch.eye(n, dtype=torch.float64)])
    reml = REML(
        map_theta_to_v=lambda theta: torch.einsum("k,kij->ij", theta, dV),
        map_theta_to_dv=lambda _: dV,
    )
    return lambda: reml.ai_step(y, X, theta)


def measure(program: str, n: int, threads: int) -> None:
    """Child process: one step, timed; prints JSON."""
    import torch

    torch.set_num_threads(threads)
    make = {"ours": ours, "peer": peer}[program]
    make(64)()
    step = make(n)
    forget_peak()
    before = status_bytes("VmRSS")
    begun = time.perf_counter()
    _, score, ai, loglik = step()
    seconds = time.perf_counter() - begun
    result = {
        "seconds": seconds,
        "peak_bytes": status_bytes("VmHWM") - before,
        "score": score.tolist(),
        "ai": ai.tolist(),
        "loglik": float(loglik),
    }
    print(json.dumps(result))


def forget_peak() -> None:
    """Return freed memory to the system, so that it is not taken for memory in use, and start a new peak (Linux, glibc)."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def status_bytes(name: str) -> int:
    """VmRSS, resident memory now, or VmHWM, its peak, in bytes (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def child(program: str, n: int, threads: int) -> dict:
    command = [sys.executable, __file__, "--child", program, "--sizes", str(n), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def on_ranks(n: int, repeats: int) -> dict:
    """Median seconds on 1 rank x 2 threads and on 2 ranks x 1 thread, and their ratio pair by pair."""
    from linalg import in_processes

    pairs = [(in_processes(ours_on_ranks, 1, 2, n), in_processes(ours_on_ranks, 2, 1, n)) for _ in range(repeats)]
    return {
        "one_rank_seconds": statistics.median(one for one, _ in pairs),
        "two_ranks_seconds": statistics.median(two for _, two in pairs),
        "two_ranks_over_one": statistics.median(two / one for one, two in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000, 4000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", choices=["ours", "peer"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        measure(arguments.child, arguments.sizes[0], arguments.threads)
        return

    rows, load = [], OtherLoad()
    for n in arguments.sizes:
        runs = [(child("ours", n, arguments.threads), child("peer", n, arguments.threads)) for _ in range(arguments.repeats)]
        row = summary(n, runs) | on_ranks(n, arguments.repeats)
        rows.append(row)
        print(json.dumps(row), flush=True)
    RESULTS.mkdir(exist_ok=True)
    about = {
        "threads": arguments.threads,
        "repeats": arguments.repeats,
        "kernels": NUM_KERNELS,
        "machine": platform.processor(),
        "cores_held_by_others": load.cores(),
    }
    (RESULTS / "ai_step.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    keep("ai_step", [table(rows, arguments.threads, arguments.repeats), remark_on(load)])


def summary(n: int, runs: list[tuple[dict, dict]]) -> dict:
    """Medians over the pairs, and how far the two programs differ."""
    difference = max(abs(a - b) / abs(b) for mine, other in runs for a, b in zip(mine["score"], other["score"], strict=True))
    return {
        "n": n,
        "ours_seconds": statistics.median(mine["seconds"] for mine, _ in runs),
        "peer_seconds": statistics.median(other["seconds"] for _, other in runs),
        "ratio": statistics.median(other["seconds"] / mine["seconds"] for mine, other in runs),
        "ours_gb": statistics.median(mine["peak_bytes"] for mine, _ in runs) / 1e9,
        "peer_gb": statistics.median(other["peak_bytes"] for _, other in runs) / 1e9,
        "largest_relative_difference_of_scores": difference,
    }


def table(rows: list[dict], threads: int, repeats: int) -> str:
    lines = [
        f"One AI step, K = {NUM_KERNELS} kernels + identity, float64, {threads} threads, median of {repeats} interleaved pairs;"
        " memory above the kernels.",
        "",
        "| n | ours s | torch-openreml s | faster by | ours GB | torch-openreml GB | memory | scores differ by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['n']:,} | {row['ours_seconds']:.3f} | {row['peer_seconds']:.3f} | {row['ratio']:.1f}x "
            f"| {row['ours_gb']:.3f} | {row['peer_gb']:.3f} | {row['ours_gb'] / row['peer_gb']:.2f} "
            f"| {row['largest_relative_difference_of_scores']:.0e} |"
        )
    lines += [
        "",
        "The second of two steps of ours:",
        "",
        "| n | 1 rank x 2 threads, s | 2 ranks x 1 thread, s | over 1 x 2 |",
        "|---|---|---|---|",
    ]
    for row in rows:
        one, two = row["one_rank_seconds"], row["two_ranks_seconds"]
        lines.append(f"| {row['n']:,} | {one:.3f} | {two:.3f} | {row['two_ranks_over_one']:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
