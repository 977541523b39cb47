"""One job of a program: ranks that know each other, a folder to write to, a log; whatever it then computes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from openreml_dist.app import launch
from openreml_dist.app.cli import INTERRUPTED
from openreml_dist.app.report.heartbeat import beating
from openreml_dist.app.report.run_directory import CUT_SHORT, FAILED, leave_failure, prepare_run_directory
from openreml_dist.errors import InterruptionError, OpenREMLError, StopRequestedError, files_named
from openreml_dist.log import LOGGER, logging_to

if TYPE_CHECKING:
    from openreml_dist.app.interruption import Interruption
    from openreml_dist.app.report.terminal import Terminal
    from openreml_dist.config import FitConfig
    from openreml_dist.grid import ProcessGrid


@dataclass(frozen=True)
class Session:
    """What a job works with while it is connected.

    Attributes:
        grid: the ranks.
        terminal: of rank 0; silent on the others.
        directory: the run directory.
        launcher: who started the ranks.
        startup: seconds from the beginning of the job until its ranks were ready.
        ready: when that was, in seconds of ``time.perf_counter``.
        interruption: what somebody wants of the job.
    """

    grid: ProcessGrid
    terminal: Terminal
    directory: Path
    launcher: str
    startup: float
    ready: float
    interruption: Interruption

    def seconds(self) -> float:
        """Since the ranks were ready. Local."""
        return time.perf_counter() - self.ready

    def say(self, *lines: str) -> None:
        """Print lines on rank 0. Local."""
        self.terminal.say(*lines)


@contextmanager
def session(settings: FitConfig, begun: float) -> Iterator[Session]:
    """Connect the ranks, prepare the run directory and log to it until the end of the job. Collective.

    What is raised within is logged, and left by rank 0 in ``result.json`` as a failure. The ranks stay connected: with
    ``--multirun`` the next job has them too, and a launcher such as torchrun lets them meet once.

    Args:
        settings: launcher, grid and run directory.
        begun: when the job began, in seconds of ``time.perf_counter``.
    Raises:
        ConfigError: for a run directory that cannot be used, ranks or devices that are not there.
        RankLostError: if the ranks do not find each other.
    """
    from openreml_dist.app.interruption import Interruption
    from openreml_dist.app.report.terminal import Terminal
    from openreml_dist.grid import out_of_memory_named

    placement = launch.find_placement(settings.launcher.name)
    terminal = Terminal(placement.rank)
    grid = launch.connect(placement, settings.launcher, settings.grid)
    with grid.together("preparing the run directory"):
        prepared = prepare_run_directory(settings.run_dir, settings.overwrite, settings.resume) if grid.is_root else None
    directory = grid.broadcast_object(prepared)
    assert directory is not None

    def note(error: OpenREMLError) -> None:
        _leave_failure(error, directory if grid.is_root else None)

    def abandon(error: OpenREMLError) -> NoReturn:
        if grid.is_root:
            print(f"openreml-fit: error: {error}", file=sys.stderr, flush=True)
        os._exit(error.exit_code)

    interruption = Interruption(grid, directory, settings.launcher.grace_seconds, note, abandon)
    every = settings.launcher.heartbeat_seconds if grid.is_root else 0.0
    with logging_to(directory, grid.rank), beating(directory, terminal.news, every, placement.launcher, grid.shape.size):
        try:
            with interruption.watched(), out_of_memory_named(grid.rank), files_named():
                ready = time.perf_counter()
                yield Session(grid, terminal, directory, placement.launcher, ready - begun, ready, interruption)
        except (Exception, KeyboardInterrupt) as error:
            _leave_failure(error, directory if grid.is_root else None)
            raise


def _leave_failure(error: Exception | KeyboardInterrupt, directory: Path | None) -> None:
    """Log an error, and write it into the run directory, if one is given. Local."""
    exit_code = INTERRUPTED if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1)
    message = str(error) or ("interrupted" if exit_code == INTERRUPTED else type(error).__name__)
    LOGGER.error(message, exc_info=not isinstance(error, OpenREMLError))
    if directory is not None:
        status = CUT_SHORT if isinstance(error, InterruptionError | StopRequestedError) else FAILED
        leave_failure(directory, exit_code, message, status)
