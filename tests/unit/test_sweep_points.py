"""The points of a sweep: which they are, what their folders are called, and which of them are run again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from openreml_dist.app.report.run_directory import FINISHED, RESULT
from openreml_dist.app.report.run_state import SWEEP
from openreml_dist.app.sweep.asked import is_asked_for
from openreml_dist.app.sweep.plan import Action, differences, plan_sweep, quoted
from openreml_dist.app.sweep.points import LONGEST, Point, point_name, points_of
from openreml_dist.app.sweep.table import PARQUET, TSV, write_sweep_table
from openreml_dist.config import DataConfig, FitConfig, SolverConfig
from openreml_dist.errors import ConfigError

SETTINGS = FitConfig(data=DataConfig(grm="k.grm.zarr", pheno="y.phen"))


def points(*overrides: str) -> list[Point]:
    return points_of(OverridesParser.create().parse_overrides(list(overrides)))


def composed(overrides: Sequence[str]) -> FitConfig:
    """In place of Hydra: the last override may be run_dir."""
    run_dir = next((text.partition("=")[2] for text in overrides if text.startswith("run_dir=")), None)
    return replace(SETTINGS, run_dir=run_dir)


def finished(directory: Path, status: str = "converged", settings: FitConfig = SETTINGS, **more: Any) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / RESULT).write_text(json.dumps({"status": status, "settings": asdict(settings), **more}))


def test_every_combination_once_the_last_setting_fastest() -> None:
    made = points("data.grm=[a/x.grm.zarr,b/y.grm.zarr],c/z.grm.zarr", "data.pheno=y.phen", "solver=auto,exact")
    assert [point.name for point in made] == [
        "data.grm=x.grm.zarr+y.grm.zarr,solver=auto",
        "data.grm=x.grm.zarr+y.grm.zarr,solver=exact",
        "data.grm=z.grm.zarr,solver=auto",
        "data.grm=z.grm.zarr,solver=exact",
    ]
    assert made[0].overrides == ("data.grm=[a/x.grm.zarr,b/y.grm.zarr]", "data.pheno=y.phen", "solver=auto")
    assert made[0].values == {"data.grm": "[a/x.grm.zarr,b/y.grm.zarr]", "solver": "auto"}


def test_the_last_of_a_setting_given_twice_counts() -> None:
    assert [point.overrides for point in points("solver=auto,exact", "data.pheno_column=range(1,3)", "solver=exact")] == [
        ("data.pheno_column=1", "solver=exact"),
        ("data.pheno_column=2", "solver=exact"),
    ]


def test_names_are_short_different_and_harmless() -> None:
    made = points("data.pheno=a/y.phen,b/y.phen")
    assert len({point.name for point in made}) == 2
    assert all(point.name.startswith("data.pheno=y.phen-") for point in made)
    name = point_name(
        {"+model.random.batch": 'group("a b") * $(x)', "data.grm": "[" + ",".join("k" * 90 for _ in range(3)) + "]"}
    )
    assert len(name) <= LONGEST
    assert not set(name) & set(" /'\"$()*[]\\")
    assert points("solver=exact")[0].name == "point"


def test_a_range_without_steps_is_refused() -> None:
    with pytest.raises(ConfigError, match="interval"):
        points("solver.mcse=interval(0,1)")


@pytest.mark.parametrize("status", [*FINISHED, "failed"])
def test_answers_are_skipped_and_all_else_is_run_again(tmp_path: Path, status: str) -> None:
    finished(tmp_path / "solver=a", status)
    plans = plan_sweep(points("solver=a,b"), tmp_path, composed)
    is_answer = status in ("converged", "converged_at_bound")
    assert [plan.action for plan in plans] == [Action.SKIP if is_answer else Action.RUN, Action.RUN]
    assert ("overwrite=true" in plans[0].more) == (status in FINISHED and not is_answer)
    assert plans[1].more == (f"run_dir={quoted(str(tmp_path / 'solver=b'))}",)


def test_an_answer_to_another_question_is_kept_and_refused(tmp_path: Path) -> None:
    other = replace(SETTINGS, solver=SolverConfig(max_iter=7), run_dir="elsewhere", overwrite=True)
    finished(tmp_path / "solver=a", settings=other)
    [plan] = plan_sweep(points("solver=a,"[:-1]), tmp_path / "none", composed)
    assert plan.action is Action.RUN
    first = plan_sweep(points("solver=a,b"), tmp_path, composed)[0]
    assert first.action is Action.REFUSE
    assert "(solver.max_iter)" in first.why
    assert differences(SETTINGS, {"settings": asdict(other)}) == ["solver.max_iter"]


def test_an_answer_of_data_that_have_changed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "y.phen").write_text("F I 1\n")
    settings = replace(SETTINGS, data=DataConfig(pheno=str(tmp_path / "y.phen")))
    finished(tmp_path / "solver=a", settings=settings, inputs={str(tmp_path / "y.phen"): "0" * 64})
    first = plan_sweep(points("solver=a,b"), tmp_path, lambda _: settings)[0]
    assert first.action is Action.REFUSE
    assert "y.phen has changed" in first.why


def test_two_points_in_one_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="would be that of 2 points"):
        plan_sweep(points("solver=a,b", "run_dir=runs/one"), tmp_path, composed)


@pytest.mark.parametrize("path", ["runs/a=1,b=2", "it's", "a\\b", "${x}", "a b"])
def test_a_path_survives_the_command_line(path: str) -> None:
    override = OverridesParser.create().parse_override(f"run_dir={quoted(path)}")
    assert str(override.value()).replace("\\${", "${") == path


@pytest.mark.parametrize(
    ("words", "asked"),
    [("-m a=1,2", True), ("a=1 --multirun", True), ("a=1", False), ("-m --help", False), ("-m --cfg job", False)],
)
def test_when_a_sweep_is_asked_for(words: str, asked: bool) -> None:
    assert is_asked_for(words.split()) is asked


def test_the_table_has_every_column_of_every_point(tmp_path: Path) -> None:
    timings = {"startup": 1.0, "read": 0.5, "fit": 2.0, "tests": 0.25, "predictions": 0.0, "phases": {}}
    components = [
        {"name": "a", "variance": 1.0, "se": 0.1, "proportion": 0.25, "proportion_se": 0.02},
        {"name": "b", "variance": 2.0, "se": 0.1, "proportion": 0.5, "proportion_se": 0.02},
        {"name": "residual", "variance": 1.0, "se": 0.1, "proportion": 0.25, "proportion_se": 0.02},
    ]
    covariance = [[0.01, 0.0, 0.0], [0.0, 0.01, 0.0], [0.0, 0.0, 0.01]]
    finished(tmp_path / "1", exit_code=0, loglik=-1.5, components=components, theta_covariance=covariance, timings=timings)
    finished(tmp_path / "2", exit_code=0, estimates=[{"name": "rho", "value": 0.5, "se": None, "unit": ""}])
    finished(tmp_path / "3", "failed", exit_code=2, message="no\tcolumn\n9")
    runs = [{"values": {"solver": name}, "run_dir": name, "refused": None} for name in "1234"]
    (tmp_path / SWEEP).write_text(
        json.dumps({"points": [*runs, {"values": {"solver": "5"}, "run_dir": "5", "refused": "odd"}]})
    )
    [line] = write_sweep_table(tmp_path)
    assert line.startswith(f"5 points: {tmp_path / TSV}")
    head, *lines = [line.split("\t") for line in (tmp_path / TSV).read_text().splitlines()]
    rows = [dict(zip(head, line, strict=True)) for line in lines]
    assert head[:4] == ["solver", "status", "exit_code", "logL"]
    assert head[-3:] == ["seconds", "run_dir", "message"]
    assert (rows[0]["b.proportion"], rows[0]["explained"], rows[0]["seconds"]) == ("0.5", "0.75", "3.25")
    slopes = [1 / 16, 1 / 16, -3 / 16]
    assert float(rows[0]["explained.se"]) == pytest.approx(sum(0.01 * slope**2 for slope in slopes) ** 0.5)
    assert (rows[1]["rho"], rows[1]["rho.se"], rows[1]["b"]) == ("0.5", "NA", "NA")
    assert (rows[2]["status"], rows[2]["message"]) == ("failed", "no column 9")
    assert (rows[3]["status"], rows[3]["exit_code"]) == ("waiting", "NA")
    assert (rows[4]["status"], rows[4]["exit_code"], rows[4]["message"]) == ("refused", "2", "odd")


def test_the_table_for_programs_has_types(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    finished(tmp_path / "1", exit_code=0, loglik=-1.5)
    runs = [{"values": {"solver": name}, "run_dir": name, "refused": None} for name in "12"]
    (tmp_path / SWEEP).write_text(json.dumps({"points": runs}))
    write_sweep_table(tmp_path)
    table = parquet.read_table(tmp_path / PARQUET).to_pydict()
    assert (table["solver"], table["exit_code"], table["logL"]) == (["1", "2"], [0, None], [-1.5, None])
