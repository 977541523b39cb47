"""Run a function on several gloo ranks, and say which rank failed first."""

from __future__ import annotations

import os
import pickle
import queue
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

TIMEOUT = 240.0


def spawn(function: Callable[..., Any], num_ranks: int, *arguments: Any, timeout: float = TIMEOUT) -> list[Any]:
    """The values of ``function(*arguments)`` on every rank of a gloo group, in rank order.

    The function is at module level; its process group is made and destroyed around it, one thread a rank. One rank runs in this
    process, without a group.

    Raises:
        AssertionError: with the traceback of the rank that failed first, or naming the ranks that did not answer in time.
    """
    if num_ranks == 1:
        return [function(*arguments)]
    context = mp.get_context("spawn")
    answers = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "store"
        ranks = [
            context.Process(target=_rank, args=(function, rank, num_ranks, meeting, answers, arguments), daemon=True)
            for rank in range(num_ranks)
        ]
        for process in ranks:
            process.start()
        try:
            return _collect(answers, num_ranks, time.monotonic() + timeout)
        finally:
            for process in ranks:
                process.join(timeout=5)
                process.kill()


def _collect(answers: Any, num_ranks: int, deadline: float) -> list[Any]:
    values: dict[int, Any] = {}
    failures: list[tuple[float, int, str]] = []
    while len(values) + len(failures) < num_ranks:
        left = deadline - time.monotonic()
        if failures:
            left = min(left, 5.0)  # the others fail on the lost connection, or never
        try:
            when, rank, value, failure = answers.get(timeout=max(left, 0.01))
        except queue.Empty:
            break
        if failure is None:
            values[rank] = pickle.loads(value)
        else:
            failures.append((when, rank, failure))
    if failures:
        _, rank, failure = min(failures)
        raise AssertionError(f"rank {rank} of {num_ranks} failed first:\n{failure}")
    silent = sorted(set(range(num_ranks)) - set(values))
    assert not silent, f"ranks {silent} of {num_ranks} did not answer"
    return [values[rank] for rank in range(num_ranks)]


def _rank(function: Callable[..., Any], rank: int, num_ranks: int, meeting: Path, answers: Any, arguments: Any) -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=num_ranks, timeout=timedelta(seconds=60)
    )
    try:
        value = pickle.dumps(function(*arguments))  # a queue would pass tensors as files of a process that is gone
        answers.put((time.time(), rank, value, None))
    except BaseException:
        answers.put((time.time(), rank, None, traceback.format_exc()))
    else:
        dist.barrier()
    dist.destroy_process_group()
