"""``openreml-status`` beside fits that run, end, fail and are killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from openreml_dist.app import status
from openreml_dist.errors import ConfigError, InputError
from tests.e2e.data import Cohort
from tests.e2e.programs import Running, environment, fit

PROGRAM = [sys.executable, "-m", "openreml_dist.app.status"]
QUICK = "launcher.heartbeat_seconds=0.1"


def heartbeat(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "heartbeat.json").read_text())


def test_a_fit_that_converges_and_one_that_does_not(cohort: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("inside", tmp_path / "good", *cohort.data()).exit_code == 0
    assert (heartbeat(tmp_path / "good")["state"], heartbeat(tmp_path / "good")["launcher"]) == ("finished", "single")
    assert status.status([str(tmp_path)]) == 0
    assert fit("inside", tmp_path / "short", *cohort.data(), "solver.max_iter=0").exit_code == 3
    assert status.status([str(tmp_path)]) == 3
    assert fit("inside", tmp_path / "bad", *cohort.data(trait=9)).exit_code == 2
    assert heartbeat(tmp_path / "bad")["state"] == "failed"
    assert status.status([str(tmp_path), "watch=true"]) == 4
    assert "no column 9" in capsys.readouterr().out


def test_a_fit_that_runs_is_stopped_by_its_word_and_dies(
    cohort: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGSTOP keeps the fit from ending before it was looked at; SIGKILL leaves its last heartbeat."""
    run_dir = tmp_path / "run"
    with Running("alone", run_dir, (*cohort.data(), QUICK)) as running:
        running.wait_until((run_dir / "heartbeat.json").exists)
        running.process.send_signal(signal.SIGSTOP)
        assert heartbeat(run_dir)["pid"] == running.process.pid
        assert status.status([str(run_dir)]) == 1
        assert status.status([str(run_dir), "stop=after-iteration"]) == 0
        assert (run_dir / "stop").read_text() == "after-iteration\n"
        capsys.readouterr()
        running.process.kill()
        running.process.wait()
    assert status.status([str(run_dir)]) == 5
    assert "dead" in capsys.readouterr().out
    with pytest.raises(InputError, match="none of these runs is running"):
        status.status([str(run_dir), "stop=now"])


def test_the_next_run_does_not_find_the_word_of_the_one_before(cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stop").write_text("now\n")
    assert fit("inside", tmp_path / "run", *cohort.data()).exit_code == 0
    assert not (tmp_path / "run" / "stop").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{d}", "stop=soon"], "neither now nor after-iteration"),
        (["{d}", "watch=yes"], "neither true nor false"),
        (["{d}", "every=0"], "seconds above 0"),
        (["{d}", "until=now"], "neither a folder nor a setting"),
        (["watch=true"], "no run directory is given"),
        (["{d}", "watch=true", "stop=now"], "one at a time"),
        (["{d}"], "no run directory and holds none"),
        (["{d}/none"], "is no folder"),
        (["{d}", "table=true"], "not the folder of a sweep"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path: Path, arguments: list[str], words: str) -> None:
    with pytest.raises((ConfigError, InputError), match=words):
        status.status([argument.format(d=tmp_path) for argument in arguments])


def test_a_folder_may_be_called_like_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("every=3").mkdir()
    assert status.parse(["every=3", "every=4"]) == status.Request([Path("every=3")], every=4.0)


def test_the_program_answers_without_the_libraries_that_compute(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"status": "converged"}')
    code = (
        "import sys; from openreml_dist.app.status import status; code = status(sys.argv[1:]); "
        "print(sorted({'torch', 'hydra', 'zarr', 'numpy', 'rich'} & set(sys.modules))); sys.exit(code)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment())
    assert (run.returncode, run.stdout.splitlines()[-1]) == (0, "[]"), run.stderr
    run = subprocess.run([*PROGRAM, str(tmp_path / "none")], capture_output=True, text=True, env=environment())
    assert run.returncode == 2
    assert run.stderr.startswith("openreml-status: error: ")
