"""A rank that is killed, or Ctrl-C, in the middle of a fit: the job ends soon, says why, and leaves no process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.data import relationships, write_grm, write_lines
from tests.e2e.programs import Running, needs_mpi

SECONDS = 60.0
LAUNCHERS = ["torchrun", pytest.param("mpirun", marks=needs_mpi)]


@pytest.fixture(scope="module")
def long_fit(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings of a fit that takes a second or more an iteration."""
    folder, n, rng = tmp_path_factory.mktemp("long"), 3000, np.random.default_rng(5)
    write_grm(folder / "large.grm.zarr", relationships(rng, n, 500), np.arange(n))
    write_lines(folder / "y.phen", [f"F{i} I{i} {value:.8f}" for i, value in enumerate(rng.normal(size=n))])
    start = ("solver.start=[5,0.1]", "solver.tolerance_theta=1e-14", "launcher.timeout_seconds=40")
    return f"data.grm={folder / 'large.grm.zarr'}", f"data.pheno={folder / 'y.phen'}", *start


@pytest.mark.parametrize("launched", LAUNCHERS)
def test_killed_rank_ends_the_job(long_fit: tuple[str, ...], tmp_path: Path, launched: str) -> None:
    with Running(launched, tmp_path / "run", long_fit) as running:
        running.wait_for_steps()
        running.rank(1).kill()
        run = running.finished(SECONDS)
    assert run.exit_code != 0
    assert "openreml-fit: error: rank 0: another rank stopped answering" in run.errors + run.output
    assert (run.result["status"], run.result["exit_code"]) == ("failed", 5)


@pytest.mark.parametrize("launched", ["alone", *LAUNCHERS])
def test_interrupt_ends_the_job(long_fit: tuple[str, ...], tmp_path: Path, launched: str) -> None:
    with Running(launched, tmp_path / "run", long_fit) as running:
        running.wait_for_steps()
        os.killpg(running.process.pid, signal.SIGINT)
        run = running.finished(SECONDS)
    assert run.exit_code == (130 if launched == "alone" else 1)
    if launched != "mpirun":  # mpirun passes on no more output after an interrupt, and kills its ranks a moment later
        assert "openreml-fit: interrupted" in run.errors or "SIGTERM" in run.errors


def test_terminated_process_says_why(long_fit: tuple[str, ...], tmp_path: Path) -> None:
    with Running("alone", tmp_path / "run", long_fit) as running:
        running.wait_for_steps()
        running.process.terminate()
        run = running.finished(SECONDS)
    assert run.exit_code == 5
    assert "ended by SIGTERM" in run.errors
    assert run.result["exit_code"] == 5
