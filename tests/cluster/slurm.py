"""A private SLURM: what a user of it does, and what came of it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.e2e.programs import environment

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPTS = CHECKOUT / "slurm"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
NODES, CPUS_OF_A_NODE = 2, 64
SECONDS = 120.0
ENDED = ("COMPLETED", "FAILED", "NODE_FAIL", "CANCELLED", "TIMEOUT")


@dataclass(frozen=True)
class Job:
    """A batch job, or an element of an array, that has ended."""

    exit_code: int
    log: str
    restarts: int


@dataclass(frozen=True)
class Slurm:
    """A private cluster of two nodes."""

    environment: dict[str, str]

    def submit(self, script: Path | str, *arguments: str, folder: Path, options: tuple[str, ...] = (), **environ: str) -> str:
        """Submit a script, one of ``slurm/`` by its name, from ``folder``; the number of the job.

        ``options`` go before the lines of the script, as a user gives them to change those for one job.
        """
        command = ["sbatch", "--parsable", f"--chdir={folder}", *options, str(SCRIPTS / script), *arguments]
        return self.output(*command, **environ).strip()

    def wait(self, number: str, restarts: int = 0) -> list[Job]:
        """Wait for the end of a job that is requeued so often, or of all elements of an array.

        ``sbatch --wait`` would ask every 10 s alone.
        """
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            jobs = [_fields(line) for line in self.output("scontrol", "show", "job", "--oneliner", number).splitlines()]
            if all(job["JobState"] in ENDED and int(job["Restarts"]) >= restarts for job in jobs):
                jobs.sort(key=lambda job: int(job.get("ArrayTaskId", 0)))
                return [Job(int(job["ExitCode"].split(":")[0]), _text(job["StdOut"]), int(job["Restarts"])) for job in jobs]
            time.sleep(0.2)
        pytest.fail("\n".join(f"still {job['JobState']} after {SECONDS} s:\n{_text(job['StdOut'])}" for job in jobs))

    def run(self, script: Path | str, *arguments: str, folder: Path, options: tuple[str, ...] = (), **environ: str) -> Job:
        """Submit, and wait for the end."""
        [job] = self.wait(self.submit(script, *arguments, folder=folder, options=options, **environ))
        return job

    def output(self, *command: str, **environ: str) -> str:
        """What a command prints; an error with what it complains of if it fails."""
        done = subprocess.run(command, env=self.environment | environ, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout


def _fields(line: str) -> dict[str, str]:
    return dict(field.split("=", 1) for field in line.split() if "=" in field)


def _text(log: str) -> str:
    return Path(log).read_text() if Path(log).exists() else ""


def why_none() -> str | None:
    """Why no SLURM can be started here; None where one can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None]
    if missing:
        return f"SLURM is not installed: no {', '.join(missing)} (Debian: apt install slurm-wlm munge)"
    return None if os.getuid() == 0 else "a private SLURM is started by root alone"


@contextmanager
def started() -> Iterator[Slurm]:
    """A cluster, ended with the block and all that runs on it."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # munge wants a path that everybody may walk; pytest's folders are private
    environ = environment(SLURM_CONF=str(folder / "slurm.conf"))
    environ["PATH"] += ":/usr/sbin"
    here = Path(__file__).parent
    port = str(_free_ports(NODES + 1))
    try:
        subprocess.run([here / "slurm_up", folder, port, str(NODES), str(CPUS_OF_A_NODE)], env=environ, check=True)
        yield Slurm(environ)
    finally:
        subprocess.run([here / "slurm_down", folder], env=environ, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> int:
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


def ranks(run_dir: Path) -> dict[int, psutil.Process]:
    """Living processes of a run by their rank; not srun, slurmstepd and the batch script."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if f"run_dir={run_dir}" in command and "python" in Path(command[0]).name:
                found[int(process.environ()["SLURM_PROCID"])] = process
    return found


def wait_for_rank(number: int, run_dir: Path) -> psutil.Process:
    """The process of a rank, as soon as it is there."""
    wait_until(lambda: number in ranks(run_dir))
    return ranks(run_dir)[number]


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll until the condition holds."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def directives(script: Path) -> dict[str, str]:
    """The options of the ``#SBATCH`` lines of a script; an option without a value has an empty one."""
    lines = re.findall(r"^#SBATCH +(.*)$", script.read_text(), re.MULTILINE)
    words = [word for line in lines for word in line.split(" #")[0].split()]
    return {name: value for name, _, value in (word.removeprefix("--").partition("=") for word in words)}
