"""A P x Q grid of ranks and the few collectives that the solver uses, each counted and each failing alike on every rank.

Dense panels travel over the device's backend (NCCL or gloo); objects and errors over gloo on the CPU, which
needs no device memory.
"""

from __future__ import annotations

import os
import pickle
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from openreml_dist.errors import ConfigError, FileError, OpenREMLError, RankLostError
from openreml_dist.host import Host, Signal
from openreml_dist.layout import GridShape

T = TypeVar("T")


@dataclass
class Counters:
    """What this rank has computed in tiled linear algebra, and received, and waited for, since the grid was made.

    A multiplication and an addition are two flops; products with a triangle count as full ones, as they are done. Seconds are
    those in which the host waits for other ranks; an accelerator's own stream may wait beside it.
    """

    flops: int = 0
    bytes_received: int = 0
    messages_received: int = 0
    seconds_waited: float = 0.0


@dataclass(frozen=True)
class Transfer:
    """A collective that is under way; its tensor must not be touched before ``wait`` has returned.

    On the CPU ``wait`` blocks; on an accelerator it makes later work of the current stream wait, and the host goes on.
    """

    work: dist.Work | Signal | None = None
    counters: Counters = field(default_factory=Counters)

    def has_arrived(self) -> bool:
        """Whether ``wait`` would return at once. Local."""
        return self.work is None or self.work.is_completed()

    def wait(self) -> None:
        """Wait for the end. Raises RankLostError if a peer is lost."""
        if self.work is not None:
            with _waiting(self.counters):
                self.work.wait()


@dataclass(frozen=True)
class PendingSum(Transfer):
    """A sum that is under way; where it goes, ``wait`` leaves it in ``values``, of which ``parts`` are the others' summands."""

    values: Tensor = field(default_factory=lambda: torch.empty(0))
    parts: tuple[Tensor, ...] = ()

    def wait(self) -> None:
        """Wait for the summands and add them up."""
        super().wait()
        for part in self.parts:
            self.values.add_(part)


