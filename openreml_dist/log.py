"""The log of a rank: a file of its own in the run directory."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOGGER = logging.getLogger("openreml_dist")


class _RankLog(logging.FileHandler):
    """A log that ends, with one line on the terminal, where it cannot be written; the run goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        """In place of Python's traceback."""
        print(f"warning: {self.baseFilename} cannot be written: {sys.exc_info()[1]}", file=sys.stderr)
        LOGGER.removeHandler(self)


@contextmanager
def logging_to(directory: Path, rank: int) -> Iterator[None]:
    """Append what is logged within to ``directory/rank-<rank>.log``, and nothing that is logged after. Local."""
    directory.mkdir(parents=True, exist_ok=True)
    handler = _RankLog(directory / f"rank-{rank}.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter(f"%(asctime)s rank {rank} %(levelname)s %(message)s"))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        with suppress(OSError):
            handler.close()
