"""Run a function on N gloo ranks, each a fresh process with one thread.

Starting processes costs seconds: put many cases into one call.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from openreml_dist.grid import ProcessGrid

GRIDS = [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]


class RankFailedError(AssertionError):
    """What the first failing rank said."""


def spawn(function: Callable[..., Any], num_ranks: int, *args: Any, timeout: float = 150) -> list[Any]:
    """Every rank's ``function(*args)``, in rank order; a module-level function, called within a gloo process group.

    Raises:
        RankFailedError: with the traceback of the rank that failed first, or with every stack after ``timeout`` seconds.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        processes: list[BaseProcess] = [
            context.Process(target=_run_rank, args=(function, rank, num_ranks, folder, timeout, args), daemon=True)
            for rank in range(num_ranks)
        ]
        for process in processes:
            process.start()
        try:
            _wait(processes, folder, timeout)
        finally:
            for process in processes:
                process.kill()
                process.join()
        return [torch.load(folder / f"value-{rank}", weights_only=False) for rank in range(num_ranks)]


def on_grid(shape: tuple[int, int], function: Callable[..., Any], *args: Any, timeout: float = 150) -> list[Any]:
    """Every rank's ``function(grid, *args)`` on a P x Q grid; 1 x 1 runs in this process, without a process group."""
    rows, columns = shape
    if rows * columns == 1:
        return [function(ProcessGrid.connect(rows, columns), *args)]
    return spawn(_connect_and_run, rows * columns, function, rows, columns, args, timeout=timeout)


def _connect_and_run(function: Callable[..., Any], rows: int, columns: int, args: tuple[Any, ...]) -> Any:
    return function(ProcessGrid.connect(rows, columns), *args)


def _run_rank(
    function: Callable[..., Any], rank: int, num_ranks: int, folder: Path, timeout: float, args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    stacks = (folder / f"stack-{rank}").open("w")
    faulthandler.dump_traceback_later(timeout, file=stacks)
    try:
        dist.init_process_group(
            "gloo",
            store=dist.FileStore(str(folder / "store"), num_ranks),
            rank=rank,
            world_size=num_ranks,
            timeout=timedelta(seconds=2 * timeout),  # the stacks come first
        )
        torch.save(function(*args), folder / f"value-{rank}")
        faulthandler.cancel_dump_traceback_later()
    except BaseException:
        when = time.monotonic_ns()  # the same clock in every process
        partial = folder / f"partial-{rank}"
        partial.write_text(f"{when}\n{traceback.format_exc()}")
        partial.rename(folder / f"failure-{rank}")
        sys.exit(1)
    if dist.is_initialized():
        dist.destroy_process_group()


def _wait(processes: list[BaseProcess], folder: Path, timeout: float) -> None:
    """Return when all have ended well; raise for the first that has not."""
    deadline = time.monotonic() + timeout + 5
    running = list(processes)
    while running:
        ended = wait([process.sentinel for process in running], max(0.0, deadline - time.monotonic()))
        if not ended:
            ranks = [rank for rank, process in enumerate(processes) if process in running]
            stacks = "\n".join(f"rank {rank}:\n{(folder / f'stack-{rank}').read_text()}" for rank in ranks)
            raise RankFailedError(f"ranks {ranks} of {len(processes)} had not finished after {timeout} s\n{stacks}")
        for process in running:
            process.join(0)
        if any(process.exitcode for process in running):
            raise RankFailedError(_first_failure(processes, folder))
        running = [process for process in running if process.exitcode is None]


def _first_failure(processes: list[BaseProcess], folder: Path) -> str:
    """A rank that was killed could write nothing and fails the others; else the earliest exception."""
    for rank, process in enumerate(processes):
        if process.exitcode is not None and process.exitcode < 0:
            return f"rank {rank} of {len(processes)} was killed by signal {-process.exitcode}"
    failures = []
    for path in folder.glob("failure-*"):
        when, text = path.read_text().split("\n", 1)
        failures.append((int(when), int(path.name.removeprefix("failure-")), text))
    if not failures:
        codes = [process.exitcode for process in processes]
        return f"a rank ended without a word; exit codes {codes}"
    _, rank, text = min(failures)
    return f"rank {rank} of {len(processes)} failed first:\n{text}"
