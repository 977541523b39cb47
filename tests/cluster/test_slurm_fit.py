"""``slurm/fit*.sbatch`` on a real SLURM: two nodes on this machine, one task each."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cluster.slurm import Job, Slurm, ranks, wait_for_rank, wait_until
from tests.e2e.data import Cohort
from tests.e2e.genotyped import linked_genotypes, make_genotyped, simulated_phenotype
from tests.e2e.programs import fit, has_evaluated

ONE_CORE = ("--cpus-per-task=1",)
NODES = "grid.share_memory=false"  # they are of one host, which ranks would notice


def result(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "result.json").read_text())


def run(slurm: Slurm, run_dir: Path, *settings: str) -> Job:
    return slurm.run("fit.sbatch", f"run_dir={run_dir}", NODES, *settings, folder=run_dir.parent, options=ONE_CORE)


@pytest.mark.parametrize("script", ["fit.sbatch", "fit_torchrun.sbatch"])
def test_two_nodes_agree_with_one_process(slurm: Slurm, cohort: Cohort, tmp_path: Path, script: str) -> None:
    alone = fit("inside", tmp_path / "alone", *cohort.data())
    settings = [*cohort.data(), "run_dir=slurm", NODES]
    job = slurm.run(script, *settings, folder=tmp_path, options=ONE_CORE)
    assert job.exit_code == 0, job.log
    launcher = "torchrun" if "torchrun" in script else "slurm"
    assert f"openreml-fit on 2 ranks ({launcher}), grid 2 x 1, cpu, 1 thread a rank" in job.log
    assert job.log.count("openreml-fit on") == 1
    of_slurm = result(tmp_path / "slurm")
    assert of_slurm["status"] == "converged"
    assert [part["variance"] for part in of_slurm["components"]] == pytest.approx(
        [part["variance"] for part in alone.result["components"]], rel=1e-8
    )
    assert {path.name for path in (tmp_path / "slurm").glob("rank-*.log")} == {"rank-0.log", "rank-1.log"}


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
    job = run(slurm, tmp_path / "slurm", *cohort.data(), setting)
    if setting == "solver.maxiter=3":  # refused before the ranks meet: srun may end one that is still starting, with 143
        assert job.exit_code in (exit_code, 143), job.log
    else:
        assert job.exit_code == exit_code, job.log
        assert result(tmp_path / "slurm")["exit_code"] == exit_code
    assert words in job.log
    assert "Traceback" not in job.log


def test_the_job_ends_when_a_rank_is_killed(slurm: Slurm, cohort: Cohort, tmp_path: Path) -> None:
    run_dir = tmp_path / "slurm"
    number = slurm.submit("fit.sbatch", f"run_dir={run_dir}", NODES, *cohort.data(), folder=tmp_path, options=ONE_CORE)
    rank_1 = wait_for_rank(1, run_dir)
    begun = time.monotonic()
    rank_1.kill()
    [job] = slurm.wait(number)
    assert job.exit_code not in (0, 3), job.log
    assert time.monotonic() - begun < 30
    assert ranks(run_dir) == {}, "processes outlive the job"


def test_an_interrupted_job_is_requeued_and_goes_on_to_the_same_digits(slurm: Slurm, cohort: Cohort, tmp_path: Path) -> None:
    slow = (*cohort.data(), NODES, "solver.tile_size=1", "solver.start=[0.01,3]")
    whole = slurm.run("fit.sbatch", f"run_dir={tmp_path / 'whole'}", *slow, folder=tmp_path, options=ONE_CORE)
    assert whole.exit_code == 0, whole.log
    run_dir = tmp_path / "cut"
    number = slurm.submit("fit_preemptible.sbatch", f"run_dir={run_dir}", *slow, folder=tmp_path, options=ONE_CORE)
    wait_until(lambda: has_evaluated(run_dir))
    slurm.output("scancel", "--signal=USR1", "--batch", number)
    [job] = slurm.wait(number, restarts=1)
    assert job.exit_code == 0, job.log
    assert job.restarts == 1
    assert "ended by SIGUSR1" in job.log and "resuming at iteration" in job.log
    for name in ("loglik", "components", "theta_covariance"):
        assert result(run_dir)[name] == result(tmp_path / "whole")[name]


def test_genotypes_on_two_nodes(slurm: Slurm, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    x = linked_genotypes(400, 120, rng)
    people = make_genotyped(tmp_path, x, simulated_phenotype(x, 0.5, rng))
    alone = people.run(tmp_path / "alone", "solver.mcse=0.1")
    run_dir = tmp_path / "slurm"
    settings = (f"run_dir={run_dir}", NODES, *people.data, "solver.mcse=0.1")
    job = slurm.run("fit_genotypes.sbatch", *settings, folder=tmp_path, options=ONE_CORE)
    assert job.exit_code == 0, job.log
    expected = [part["variance"] for part in alone.result["components"]]
    assert [part["variance"] for part in result(run_dir)["components"]] == pytest.approx(expected, rel=1e-5)
