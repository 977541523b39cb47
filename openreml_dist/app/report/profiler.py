"""One iteration of rank 0 under torch's profiler: what it computed when, and what it waited for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openreml_dist.app.report.heartbeat import News
from openreml_dist.app.report.run_directory import TRACE
from openreml_dist.errors import FileError
from openreml_dist.log import LOGGER
from openreml_dist.store.files import written_aside


@contextmanager
def traced(wanted: int | None, news: News, directory: Path) -> Iterator[None]:
    """Trace iteration ``wanted`` of the fit within, to ``trace.json``; nothing for None. Local: rank 0.

    The trace begins when the iterate before is accepted, and ends with the iterate, or with the fit if that has fewer.
    """
    if wanted is None:
        yield
        return
    import torch
    from torch.profiler import ProfilerActivity, profile

    devices = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    profiler = profile(activities=devices, record_shapes=True)
    is_on = False

    def follow(number: int) -> None:
        nonlocal is_on
        if number == wanted - 1:
            profiler.start()
            is_on = True
        elif is_on:
            is_on = False
            profiler.stop()
            try:
                with written_aside(directory / TRACE) as aside:
                    profiler.export_chrome_trace(str(aside))
            except (FileError, RuntimeError) as error:  # it is not worth a fit, of which the other ranks are waiting
                LOGGER.warning("launcher.profile: %s", error)

    news.listeners.append(follow)
    try:
        yield
    finally:
        news.listeners.remove(follow)
        if is_on:
            profiler.stop()
        if not (directory / TRACE).exists():
            LOGGER.warning("launcher.profile=%d: the fit had no such iteration, so there is no %s", wanted, TRACE)
