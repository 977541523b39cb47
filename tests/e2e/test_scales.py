"""Phenotypes in any unit: the same heritability, tables that can be read, and a word where ``.hsq`` cannot."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.e2e.data import Cohort, relationships, write_grm, write_lines
from tests.e2e.programs import Finished, fit

LINE = "six_decimals_are_too_few_multiply_y_by"


def scaled(cohort: Cohort, folder: Path, scale: float, *settings: str) -> Finished:
    """A fit of the quantitative trait times ``scale``."""
    folder.mkdir(exist_ok=True)
    y = scale * cohort.traits[:, 0]
    write_lines(folder / "scaled.phen", [f"F{i}\tI{i}\t{value:.17g}" for i, value in enumerate(y)])
    run = fit("inside", folder / "run", cohort.data()[0], f"data.pheno={folder / 'scaled.phen'}", *settings)
    assert run.exit_code == 0, run.errors
    return run


def row(run: Finished, name: str) -> list[float]:
    """Numbers of a row of the terminal's last tables."""
    line = next(line for line in reversed(run.output.splitlines()) if line.startswith(f"{name} "))
    return [float(text) for text in line.removeprefix(name).split()]


@pytest.fixture(scope="module")
def plain(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return scaled(cohort, tmp_path_factory.mktemp("plain"), 1.0)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_tables_follow_the_size_of_y(cohort: Cohort, plain: Finished, tmp_path: Path, scale: float) -> None:
    run = scaled(cohort, tmp_path, scale, "output.fixed_in_hsq=true")
    components, (effect,) = run.result["components"], run.result["fixed_effects"]
    for component, same in zip(components, plain.result["components"], strict=True):
        numbers = [component[key] for key in ("variance", "se", "proportion", "proportion_se")]
        assert row(run, component["name"]) == pytest.approx(numbers, rel=5e-6)
        assert numbers[2:] == pytest.approx([same["proportion"], same["proportion_se"]], rel=1e-5)
        assert numbers[:2] == pytest.approx([same["variance"] * scale**2, same["se"] * scale**2], rel=1e-5)
    assert row(run, "intercept") == pytest.approx([effect["estimate"], effect["se"]], rel=5e-6)
    steps = [line.split() for line in run.output.partition("next step/SE")[2].splitlines()[1:]]
    shown = [[float(text) for text in step[2:4]] for step in steps if step[-2:] == ["exact", "float64"]]
    assert shown == [pytest.approx([*step["theta"].values()], rel=5e-6) for step in run.steps]


def test_hsq_says_where_its_decimals_are_too_few_and_stays_a_table(cohort: Cohort, plain: Finished, tmp_path: Path) -> None:
    run = scaled(cohort, tmp_path, 1e-9, "output.fixed_in_hsq=true")
    table, _, fixed = run.hsq.partition("\n\n")
    usual = plain.hsq.splitlines()
    lines = table.splitlines()
    assert [line.split("\t")[0] for line in lines] == [*(line.split("\t")[0] for line in usual), LINE]
    assert fixed.splitlines()[0] == "Fix_eff\tSE"
    times = float(lines[-1].split("\t")[1])
    assert f"too few for main ({run.result['components'][0]['variance']:.3g}" in run.output
    assert "multiply y by 1e8" in run.output and times == 1e8
    for separator in ("\t", r"\s+"):  # as scripts read it: the numbers stay a column of numbers
        read = pd.read_csv(io.StringIO(table), sep=separator, index_col=0)
        assert read["Variance"].dtype == np.float64
        assert read.loc["n", "Variance"] == 120 and read.loc[LINE, "Variance"] == times
    again = scaled(cohort, tmp_path / "again", 1e-9 * times, "overwrite=true")
    assert LINE not in again.hsq and "too few" not in again.output


def test_nothing_is_said_of_the_usual_and_the_large(cohort: Cohort, plain: Finished, tmp_path: Path) -> None:
    large = scaled(cohort, tmp_path, 1e9)
    for run in (plain, large):
        assert LINE not in run.hsq and "too few" not in run.output


@pytest.mark.parametrize(("scale", "said"), [(1000.0, True), (1e-3, True), (1.3, False)])
def test_a_relationship_matrix_of_another_scale_is_named(cohort: Cohort, tmp_path: Path, scale: float, said: bool) -> None:
    rng = np.random.default_rng(3)
    matrix = scale * relationships(rng, 120, 300)
    write_grm(tmp_path / "scaled.grm.zarr", matrix, np.arange(120))
    run = fit("inside", tmp_path / "run", f"data.grm={tmp_path / 'scaled.grm.zarr'}", *cohort.data()[1:])
    remarks = [remark for remark in run.result["remarks"] if remark["kind"] == "scale"]
    assert [remark["trait"] for remark in remarks] == (["scaled"] if said else [])
    assert ("no heritabilities" in run.output) == said
    if said:
        assert remarks[0]["mean_diagonal"] == pytest.approx(np.diag(matrix)[:64].mean(), rel=1e-6)
