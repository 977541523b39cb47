"""Fits on cores that are shared with other programs, by how the threads of OpenMP wait.

    python benchmarks/busy_cores.py --simulate 2000 --repeats 3

A fit alone, beside one and beside two busy threads of the same priority (a product of matrices in a loop), in one process with
a thread a core and on two ranks; ``timings.fit`` of each wait policy in turn, within every round. The policies: that of the
libraries, what the programs choose by themselves (``app/startup.py``), other lengths of spinning, and none. LAPACK's factor and
inverse at the same n stands beside them. Rounds beside other programs are discarded. Written to
``benchmarks/results/NAME.md``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from fit import fit, simulated, unit
from record import keep
from rounds import quiet_rounds

from openreml_dist.app.startup import WAIT, WAIT_VARIABLES
from openreml_dist.plan.load import OtherLoad

BUSY = """
import torch
torch.set_num_threads(1)
A = torch.rand(700, 700, dtype=torch.float64)
B = A @ A
print("busy", flush=True)
while True:
    torch.mm(A, A, out=B)
"""
LIBRARY = 300_000  # rounds of spinning that GNU's library takes by default
CHOSEN = "the programs' own choice"


def policies(counts: list[int]) -> dict[str, dict[str, str]]:
    """Variables of each policy by name; that of the library has to be named, for the programs would choose otherwise."""
    found = {"library's default": {"GOMP_SPINCOUNT": str(LIBRARY)}, CHOSEN: {}}
    found |= {f"GOMP_SPINCOUNT={count}": {"GOMP_SPINCOUNT": str(count)} for count in counts}
    return found | {"OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"}}


def environment(policy: dict[str, str]) -> dict[str, str]:
    """Of the programs: threads as they choose them, one policy."""
    left_out = (*WAIT_VARIABLES, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {name: value for name, value in os.environ.items() if name not in left_out} | policy


@contextmanager
def busy_threads(count: int) -> Iterator[None]:
    """So many processes of one thread each that compute, until the end of the block."""
    processes = [
        subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True, env=environment({}))
        for _ in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulate", type=int, default=2000, help="number of samples")
    parser.add_argument("--spin-counts", type=int, nargs="*", default=[10_000])
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="busy threads")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3, help="quiet rounds")
    parser.add_argument("--most", type=int, default=6, help="rounds at most, for as many quiet ones")
    parser.add_argument("--name", default="busy_cores", help="of the file of results")
    arguments = parser.parse_args()
    by_name = policies(arguments.spin_counts)
    with tempfile.TemporaryDirectory() as folder:
        settings = [*simulated(arguments.simulate, folder), "solver.lrt=false"]

        def measure() -> tuple[dict[tuple[int, int, str], float], float]:
            found, load = {}, OtherLoad()
            for busy in arguments.busy:
                with busy_threads(busy):
                    for name, policy in by_name.items():
                        found[0, busy, name] = unit(arguments.simulate, environment(policy or WAIT))
                        for ranks in arguments.ranks:
                            found[ranks, busy, name] = fit(ranks, settings, environment(policy))["fit"]
            return found, load.cores() or 0.0

        rounds = quiet_rounds(measure, arguments.repeats, arguments.most)
    median = {key: statistics.median(found[key] for found in rounds.found) for key in rounds.found[0]}
    columns = " | ".join(f"beside {busy}, s | x idle" if busy else "idle, s" for busy in arguments.busy)
    lines = [
        f"n = {arguments.simulate:,}, 1 GRM, {os.cpu_count()} cores; the programs choose "
        f"{' '.join('='.join(item) for item in WAIT.items())}; x idle: of the library's default. Medians; {rounds}.",
        "",
        f"| what | threads wait by | {columns} |",
        "|---" * (columns.count("|") + 3) + "|",
    ]
    for ranks in (0, *arguments.ranks):
        what = f"fit, {ranks} {'process' if ranks == 1 else 'ranks'}" if ranks else "LAPACK's factor and inverse"
        for name in by_name:
            cells = [what, name]
            for busy in arguments.busy:
                seconds = median[ranks, busy, name]
                cells.append(f"{seconds:.2f}")
                if busy:
                    cells.append(f"{seconds / median[ranks, arguments.busy[0], next(iter(by_name))]:.1f}")
            lines.append(f"| {' | '.join(cells)} |")
    keep(arguments.name, lines)


if __name__ == "__main__":
    main()
