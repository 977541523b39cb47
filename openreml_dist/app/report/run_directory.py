"""The folder of one run: decided by rank 0, never written over by accident."""

from __future__ import annotations

import json
import math
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from openreml_dist.errors import ConfigError, FileError, files_named
from openreml_dist.store.files import written_aside

RESULT, HSQ, PICTURE, STEPS = "result.json", "result.hsq", "convergence.png", "steps.jsonl"
INDI_BLP, SNP_BLP, BLUP_TABLE = "result.indi.blp", "result.snp.blp", "blup"  # the table's name goes on with its format
CONFIG = "config.yaml"
HEARTBEAT = "heartbeat.json"
TRACE = "trace.json"
STOP, STOP_NOW, STOP_AFTER_ITERATION = "stop", "now", "after-iteration"  # a file that others write, and its one word
OWN = (  # what a run writes, as patterns: none of an earlier run stays beside a later one
    *(RESULT, CONFIG, STEPS, HSQ, PICTURE, INDI_BLP, SNP_BLP),
    *(HEARTBEAT, STOP, TRACE),
    *(f"{BLUP_TABLE}.tsv", f"{BLUP_TABLE}.parquet"),
    "rank-[0-9]*.log",
)
ANSWERS = ("converged", "converged_at_bound")
FINISHED = (*ANSWERS, "not_identified", "iteration_limit", "stalled")


def prepare_run_directory(wanted: str | None, overwrite: bool) -> Path:
    """The folder to write to, made if it is not there, without the files of an earlier run. Local: rank 0 alone.

    Args:
        wanted: path, or None for ``runs/<time>``.
        overwrite: allow a folder that holds a finished result.
    Raises:
        ConfigError: if it holds a finished result and ``overwrite`` is false, or cannot be made or written to.
    """
    directory = Path(wanted) if wanted is not None else _by_time(Path("runs"))
    finished = directory / RESULT
    if finished.exists() and not overwrite and _status(finished) in FINISHED:
        raise ConfigError(f"run_dir: {directory} holds a finished result; choose another folder, or set overwrite=true")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"run_dir: {directory} cannot be made: {error.strerror}") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigError(f"run_dir: {directory} cannot be written to; choose a folder where you may write")
    for pattern in OWN:
        for stale in [*directory.glob(pattern), *directory.glob(f"{pattern}.*.partial")]:
            stale.unlink(missing_ok=True)
    return directory


def leave_failure(directory: Path, failure: dict[str, Any]) -> None:
    """Write the ``result.json`` of a run that failed, if the disk has room for it. Local: rank 0 alone."""
    with suppress(FileError):  # what failed is said on the terminal
        write_json(directory / RESULT, failure)


def _by_time(parent: Path) -> Path:
    """A new folder named after the second; a number follows where several runs start in one."""
    name = time.strftime("%Y-%m-%d_%H-%M-%S")
    candidates = [parent / name, *(parent / f"{name}_{i}" for i in range(2, 1000))]
    return next(path for path in candidates if not path.exists())


def _status(result: Path) -> str | None:
    try:
        return str(json.loads(result.read_text(encoding="utf-8"))["status"])
    except (ValueError, KeyError, TypeError):  # not ours, or cut off
        return None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON aside and rename it into place; what is not a finite number becomes null."""
    write_text(path, json.dumps(_with_nulls(content), indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file aside and rename it into place."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def append_json_line(path: Path, content: dict[str, Any]) -> None:
    """Append one line to a JSON Lines file; what is not a finite number becomes null."""
    with files_named(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(_with_nulls(content), ensure_ascii=False) + "\n")


def _with_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nulls(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