@dataclass
class ProcessGrid:
    """This rank's place on a grid of ranks, and its groups.

    Rank (p, q) belongs to its grid row, the ranks (p, 0..Q−1), and to its grid column, the ranks (0..P−1, q). Without a process
    group (one process, no launcher) every collective returns at once.
    """

    shape: GridShape
    rank: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    world_group: dist.ProcessGroup | None = None
    row_group: dist.ProcessGroup | None = None
    column_group: dist.ProcessGroup | None = None
    control_group: dist.ProcessGroup | None = None
    host: Host | None = None  # which all ranks share
    counters: Counters = field(default_factory=Counters)

    @classmethod
    def single(cls, device: torch.device | str = "cpu") -> ProcessGrid:
        """The 1 x 1 grid of a lone process. Local."""
        return cls(GridShape(1, 1), device=torch.device(device))

    @classmethod
    def connect(
        cls,
        rows: int | None = None,
        columns: int | None = None,
        device: torch.device | str = "cpu",
        timeout: timedelta = timedelta(minutes=10),
        share_memory: bool = True,
    ) -> ProcessGrid:
        """Lay a grid over the ranks of the default process group, or one process without it.

        Collective: every rank calls it with the same arguments. Groups are made in the same order everywhere, or they
        would hang.

        Args:
            rows: P of the grid; None for one as square as the number of ranks allows.
            columns: Q.
            device: of this rank.
            timeout: for which a peer may be silent.
            share_memory: have panels in memory that all ranks see, where all are CPUs of one host, instead of sending them.

        Raises:
            ConfigError: if rows x columns is not the number of ranks, or if torchrun started ranks that have no process group
                (each would do all the work).
        """
        if not dist.is_initialized():
            _refuse_unconnected_ranks()
            GridShape.choose(1, rows, columns)
            return cls.single(device)
        from torch.distributed.device_mesh import init_device_mesh

        shape = GridShape.choose(dist.get_world_size(), rows, columns)
        device = torch.device(device)
        mesh = init_device_mesh(device.type, (shape.rows, shape.columns), mesh_dim_names=("row", "column"))
        control = dist.group.WORLD if dist.get_backend() == "gloo" else dist.new_group(backend="gloo", timeout=timeout)
        grid = cls(
            shape,
            dist.get_rank(),
            device,
            world_group=dist.group.WORLD,
            row_group=mesh.get_group("column"),  # varying the column index walks along a grid row
            column_group=mesh.get_group("row"),
            control_group=control,
        )
        if share_memory and shape.size > 1 and device.type == "cpu":
            grid.host = Host.enter(grid.rank, grid.gather, timeout)
            grid.shape = replace(shape, shares_memory=grid.host is not None)
        return grid

    @property
    def row(self) -> int:
        """This rank's grid row p."""
        return self.shape.coordinates(self.rank)[0]

    @property
    def column(self) -> int:
        """This rank's grid column q."""
        return self.shape.coordinates(self.rank)[1]

    @property
    def is_root(self) -> bool:
        """Whether this is rank 0, which decides and prints."""
        return self.rank == 0

    # Numbers. Each is in place; the argument must be contiguous: gloo would send another matrix, silently.

    def broadcast_in_row_(self, panel: Tensor, column: int) -> Transfer:
        """Begin to send ``panel`` from the rank at ``column`` to its whole grid row. Collective over the grid row."""
        return self._broadcast_(panel, self.shape.rank(self.row, column), self.row_group)

    def broadcast_in_column_(self, panel: Tensor, row: int) -> Transfer:
        """Begin to send ``panel`` from the rank at ``row`` to its whole grid column. Collective over the grid column."""
        return self._broadcast_(panel, self.shape.rank(row, self.column), self.column_group)

    def broadcast_(self, values: Tensor, rank: int) -> None:
        """Send ``values`` from ``rank`` to every rank. Collective."""
        self._broadcast_(values, rank, self.world_group).wait()

    def sum_(self, values: Tensor) -> Tensor:
        """Sum ``values`` over all ranks, in place, and return it. Collective."""
        return self._reduce_(values, self.world_group)

    def max_(self, values: Tensor) -> Tensor:
        """The largest of ``values`` over all ranks, in place, elementwise, and return it. Collective."""
        return self._reduce_(values, self.world_group, dist.ReduceOp.MAX)

    def sum_in_row_(self, values: Tensor) -> Tensor:
        """Sum over the grid row, in place. Collective over the grid row."""
        return self._reduce_(values, self.row_group)

    def sum_in_column_(self, values: Tensor) -> Tensor:
        """Sum over the grid column, in place. Collective over the grid column."""
        return self._reduce_(values, self.column_group)

    def sum_in_row_to_(self, values: Tensor, column: int) -> Transfer:
        """Begin to sum over the grid row, on the rank at ``column`` in place. Collective over the grid row."""
        return self._sum_to_(values, self.shape.rank(self.row, column), self.row_group)

    def sum_in_column_to_(self, values: Tensor, row: int) -> Transfer:
        """Begin to sum over the grid column, on the rank at ``row`` in place. Collective over the grid column."""
        return self._sum_to_(values, self.shape.rank(row, self.column), self.column_group)

    def _sum_to_(self, values: Tensor, rank: int, group: dist.ProcessGroup | None) -> Transfer:
        """Every summand goes straight to the rank that adds: few small ones, for which a ring is all latency."""
        if group is None or values.numel() == 0 or dist.get_world_size(group) == 1:
            return Transfer()
        assert values.is_contiguous(), "a collective of a non-contiguous tensor delivers other numbers"
        here = rank == self.rank
        parts = [torch.empty_like(values) for _ in range(dist.get_world_size(group))] if here else None
        with _lost_ranks_named():
            work = dist.gather(values, parts, dst=rank, group=group, async_op=True)
        if parts is None:
            return Transfer(work, self.counters)
        del parts[dist.get_group_rank(group, rank)]
        for part in parts:
            self._count(part)
        return PendingSum(work, self.counters, values, tuple(parts))

    def _broadcast_(self, values: Tensor, source: int, group: dist.ProcessGroup | None) -> Transfer:
        if group is None or values.numel() == 0 or dist.get_world_size(group) == 1:
            return Transfer()
        assert values.is_contiguous(), "a collective of a non-contiguous tensor delivers other numbers"
        with _lost_ranks_named():
            work = dist.broadcast(values, src=source, group=group, async_op=True)
        if source != self.rank:
            self._count(values)
        return Transfer(work, self.counters)

    def _reduce_(
        self, values: Tensor, group: dist.ProcessGroup | None, op: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM
    ) -> Tensor:
        if group is None or values.numel() == 0 or dist.get_world_size(group) == 1:
            return values
        assert values.is_contiguous(), "a collective of a non-contiguous tensor delivers other numbers"
        with _waiting(self.counters):
            dist.all_reduce(values, op=op, group=group)
        self._count(values)
        return values

    def _count(self, values: Tensor) -> None:
        self.counters.bytes_received += values.numel() * values.element_size()
        self.counters.messages_received += 1

    # Memory that all ranks see, if they share a host.

    def shared_memory(self, size: int, dtype: torch.dtype) -> Tensor:
        """Uninitialised numbers, (size,), that every rank may write and all others read. Collective: of a grid with a host."""
        assert self.host is not None
        with _lost_ranks_named():
            return self.host.empty(size, dtype)

    def announce(self, ranks: Iterable[int]) -> Transfer:
        """Say on each of ``ranks`` that it has written, or no longer reads, what came before; arrives when all have said it.

        Collective: every rank calls it, with the same ranks.
        """
        assert self.host is not None
        return Transfer(self.host.signal(ranks), self.counters)

    # Decisions and errors.

    def broadcast_object(self, value: T, rank: int = 0) -> T:
        """The value that ``rank`` passed, on every rank. Collective. Pickled; for decisions and settings, not for matrices."""
        if self.control_group is None:
            return value
        box = [value]
        with _waiting(self.counters):
            dist.broadcast_object_list(box, src=rank, group=self.control_group, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in rank order, on every rank. Collective. Pickled."""
        if self.control_group is None:
            return [value]
        values: list[Any] = [None] * self.shape.size
        with _waiting(self.counters):
            dist.all_gather_object(values, value, group=self.control_group)
        return values

    @contextmanager
    def together(self, doing: str) -> Iterator[None]:
        """Run a block that may fail on some ranks only; a failure of one becomes the same exception on all.

        Collective: every rank enters the block, and every rank meets the others at its end, failed or not. So the block itself
        must not stop in a collective because another rank has failed.
        """
        failure: Exception | None = None
        try:
            yield
        except RankLostError:
            raise
        except Exception as error:
            failure = error
        self.raise_first(failure, doing)

    def raise_first(self, failure: Exception | None, doing: str) -> None:
        """Raise the failure of the lowest failing rank on every rank; return if no rank has one. Collective."""
        if self.control_group is None:
            if failure is not None:
                raise failure
            return
        failed = torch.tensor([self.shape.size if failure is None else self.rank])
        with _waiting(self.counters):
            dist.all_reduce(failed, op=dist.ReduceOp.MIN, group=self.control_group)
        first = int(failed.item())
        if first == self.shape.size:
            return
        shared = self.broadcast_object(_portable(failure, doing, first) if self.rank == first else None, first)
        assert shared is not None
        raise shared from failure


def _refuse_unconnected_ranks() -> None:
    ranks = int(os.environ.get("WORLD_SIZE", "1")) if dist.is_torchelastic_launched() else 1
    if ranks > 1:
        raise ConfigError(
            f"torchrun started {ranks} ranks, but they are not connected: call torch.distributed.init_process_group first, "
            "or give grid=ProcessGrid.single() for work of one rank alone"
        )


def _portable(failure: Exception | None, doing: str, rank: int) -> Exception:
    """The failure itself if it is one of ours, else one that says what was being done; either survives the journey."""
    assert failure is not None
    if _is_out_of_memory(failure):
        return _out_of_memory(failure, rank)
    if isinstance(failure, OSError) and not isinstance(failure, ConnectionError):
        return FileError(f"while {doing}: {FileError.of(failure)}")
    if not isinstance(failure, OpenREMLError):
        return OpenREMLError(f"while {doing}: {type(failure).__name__}: {failure}")
    pickle.loads(pickle.dumps(failure))
    return failure


LOST_ERRORS = (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)
LOST = re.compile(  # what gloo, its store and the ranks of a host say of a peer that is gone or silent
    r"connection (closed|reset|refused)|timed? ?out|broken pipe|failed to pass monitoredBarrier|no signal of rank|pair closure",
    re.IGNORECASE,
)


@contextmanager
def _waiting(counters: Counters) -> Iterator[None]:
    """Count the time of the block as one in which other ranks are waited for, and name those that are lost."""
    begun = time.perf_counter()
    try:
        with _lost_ranks_named():
            yield
    finally:
        counters.seconds_waited += time.perf_counter() - begun


@contextmanager
def _lost_ranks_named() -> Iterator[None]:
    """Turn what is said when a peer dies ("connection closed", a time-out) into RankLostError; other errors stay themselves."""
    try:
        yield
    except RuntimeError as error:  # gloo's are plain ones
        if not (isinstance(error, LOST_ERRORS) or LOST.search(str(error))) or _is_out_of_memory(error):
            raise
        raise RankLostError(
            f"another rank stopped answering ({_reason(error)}). Likely causes: it was killed, ran out of memory, or its node "
            "was lost; the launcher, its own log or its standard error may say which"
        ) from error


def _reason(error: RuntimeError) -> str:
    """The first sentence of a backend's message, without the place in its source."""
    sentence = str(error).splitlines()[0].split(". ")[0]
    return re.sub(r"^(\[[^]]*\]:?\s*)+", "", sentence)


@contextmanager
def out_of_memory_named(rank: int) -> Iterator[None]:
    """Turn an allocation that fails into the loss of this rank, with advice. Local."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise _out_of_memory(error, rank) from error


def _is_out_of_memory(error: Exception) -> bool:
    """Whether Python, NumPy or torch could not allocate; on the CPU torch raises a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _out_of_memory(error: Exception, rank: int) -> RankLostError:
    said = str(error).partition("DefaultCPUAllocator: ")[2] or str(error) or "no memory left"
    return RankLostError(
        f"out of memory on rank {rank} ({said.splitlines()[0]}). Start ranks on more nodes or GPUs, so that each holds less of "
        "V, or let each keep less of the GRM (solver.kernel_cache_gb)"
    )


Progress = Callable[[float], None]
"""Called with the finished part, 0..1, of a long phase."""


PhaseProgress = Callable[[str], Progress]
"""Called with the name of a phase that begins; what it returns is told the progress."""


def no_progress(_: float) -> None:
    """Report nothing."""


def silent(_: str) -> Progress:
    """Report no phase."""
    return no_progress
