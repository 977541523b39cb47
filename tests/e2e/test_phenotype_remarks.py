"""What is remarkable about a phenotype is said before the fit, with the names of samples, and nothing is left out for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.e2e.data import Cohort, write_lines
from tests.e2e.programs import fit


def phenotypes(cohort: Cohort, path: Path, *columns: object) -> str:
    """The setting for a table of these columns."""
    rows = np.column_stack([np.asarray(column, float) for column in columns])
    write_lines(path, [f"F{i}\tI{i}\t" + "\t".join(f"{value:.12g}" for value in row) for i, row in enumerate(rows)])
    return f"data.pheno={path}"


@pytest.mark.parametrize("launched", ["inside", "torchrun"])
def test_value_far_away_is_named_before_the_fit_and_kept(cohort: Cohort, tmp_path: Path, launched: str) -> None:
    y = cohort.traits[:, 0].copy()
    y[11] += 300 * y.std()
    run = fit(launched, tmp_path / "run", cohort.data()[0], phenotypes(cohort, tmp_path / "far.phen", y))
    assert run.exit_code == 0, run.errors
    before = run.output.partition("logL")[0]
    assert before.count("remark on trait1: 1 of 120 records lies more than 6 SD from the median: F11:I11 has ") == 1
    assert run.output.count("remark") == 1  # of rank 0 alone
    (remark,) = run.result["remarks"]
    assert (remark["trait"], remark["kind"], remark["of"], remark["count"]) == ("trait1", "outliers", "phenotype", 1)
    (sample,) = remark["samples"]
    assert (sample["fid"], sample["iid"], sample["value"]) == ("F11", "I11", pytest.approx(y[11], rel=1e-11))
    assert sample["distance_sd"] > 200 and remark["sentence"] in before
    assert (run.result["num_samples"], sum(run.result["dropped"].values())) == (120, 0)


def test_usual_phenotypes_and_cases_are_passed_over(cohort: Cohort, tmp_path: Path) -> None:
    for trait in (1, 2):
        run = fit("inside", tmp_path / f"run{trait}", *cohort.data(trait=trait))
        assert run.result["remarks"] == [] and "remark" not in run.output


def test_codes_are_told_from_amounts(cohort: Cohort, tmp_path: Path) -> None:
    run = fit("inside", tmp_path / "run", cohort.data()[0], phenotypes(cohort, tmp_path / "batch.phen", cohort.batch + 1))
    assert "remark on trait1: all values are among 3 whole numbers (1, 2, 3)" in run.output
    assert [remark["kind"] for remark in run.result["remarks"]] == ["codes"]


def test_each_trait_is_looked_at_alone(cohort: Cohort, tmp_path: Path) -> None:
    """Two units apart by 10⁴ would be outliers of each other."""
    second = 1e4 * (5 + cohort.traits[:, 2])
    second[80] = 1e7
    setting = phenotypes(cohort, tmp_path / "two.phen", cohort.traits[:, 0], second)
    settings = (cohort.data()[0], setting, "data.pheno_column=[1,2]", "solver.max_iter=1")
    run = fit("inside", tmp_path / "run", "model=bivariate", *settings)
    (remark,) = run.result["remarks"]
    assert (remark["trait"], remark["kind"]) == ("trait2", "outliers")
    assert [sample["iid"] for sample in remark["samples"]] == ["I80"]


def test_outlier_that_covariates_uncover_is_named(cohort: Cohort, tmp_path: Path) -> None:
    """Batches far apart hide a value that is 30 SD from those of its own batch."""
    y = cohort.traits[:, 0] + 1_000.0 * cohort.batch
    y[30] += 30.0
    setting = phenotypes(cohort, tmp_path / "hidden.phen", y)
    covar = f"data.covar={cohort.folder / 'factors.covar'}"
    run = fit("inside", tmp_path / "run", cohort.data()[0], setting, covar)
    (remark,) = run.result["remarks"]
    assert (remark["of"], [sample["iid"] for sample in remark["samples"]]) == ("residuals", ["I30"])
    assert "after the fixed effects: F30:I30 has " in run.output
