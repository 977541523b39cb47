"""Where tasks run: worker processes on this machine, or a running Dask scheduler.

Tasks are calls of module-level functions that write to a store and may be repeated. An error of a task ends the run as one
message.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from openreml_dist.config import DaskConfig
from openreml_dist.errors import ConfigError, OpenREMLError

_SECONDS_TO_CONNECT = 30


class TaskPool:
    """Runs calls on the workers of a Dask cluster."""

    def __init__(self, client: Any, num_workers: int, threads: int = 1, at_once: int | None = None) -> None:
        """Use the cluster behind ``client``: ``num_workers`` workers, in each of which a task may use ``threads`` threads.

        At most ``at_once`` tasks are with it: an interrupted run does no more than these.
        """
        self._client = client
        self.num_workers, self.threads = num_workers, threads
        self._at_once = at_once

    def run(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """Yield (number of the call, its value) as calls finish.

        Raises:
            OpenREMLError: the first error of a task as it was, or what happened to it in one message.
        """
        from distributed import as_completed

        number = {}
        pending = {}
        waiting = enumerate(calls)
        done = as_completed()  # type: ignore[no-untyped-call]

        def submit(most: int | None) -> None:
            for index, call in islice(waiting, most):
                future = self._client.submit(function, *call, pure=False)
                number[future.key], pending[future.key] = index, future
                done.add(future)  # type: ignore[no-untyped-call]

        try:
            submit(self._at_once)
            for future in done:
                index = number[future.key]
                if future.status != "finished":
                    raise _as_message(future, f"{function.__name__}{calls[index]}")
                value = future.result()
                del pending[future.key]  # the cluster forgets the task and its value
                submit(1)
                yield index, value
        finally:
            if pending:
                self._client.cancel(list(pending.values()))


def _as_message(future: Any, call: str) -> OpenREMLError | OSError:
    from distributed import KilledWorker

    if future.status == "cancelled":
        return OpenREMLError(f"the Dask scheduler lost the task {call}")
    error = future.exception()
    if isinstance(error, OpenREMLError) or (isinstance(error, OSError) and not isinstance(error, ConnectionError)):
        return error  # a full disk is the program's to name: it knows what it was writing
    if isinstance(error, KilledWorker):
        return OpenREMLError(f"workers died repeatedly in {call}, probably out of memory: use fewer with dask.workers=...")
    frame = traceback.extract_tb(future.traceback())[-1]
    return OpenREMLError(f"{call} failed: {type(error).__name__}: {error} ({frame.filename}:{frame.lineno})")


@contextmanager
def task_pool(settings: DaskConfig, num_tasks: int) -> Iterator[TaskPool]:
    """Workers for about ``num_tasks`` tasks; the processes started here end with the block, also on an interrupt.

    Local workers listen on the loopback address only. Worker processes times ``threads`` of the pool are the cores of
    the machine; in each of these BLAS has one.

    Raises:
        ConfigError: no scheduler answers at ``settings.scheduler``.
    """
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if settings.scheduler is not None:
        try:
            client = Client(settings.scheduler, timeout=_SECONDS_TO_CONNECT)  # type: ignore[no-untyped-call]
        except (OSError, TimeoutError, ValueError) as error:
            raise ConfigError(f"dask.scheduler={settings.scheduler}: no Dask scheduler answers there ({error})") from error
        with client:
            yield TaskPool(client, max(1, len(client.scheduler_info(n_workers=-1)["workers"])))
        return
    with _local_cluster(settings, num_tasks) as cluster, Client(cluster) as client:  # type: ignore[no-untyped-call]
        workers = len(cluster.workers)
        yield TaskPool(client, workers, _threads(workers), at_once=2 * workers)


def _threads(workers: int) -> int:
    from dask.system import CPU_COUNT

    return max(1, CPU_COUNT // workers)


def _local_cluster(settings: DaskConfig, num_tasks: int) -> Any:
    import dask
    from dask.system import CPU_COUNT
    from distributed import LocalCluster

    workers = max(1, min(settings.workers or CPU_COUNT, num_tasks))
    environment = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment["BLOSC_NTHREADS"] = str(_threads(workers))
    with dask.config.set({"distributed.nanny.pre-spawn-environ": environment}):
        return LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=settings.memory_limit,
            dashboard_address="127.0.0.1:0",  # without an address Dask would listen on every interface
            silence_logs=logging.CRITICAL,
        )
