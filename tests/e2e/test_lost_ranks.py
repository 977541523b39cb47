"""A rank that is lost in the middle of a fit, or Ctrl-C: the job ends soon, says why, and leaves no process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from tests.e2e.data import Cohort, relationships, write_grm, write_lines
from tests.e2e.programs import Finished, Running, fit, needs_mpi

SECONDS = 60.0
NO_MEMORY = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
)
MPIRUN = pytest.param("mpirun", marks=needs_mpi)
SLOW_TORCHRUN = pytest.param("torchrun", marks=pytest.mark.slow)
SLOW_MPIRUN = pytest.param("mpirun", marks=[needs_mpi, pytest.mark.slow])


@pytest.fixture(scope="module")
def long_fit(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings of a fit that takes seconds, because tiles of one number are the slowest way to do it."""
    folder, n, rng = tmp_path_factory.mktemp("long"), 140, np.random.default_rng(5)
    write_grm(folder / "large.grm.zarr", relationships(rng, n, 200), np.arange(n))
    write_lines(folder / "y.phen", [f"F{i} I{i} {value:.8f}" for i, value in enumerate(rng.normal(size=n))])
    slowly = ("solver.tile_size=1", "solver.start=[5,0.1]", "solver.tolerance_theta=1e-14")
    return f"data.grm={folder / 'large.grm.zarr'}", f"data.pheno={folder / 'y.phen'}", *slowly


def disturbed(launched: str, folder: Path, settings: tuple[str, ...], disturb: Callable[[Running], None]) -> Finished:
    """A fit that something happens to after its first steps, and that then ends by itself."""
    with Running(launched, folder / "run", settings) as running:
        running.wait_for_steps()
        disturb(running)
        return running.finished(SECONDS)


@pytest.mark.parametrize("launched", ["torchrun", MPIRUN])
def test_killed_rank_ends_the_job(long_fit: tuple[str, ...], tmp_path: Path, launched: str) -> None:
    run = disturbed(launched, tmp_path, long_fit, lambda running: running.rank(1).kill())
    assert run.exit_code != 0
    said = run.errors.partition("openreml-fit: error: rank 0: ")[2]
    assert said.startswith(("another rank stopped answering", "ended by SIGTERM")), run.errors  # whichever rank 0 noticed first
    assert "lost" in said.splitlines()[0]
    assert (run.result["status"], run.result["exit_code"]) == ("failed", 5)


@pytest.mark.parametrize("launched", [SLOW_TORCHRUN, SLOW_MPIRUN])
def test_killed_rank_0_ends_the_job(long_fit: tuple[str, ...], tmp_path: Path, launched: str) -> None:
    run = disturbed(launched, tmp_path, long_fit, lambda running: running.rank(0).kill())
    assert run.exit_code != 0
    assert "rank 1: another rank stopped answering" in run.errors or "SIGKILL" in run.errors  # whoever is quicker
    assert not (run.run_dir / "result.json").exists()  # so that nobody takes the run for finished


@pytest.mark.parametrize("launched", [SLOW_TORCHRUN, MPIRUN])  # torchrun takes half a minute to kill a stopped process
def test_rank_that_hangs_ends_the_job_at_the_time_out(long_fit: tuple[str, ...], tmp_path: Path, launched: str) -> None:
    run = disturbed(launched, tmp_path, (*long_fit, "launcher.timeout_seconds=4"), lambda running: running.rank(1).suspend())
    assert run.exit_code == {"torchrun": 1, "mpirun": 5}[launched]
    said = run.errors.partition("rank 0: another rank stopped answering (")[2]
    # with TORCH_DISTRIBUTED_DEBUG=DETAIL torch checks every collective by a barrier that names the rank; in shared memory ranks
    # wait for signals
    noticed = ("Timed out", "Rank 1 failed to pass", "Ranks 1 failed to pass", "no signal of rank 1")
    assert said.startswith(noticed), run.errors
    assert run.result["exit_code"] == 5


@pytest.mark.parametrize("launched", ["alone", "torchrun", MPIRUN])
def test_interrupt_ends_the_job(long_fit: tuple[str, ...], tmp_path: Path, launched: str) -> None:
    run = disturbed(launched, tmp_path, long_fit, lambda running: os.killpg(running.process.pid, signal.SIGINT))
    assert run.exit_code == (130 if launched == "alone" else 1)
    if launched != "mpirun":  # mpirun passes on no more output after an interrupt, and kills its ranks a moment later
        assert "openreml-fit: interrupted" in run.errors or "SIGTERM" in run.errors


@pytest.mark.parametrize("launched", ["alone", SLOW_TORCHRUN, SLOW_MPIRUN])
def test_terminated_job_says_why(long_fit: tuple[str, ...], tmp_path: Path, launched: str) -> None:
    run = disturbed(launched, tmp_path, long_fit, lambda running: running.process.terminate())
    assert run.exit_code == (99 if launched == "alone" else 1)
    if launched != "mpirun":
        assert "ended by SIGTERM" in run.errors
    assert "ended by SIGTERM" in run.result["message"]
    assert (run.result["status"], run.result["exit_code"]) == ("interrupted", 99)
    assert (run.run_dir / "requeue").exists()


@pytest.mark.parametrize(
    ("launched", "raised", "words"),
    [
        ("torchrun", "MemoryError()", "rank 1: out of memory on rank 1"),
        pytest.param("mpirun", "ZeroDivisionError('odd')", "rank 1: unexpected error", marks=needs_mpi),
    ],
)
def test_error_of_one_rank_alone_ends_all(cohort: Cohort, tmp_path: Path, launched: str, raised: str, words: str) -> None:
    """Even one that nobody foresaw, outside of all that ranks do together."""
    write_lines(
        tmp_path / "sitecustomize.py",
        [
            "import os",
            "if os.environ.get('RANK', os.environ.get('OMPI_COMM_WORLD_RANK')) == '1':",
            "    import openreml_dist.reml.dense.evaluation",
            "    def fail(*_):",
            f"        raise {raised}",
            "    openreml_dist.reml.dense.evaluation.sweep_inverse_ = fail",
        ],
    )
    run = fit(launched, tmp_path / "run", *cohort.data(), PYTHONPATH=str(tmp_path))
    assert run.exit_code == 1
    assert words in run.errors
    logged = "out of memory on rank 1" if raised == "MemoryError()" else "ZeroDivisionError: odd"
    assert logged in (run.run_dir / "rank-1.log").read_text()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError(NO_MEMORY)])
def test_lack_of_memory_is_no_mistake(cohort: Cohort, tmp_path: Path, error: Exception) -> None:
    with mock.patch("openreml_dist.reml.dense.problem.TiledSymmetric", side_effect=error):
        run = fit("inside", tmp_path / "run", *cohort.data())
    assert run.exit_code == 5
    assert "openreml-fit: error: out of memory on rank 0" in run.errors
    assert "Traceback" not in run.errors
    assert run.result["exit_code"] == 5


def test_mistake_of_the_program_shows_where_it_is(cohort: Cohort, tmp_path: Path) -> None:
    with mock.patch("openreml_dist.reml.dense.problem.TiledSymmetric", side_effect=ZeroDivisionError("odd")):
        run = fit("inside", tmp_path / "run", *cohort.data())
    assert run.exit_code == 1
    assert "unexpected error" in run.errors
    assert "ZeroDivisionError: odd" in run.errors
    assert (run.result["status"], run.result["exit_code"], run.result["message"]) == ("failed", 1, "odd")
    assert "Traceback" in (run.run_dir / "rank-0.log").read_text()
