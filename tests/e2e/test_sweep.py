"""``openreml-fit -m``: here, by joblib, started twice, with points that fail; and what the ranks of a launcher refuse."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import pytest

from openreml_dist.app import status
from openreml_dist.config import FitConfig
from tests.e2e.data import Cohort
from tests.e2e.programs import Finished, fit
from tests.unit.test_settings_read import composed

needs_joblib = pytest.mark.skipif(
    importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is None, reason="the extra `sweep` is not installed"
)


def sweep(launched: str, folder: Path, *settings: str, ranks: int = 2) -> Finished:
    """A sweep that chooses the folders of its points within ``folder``."""
    return fit(launched, folder, *settings, "run_dir=null", f"hydra.sweep.dir={folder}", "-m", ranks=ranks)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_a_sweep_started_twice_runs_what_has_no_answer(cohort: Cohort, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    settings = (*cohort.data(trait="1,9"), "solver=exact,none")
    first = sweep("inside", folder, *settings)
    assert first.exit_code == 2
    rows = table(folder)
    assert [(row["data.pheno_column"], row["solver"], row["status"]) for row in rows] == [
        ("1", "exact", "converged"),
        ("1", "none", "refused"),
        ("9", "exact", "failed"),
        ("9", "none", "refused"),
    ]
    assert "no column 9" in rows[2]["message"]
    assert "data.pheno_column=9,solver=exact: failed (exit code 2)" in first.errors
    result = json.loads((folder / rows[0]["run_dir"] / "result.json").read_text())
    assert float(rows[0]["logL"]) == result["loglik"]
    assert float(rows[0]["main.se"]) == result["components"][0]["se"]
    assert float(rows[0]["explained.se"]) == pytest.approx(result["components"][0]["proportion_se"])

    done = folder / "data.pheno_column=1,solver=exact" / "result.json"
    before = done.stat().st_mtime_ns
    second = sweep("inside", folder, *settings)
    assert (second.exit_code, done.stat().st_mtime_ns) == (2, before)
    assert "1 to run, 1 skipped, 2 refused" in second.output
    assert "skipped data.pheno_column=1,solver=exact: finished before: converged" in second.output

    (folder / "sweep.tsv").unlink()
    assert status.status([str(folder), "table=true"]) == 0
    assert table(folder) == rows
    assert status.status([str(folder)]) == 4


def test_ranks_run_the_points_in_turn_and_agree_on_what_to_skip(cohort: Cohort, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    alone = sweep("inside", folder, *cohort.data(trait="1,2"), "solver.max_iter=50")
    assert alone.exit_code == 0, alone.errors
    run = sweep("torchrun", folder, *cohort.data(trait="1,2,3"))
    assert run.exit_code == 0, run.errors
    assert "1 to run, 2 skipped" in run.output
    assert [row["status"] for row in table(folder)] == ["converged", "converged", "converged_at_bound"]


def test_other_ranks_than_those_of_the_launcher_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    run = sweep("torchrun", tmp_path / "sweep", *cohort.data(trait="1,2"), "hydra/launcher=submitit_slurm")
    assert run.exit_code != 0
    assert "it starts ranks of its own" in run.errors
    assert not (tmp_path / "sweep").exists()


@needs_joblib
def test_points_run_side_by_side_by_joblib(cohort: Cohort, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    run = sweep("alone", folder, *cohort.data(trait="1,9,2"), "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert run.exit_code == 2, run.errors
    assert [row["status"] for row in table(folder)] == ["converged", "failed", "converged"]
    assert run.seconds < 60, "processes of joblib wait for 300 s, unless they are ended"


@pytest.mark.parametrize("name", ["models", "phenotypes_by_grm", "tolerances"])
def test_the_experiments_can_be_composed(name: str, tmp_path: Path) -> None:
    settings = composed([f"experiment={name}"], tmp_path)
    assert isinstance(settings, FitConfig)
    assert str(settings.data.pheno).startswith("example/")
