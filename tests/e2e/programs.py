"""Run ``openreml-fit`` as its users do: as a program of its own, alone, under torchrun or under mpirun.

Starting a program takes seconds. So what does not depend on how it was started is also run ``inside`` the process of the tests.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest
import torch

FIT = "openreml_dist.app.fit"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
SECONDS = 120.0  # far beyond what any run here needs on a busy machine: longer is a hang
FROM_LAUNCHERS = ("TORCHELASTIC_", "OMPI_", "PMIX_", "PMI_", "SLURM_", "MASTER_", "RANK", "WORLD_SIZE", "LOCAL_RANK", "OMP_")

needs_mpi = pytest.mark.skipif(
    not (shutil.which("mpirun", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"))
    or importlib.util.find_spec("mpi4py") is None,
    reason="the extra `mpi` is not installed",
)


def command(launched: str, ranks: int = 2) -> list[str]:
    """What stands before the settings on the command line."""
    program = ["-m", FIT]
    return {
        "alone": [sys.executable, *program],
        "torchrun": [*TORCHRUN, f"--nproc-per-node={ranks}", *program],
        "mpirun": ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), sys.executable, *program],
    }[launched]


def environment(**more: str) -> dict[str, str]:
    """The environment of a fresh login: no trace of a launcher that the tests themselves may run under."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(FROM_LAUNCHERS)}
    path = f"{Path(sys.executable).parent}:{clean.get('PATH', '')}"
    return clean | {"PATH": path, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"} | more


@dataclass(frozen=True)
class Finished:
    """A run that has ended."""

    exit_code: int
    output: str
    errors: str
    run_dir: Path
    seconds: float

    @functools.cached_property
    def result(self) -> dict[str, Any]:
        return json.loads((self.run_dir / "result.json").read_text())

    @functools.cached_property
    def steps(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run_dir / "steps.jsonl").read_text().splitlines()]

    @property
    def hsq(self) -> str:
        return (self.run_dir / "result.hsq").read_text()


def has_evaluated(run_dir: Path) -> bool:
    """Whether the checkpoint holds an evaluation: it is begun before the first."""
    path = run_dir / "checkpoint.json"
    return path.exists() and any(fit["entries"] for fit in json.loads(path.read_text())["fits"].values())


class Running:
    """A run that goes on; leaving the ``with`` block ends all of its processes."""

    def __init__(self, launched: str, run_dir: Path, settings: tuple[str, ...], ranks: int = 2, **environ: str) -> None:
        self.run_dir = run_dir
        self._files = [run_dir.with_name(f"{run_dir.name}.{name}") for name in ("out", "err")]
        self._files[0].parent.mkdir(parents=True, exist_ok=True)
        self._begun = time.monotonic()
        with self._files[0].open("w") as out, self._files[1].open("w") as err:
            self.process = subprocess.Popen(
                [*command(launched, ranks), f"run_dir={run_dir}", *settings],
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                env=environment(**environ),
                start_new_session=True,  # a process group of its own, to which Ctrl-C is sent
            )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def processes(self) -> list[psutil.Process]:
        """Every living process of this run, the launcher too: they all have its folder on their command line."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if f"run_dir={self.run_dir}" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def rank(self, number: int) -> psutil.Process:
        """The process of a rank."""
        for process in self.processes():
            environ = process.environ()
            for name in ("RANK", "OMPI_COMM_WORLD_RANK"):
                if environ.get(name) == str(number):
                    return process
        raise LookupError(f"rank {number} is not among {self.processes()}")

    def wait_until(self, condition: Callable[[], bool], seconds: float = SECONDS) -> None:
        """Poll until the condition holds; an error if the run ends before, or time is up."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"ended with {self.process.returncode}\n{self._files[1].read_text()}"
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.05)

    def wait_for_steps(self, count: int = 1) -> None:
        """Wait until so many iterates have been written."""
        steps = self.run_dir / "steps.jsonl"
        self.wait_until(lambda: steps.exists() and len(steps.read_text().splitlines()) >= count)

    def finished(self, seconds: float = SECONDS) -> Finished:
        """Wait for the end, and see that no process outlives it."""
        out, err = self._files
        try:
            exit_code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {seconds} s:\n{out.read_text()}\n{err.read_text()}")
        took = time.monotonic() - self._begun
        deadline = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left, f"processes outlive the run: {[(process.pid, process.cmdline()) for process in left]}"
        return Finished(exit_code, out.read_text(), err.read_text(), self.run_dir, took)


def fit(launched: str, run_dir: Path, *settings: str, ranks: int = 2, **environ: str) -> Finished:
    """Run the program to its end."""
    if launched == "inside":
        return _fit_inside(run_dir, settings)
    with Running(launched, run_dir, settings, ranks, **environ) as running:
        return running.finished()


def _fit_inside(run_dir: Path, settings: tuple[str, ...]) -> Finished:
    """Call the entry point of the program in this process, and undo what it leaves behind in it."""
    from openreml_dist.app.fit import main

    output, errors, begun, threads = io.StringIO(), io.StringIO(), time.monotonic(), torch.get_num_threads()
    with (
        mock.patch.object(sys, "argv", ["openreml-fit", f"run_dir={run_dir}", *settings]),
        mock.patch.dict(os.environ, environment(), clear=True),
        mock.patch("openreml_dist.app.cli.leave", sys.exit),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        pytest.raises(SystemExit) as end,
    ):
        main()
    torch.set_num_threads(threads)
    exit_code = end.value.code
    assert isinstance(exit_code, int)
    return Finished(exit_code, output.getvalue(), errors.getvalue(), run_dir, time.monotonic() - begun)
