"""A line of life: ``heartbeat.json`` says what a fit is doing, to whoever looks into its folder while it runs.

The terminal of rank 0 collects the news, a small thread writes them down now and then. It ends with the fit: a file that is
old and does not say how the fit ended is that of a fit that was killed.
"""

from __future__ import annotations

import json
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from openreml_dist.app.report.run_directory import HEARTBEAT
from openreml_dist.log import LOGGER

SECONDS_TO_THE_DISK = 5.0  # for which the end of a fit waits for a disk that does not answer
TELLING = 0.01  # part of a phase that has to be done before the rest is estimated


class State(StrEnum):
    """What a fit is at."""

    STARTING = "starting"
    READING = "reading"
    ITERATING = "iterating"
    PREDICTING = "predicting"
    WRITING = "writing"
    FINISHED = "finished"
    FAILED = "failed"

    @property
    def is_the_end(self) -> bool:
        """Whether the fit is over."""
        return self in (State.FINISHED, State.FAILED)


@dataclass
class News:
    """What rank 0 knows of its fit. Everything here is local, and costs nothing beside a step of any phase.

    Attributes:
        state: what the fit is at.
        phase: of the iteration, or of reading; None between two of them.
        done: part of the phase, 0 to 1.
        phase_begun: in seconds of ``time.monotonic``.
        iteration: number of the last accepted iterate; None before the first.
        loglik: there.
        said: the last line on the terminal.
        changed: when anything of this was new, in seconds since 1970.
        listeners: told the number of every accepted iterate.
    """

    state: State = State.STARTING
    phase: str | None = None
    done: float = 0.0
    phase_begun: float = 0.0
    iteration: int | None = None
    loglik: float | None = None
    said: str = ""
    changed: float = field(default_factory=time.time)
    listeners: list[Callable[[int], None]] = field(default_factory=list)

    def enter(self, state: State) -> None:
        """Another stage begins."""
        self.state, self.phase, self.changed = state, None, time.time()

    def begin(self, phase: str) -> Callable[[float], None]:
        """A phase begins; what is returned takes its finished part."""
        self.done, self.phase_begun, self.phase = 0.0, time.monotonic(), phase

        def note(done: float) -> None:
            self.done, self.changed = done, time.time()
            if done >= 1.0 and self.phase == phase:
                self.phase = None

        return note

    def iterated(self, number: int, loglik: float) -> None:
        """An iterate was accepted."""
        self.iteration, self.loglik, self.changed = number, loglik, time.time()
        for listener in self.listeners:
            listener(number)

    def hear(self, line: str) -> None:
        """A line was said."""
        if line.strip():
            self.said, self.changed = line.strip(), time.time()

    def record(self) -> dict[str, Any]:
        """As ``heartbeat.json`` has it; seconds left of the phase where enough of it is done to tell."""
        done, seconds = self.done, time.monotonic() - self.phase_begun
        left = seconds * (1 - done) / done if self.phase is not None and done > TELLING else None
        finite = self.loglik is not None and math.isfinite(self.loglik)
        return {
            "state": str(self.state),
            "phase": self.phase,
            "done": None if self.phase is None else round(done, 4),
            "seconds_left": None if left is None else round(left, 1),
            "iteration": self.iteration,
            "loglik": self.loglik if finite else None,
            "said": self.said,
            "changed": stamp(self.changed),
        }


@contextmanager
def beating(directory: Path, news: News, every: float, launcher: str, ranks: int) -> Iterator[None]:
    """Keep ``heartbeat.json`` until the block ends, and say there how it ended. Local: rank 0; nothing where ``every`` is 0.

    A disk that is full, or gone, ends the heartbeat, which the log says once, and never the fit.

    Args:
        directory: the run directory.
        news: of the fit.
        every: seconds between two writings.
        launcher: who started the ranks.
        ranks: how many.
    """
    if every == 0.0:
        yield
        return
    about = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "launcher": launcher,
        "ranks": ranks,
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "begun": stamp(time.time()),
        "every": every,
    }
    ended = threading.Event()
    writer = threading.Thread(
        target=_beat, args=(directory / HEARTBEAT, news, about, every, ended), name="heartbeat", daemon=True
    )
    writer.start()
    try:
        yield
        news.enter(State.FINISHED)
    except BaseException as error:
        news.enter(State.FAILED)
        news.hear(str(error) or type(error).__name__)
        raise
    finally:
        ended.set()
        writer.join(SECONDS_TO_THE_DISK)


def stamp(seconds: float) -> str:
    """Seconds since 1970 as a date and a time of UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _beat(path: Path, news: News, about: dict[str, Any], every: float, ended: threading.Event) -> None:
    """Write at once, then from time to time, and a last time when the fit has ended. Local: the thread's."""
    is_last = False
    while True:
        try:
            _write(path, {**news.record(), **about, "written": stamp(time.time())})
        except OSError as error:
            LOGGER.warning("%s cannot be written, and says no more: %s", path, error.strerror or error)
            return
        if is_last:
            return
        is_last = ended.wait(every)


def _write(path: Path, record: dict[str, Any]) -> None:
    """Aside, then renamed: a reader sees one or the other. Nothing waits for the disk, since a power cut may take it."""
    aside = path.with_name(f"{path.name}.next.partial")
    aside.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.replace(path)
