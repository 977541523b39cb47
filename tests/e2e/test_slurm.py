"""``slurm/fit.sbatch`` on a real SLURM: two nodes on this machine, one task each."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.e2e.data import Cohort
from tests.e2e.programs import environment, fit

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
NODES = 2
SECONDS = 120.0

_missing = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None]
pytestmark = [
    pytest.mark.skipif(bool(_missing), reason=f"SLURM is not installed: no {', '.join(_missing)}"),
    pytest.mark.skipif(os.getuid() != 0, reason="a private SLURM is started by root alone"),
]


@dataclass(frozen=True)
class Job:
    """A batch job that has ended."""

    exit_code: int
    log: str
    run_dir: Path


@dataclass(frozen=True)
class Slurm:
    """A private cluster."""

    environment: dict[str, str]

    def submit(self, run_dir: Path, *settings: str) -> str:
        """Submit the script of the project; the number of the job."""
        options = [f"--nodes={NODES}", "--ntasks-per-node=1", "--cpus-per-task=1", "--time=5", f"--output={run_dir}.log"]
        nodes = "grid.share_memory=false"  # they are of one host, which ranks would notice
        script = [str(CHECKOUT / "slurm/fit.sbatch"), f"run_dir={run_dir}", nodes, *settings]
        return self._output("sbatch", "--parsable", f"--chdir={run_dir.parent}", *options, *script).strip()

    def wait(self, number: str, run_dir: Path) -> Job:
        """Wait for the end of a job. ``sbatch --wait`` would ask every 10 s alone."""
        log = Path(f"{run_dir}.log")
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            about = self._output("scontrol", "show", "job", "--oneliner", number)
            fields = dict(field.split("=", 1) for field in about.split() if "=" in field)
            if fields["JobState"] in ("COMPLETED", "FAILED", "NODE_FAIL", "CANCELLED", "TIMEOUT"):
                return Job(int(fields["ExitCode"].split(":")[0]), log.read_text(), run_dir)
            time.sleep(0.2)
        pytest.fail(f"still running after {SECONDS} s:\n{log.read_text() if log.exists() else 'not started'}")

    def run(self, run_dir: Path, *settings: str) -> Job:
        """Submit and wait for the end."""
        return self.wait(self.submit(run_dir, *settings), run_dir)

    def _output(self, *command: str) -> str:
        return subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # munge wants a path that everybody may walk; pytest's folders are private
    environ = environment(SLURM_CONF=str(folder / "slurm.conf"))
    environ["PATH"] += ":/usr/sbin"
    script = CHECKOUT / "tests/cluster"
    port = free_ports(NODES + 1)
    try:
        subprocess.run([str(script / "slurm_up"), str(folder), str(port), str(NODES), "1"], env=environ, check=True)
        yield Slurm(environ)
    finally:
        subprocess.run([str(script / "slurm_down"), str(folder)], env=environ, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> int:
    """The first of ``count`` free ports in a row, below those that the system gives out by itself."""
    for first in range(17_000, 20_000 - count, count):
        with contextlib.ExitStack() as bound:
            try:
                for port in range(first, first + count):
                    bound.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise LookupError("no free ports")


def test_two_nodes_agree_with_one_process(slurm: Slurm, cohort: Cohort, tmp_path: Path) -> None:
    alone = fit("alone", tmp_path / "alone", *cohort.data())
    job = slurm.run(tmp_path / "slurm", *cohort.data())
    assert job.exit_code == 0, job.log
    assert "openreml-fit on 2 ranks (slurm), grid 2 x 1, cpu, 1 thread a rank" in job.log
    assert job.log.count("openreml-fit on") == 1
    result = json.loads((job.run_dir / "result.json").read_text())
    assert result["status"] == "converged"
    assert [part["variance"] for part in result["components"]] == pytest.approx(
        [part["variance"] for part in alone.result["components"]], rel=1e-8
    )
    assert {path.name for path in job.run_dir.glob("rank-*.log")} == {"rank-0.log", "rank-1.log"}


@pytest.mark.parametrize(
    ("setting", "exit_code", "words"),
    [
        ("solver.maxiter=3", 2, "maxiter"),
        ("data.pheno=none.phen", 2, "none.phen"),
        ("solver.max_iter=0", 3, "iteration_limit"),
    ],
)
def test_the_job_fails_and_the_result_says_why(
    slurm: Slurm, cohort: Cohort, tmp_path: Path, setting: str, exit_code: int, words: str
) -> None:
    job = slurm.run(tmp_path / "slurm", *cohort.data(), setting)
    if setting == "solver.maxiter=3":  # refused before the ranks meet: srun may end one that is still starting, with 143
        assert job.exit_code in (exit_code, 143), job.log
    else:
        assert job.exit_code == exit_code, job.log
        assert json.loads((job.run_dir / "result.json").read_text())["exit_code"] == exit_code
    assert words in job.log
    assert "Traceback" not in job.log


def test_the_job_ends_when_a_rank_is_killed(slurm: Slurm, cohort: Cohort, tmp_path: Path) -> None:
    run_dir = tmp_path / "slurm"
    number = slurm.submit(run_dir, *cohort.data())
    rank_1 = wait_for_rank(1, run_dir)
    begun = time.monotonic()
    rank_1.kill()
    job = slurm.wait(number, run_dir)
    assert job.exit_code not in (0, 3), job.log
    assert time.monotonic() - begun < 30
    assert ranks(run_dir) == {}, "processes outlive the job"


def wait_for_rank(number: int, run_dir: Path) -> psutil.Process:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if number in (found := ranks(run_dir)):
            return found[number]
        time.sleep(0.05)
    raise TimeoutError(f"rank {number} has not started")


def ranks(run_dir: Path) -> dict[int, psutil.Process]:
    """Living processes of a run by their rank; not srun, slurmstepd and the batch script."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if f"run_dir={run_dir}" in command and "python" in Path(command[0]).name:
                found[int(process.environ()["SLURM_PROCID"])] = process
    return found
