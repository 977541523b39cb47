"""The sweep and the Cholesky factor on CPUs, against LAPACK with the same threads and ScaLAPACK on the same ranks.

    python benchmarks/linalg.py --sizes 4096 8192 --repeats 5

In every round each program runs once, one after the other and after a run that is not counted, so that a busy machine slows
all of them; ratios are medians over the rounds. LAPACK is ``torch.linalg.cholesky`` and ``torch.cholesky_inverse``; ScaLAPACK
(``benchmarks/scalapack.c``; Debian's libscalapack-openmpi-dev, libopenmpi-dev and libopenblas-dev) is built here and run with
the best of three block sizes and two grids, chosen for the factor and for the inverse, its own DGEMM rate beside it. Rates
count n³ flops for an inverse and n³/3 for a factor. Written to ``benchmarks/results/NAME.md``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from record import keep
from rounds import remark_on

from openreml_dist.grid import ProcessGrid
from openreml_dist.layout import TileLayout, choose_tile_size
from openreml_dist.linalg import cholesky_, sweep_inverse_
from openreml_dist.plan.load import OtherLoad
from openreml_dist.tiled import TiledSymmetric

SETTINGS = ((1, 1), (1, 2), (2, 1))  # ranks, threads of each
SCALAPACK = Path(__file__).with_name("scalapack.c")


def tiles(n: int, grid: ProcessGrid) -> TiledSymmetric:
    """Lower tiles of a matrix of ones plus 2I."""
    V = TiledSymmetric(TileLayout(n, choose_tile_size(n, grid.shape), grid.shape), grid)
    for i, j, tile in V.tiles():
        tile.fill_(1.0)
        if i == j:
            tile.diagonal().add_(2.0)
    return V


def ours(rank: int, ranks: int, threads: int, n: int, folder: str, answers: mp.SimpleQueue) -> None:
    """One rank: a factor and a sweep, each after one that is not counted."""
    torch.set_num_threads(threads)
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    grid = ProcessGrid.connect()
    seconds = []
    for algorithm in (cholesky_, sweep_inverse_):
        algorithm(tiles(n, grid))
        V = tiles(n, grid)
        _meet(ranks)
        begun = time.perf_counter()
        algorithm(V)
        _meet(ranks)
        seconds.append(time.perf_counter() - begun)
    if rank == 0:
        answers.put(seconds)
    if ranks > 1:
        dist.barrier()
        dist.destroy_process_group()


def _meet(ranks: int) -> None:
    if ranks > 1:
        dist.barrier()


def lapack(_: int, __: int, threads: int, n: int, ___: str, answers: mp.SimpleQueue) -> None:
    """``potrf``, and ``potrf`` + ``potri``."""
    torch.set_num_threads(threads)
    V = torch.ones(n, n, dtype=torch.float64)
    V.diagonal().add_(2.0)
    for _ in range(2):  # the first is not counted
        begun = time.perf_counter()
        L = torch.linalg.cholesky(V)
        factored = time.perf_counter()
        torch.cholesky_inverse(L)
        seconds = [factored - begun, time.perf_counter() - begun]
    answers.put(seconds)


def in_processes(program, ranks: int, threads: int, n: int) -> list[float]:
    """Seconds of a factor and of an inverse."""
    context = mp.get_context("spawn")
    answers = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(program, (ranks, threads, n, folder, answers), nprocs=ranks)
    return answers.get()


def build_scalapack(folder: str) -> Path | None:
    compiler = shutil.which("mpicc.openmpi")
    if compiler is None or shutil.which("mpirun.openmpi") is None:
        return None
    program = Path(folder) / "scalapack"
    command = [compiler, "-O2", "-o", str(program), str(SCALAPACK), "-lscalapack-openmpi", "-lopenblas"]
    return program if subprocess.run(command, check=False).returncode == 0 else None


def scalapack(program: Path, n: int, ranks: int, block_size: int, rows: int) -> tuple[float, float, float]:
    """Seconds of pdpotrf and of pdpotrf + pdpotri, and the DGEMM rate."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    if os.getuid() == 0:
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    grid = [str(rows), str(ranks // rows)]
    command = ["mpirun.openmpi", "-n", str(ranks), "--bind-to", "none", "--oversubscribe", str(program)]
    done = subprocess.run(
        [*command, str(n), str(block_size), *grid, "1"], env=environment, capture_output=True, text=True, check=True
    )
    words = done.stdout.split()
    return float(words[1]), float(words[3]), float(words[5])


def best_scalapack(program: Path, n: int, ranks: int, block_sizes: list[int]) -> tuple[list[tuple[int, int]], float]:
    """Block size and grid rows that factor fastest, those that factor and invert fastest, and the DGEMM rate."""
    trials = {(size, rows): scalapack(program, n, ranks, size, rows) for size in block_sizes for rows in sorted({1, ranks})}
    best = [min(trials, key=lambda key: trials[key][which]) for which in (0, 1)]
    return best, statistics.median(rate for _, _, rate in trials.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096, 8192])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--block-sizes", type=int, nargs="+", default=[64, 128, 256], help="of ScaLAPACK")
    parser.add_argument("--name", default="linalg", help="of the file of results")
    arguments, load = parser.parse_args(), OtherLoad()
    lines = [
        f"float64, {os.cpu_count()} cores, torch {torch.__version__}, median of {arguments.repeats} interleaved rounds; "
        "ratios are the time of another program over ours, and of ours on 1 x 1 over ours.",
        "",
        "| n | ranks x threads | factor s | Gflop/s | sweep s | Gflop/s | LAPACK factor | factor + inverse "
        "| ScaLAPACK factor | factor + inverse | ours on 1 x 1: factor | sweep |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    with tempfile.TemporaryDirectory() as folder:
        program = build_scalapack(folder)
        for n in arguments.sizes:
            best = {ranks: best_scalapack(program, n, ranks, arguments.block_sizes) for ranks in (1, 2)} if program else {}
            rounds = []
            for _ in range(arguments.repeats):
                found = {}
                for ranks, threads in SETTINGS:
                    found["ours", ranks, threads] = in_processes(ours, ranks, threads, n)
                    if ranks == 1:
                        found["lapack", ranks, threads] = in_processes(lapack, 1, threads, n)
                    if program and threads == 1:
                        runs = {key: scalapack(program, n, ranks, *key) for key in dict.fromkeys(best[ranks][0])}
                        found["scalapack", ranks, threads] = [runs[key][which] for which, key in enumerate(best[ranks][0])]
                rounds.append(found)
            lines += rows_of(n, rounds)
            notes += [
                f"ScaLAPACK, n = {n:,}, {ranks} ranks: {what} by blocks of {size} on {rows} x {ranks // rows}, "
                f"DGEMM {rate:.1f} Gflop/s"
                for ranks, (chosen, rate) in best.items()
                for what, (size, rows) in zip(("factor", "inverse"), chosen, strict=True)
            ]
    keep(arguments.name, [*lines, "", *notes, remark_on(load)])


def rows_of(n: int, rounds: list[dict]) -> list[str]:
    """A line of the table for each number of ranks and threads."""

    def faster(peer: tuple, mine: tuple, which: int) -> str:
        if peer not in rounds[0]:
            return "-"
        return f"{statistics.median(found[peer][which] / found[mine][which] for found in rounds):.2f}x"

    lines = []
    for ranks, threads in SETTINGS:
        mine = ("ours", ranks, threads)
        factor, sweep = (statistics.median(found[mine][which] for found in rounds) for which in (0, 1))
        cells = [f"{n:,}", f"{ranks} x {threads}", f"{factor:.3f}", f"{n**3 / 3e9 / factor:.0f}", f"{sweep:.3f}"]
        cells += [f"{n**3 / 1e9 / sweep:.0f}"]
        cells += [faster(("lapack", ranks, threads), mine, which) for which in (0, 1)]
        cells += [faster(("scalapack", ranks, threads), mine, which) for which in (0, 1)]
        cells += [faster(("ours", 1, 1), mine, which) for which in (0, 1)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
