"""A job that is asked to end: by a scheduler's signal, to be started again, or on purpose, by a file in its run directory.

Python runs the handler of a signal between two of its instructions, and a long product or a wait for another rank is one. So a
thread of its own watches: it notes the wish, which all ranks heed together before the next evaluation, and ends the process by
itself where that does not come within the time of grace.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from openreml_dist.app.report.run_directory import STOP, STOP_AFTER_ITERATION, STOP_NOW
from openreml_dist.errors import InterruptionError, OpenREMLError, StopRequestedError
from openreml_dist.grid import ProcessGrid

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
POLL_SECONDS = 0.5
BEHIND_RANK_0 = 2.0  # seconds: it writes what is left to say

Note = Callable[[OpenREMLError], None]
Abandon = Callable[[OpenREMLError], NoReturn]


class Interruption:
    """What somebody wants of this job. Local, but ``meet``.

    Args:
        grid: the ranks.
        directory: the run directory.
        grace: seconds from a wish until the process ends by itself.
        note: leaves word of a wish at once, since whoever has it may not wait for the end.
        abandon: ends the process.
    """

    def __init__(self, grid: ProcessGrid, directory: Path, grace: float, note: Note, abandon: Abandon) -> None:
        self._grid, self._stop, self._note, self._abandon = grid, directory / STOP, note, abandon
        self._grace = grace if grid.is_root else grace + BEHIND_RANK_0
        self._wish: OpenREMLError | None = None
        self._deadline = 0.0
        self._after_iteration = False

    def meet(self) -> None:
        """End the job on every rank if it is wanted on any. Collective.

        Raises:
            InterruptionError, StopRequestedError: if so.
        """
        self._grid.raise_first(self._wish, "looking for signals")

    def wished(self) -> bool:
        """Whether the fit is to end with the iterate that it has; on rank 0."""
        return self._after_iteration

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Heed signals and the file until the block ends; once it fails, rank 0 is not disturbed while it says why."""
        if threading.current_thread() is not threading.main_thread():  # where Python allows no handlers
            yield
            return
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
        before_fd = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reading,), name="interruption", daemon=True).start()
        failed = True
        try:
            yield
            failed = False
        finally:
            signal.set_wakeup_fd(before_fd)
            os.close(writing)  # the thread sees its end
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if failed and self._grid.is_root else handler)

    def _watch(self, reading: int) -> None:
        while True:
            ready, _, _ = select.select([reading], [], [], POLL_SECONDS)
            numbers = os.read(reading, 64) if ready else None
            if numbers == b"":
                os.close(reading)
                return
            if self._wish is None:
                self._deadline = time.monotonic() + self._grace
                wish = self._new_wish(numbers or b"")
                if wish is not None:
                    self._note(wish)
                self._wish = wish
            elif time.monotonic() > self._deadline:
                self._abandon(self._wish)

    def _new_wish(self, numbers: bytes) -> OpenREMLError | None:
        for number in SIGNALS:
            if number in numbers:
                return InterruptionError(f"ended by {number.name}; the same command goes on from the last evaluation")
        word = self._stop_word() if self._grid.is_root else None
        self._after_iteration = self._after_iteration or word == STOP_AFTER_ITERATION
        if word == STOP_NOW:
            return StopRequestedError("stopped on request; the same command goes on from the last evaluation")
        return None

    def _stop_word(self) -> str | None:
        try:
            return self._stop.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
