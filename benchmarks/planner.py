"""How well the planner predicts: the sweep and the factor on 1, 2 and 4 ranks of this machine, whole fits, and their memory.

    python benchmarks/planner.py --sizes 3000 5000 7000 --repeats 3

The rates are measured first, as ``openreml-plan mode=calibrate`` does, with one rank and with messages between two; then every
size and number of ranks is predicted and run in turn. Four ranks share two cores. Written to ``benchmarks/results/planner.md``.
"""

from __future__ import annotations

import argparse
import os
import statistics
from dataclasses import replace

from linalg import in_processes, ours
from record import keep
from rounds import remark_on

from openreml_dist.app.plan import _read_a_store
from openreml_dist.layout import GridShape, TileLayout, choose_tile_size
from openreml_dist.plan.calibrate import calibrate
from openreml_dist.plan.cost import seconds_of
from openreml_dist.plan.load import OtherLoad
from openreml_dist.plan.machine import Machine
from openreml_dist.plan.work import cholesky_work, sweep_work


def predicted(machine: Machine, n: int, ranks: int) -> list[float]:
    """Seconds of a factor and of a sweep, one thread a rank."""
    grid = replace(GridShape.choose(ranks), shares_memory=ranks > 1)
    layout = TileLayout(n, choose_tile_size(n, grid), grid)
    shared = machine.shared_by(ranks, threads=1)
    return [seconds_of(work(layout), shared, single=False) for work in (cholesky_work, sweep_work)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[3000, 5000, 7000])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeats", type=int, default=3)
    arguments, load = parser.parse_args(), OtherLoad()
    machine = calibrate(_read_a_store, print)
    lines = [
        f"{os.cpu_count()} cores; {machine.update_flops / 1e9:.0f} Gflop/s with {machine.threads} threads, "
        f"{machine.latency * 1e6:.0f} us and {1e9 / machine.link_bytes:.2f} s/GB a message; median of {arguments.repeats}.",
        "",
        "| n | ranks | factor: predicted s | measured s | error | sweep: predicted s | measured s | error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    errors = []
    for n in arguments.sizes:
        for ranks in arguments.ranks:
            runs = [in_processes(ours, ranks, 1, n) for _ in range(arguments.repeats)]
            cells = [f"{n:,}", str(ranks)]
            for expected, seconds in zip(predicted(machine, n, ranks), zip(*runs, strict=True), strict=True):
                measured = statistics.median(seconds)
                errors.append(expected / measured - 1)
                cells += [f"{expected:.3f}", f"{measured:.3f}", f"{errors[-1]:+.0%}"]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    lines += [
        "",
        f"Median absolute error {statistics.median(map(abs, errors)):.0%}, largest {max(map(abs, errors)):.0%}. "
        f"{remark_on(load)}",
    ]
    keep("planner", lines)


if __name__ == "__main__":
    main()
