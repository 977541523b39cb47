"""Memory and signals of the ranks of one host."""

from __future__ import annotations

import os
import signal
import socket
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

import openreml_dist.grid
import openreml_dist.host
from openreml_dist.errors import RankLostError
from openreml_dist.grid import ProcessGrid, out_of_memory_named
from openreml_dist.linalg import cholesky_
from tests.helpers.gloo import spawn
from tests.helpers.oracle import random_positive_definite, tiled


def numbers_seen(ranks: int) -> list[float]:
    """What this rank reads in memory where every rank writes its number over and over."""
    grid = ProcessGrid.connect()
    memory = grid.shared_memory(ranks, torch.float64)
    sums = []
    for turn in range(50):
        memory[grid.rank] = turn
        grid.announce(range(ranks)).wait()
        sums.append(float(memory.sum()))
        grid.announce(range(ranks)).wait()
    return sums


@pytest.mark.parametrize("ranks", [2, 4])
def test_all_ranks_see_what_was_written_before_a_signal(ranks: int) -> None:
    assert spawn(numbers_seen, ranks, ranks) == [[float(ranks * turn) for turn in range(50)]] * ranks


def signals_of_one_rank() -> tuple[bool, bool]:
    """Whether rank 1 hears rank 0, before and after it has given its signal."""
    grid = ProcessGrid.connect()
    if grid.rank == 0:
        dist.barrier()
        given = grid.announce([0])
        dist.barrier()
        return given.has_arrived(), given.has_arrived()
    awaited = grid.announce([0])
    before = awaited.has_arrived()
    dist.barrier()
    dist.barrier()
    return before, awaited.has_arrived()


def test_a_signal_is_that_of_the_ranks_named() -> None:
    assert spawn(signals_of_one_rank, 2) == [(True, True), (False, True)]


def rank_lost() -> str:
    """What rank 0 says when rank 1 is killed amid a factorisation."""
    grid = ProcessGrid.connect()
    V = tiled(random_positive_definite(200), 10, grid)
    if grid.rank == 1 and os.fork() == 0:  # a copy that the test can lose, holding the connections of this rank

        def stop(done: float) -> None:
            if done > 0.5:
                os.kill(os.getpid(), signal.SIGKILL)

        cholesky_(V, stop)
    if grid.rank == 1:
        grid.host = None  # leaves its copies of the connections to the one that is killed
        os.wait()
        return ""
    begun = time.monotonic()
    with pytest.raises(RankLostError) as raised:
        cholesky_(V)
    assert time.monotonic() - begun < 30
    return str(raised.value)


def test_a_lost_rank_is_named() -> None:
    assert "connection closed by rank 1" in spawn(rank_lost, 2)[0]


def silence() -> str:
    grid = ProcessGrid.connect(timeout=timedelta(seconds=1))
    if grid.rank == 1:
        dist.barrier()
        return ""
    with pytest.raises(RankLostError) as raised:
        grid.announce([0, 1]).wait()
    dist.barrier()
    return str(raised.value)


def test_a_silent_rank_is_not_waited_for_longer_than_the_timeout() -> None:
    assert "no signal of rank 1 for 1 s" in spawn(silence, 2)[0]


def no_memory() -> str:
    grid = ProcessGrid.connect()
    with pytest.raises(RankLostError) as raised, out_of_memory_named(grid.rank):
        if grid.rank == 0:
            grid.shared_memory(10**16, torch.float64)
        else:
            raise MemoryError("as on rank 0")
    return str(raised.value)


def test_memory_that_is_not_there_is_an_out_of_memory_error() -> None:
    assert spawn(no_memory, 2)[0].startswith("out of memory on rank 0 (memory shared by the ranks of a host")


def elsewhere(what: str) -> bool:
    """Whether the ranks share memory when rank 1 is on another host, or cannot be called."""
    rank = dist.get_rank()
    if rank == 1 and what == "host":
        openreml_dist.host._name_of_host = lambda: ("another",)  # type: ignore[assignment]
    if what == "no memory files":
        del os.memfd_create
    if what == "memory files refused":

        def forbidden(_: str) -> int:
            raise PermissionError

        os.memfd_create = forbidden  # type: ignore[assignment]
    if rank == 1 and what == "refused":

        def refused(*_: object) -> None:
            raise ConnectionRefusedError

        socket.socket.connect = refused  # type: ignore[method-assign, assignment]
    grid = ProcessGrid.connect()
    assert grid.broadcast_object(rank, rank=1) == 1  # the ranks still meet
    return grid.host is not None or grid.shape.shares_memory


@pytest.mark.parametrize("what", ["host", "no memory files", "memory files refused", "refused"])
def test_ranks_that_cannot_share_memory_send_messages(what: str) -> None:
    assert spawn(elsewhere, 2, what) == [False, False]


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        ("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:31072", True),
        ("[/pytorch/gloo/transport/tcp/unbound_buffer.cc:88] Timed out waiting 4000ms for recv operation to complete", True),
        ("Application timeout caused pair closure", True),
        ("Rank 1 failed to pass monitoredBarrier in 4000 ms", True),
        ("[enforce fail at ../gloo/transport/tcp/pair.cc:454] Received data size doesn't match expected size", False),
        ("Detected mismatch between collectives on ranks. Rank 0 is running collective: ALLREDUCE(TensorShape=[3])", False),
        ("The size of tensor a (3) must match the size of tensor b (4) at non-singleton dimension 0", False),
    ],
)
def test_only_what_a_lost_peer_causes_is_called_a_lost_rank(said: str, lost: bool) -> None:
    with pytest.raises(RankLostError if lost else RuntimeError) as caught, openreml_dist.grid._lost_ranks_named():
        raise RuntimeError(said)
    assert isinstance(caught.value, RankLostError) == lost
