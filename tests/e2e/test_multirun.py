"""Several jobs in one process, ``--multirun``: each has its own log and clock, and the ranks serve them all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.data import Cohort
from tests.e2e.programs import Finished, fit

FOLDER = "trait-${data.pheno_column}"


def run_jobs(launched: str, cohort: Cohort, columns: str, folder: Path) -> Finished:
    sweep = (f"hydra.sweep.dir={folder / 'sweep'}", "--multirun")
    return fit(launched, folder / FOLDER, *cohort.data(trait=columns), *sweep)


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize(("launched", "ranks"), [("inside", 1), ("torchrun", 2)])
def test_each_job_has_its_own_log_and_clock(cohort: Cohort, tmp_path: Path, launched: str, ranks: int) -> None:
    run = run_jobs(launched, cohort, "1,2", tmp_path)
    assert run.exit_code == 0, run.errors
    first, second = folders = [tmp_path / f"trait-{column}" for column in (1, 2)]
    assert [result(folder)["trait"] for folder in folders] == ["quantitative", "disease"]
    for folder in folders:
        logs = sorted(folder.glob("rank-*.log"))
        assert [log.name for log in logs] == [f"rank-{rank}.log" for rank in range(ranks)]
        for log in logs:
            begun, ended = log.read_text().splitlines()
            assert begun.endswith(f"writing to {folder}")
            assert f"converged after {result(folder)['num_iterations']} iterations" in ended
    written = [(folder / "result.json").stat().st_mtime for folder in folders]
    timings = result(second)["timings"]
    assert timings["startup"] > 0
    assert timings["startup"] + timings["fit"] < written[1] - written[0], "the second job began when the first had ended"
    assert result(first)["timings"]["startup"] > 0


def test_refused_job_leaves_the_ranks_to_the_next(cohort: Cohort, tmp_path: Path) -> None:
    run = run_jobs("torchrun", cohort, "9,1", tmp_path)
    assert run.exit_code != 0
    assert "no column 9" in run.errors
    assert [result(tmp_path / f"trait-{column}")["status"] for column in (9, 1)] == ["failed", "converged"]
    assert "no column 9" in (tmp_path / "trait-9" / "rank-1.log").read_text()
    assert "no column 9" not in (tmp_path / "trait-1" / "rank-1.log").read_text()
