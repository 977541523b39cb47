"""A run that is cut off, by whatever, and started again: the same digits, or a refusal that says what has changed."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from openreml_dist.app import checkpoint
from openreml_dist.app.report.run_directory import CHECKPOINT, REQUEUE, RESULT, STEPS, STOP
from openreml_dist.errors import FileError
from openreml_dist.reml.stochastic.traces import Probes
from tests.e2e.data import Cohort, relationships, write_grm, write_lines
from tests.e2e.genotyped import linked_genotypes, make_genotyped, simulated_phenotype
from tests.e2e.programs import Finished, Running, fit, has_evaluated, needs_mpi

SAME_ON_OTHER_RANKS = 1e-10
MPIRUN = pytest.param("mpirun", marks=needs_mpi)


class CutOffError(Exception):
    """Instead of a signal, in this process."""


@dataclass
class Job:
    """Settings of a fit, and what it finds undisturbed."""

    settings: tuple[str, ...]
    undisturbed: dict[str, Any] = field(default_factory=dict)


def found(run: Finished) -> dict[str, Any]:
    """All numbers of a result that do not depend on time and place."""
    result = run.result
    own = ("status", "loglik", "estimates", "theta_covariance", "monte_carlo_se", "fixed_effects", "pvalue")
    history = [{key: value for key, value in step.items() if key != "seconds"} for step in result["history"]]
    return {**{name: result[name] for name in own}, "history": history}


def made(settings: tuple[str, ...], folder: Path) -> Job:
    run = fit("inside", folder / "undisturbed", *settings)
    assert run.exit_code == 0, run.errors
    assert not (run.run_dir / CHECKPOINT).exists()
    return Job(settings, found(run))


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Two relationship matrices and a fit for the test of one; slow because of its tiles of two numbers."""
    folder, n, rng = tmp_path_factory.mktemp("dense"), 60, np.random.default_rng(5)
    matrices = [relationships(rng, n, m) for m in (90, 150)]
    for name, K in zip(("one", "two"), matrices, strict=True):
        write_grm(folder / f"{name}.grm.zarr", K, np.arange(n))
    L = np.linalg.cholesky(matrices[0] + 0.5 * matrices[1] + np.eye(n))
    write_lines(folder / "y.phen", [f"F{i} I{i} {value:.8f}" for i, value in enumerate(L @ rng.normal(size=n))])
    grms = f"data.grm=[{folder / 'one.grm.zarr'},{folder / 'two.grm.zarr'}]"
    more = ("solver.tile_size=2", "solver.start=[5,0.1,3]", "launcher.threads=1")
    return made((grms, f"data.pheno={folder / 'y.phen'}", *more), folder)


