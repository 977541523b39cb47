"""Progress of a phase: a bar on a terminal; elsewhere a line when it ends, and one a minute while it runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_SECONDS_BETWEEN_LINES = 60.0


class Advance(Protocol):
    """Called with the number of units that were finished."""

    def __call__(self, units: int, /) -> None:
        """Count ``units`` more."""


def say(message: str) -> None:
    """Print a line now."""
    print(message, flush=True)


@contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """Show how far a phase of ``total`` units is; yields the function that counts units."""
    with _bar(label, total) if sys.stdout.isatty() else _lines(label, total) as advance:
        yield advance


@contextmanager
def _bar(label: str, total: int) -> Iterator[Advance]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task(label, total=total)
        yield lambda units: bar.advance(task, units)


@contextmanager
def _lines(label: str, total: int) -> Iterator[Advance]:
    start = last = time.monotonic()
    done = 0

    def advance(units: int) -> None:
        nonlocal done, last
        done += units
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES:
            left = (now - start) / done * (total - done)
            say(f"{label}: {done:,} of {total:,}, {now - start:.0f} s, about {left:.0f} s left")
            last = now

    yield advance
    say(f"{label}: {done:,} of {total:,} in {time.monotonic() - start:.1f} s")
