"""A sweep by submitit on a real SLURM: several ranks a job, one a task, without torchrun; and started twice."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.slurm import CHECKOUT, Slurm
from tests.e2e.data import Cohort
from tests.e2e.programs import FIT

LAUNCHER = ["partition=main", "nodes=2", "tasks_per_node=1", "cpus_per_task=1", "timeout_min=5", "mem_gb=null"]


def sweep(cluster: Slurm, folder: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    programs = folder.parent / "bin"
    programs.mkdir(exist_ok=True)
    shutil.copy(CHECKOUT / "tests/cluster/sacct", programs / "sacct")  # there is no database of jobs here
    environ = {**cluster.environment, "PATH": f"{programs}:{cluster.environment['PATH']}", "PYTHONPATH": str(CHECKOUT)}
    launcher = ["hydra/launcher=submitit_slurm", *(f"hydra.launcher.{setting}" for setting in LAUNCHER)]
    command = [sys.executable, "-m", FIT, "-m", f"hydra.sweep.dir={folder}", "grid.share_memory=false", *launcher, *settings]
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=300)


def test_four_points_of_two_ranks_one_of_which_fails_started_twice(slurm: Slurm, cohort: Cohort, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    folder = tmp_path / "sweep"
    settings = cohort.data(trait="1,2,3,9")
    first = sweep(slurm, folder, *settings)
    assert first.returncode == 2, first.stdout + first.stderr
    with (folder / "sweep.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["status"] for row in rows] == ["converged", "converged", "converged_at_bound", "failed"]
    assert "no column 9" in rows[3]["message"]
    for row in rows:
        logs = sorted(path.name for path in (folder / row["run_dir"]).glob("rank-*.log"))
        assert logs == ["rank-0.log", "rank-1.log"], "the tasks of a job are the ranks of one fit"
    second = sweep(slurm, folder, *settings)
    assert second.returncode == 2
    assert "1 to run, 3 skipped" in second.stdout
