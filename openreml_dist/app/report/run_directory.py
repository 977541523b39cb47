"""The folder of one run: decided by rank 0, never written over by accident."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from openreml_dist.errors import ConfigError, FileError, InterruptionError, files_named
from openreml_dist.store.files import written_aside

RESULT, HSQ, PICTURE, STEPS = "result.json", "result.hsq", "convergence.png", "steps.jsonl"
INDI_BLP, SNP_BLP, BLUP_TABLE = "result.indi.blp", "result.snp.blp", "blup"  # the table's name goes on with its format
CONFIG = "config.yaml"
CHECKPOINT, BATCHES = "checkpoint.json", "checkpoint.npz"
REQUEUE = "requeue"  # left by a job that a scheduler has ended: it wants to be started again
HEARTBEAT = "heartbeat.json"
TRACE = "trace.json"
STOP, STOP_NOW, STOP_AFTER_ITERATION = "stop", "now", "after-iteration"  # a file that others write, and its one word
OWN = (  # what a run writes, as patterns: none of an earlier run stays beside a later one
    *(RESULT, CONFIG, STEPS, HSQ, PICTURE, INDI_BLP, SNP_BLP),
    *(f"{BLUP_TABLE}.tsv", f"{BLUP_TABLE}.parquet"),
    *(CHECKPOINT, BATCHES, REQUEUE, HEARTBEAT, STOP, TRACE),
    "rank-[0-9]*.log",
)
KEPT_TO_RESUME = (CHECKPOINT, BATCHES, "rank-[0-9]*.log")
UNFINISHED = ("iteration_limit", "stopped")  # statuses of a result that could be improved by going on
FAILED = "failed"
CUT_SHORT = "interrupted"  # of a run that was asked to end
ANSWERS = ("converged", "converged_at_bound")
FINISHED = (*ANSWERS, "not_identified", "stalled", *UNFINISHED)
PRIVATE = 0o700  # a new folder is the user's alone: results of people are nobody else's
RESUME = ("auto", "never", "require")


def prepare_run_directory(wanted: str | None, overwrite: bool, resume: str = "never") -> Path:
    """The folder to write to, made if it is not there, without the files of an earlier run but those that it goes on from.

    Local: rank 0 alone.

    Args:
        wanted: path, or None for ``runs/<time>``.
        overwrite: allow a folder that holds a finished result.
        resume: one of ``RESUME``: keep the checkpoint of a run that has not finished, never, or else refuse.
    Raises:
        ConfigError: if it holds a finished result and ``overwrite`` is false, or no unfinished run where one is required, or
            cannot be made or written to.
    """
    directory = Path(wanted) if wanted is not None else _by_time(Path("runs"))
    status = _status(directory / RESULT)
    is_finished = status in FINISHED and status not in UNFINISHED
    goes_on = resume != "never" and (directory / CHECKPOINT).exists() and not is_finished
    if status in FINISHED and not overwrite and not goes_on:
        raise ConfigError(f"run_dir: {directory} holds a finished result; choose another folder, or set overwrite=true")
    if resume == "require" and not goes_on:
        raise ConfigError(f"resume=require: {directory} holds no unfinished run")
    try:
        directory.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"run_dir: {directory} cannot be made: {error.strerror}") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigError(f"run_dir: {directory} cannot be written to; choose a folder where you may write")
    for pattern in OWN:
        whole = [] if goes_on and pattern in KEPT_TO_RESUME else directory.glob(pattern)
        for stale in [*whole, *directory.glob(f"{pattern}.*.partial")]:
            stale.unlink(missing_ok=True)
    return directory


def leave_failure(directory: Path, exit_code: int, message: str, status: str = FAILED) -> None:
    """Write the ``result.json`` of a run that failed, if the disk has room for it. Local: rank 0 alone."""
    failure = {"status": status, "exit_code": exit_code, "message": message, "command": sys.argv}
    with suppress(FileError):  # what failed is said on the terminal
        write_json(directory / RESULT, failure)
        if exit_code == InterruptionError.exit_code:
            write_text(directory / REQUEUE, "")
        else:
            (directory / REQUEUE).unlink(missing_ok=True)


def end_checkpoint(directory: Path, status: str) -> None:
    """Remove what a finished run will not go on from. Local: rank 0 alone."""
    (directory / REQUEUE).unlink(missing_ok=True)
    if status not in UNFINISHED:
        for name in (CHECKPOINT, BATCHES):
            (directory / name).unlink(missing_ok=True)


def _by_time(parent: Path) -> Path:
    """A new folder named after the second; a number follows where several runs start in one."""
    name = time.strftime("%Y-%m-%d_%H-%M-%S")
    candidates = [parent / name, *(parent / f"{name}_{i}" for i in range(2, 1000))]
    return next(path for path in candidates if not path.exists())


def _status(result: Path) -> str | None:
    try:
        return str(json.loads(result.read_text(encoding="utf-8"))["status"])
    except (OSError, ValueError, KeyError, TypeError):  # none, not ours, or cut off
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
