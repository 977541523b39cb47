"""Ranks that share a host: memory that all of them see, and signals that it is filled or free.

A message between processes of one host is copied four times, by threads that take the cores from those who compute. Here
nothing is sent but a byte on a Unix socket, which also tells that a peer is lost; and whoever has it sees what was written
before it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
RANK_BYTES = 4

Gather = Callable[[Any], list[Any]]


@dataclass(frozen=True)
class Signal:
    """A signal of some ranks; has what ``Transfer`` needs of a ``torch.distributed.Work``."""

    host: Host
    needed: dict[int, int]  # signals of each of these ranks, since the host was entered

    def is_completed(self) -> bool:
        """Whether all have given it, or one is lost. Local."""
        return all(self.host.heard(rank, count) for rank, count in self.needed.items())

    def wait(self) -> None:
        """Wait until all have given it. Raises RuntimeError if one is lost or silent."""
        for rank, count in self.needed.items():
            self.host.listen(rank, count)


class Host:
    """All ranks of a grid, on one host.

    Every rank makes the same calls in the same order. Local, but for what ``empty`` and ``Signal.wait`` wait for.

    Args:
        rank: of this process.
        peers: a connection to each of the others.
        timeout: for which a peer may be silent.
    """

    def __init__(self, rank: int, peers: dict[int, socket.socket], timeout: timedelta) -> None:
        self.rank = rank
        self.timeout = timeout
        self._peers = peers
        self._given = dict.fromkeys([rank, *peers], 0)
        self._heard = dict.fromkeys(peers, 0)
        self._lost: set[int] = set()
        self._files: deque[int] = deque()
        for peer in peers.values():
            peer.setblocking(False)

    @classmethod
    def enter(cls, rank: int, gather: Gather, timeout: timedelta) -> Host | None:
        """Connect the ranks with each other if all are on one host; None on every rank if not, or if the system is not Linux.

        Collective.

        Args:
            rank: of this process.
            gather: makes a list of every rank's value.
            timeout: for which a peer may be silent.
        """
        listener = _listen()
        addresses = gather(None if listener is None else (_name_of_host(), listener.getsockname()))
        callers = None
        if None not in addresses and len({name for name, _ in addresses}) == 1:
            callers = _connect(rank, [address for _, address in addresses])
        together = all(gather(callers is not None))
        if listener is not None:
            with listener:
                if together and callers is not None:
                    answered = dict(_accept(listener) for _ in range(rank + 1, len(addresses)))
                    return cls(rank, callers | answered, timeout)
        return None

    def signal(self, ranks: Iterable[int]) -> Signal:
        """Say on each of ``ranks`` that it is done with what came before; arrives when all of them have."""
        needed = {}
        for rank in ranks:
            self._given[rank] += 1
            if rank == self.rank:
                self._send()
            else:
                needed[rank] = self._given[rank]
        return Signal(self, needed)

    def empty(self, size: int, dtype: torch.dtype) -> Tensor:
        """Uninitialised numbers that all ranks see, (size,). Freed when no rank has them any more.

        Raises:
            MemoryError: if there is not so much memory.
        """
        num_bytes = max(1, size * torch.empty((), dtype=dtype).element_size())
        if self.rank == 0:
            file = os.memfd_create("openreml-panels")
            with _memory_error():
                mmap.mmap(-1, num_bytes).close()  # would it be granted? A file is, of any size
                os.ftruncate(file, num_bytes)
            self._send(file)
        self._given[0] += 1
        if self.rank != 0:
            self.listen(0, self._given[0])
            file = self._files.popleft()
        try:
            with _memory_error():
                memory = mmap.mmap(file, num_bytes)
        finally:
            os.close(file)
        return torch.frombuffer(memory, dtype=dtype, count=size)

    def heard(self, rank: int, count: int) -> bool:
        """Whether ``rank`` has given ``count`` signals, or is lost."""
        while self._heard[rank] < count and rank not in self._lost:
            if not self._receive(rank):
                return False
        return True

    def listen(self, rank: int, count: int) -> None:
        """Wait for ``count`` signals of ``rank``."""
        poll, deadline = select.poll(), time.monotonic() + self.timeout.total_seconds()
        poll.register(self._peers[rank], select.POLLIN)
        while not self.heard(rank, count):
            if not poll.poll(1000 * max(0.0, deadline - time.monotonic())):
                raise RuntimeError(f"no signal of rank {rank} for {self.timeout.total_seconds():.0f} s")
        if self._heard[rank] < count:
            raise RuntimeError(f"connection closed by rank {rank}")

    def _send(self, *files: int) -> None:
        """One byte to every peer: it has room, since no peer is more than a step behind."""
        for peer in self._peers.values():
            with contextlib.suppress(ConnectionError):  # who waits for this peer will find that it is lost
                socket.send_fds(peer, [b"."], files)

    def _receive(self, rank: int) -> bool:
        """Take one signal, with the file that may come with it; False if there is none."""
        try:
            data, files, _, _ = socket.recv_fds(self._peers[rank], 1, 1)
        except BlockingIOError:
            return False
        except ConnectionError:
            data, files = b"", []
        self._files.extend(files)
        if data:
            self._heard[rank] += 1
        else:
            self._lost.add(rank)
        return True


@contextlib.contextmanager
def _memory_error() -> Iterator[None]:
    """Turn the errors of the system for memory that it does not have into Python's."""
    try:
        yield
    except OSError as error:
        raise MemoryError(f"memory shared by the ranks of a host: {error.strerror}") from error


def _listen() -> socket.socket | None:
    """A socket that peers of this host can call; None if the system is not Linux, or refuses what is needed. Local."""
    if not hasattr(os, "memfd_create") or not BOOT_ID.exists():
        return None
    try:
        os.close(os.memfd_create("openreml-trial"))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("")  # an address of Linux's choice, which is no file
        listener.listen(socket.SOMAXCONN)
    except OSError:
        return None
    return listener


def _name_of_host() -> tuple[str, ...]:
    """The same for two processes that may share memory: one kernel, one container, one user. Local."""
    return (socket.gethostname(), BOOT_ID.read_text(encoding="ascii"), str(os.getuid()))


def _connect(rank: int, addresses: list[bytes]) -> dict[int, socket.socket] | None:
    """Connections to the ranks before this one, which need not answer yet; None if one cannot be reached. Local."""
    callers = {}
    try:
        for peer in range(rank):
            callers[peer] = socket.socket(socket.AF_UNIX)
            callers[peer].connect(addresses[peer])
            callers[peer].sendall(rank.to_bytes(RANK_BYTES))
    except OSError:
        return None
    return callers


def _accept(listener: socket.socket) -> tuple[int, socket.socket]:
    """The next rank that has called. Local: it has called before."""
    while True:
        caller, _ = listener.accept()
        _, user, _ = struct.unpack("3i", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        if user == os.getuid():  # anybody on the host may call
            return int.from_bytes(caller.recv(RANK_BYTES, socket.MSG_WAITALL)), caller
        caller.close()
