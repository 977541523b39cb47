"""The log of a rank: one file a rank, and warnings of any rank on the terminal."""

from __future__ import annotations

import logging
from pathlib import Path

LOGGER = logging.getLogger("openreml_dist")


def log_to_file(directory: Path, rank: int) -> None:
    """Append this rank's log to ``directory/rank-<rank>.log``. Local: each rank calls it once."""
    directory.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(directory / f"rank-{rank}.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter(f"%(asctime)s rank {rank} %(levelname)s %(message)s"))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
