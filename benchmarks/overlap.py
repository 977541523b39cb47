"""Whether a step hides its exchanges: the same work with a real delay in every message, waited for at once or not.

    python benchmarks/overlap.py --size 4096 --delay 0.005 --repeats 3

Every exchange of the factor, the sweep and a whole AI step arrives no sooner than ``delay`` seconds after it has begun, as over
a slow network: nothing computes for it meanwhile. Three runs take turns: without delay (compute), with the delay where each
exchange is waited for as it begins (compute + communication), and with the delay as the program is. Seconds are of the
slowest rank, medians over the rounds. Written to ``benchmarks/results/overlap.md``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from linalg import tiles
from record import keep
from rounds import remark_on
from torch import Tensor

from openreml_dist import REML, Covariance, Identity, Kernel
from openreml_dist.grid import ProcessGrid, Transfer
from openreml_dist.linalg import cholesky_, sweep_inverse_
from openreml_dist.plan.load import OtherLoad

GRIDS = ((2, 1), (1, 2))
RANKS = 2


@dataclass(frozen=True)
class SlowTransfer(Transfer):
    """Arrives when the transfer beneath has, and not before ``arrives``."""

    transfer: Transfer = field(default_factory=Transfer)
    arrives: float = 0.0

    def has_arrived(self) -> bool:
        return time.perf_counter() >= self.arrives and self.transfer.has_arrived()

    def wait(self) -> None:
        time.sleep(max(0.0, self.arrives - time.perf_counter()))
        self.transfer.wait()


class SlowGrid(ProcessGrid):
    """A grid whose exchanges take ``delay`` seconds more; each is waited for as it begins unless ``overlaps``."""

    delay = 0.0
    overlaps = True

    def _later(self, transfer: Transfer) -> Transfer:
        if transfer.work is None or self.delay == 0:
            return transfer
        slow = SlowTransfer(transfer.work, transfer, time.perf_counter() + self.delay)
        if self.overlaps:
            return slow
        slow.wait()
        return Transfer()

    def _broadcast_(self, *arguments) -> Transfer:
        return self._later(super()._broadcast_(*arguments))

    def _sum_to_(self, *arguments) -> Transfer:
        return self._later(super()._sum_to_(*arguments))

    def _reduce_(self, values: Tensor, *arguments) -> Tensor:
        time.sleep(self.delay)
        return super()._reduce_(values, *arguments)


def programs(n: int, grid: ProcessGrid) -> dict[str, Callable[[], Callable[[], object]]]:
    """What is timed, by name: each makes its matrix, then is ready to run."""
    y = torch.randn(n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    X = torch.ones(n, 1, dtype=torch.float64)
    K = torch.full((n, n), 0.5, dtype=torch.float64).fill_diagonal_(1.0)
    reml = REML(Covariance([Kernel.from_array(K), Identity(n)]), grid=grid)
    theta = torch.tensor([0.4, 0.6], dtype=torch.float64)

    def elimination(algorithm) -> Callable[[], Callable[[], object]]:
        def ready() -> Callable[[], object]:
            V = tiles(n, grid)
            return lambda: algorithm(V)

        return ready

    return {
        "factor": elimination(cholesky_),
        "sweep": elimination(sweep_inverse_),
        "AI step": lambda: lambda: reml.ai_step(y, X, theta),
    }


def run(rank: int, folder: str, rows: int, columns: int, arguments: argparse.Namespace, answers: mp.SimpleQueue) -> None:
    """One rank: seconds of every program and setting, round after round."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    grid = SlowGrid(**vars(ProcessGrid.connect(rows, columns, share_memory=False)))
    settings = {"compute": (0.0, True), "in turn": (arguments.delay, False), "overlapped": (arguments.delay, True)}
    found: dict[tuple[str, str], list[float]] = {}
    timed = programs(arguments.size, grid)
    for round_ in range(arguments.repeats + 1):  # the first is not counted
        for name, ready in timed.items():
            for setting, (grid.delay, grid.overlaps) in settings.items():
                work = ready()
                dist.barrier()
                begun = time.perf_counter()
                work()
                dist.barrier()
                if round_:
                    found.setdefault((name, setting), []).append(time.perf_counter() - begun)
    if rank == 0:
        answers.put({key: statistics.median(seconds) for key, seconds in found.items()})
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--delay", type=float, default=0.005, help="seconds, of every exchange")
    parser.add_argument("--repeats", type=int, default=3)
    arguments, load = parser.parse_args(), OtherLoad()
    lines = [
        f"n = {arguments.size:,}, float64, {RANKS} ranks of one thread on {os.cpu_count()} cores, "
        f"{1e3 * arguments.delay:g} ms in every exchange, median of {arguments.repeats} rounds.",
        "",
        "| grid | | compute s | compute + communication s | overlapped s | communication hidden |",
        "|---|---|---|---|---|---|",
    ]
    context = mp.get_context("spawn")
    for rows, columns in GRIDS:
        answers = context.SimpleQueue()
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(run, (folder, rows, columns, arguments, answers), nprocs=RANKS)
        found = answers.get()
        for name in dict.fromkeys(name for name, _ in found):
            compute, in_turn, overlapped = (found[name, setting] for setting in ("compute", "in turn", "overlapped"))
            hidden = (in_turn - overlapped) / (in_turn - compute)
            lines.append(f"| {rows} x {columns} | {name} | {compute:.3f} | {in_turn:.3f} | {overlapped:.3f} | {hidden:.0%} |")
    keep("overlap", [*lines, "", remark_on(load)])


if __name__ == "__main__":
    main()
