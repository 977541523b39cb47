"""The log of a rank: a file of its own in the run directory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOGGER = logging.getLogger("openreml_dist")


@contextmanager
def logging_to(directory: Path, rank: int) -> Iterator[None]:
    """Append what is logged within to ``directory/rank-<rank>.log``, and nothing that is logged after. Local."""
    directory.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(directory / f"rank-{rank}.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter(f"%(asctime)s rank {rank} %(levelname)s %(message)s"))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        handler.close()