@pytest.fixture(scope="module")
def genotypes(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Without a relationship matrix, and with a Monte-Carlo error: more SNPs than a block has."""
    folder, rng = tmp_path_factory.mktemp("genotypes"), np.random.default_rng(8)
    x = linked_genotypes(1300, 250, rng)
    people = make_genotyped(folder, x, simulated_phenotype(x, 0.5, rng))
    return made((*people.settings, "solver.mcse=0.02", "launcher.threads=1"), folder)


@pytest.fixture(params=["dense", "genotypes"])
def job(request: pytest.FixtureRequest) -> Job:
    chosen: Job = request.getfixturevalue(request.param)
    return chosen


def cut_off(job: Job, run_dir: Path, disturb: Callable[[Running], None], *more: str, launched: str = "alone") -> Finished:
    """A run to which something happens after its first evaluation."""
    with Running(launched, run_dir, (*job.settings, *more)) as running:
        running.wait_until(lambda: has_evaluated(run_dir))
        disturb(running)
        return running.finished()


def terminate(number: signal.Signals) -> Callable[[Running], None]:
    return lambda running: running.process.send_signal(number)


def test_killed_at_any_moment_a_run_goes_on_to_the_same_digits(job: Job, tmp_path: Path) -> None:
    chance, run_dir, killed = random.Random(4), tmp_path / "run", 0
    while killed < 3:
        with Running("alone", run_dir, job.settings) as running:
            running.wait_until(lambda: (run_dir / CHECKPOINT).exists() or running.process.poll() is not None)
            time.sleep(chance.uniform(0, 0.4))
            running.process.kill()
            running.process.wait()
        assert not (run_dir / CHECKPOINT).exists() or json.loads((run_dir / CHECKPOINT).read_text())["fits"]
        if (run_dir / RESULT).exists():
            (run_dir / RESULT).unlink()  # it was done: begin anew
            (run_dir / CHECKPOINT).unlink(missing_ok=True)
        killed += 1
    last = fit("inside", run_dir, *job.settings)
    assert last.exit_code == 0, last.errors
    assert found(last) == job.undisturbed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signal_of_a_scheduler_ends_a_run_that_goes_on(dense: Job, tmp_path: Path, number: signal.Signals) -> None:
    run = cut_off(dense, tmp_path / "run", terminate(number))
    assert run.exit_code == 99
    assert f"ended by {number.name}" in run.errors and "Traceback" not in run.errors
    assert (run.result["status"], run.result["exit_code"]) == ("interrupted", 99)
    assert (run.run_dir / REQUEUE).exists()
    again = fit("inside", run.run_dir, *dense.settings)
    assert "resuming at iteration" in again.output
    assert found(again) == dense.undisturbed
    assert not any((run.run_dir / name).exists() for name in (REQUEUE, CHECKPOINT))


@pytest.mark.parametrize("launched", ["torchrun", MPIRUN])
def test_ranks_end_together_and_their_number_may_change(dense: Job, tmp_path: Path, launched: str) -> None:
    def signal_a_rank(running: Running) -> None:
        running.rank(1).send_signal(signal.SIGUSR1)

    run = cut_off(dense, tmp_path / "run", signal_a_rank, launched=launched)
    assert run.exit_code == (99 if launched == "mpirun" else 1)
    assert "ended by SIGUSR1" in run.errors
    assert (run.run_dir / REQUEUE).exists()
    again = fit("inside", run.run_dir, *dense.settings)
    assert "resuming at iteration" in again.output
    mine = [estimate["value"] for estimate in again.result["estimates"]]
    theirs = [estimate["value"] for estimate in dense.undisturbed["estimates"]]
    assert mine == pytest.approx(theirs, rel=SAME_ON_OTHER_RANKS)


def test_evaluation_longer_than_the_grace_is_abandoned(dense: Job, tmp_path: Path) -> None:
    run = cut_off(dense, tmp_path / "run", terminate(signal.SIGTERM), "launcher.grace_seconds=0", "solver.tile_size=1")
    assert run.exit_code == 99
    assert (run.run_dir / CHECKPOINT).exists() and (run.run_dir / REQUEUE).exists()


def test_finished_batches_of_probes_are_not_made_again(genotypes: Job, tmp_path: Path) -> None:
    """Cut off within an evaluation, it goes on within it."""
    sample, made_before = Probes.sample, []

    def failing(self: Probes, numbers: range, *rest: Any, **more: Any) -> Any:
        made_before.append(numbers)
        if len(made_before) > 8:
            raise CutOffError
        return sample(self, numbers, *rest, **more)

    with mock.patch.object(checkpoint, "SECONDS_BETWEEN_BATCHES", 0.0), mock.patch.object(Probes, "sample", failing):
        run = fit("inside", tmp_path / "run", *genotypes.settings)
    assert run.exit_code == 1 and (run.run_dir / checkpoint.BATCHES).exists()
    counted: list[range] = []

    def counting(self: Probes, numbers: range, *rest: Any, **more: Any) -> Any:
        counted.append(numbers)
        return sample(self, numbers, *rest, **more)

    with mock.patch.object(Probes, "sample", counting):
        again = fit("inside", run.run_dir, *genotypes.settings)
    assert found(again) == genotypes.undisturbed
    with mock.patch.object(Probes, "sample", counting):
        before = len(counted)
        fit("inside", tmp_path / "whole", *genotypes.settings)
    anew = len(counted) - before
    assert before <= anew - 3, (before, anew)


def test_another_job_is_refused_by_what_has_changed(dense: Job, tmp_path: Path) -> None:
    run = cut_off(dense, tmp_path / "run", terminate(signal.SIGTERM))
    other = fit("inside", run.run_dir, *dense.settings, "solver.seed=7")
    assert other.exit_code == 2
    assert "run_dir holds an unfinished run of another job: solver.seed is 7, was 1" in other.errors
    pheno = Path(next(s for s in dense.settings if s.startswith("data.pheno")).partition("=")[2])
    changed = tmp_path / "changed.phen"
    changed.write_text(pheno.read_text().replace("I3 ", "I3 1"))
    of_file = [s for s in dense.settings if not s.startswith("data.pheno")]
    other = fit("inside", run.run_dir, *of_file, f"data.pheno={changed}")
    assert other.exit_code == 2 and f"{changed} is not what was read" in other.errors
    moved = tmp_path / "moved.phen"
    moved.write_text(pheno.read_text())
    assert found(fit("inside", run.run_dir, *of_file, f"data.pheno={moved}")) == dense.undisturbed


def test_never_and_require(dense: Job, tmp_path: Path) -> None:
    none = fit("inside", tmp_path / "run", *dense.settings, "resume=require")
    assert none.exit_code == 2 and "resume=require" in none.errors and "holds no unfinished run" in none.errors
    run = cut_off(dense, tmp_path / "run", terminate(signal.SIGTERM))
    anew = fit("inside", run.run_dir, *dense.settings, "resume=never")
    assert "resuming" not in anew.output and found(anew) == dense.undisturbed
    finished = fit("inside", run.run_dir, *dense.settings, "resume=require")
    assert finished.exit_code == 2 and "finished result" in finished.errors


def test_limit_of_iterations_can_be_raised(dense: Job, tmp_path: Path) -> None:
    run = fit("inside", tmp_path / "run", *dense.settings, "solver.max_iter=2")
    assert run.exit_code == 3
    again = fit("inside", run.run_dir, *dense.settings)
    assert "resuming at iteration 3" in again.output and found(again) == dense.undisturbed


@pytest.mark.parametrize(("word", "status"), [("now", "interrupted"), ("after-iteration", "stopped")])
def test_stopped_on_purpose(dense: Job, tmp_path: Path, word: str, status: str) -> None:
    run = cut_off(dense, tmp_path / "run", lambda running: write_lines(running.run_dir / STOP, [word]) and None)
    assert run.exit_code == 3
    assert run.result["status"] == status and "stopped on request" in run.result["message"]
    assert not (run.run_dir / REQUEUE).exists()
    assert ("components" in run.result) == (word == "after-iteration")
    again = fit("inside", run.run_dir, *dense.settings)
    assert found(again) == dense.undisturbed


def test_checkpoint_that_cannot_be_written_does_not_end_the_fit(dense: Job, tmp_path: Path) -> None:
    write, calls = checkpoint.write_text, []

    def full(path: Path, text: str) -> None:
        calls.append(path)
        if len(calls) == 3:
            raise FileError(f"{path}: no space left on device")
        write(path, text)

    with mock.patch.object(checkpoint, "write_text", full):
        run = fit("inside", tmp_path / "run", *dense.settings)
    assert run.exit_code == 0 and found(run) == dense.undisturbed
    assert run.output.count("no checkpoint, the fit goes on") == 1 and "no space left" in run.output

    with mock.patch.object(checkpoint, "write_text", side_effect=FileError("checkpoint.json: no space left on device")):
        run = fit("inside", tmp_path / "other", *dense.settings)
    assert run.exit_code == 2 and "no space left" in run.errors
    assert not (run.run_dir / STEPS).exists()  # before the iteration


def test_damaged_checkpoint_is_named(dense: Job, tmp_path: Path) -> None:
    for content in ("{", "{}", "[1]", '{"format": 9, "identity": {}}'):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / CHECKPOINT).write_text(content)
        run = fit("inside", tmp_path / "run", *dense.settings)
        assert run.exit_code == 2 and "resume=never begins anew" in run.errors, run.errors
        assert (tmp_path / "run" / CHECKPOINT).read_text() == content


def test_start_from_an_earlier_fit(cohort: Cohort, tmp_path: Path) -> None:
    first = fit("inside", tmp_path / "first", *cohort.data())
    second = fit("inside", tmp_path / "second", *cohort.data(), f"solver.start={first.run_dir}")
    assert second.exit_code == 0, second.errors
    assert f"start from {first.run_dir}: main, residual" in second.output
    assert second.result["num_iterations"] <= 1
    assert second.result["loglik"] == pytest.approx(first.result["loglik"], abs=1e-8)
    for wrong in (tmp_path, tmp_path / "none"):
        run = fit("inside", tmp_path / "third", *cohort.data(), f"solver.start={wrong}")
        assert run.exit_code == 2 and "solver.start" in run.errors and "nor a run directory with a result" in run.errors
