"""How a run stands, read from the files in its folder: without a server, and without loading what computes."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from openreml_dist.app.report.run_directory import ANSWERS, CUT_SHORT, FINISHED, HEARTBEAT, HSQ, RESULT, STEPS
from openreml_dist.errors import InputError

SWEEP = "sweep.json"
MISSED = 4  # heartbeats, after which a fit is no longer taken to be running
NO_RUNS_WITHIN = (".zarr", ".vcz")  # endings of folders that hold many files and no runs


class Standing(StrEnum):
    """How a run stands; ordered from what is well to what is worst."""

    FINISHED = "finished"
    RUNNING = "running"
    WAITING = "waiting"
    UNKNOWN = "unknown"
    SILENT = "silent"
    UNCONVERGED = "no answer"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    DEAD = "dead"

    @property
    def exit_code(self) -> int:
        """Of a program that was asked how a run stands."""
        return {"finished": 0, "no answer": 3, "interrupted": 3, "failed": 4, "dead": 5}.get(self, 1)

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more by itself."""
        return self.exit_code != 1


@dataclass(frozen=True)
class RunState:
    """A run directory, read.

    Attributes:
        directory: as it was named.
        standing: how it stands.
        heartbeat: what ``heartbeat.json`` says; empty without it.
        result: what ``result.json`` says; empty without it.
        age: seconds since the last heartbeat; None without any.
    """

    directory: Path
    standing: Standing
    heartbeat: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    age: float | None = None


def read_run(directory: Path, now: float | None = None) -> RunState:
    """How the run in ``directory`` stands at ``now`` (in seconds since 1970). Local.

    A fit is dead whose process is gone from this host, and one of another host, where nobody can look, whose heartbeat has
    stopped for ``MISSED`` times its interval. It is silent where the heartbeat has stopped and the process is there (stopped
    by a signal, or its disk is full). The clocks of the hosts have to agree to some seconds.
    """
    now = time.time() if now is None else now
    heartbeat, result = _record(directory / HEARTBEAT), _record(directory / RESULT)
    written, begun = seconds_of(heartbeat.get("written")), seconds_of(heartbeat.get("begun"))
    age = None if written is None else max(0.0, now - written)
    is_newer = result and (begun is None or (directory / RESULT).stat().st_mtime >= begun)
    if is_newer:
        standing = _standing_of(result)
    elif age is None:
        standing = Standing.UNKNOWN if _has_traces(directory) else Standing.WAITING
    elif heartbeat.get("state") in ("finished", "failed"):
        standing = Standing.FINISHED if heartbeat["state"] == "finished" else Standing.FAILED
    elif _is_here(heartbeat) and not _is_alive(heartbeat):
        if _record(directory / HEARTBEAT).get("written") != heartbeat.get("written"):  # it ended between two glances
            return read_run(directory)
        standing = Standing.DEAD
    elif age <= MISSED * float(heartbeat.get("every", 0.0)):
        standing = Standing.RUNNING
    else:
        standing = Standing.SILENT if _is_here(heartbeat) else Standing.DEAD
    return RunState(directory, standing, heartbeat, result if is_newer else {}, age)


def is_run_directory(directory: Path) -> bool:
    """Whether a fit has been here."""
    return any((directory / name).exists() for name in (RESULT, HEARTBEAT)) or _has_traces(directory)


def has_begun(directory: Path, since: float) -> bool:
    """Whether a fit has been here since a time, in seconds since 1970."""
    files = [directory / name for name in (RESULT, HEARTBEAT, "rank-0.log")]
    return any(file.exists() and file.stat().st_mtime >= since for file in files)


def find_runs(path: Path) -> list[Path]:
    """The run directories of ``path``: itself, or those within, the points of its sweeps also where they have not begun. Local.

    Raises:
        InputError: if there is none.
    """
    if not path.is_dir():
        raise InputError(f"{path} is no folder; give run directories of openreml-fit, or a folder that holds some")
    found = list(dict.fromkeys(_runs_within(path)))
    if not found:
        raise InputError(
            f"{path} is no run directory and holds none: it has no {HEARTBEAT} and no {RESULT}; "
            "a fit makes its folder when its ranks have found each other"
        )
    return found


def sweep_record(directory: Path) -> dict[str, Any]:
    """What ``sweep.json`` says; empty without it."""
    return _record(directory / SWEEP)


def seconds_of(stamp: object) -> float | None:
    """A date and a time as seconds since 1970; None for anything else."""
    try:
        return datetime.fromisoformat(str(stamp)).timestamp()
    except ValueError:
        return None


def _runs_within(path: Path) -> Iterator[Path]:
    """Parents before children, in the order of a sweep, else in that of names; nothing below a run."""
    if is_run_directory(path):
        yield path
        return
    for point in sweep_record(path).get("points", []):
        yield path / point["run_dir"]
    for inner in sorted(path.iterdir()):
        if inner.is_dir() and not inner.is_symlink() and not inner.name.startswith(".") and inner.suffix not in NO_RUNS_WITHIN:
            yield from _runs_within(inner)


def _standing_of(result: dict[str, Any]) -> Standing:
    status = result.get("status")
    if status in ANSWERS:
        return Standing.FINISHED
    if status == CUT_SHORT:
        return Standing.INTERRUPTED
    return Standing.UNCONVERGED if status in FINISHED else Standing.FAILED


def _has_traces(directory: Path) -> bool:
    return any((directory / name).exists() for name in (STEPS, HSQ, "rank-0.log"))


def _is_here(heartbeat: dict[str, Any]) -> bool:
    """Whether rank 0 is, or was, on this host."""
    return bool(heartbeat.get("host") == socket.gethostname())


def _is_alive(heartbeat: dict[str, Any]) -> bool:
    """Whether the process of rank 0, of this host, is there."""
    try:
        os.kill(int(heartbeat["pid"]), 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def _record(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none, or none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
