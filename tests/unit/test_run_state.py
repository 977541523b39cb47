"""How runs stand, told from their files alone; and the table of them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from openreml_dist.app.report.heartbeat import stamp
from openreml_dist.app.report.run_directory import ANSWERS, CUT_SHORT, FINISHED, HEARTBEAT, RESULT
from openreml_dist.app.report.run_state import SWEEP, Standing, find_runs, is_run_directory, read_run
from openreml_dist.app.report.status_table import duration, status_lines
from openreml_dist.errors import InputError

EVERY = 5.0


def beat(directory: Path, age: float, state: str = "iterating", **more: Any) -> Path:
    """A heartbeat of ``age`` seconds, of this process unless ``more`` says otherwise."""
    directory.mkdir(parents=True, exist_ok=True)
    now = time.time()
    record = {"state": state, "host": socket.gethostname(), "pid": os.getpid(), "every": EVERY, "begun": stamp(now - 3600)}
    (directory / HEARTBEAT).write_text(json.dumps({**record, "written": stamp(now - age), **more}))
    return directory


def ended(directory: Path, status: str, **more: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / RESULT).write_text(json.dumps({"status": status, **more}))
    return directory


def pid_of_nobody() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("age", "process", "standing"),
    [
        (1.0, {}, Standing.RUNNING),
        (19.0, {"host": "elsewhere"}, Standing.RUNNING),
        (21.0, {}, Standing.SILENT),
        (1.0, {"pid": None}, Standing.DEAD),
        (21.0, {"host": "elsewhere"}, Standing.DEAD),
        (-3.0, {"host": "elsewhere"}, Standing.RUNNING),
    ],
)
def test_no_process_or_four_missed_heartbeats_elsewhere_are_death(
    tmp_path: Path, age: float, process: dict[str, Any], standing: Standing
) -> None:
    process = {name: pid_of_nobody() if name == "pid" else value for name, value in process.items()}
    assert read_run(beat(tmp_path / "run", age, **process)).standing is standing


@pytest.mark.parametrize("status", [*FINISHED, CUT_SHORT, "failed", "of another version"])
def test_a_result_says_how_a_run_ended(tmp_path: Path, status: str) -> None:
    beat(tmp_path, 1e6)
    ended(tmp_path, status)
    exit_code = 0 if status in ANSWERS else 3 if status in (*FINISHED, CUT_SHORT) else 4
    assert read_run(tmp_path).standing.exit_code == exit_code


def test_the_result_of_an_earlier_run_says_nothing_of_this(tmp_path: Path) -> None:
    ended(tmp_path, "failed")
    os.utime(tmp_path / RESULT, (1e9, 1e9))
    state = read_run(beat(tmp_path, 1.0))
    assert (state.standing, state.result) == (Standing.RUNNING, {})


@pytest.mark.parametrize(("state", "standing"), [("finished", Standing.FINISHED), ("failed", Standing.FAILED)])
def test_without_a_result_the_last_heartbeat_counts(tmp_path: Path, state: str, standing: Standing) -> None:
    assert read_run(beat(tmp_path, 1e6, state)).standing is standing


def test_a_run_without_heartbeat_is_unknown_and_an_empty_point_waits(tmp_path: Path) -> None:
    assert read_run(tmp_path).standing is Standing.WAITING
    (tmp_path / "rank-0.log").write_text("")
    assert read_run(tmp_path).standing is Standing.UNKNOWN


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_files_that_cannot_be_read_are_none(tmp_path: Path, content: str) -> None:
    for name in (HEARTBEAT, RESULT):
        (tmp_path / name).write_text(content)
    assert is_run_directory(tmp_path)
    assert read_run(tmp_path).standing is Standing.WAITING


def test_runs_are_found_within_folders_and_sweeps_once_each(tmp_path: Path) -> None:
    for name in ("b/one", "a", "big.zarr/no", ".hidden/no", "a/below"):
        ended(tmp_path / name, "converged")
    (tmp_path / "c" / "done").mkdir(parents=True)
    ended(tmp_path / "c" / "done", "converged")
    (tmp_path / "c" / SWEEP).write_text(json.dumps({"points": [{"run_dir": "to do"}, {"run_dir": "done"}]}))
    assert [str(path.relative_to(tmp_path)) for path in find_runs(tmp_path)] == ["a", "b/one", "c/to do", "c/done"]
    assert find_runs(tmp_path / "a") == [tmp_path / "a"]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        find_runs(tmp_path / "none")
    with pytest.raises(InputError, match="no run directory and holds none"):
        find_runs(tmp_path)


def test_the_table_is_aligned_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    beat(
        tmp_path / "a", 2.0, iteration=12, loglik=-1.5, phase="inverse", done=0.25, seconds_left=90.0, ranks=2, slurm_job_id="7"
    )
    ended(tmp_path / "long name", "failed", exit_code=2, message="no\ncolumn 9")
    lines = status_lines([read_run(tmp_path / name) for name in ("a", "long name")])
    assert len({line.index(word) for line, word in zip(lines, ("state", "running", "failed"), strict=False)}) == 1
    where = f"{socket.gethostname()}:{os.getpid()}, 2 ranks, job 7"
    assert lines[1].endswith(f"12  -1.5000  2 s ago  {where}  iterating, inverse 25 %, 1 min 30 s left")
    assert "failed (exit code 2): no column 9" in lines[2]
    assert lines[3] == "1 running, 1 failed"
    assert status_lines([read_run(tmp_path / "a")], width=10)[0] == "run  state"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.6, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (7_260, "2 h 1 min"), (90_000, "1 d 1 h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
